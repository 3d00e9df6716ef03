"""The report as one HTML file that needs nothing else: tables, figures, protocols and where each number comes from."""

import base64
import json
import pathlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import jinja2

from experiments import checks, gallery, model_info, published
from experiments.duration import duration
from experiments.figures import Figure
from experiments.measured import Measurement, Work
from experiments.parts import PARTS
from experiments.rows import WHITE_BOX, column_of, dataset_of, row_of, setting_label
from experiments.statement import Statement
from experiments.tables import Table
from experiments.training_time import training_time
from experiments.writers import write_file

TEMPLATES = pathlib.Path(__file__).with_name("templates")
LOSSES = {
    "xent": "cross-entropy",
    "cw": "margin of the logits (CW, κ = 50)",
    "ce": "cross-entropy",
    "dlr": "difference of logits ratio (DLR)",
    "dlr-targeted": "DLR, toward a class",
    "margin": "margin of the logits",
}
# of a protocol: what has a column of its own in the report's table of attacks, and what it does not show
_COLUMNS = ("norm", "radius", "loss", "steps", "step_size", "random_start", "restarts")
_HIDDEN = ("pixel_range", "accuracy_by_checkpoint", "accuracy_after", "checkpoint", "train_dir")
_HIDDEN += ("stops_at_error", "epsilon", "generator_sha256")


def environment() -> jinja2.Environment:
    """What fills in the templates."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def write(work: Work, statement: Statement, contents: Mapping[str, Table | Figure], folder: pathlib.Path) -> None:
    """Writes `folder`/report.html of these tables and figures, by part; those figures' .png are in the folder."""
    filled = environment()
    filled.filters |= {"row": lambda name: row_of(name).label, "dataset": lambda name: dataset_of(name).label}
    filled.filters |= {"attack": _unbroken, "number": "{:,}".format, "url": urllib.parse.quote}
    page = filled.get_template("report.html.j2").render(_content(work, statement, contents, folder))
    write_file(folder / "report.html", page)


def _unbroken(attack):
    """The label of an attack, of which no line ends after a hyphen and, if it has a comma, only there."""
    label = column_of(attack).label.replace("-", "\u2011")
    return re.sub(r"(?<!,) ", "\u00a0", label) if "," in label else label


def _content(work, statement, contents, folder) -> dict[str, Any]:
    tables = [table for part, table in contents.items() if PARTS[part].is_table]
    figures = [figure for part, figure in contents.items() if not PARTS[part].is_table]
    measured = [m for run in work.runs for m in work.measurements(run)]
    runs = [_run(work, run, statement) for run in work.runs]
    seconds = [entry["seconds"] for entry in runs if entry["seconds"] is not None]
    return {
        "statement": statement,
        "dates": _span_of_dates(measured),
        "machines": _known(m.about.get("machine") for m in measured),
        "training_time": f"{duration(sum(seconds))} in {len(seconds)} runs" if seconds else "",
        "tables": tables,
        "counts": _counts(tables),
        "figures": [(figure, *inline((folder / f"{figure.part}.png").read_bytes())) for figure in figures],
        "missing": [part for part in work.parts if part not in contents],
        "galleries": gallery.entries(work, folder / "gallery"),
        "attacks": _attacks(measured),
        "extended": not all(column_of(m.attack).in_paper for m in measured),
        "staged": _staged(measured),
        "diagnoses": [_diagnosis(work, run) for run in work.runs if work.diagnosis(run)],
        "remarks": checks.check_work(work),
        "runs": runs,
        "marks": [(published.MARKS.get(mark, "no mark"), text) for mark, text in published.MEANINGS.items()],
        "paper": published.PAPER,
        "signs": published.MARKS,
        # last: what the above found to be unusable
        "problems": work.problems,
    }


def _known(values):
    """Those that files say, each once; files of earlier versions do not say all."""
    return sorted({value for value in values if value})


def _span_of_dates(measured):
    dates = _known(m.about.get("date") for m in measured)
    return " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""


def _counts(tables):
    rows = [row for table in tables for group in table.groups for row in group.rows if row.planned]
    cells = [cell for row in rows for cell in row.cells.values()]
    return {"planned": len(cells), "measured": sum(bool(cell.measured) for cell in cells)}


def inline(content: bytes) -> tuple[str, int]:
    """A PNG as a URL that holds it, and the width in CSS pixels at which its letters are as large as the page's."""
    return "data:image/png;base64," + base64.b64encode(content).decode(), int.from_bytes(content[16:20], "big") // 2


