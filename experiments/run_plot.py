"""A plot of runs by their folders: accuracy over the steps of training, a curve for each network of each defence.

It shows how an answer changes with the size of network and training, from runs that differ in these, or from
checkpoints of one run. Runs that differ in anything else are curves of their own.
"""

import io
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import StrMethodFormatter

from experiments.measured import binomial_error
from experiments.plots import COLOURS, LINES, MARKERS, SIZE, STYLE
from experiments.rows import column_of, row_of
from experiments.run_report import RunRow, RunTable
from madry_cifar.evaluation.results import purified_by
from madry_cifar.runs.run_folder import MAY_CHANGE

LENGTH = MAY_CHANGE | {"seed", "learning_rate_boundaries", "learning_rate_epochs"}  # of a training, and its seed
COLUMNS = 3


@dataclass(frozen=True)
class Curve:
    """Checkpoints of runs that differ in their length and seed alone: what was measured of them, by step.

    Attributes:
      settings: the other flags of their training.
    """

    defense: str
    network: str
    settings: dict[str, Any]
    rows: dict[int, list[RunRow]]

    def points(self, attack: str) -> Iterator[tuple[int, float, float]]:
        """Step, accuracy in percent, and what it is uncertain by: the standard error from the number of images of one
        run, the standard deviation between several."""
        for step, rows in sorted(self.rows.items()):
            entries = [row.entries[attack] for row in rows if attack in row.entries]
            accuracies = [entry["accuracy"] for entry in entries]
            if len(accuracies) > 1:
                yield step, statistics.mean(accuracies), statistics.stdev(accuracies)
            elif accuracies:
                yield step, accuracies[0], binomial_error(accuracies[0], entries[0]["images"])


def curves(table: RunTable) -> dict[str, Curve]:
    """The curves of a table by their labels, in its order: defence, network, and, where several would be called so, the
    settings in which they differ."""
    alike: dict[str, Curve] = {}
    for row in table.rows:
        if "checkpoint" not in row.about:  # a model from elsewhere
            continue
        settings = {name: v for name, v in row.about["training_flags"].items() if name not in LENGTH}
        settings |= {"purified_by": purified_by(row.about)} if purified_by(row.about) else {}
        curve = Curve(row.about["defense"], row.about["network"], settings, {})
        curve = alike.setdefault(json.dumps(vars(curve), sort_keys=True), curve)
        curve.rows.setdefault(row.about["checkpoint"], []).append(row)
    return {_label(curve, alike.values()): curve for curve in alike.values()}


def _label(curve, others):
    same = [other.settings for other in others if (other.defense, other.network) == (curve.defense, curve.network)]
    names = sorted(name for name in set().union(*same) if len({str(settings.get(name)) for settings in same}) > 1)
    own = (f"{name}={curve.settings[name]}" for name in names if name in curve.settings)
    return ", ".join([row_of(curve.defense).label, curve.network, *own])


def has_sizes(table: RunTable) -> bool:
    """Whether a defence of the table is there with several networks or lengths of training."""
    sizes = {(c.defense, c.network, step) for c in curves(table).values() for step in c.rows}
    return len(sizes) > len({defense for defense, *_ in sizes})


def png(table: RunTable) -> bytes:
    """The plot: a panel for each attack that was measured at more than one point."""
    shown = curves(table)
    panels = [a for a in table.attacks if sum(len(list(curve.points(a))) for curve in shown.values()) > 1]
    defenses, networks = (
        list(dict.fromkeys(getattr(c, name) for c in shown.values())) for name in ("defense", "network")
    )
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        sheet = Sheet(figsize=(SIZE[0] * columns * 0.8, SIZE[1] * rows * 0.8 + 0.9), layout="constrained")
        handles = {}
        for place, attack in enumerate(panels, start=1):
            axes = sheet.add_subplot(rows, columns, place)
            axes.set_title("no attack" if attack == "natural" else column_of(attack).label)
            for number, (label, curve) in enumerate(shown.items()):
                points = list(curve.points(attack))
                if points:
                    style = {"color": COLOURS[defenses.index(curve.defense) % len(COLOURS)], "markersize": 4}
                    style |= {"marker": MARKERS[networks.index(curve.network) % len(MARKERS)], "capsize": 2}
                    style |= {"linestyle": LINES[number % len(LINES)], "linewidth": 1.2}
                    handles[label] = axes.errorbar(*zip(*points, strict=True), **style)
            _scale(axes, sorted({step for curve in shown.values() for step in curve.rows}))
            axes.set(xlabel="training step", ylabel="accuracy %" if place % columns == 1 or columns == 1 else None)
            axes.set_ylim(bottom=0)
        sheet.legend(handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)))
        file = io.BytesIO()
        sheet.savefig(file, dpi=200, metadata={"Title": table.title})
    return file.getvalue()


def _scale(axes, steps):
    """The axis of steps: in multiples where they lie far apart, with a mark at each if they are few."""
    if steps[-1] > 5 * max(1, steps[0]):
        axes.set_xscale("log")
    if len(steps) <= 5:
        axes.set_xticks(steps)
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
