"""A table as Markdown, CSV and JSON, and on the terminal (`latex.py`: as LaTeX)."""

import csv
import io
import json
import pathlib
import re
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from experiments import latex
from experiments.measured import Measurement
from experiments.result_files import SCHEMA_VERSION, WHEN_AND_WHERE
from experiments.rows import column_of
from experiments.tables import MISSING, Cell, Table
from madry_cifar.evaluation.results import purified_by
from madry_cifar.runs.files import replacing


def write_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file: whole, or not at all. Raises OSError as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write(table: Table, folder: pathlib.Path) -> None:
    """Writes the table's four files into a folder."""
    forms = {"md": markdown(table), "csv": tidy_csv(table), "tex": latex.table_star(table), "json": as_json(table)}
    for ending, content in forms.items():
        write_file(folder / f"{table.part}.{ending}", content)


def markdown(table: Table) -> str:
    """The table for GitHub and the like."""
    lines = [
        f"# {table.title}",
        "",
        f"> **{_md(table.statement.short)}.** {_md(table.statement.caveat)}".rstrip(),
        "",
        _md(table.caption),
    ]
    for group in table.groups:
        lines += ["", f"## {_md(group.title)}", "", f"Measured: {_md(group.about)}.", ""]
        lines.append("| defence | numbers | " + " | ".join(column_of(attack).label for attack in group.attacks) + " |")
        lines.append("|:--|:--|" + "--:|" * len(group.attacks))
        lines += ["| " + " | ".join(map(_md, line)) + " |" for line in group.lines()]
    lines += ["", *(f"- {_md(mark)}: {_md(meaning)}" for mark, meaning in table.marks()), ""]
    lines += [f"- {f.level} ({f.numbers}), {_md(f.subject)}: {_md(f.text)}" for f in table.remarks]
    return "\n".join(lines).rstrip() + "\n"


def _md(text):
    return re.sub(r"([\\|*_<>`#])", r"\\\1", text)


