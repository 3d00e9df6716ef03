"""A trained model as RobustBench describes one (its `model_info/*.json`). What was not measured is null."""

import json
import pathlib
from typing import Any

from experiments.measured import EPSILON, Run, Work
from experiments.rows import column_of, dataset_of, row_of
from experiments.statement import Statement
from experiments.writers import write_file
from madry_cifar.evaluation.results import purified_by


def describe(work: Work, run: Run, statement: Statement) -> dict[str, Any]:
    """RobustBench's keys for a run. Accuracies are ours alone, as text like there: "94.17".

    `reported` is the lowest accuracy under the white-box attacks in the L∞ ball that were run; RobustBench's own
    measure, AutoAttack's standard version, stays null until it was run.
    """
    measured = work.at_epsilon(run, part="table2")
    row = row_of(run.row)
    attacked = [m for m in measured.values() if m.is_linf]
    standard = [m for m in attacked if m.protocol.get("version") == "standard"]
    strongest = min(attacked, key=lambda m: m.accuracy, default=None)
    about = next((m.about for m in measured.values()), {})
    return {
        "link": row.link,
        "name": f"{row.title or row.label} (reproduction, run {run.id})",
        "authors": row.authors,
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": run.dataset,
        "venue": "N/A (reproduction)",
        "architecture": about["network"].replace("WRN", "WideResNet") if about else None,
        "eps": f"{EPSILON}/255",
        "clean_acc": _percent(measured.get("natural")),
        "reported": _percent(strongest),
        "autoattack_acc": _percent(standard[0] if standard else None),
        "external": None,
        "unreliable": None,
        "footnote": _footnote(run, row, statement, strongest),
    }


def _percent(measurement):
    return f"{measurement.accuracy:.2f}" if measurement else None


def _footnote(run, row, statement, strongest):
    variant = f" ({row.label})" if row.variant_of else ""
    parts = [f"A reproduction{variant}, not its authors' model: {dataset_of(run.dataset).label}, seed {run.seed}."]
    if strongest:
        about = strongest.about
        parts.append(
            f"reported is the accuracy under {column_of(strongest.attack).label}, the strongest of the attacks "
            f"that were run, on {strongest.images:,} {about['split']} images of {about['provenance']}; "
            f"checkpoint {about['checkpoint']}, weights sha256 {about['classifier_sha256']}."
            + (f" Images are purified by {purified_by(about)}." if row.purified else "")
        )
    parts += [f"{statement.short[0].upper()}{statement.short[1:]}.", statement.caveat]
    return " ".join(part for part in parts if part)


def write(work: Work, statement: Statement, folder: pathlib.Path) -> None:
    """Writes a file for each run: folder/RUN.json."""
    for run in work.runs:
        content = json.dumps(describe(work, run, statement), indent=2, ensure_ascii=False)
        write_file(folder / f"{run.id}.json", content + "\n")