def _attacks(measured: list[Measurement]) -> list[dict[str, Any]]:
    """Each attack as it was run, a line for each different protocol; ε is gathered."""
    alike: dict[str, list[Measurement]] = {}
    for m in sorted(measured, key=lambda m: column_of(m.attack).order):
        alike.setdefault(json.dumps([m.attack, _shown(m)], sort_keys=True, default=str), []).append(m)
    return [_attack(same) for same in alike.values()]


def _shown(m):
    usual = {"batch_norm": "eval"}  # shown only where it is another
    return {name: v for name, v in m.protocol.items() if name not in _HIDDEN and usual.get(name) != v}


def _attack(measured):
    """An attack, from what was measured with the same protocol but for ε."""
    protocol, radius = _shown(measured[0]), measured[0].protocol.get("radius")
    epsilons = sorted({m.epsilon for m in measured if m.epsilon is not None})
    settings = sorted({m.setting for m in measured}, key=lambda setting: (setting != WHITE_BOX, setting))
    return {
        "attack": measured[0].attack,
        "protocol": protocol,
        "further": {name: _text(value) for name, value in protocol.items() if name not in _COLUMNS},
        "epsilons": f"L2: {radius:g}" if radius else _span(epsilons),
        "images": _listed({m.images for m in measured}),
        "settings": ", ".join(map(setting_label, settings)),
        "loss": LOSSES.get(protocol.get("loss"), protocol.get("loss")),
    }


def _text(value):
    """What a protocol says, for people; a list is of attacks."""
    return ", ".join(column_of(attack).label for attack in value) if isinstance(value, list) else value


def _staged(measured: list[Measurement]) -> dict[str, list[Measurement]]:
    """Measurements of attacks that are several ones after another, by the attack (AutoAttack's versions)."""
    staged = {}
    for m in measured:
        if "accuracy_after" in m.protocol:
            staged.setdefault(m.attack, []).append(m)
    return staged


def _diagnosis(work, run):
    """What the report says of a run's diagnosis."""
    content = work.diagnosis(run)
    surrogate = (content.get("surrogate") or {}).get("defense")
    plot = work.path(run, content["surface"]) if content.get("surface") else None
    return content | {
        "label": row_of(run.row).label,
        "run": f"{row_of(run.row).label}, {dataset_of(run.dataset).label}, seed {run.seed}",
        "surrogate": row_of(surrogate).label if surrogate else "none",
        "plot": inline(plot.read_bytes()) if plot and plot.exists() else None,
    }


def _listed(numbers):
    return ", ".join(f"{number:,}" for number in sorted(numbers))


def _span(values):
    """8, or 0 … 20 (21 values), as text."""
    shown = [f"{value:g}" for value in values]
    return ", ".join(shown) if len(shown) < 4 else f"{shown[0]} … {shown[-1]} ({len(shown)} values)"


def _run(work, run, statement):
    """What the report says of a run."""
    measured = work.measurements(run)
    about = next((m.about for m in measured), {})
    diversity = work.diversity(run) or {}
    advgans = (work.folder / "advgan" / run.id).glob("x*")
    times = [training_time(work.folder / kind / run.id) for kind in ("runs", "gan")]
    seconds = sum(filter(None, times)) or None
    return {
        "run": run,
        "seconds": seconds,
        "training_time": "" if seconds is None else duration(seconds),
        "measured_on": _known(", ".join(_known([m.about.get("date"), m.about.get("machine")])) for m in measured),
        "label": row_of(run.row).label,
        "dataset": dataset_of(run.dataset).label,
        "network": about.get("network") or diversity.get("network"),
        "checkpoints": sorted({(m.about["checkpoint"], m.about["classifier_sha256"]) for m in measured}),
        "images": _listed({m.images for m in measured}),
        "provenance": sorted({m.about["provenance"] for m in measured}),
        "evaluation_seeds": sorted({str(m.about.get("seed")) for m in measured}),
        "versions": about.get("versions") or {},
        "revisions": sorted({str(m.about.get("git_revision")) for m in measured}),
        "training_flags": about.get("training_flags") or {},
        "advgans": sorted(folder.name for folder in advgans),
        "files": sorted(path.name for path in work.path(run, "").glob("*.*") if not path.name.startswith(".")),
        "model_info": model_info.describe(work, run, statement),
    }