def tidy_csv(table: Table) -> str:
    """One line a cell, with all that is known of its origin; what differs between seeds is parted by semicolons."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*_record(table, table.groups[0], _NO_CELL)] if table.groups else ["table"])
    writer.writeheader()
    writer.writerows(_record(table, group, cell) for group, cell in table.cells())
    return out.getvalue()


_ABOUT_RUN = ("train_dir", "defense", "network", "training_flags", "trained", "versions")
_NO_CELL = Cell("", "", (), None)
_PROTOCOL = ("epsilon", "step_size", "steps", "loss", "random_start", "restarts", "generator_width", "selection")


def _record(table, group, cell):
    def distinct(value):
        return "; ".join(dict.fromkeys(str(value(m)) for m in cell.measured if value(m) is not None))

    return {
        "table": table.number,
        "dataset": group.dataset,
        "setting": group.setting,
        "row": cell.row,
        "attack": cell.attack,
        "measured": _number(cell.mean),
        "measured_std_over_seeds": _number(cell.deviation),
        "measured_standard_error": distinct(lambda m: f"{m.standard_error:.4f}"),
        "measured_seeds": distinct(lambda m: m.run.seed),
        "measured_runs": distinct(lambda m: m.run.id),
        "measured_network": distinct(lambda m: m.about["network"]),
        "measured_checkpoint": distinct(lambda m: m.about["checkpoint"]),
        "measured_classifier_sha256": distinct(lambda m: m.about["classifier_sha256"]),
        "measured_images": distinct(lambda m: m.images),
        "measured_split": distinct(lambda m: m.about["split"]),
        "measured_data": distinct(lambda m: m.about["provenance"]),
        "measured_surrogate": distinct(lambda m: m.surrogate.get("train_dir")),
        "measured_purified_by": distinct(lambda m: purified_by(m.about) or None),
        "measured_evaluation_seed": distinct(lambda m: m.about.get("seed")),
        **{f"measured_{name}": distinct(lambda m, name=name: m.protocol.get(name)) for name in _PROTOCOL},
        "measured_file": distinct(lambda m: m.file),
        **{f"measured_{name}": distinct(lambda m, name=name: m.about.get(name)) for name in WHEN_AND_WHERE},
        **{
            f"trained_{name}": distinct(lambda m, name=name: m.about.get("trained", {}).get(name))
            for name in WHEN_AND_WHERE
        },
        "published": getattr(cell.published, "printed", ""),
        **{f"published_{name}": getattr(cell.published, name, "") for name in ("mark", "note", "source")},
        "difference": _number(cell.difference),
        "profile": table.statement.profile,
        "statement": table.statement.short,
    }


def _number(value):
    return "" if value is None else f"{value:.4f}"


def as_json(table: Table) -> str:
    """Every cell with its origin; settings and versions of each run once, under `runs`."""
    measured = [m for _, cell in table.cells() for m in cell.measured]
    content = {
        "schema_version": SCHEMA_VERSION,
        "table": table.number,
        "title": table.title,
        "profile": table.statement.profile,
        "statement": table.statement.text,
        "caption": table.caption,
        "cells": [_as_dict(group, cell) for group, cell in table.cells()],
        "runs": {m.run.id: {name: m.about.get(name) for name in _ABOUT_RUN} for m in measured},
        "findings": [vars(remark) for remark in table.remarks],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _as_dict(group, cell):
    measured = cell.measured and {
        "accuracy": cell.mean,
        "std_over_seeds": cell.deviation,
        "runs": [_origin(m) for m in cell.measured],
    }
    names = ("accuracy", "printed", "mark", "note", "source")
    paper = cell.published and {name: getattr(cell.published, name) for name in names}
    key = {"dataset": group.dataset, "setting": group.setting, "row": cell.row, "attack": cell.attack}
    return key | {"measured": measured or None, "published": paper, "difference": cell.difference}


def _origin(m: Measurement) -> dict[str, Any]:
    names = ("checkpoint", "classifier_sha256", "split", "provenance")
    return {
        "accuracy": m.accuracy,
        "standard_error": m.standard_error,
        "images": m.images,
        "run": m.run.id,
        "seed": m.run.seed,
        **{name: m.about[name] for name in names},
        "evaluation_seed": m.about.get("seed"),
        **{name: m.about.get(name) for name in WHEN_AND_WHERE},
        "protocol": dict(m.protocol),
        "surrogate": {name: value for name, value in m.surrogate.items() if name != "training_flags"} or None,
        "purification": m.about.get("purification"),
        "file": m.file,
    }


def show(table: Table, console: Console) -> None:
    """Prints what was measured, beside the published numbers, a line a cell; the defences not measured are left out."""
    console.print(f"\n[bold]{escape(table.title)}[/bold] ({escape(table.statement.short)})")
    for group in table.groups:
        grid = Grid(title=f"{escape(group.title)}: {escape(group.about)}", box=box.SIMPLE, title_justify="left")
        for column in ("defence", "attack", "measured %", "published %", "difference"):
            grid.add_column(column, justify="left" if column in ("defence", "attack") else "right")
        for row in (row for row in group.rows if row.planned):
            if row.heading:
                grid.add_row(row.heading)
            cells = [cell for cell in row.cells.values() if cell.measured or cell.published]
            for cell in cells:
                texts = (cell.text(kind) for kind in ("measured", "published", "difference"))
                label = row.label if cell is cells[0] else ""
                grid.add_row(label, column_of(cell.attack).label, *texts, end_section=cell is cells[-1])
            if not cells:
                grid.add_row(row.label, "", MISSING, MISSING, MISSING, end_section=True)
        console.print(grid)
    ours = [remark for remark in table.remarks if remark.numbers == "measured"]
    for remark in ours:
        if remark.level == "warning":
            console.print(escape(f"warning: {remark.subject}: {remark.text}"))
    notes = sum(remark.level == "note" for remark in ours)
    if notes:
        console.print(f"{notes} more within the noise: see {table.part}.md")
