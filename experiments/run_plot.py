"""A plot of runs by their folders: accuracy over the steps of training, a curve for each network of each defence.

It shows how an answer changes with the size of network and training, from runs that differ in these. What differs in
anything else is a curve of its own, the checkpoints on a run's way too, before the end of its training.
"""

import io
import json
import re
import statistics
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import StrMethodFormatter

from experiments.measured import binomial_error
from experiments.plots import COLOURS, LINES, MARKERS, SIZE, STYLE
from experiments.rows import column_of, row_of
from experiments.run_report import RunRow, RunTable, training_settings
from madry_cifar.evaluation.results import purified_by
from madry_cifar.runs.run_folder import ADDED

LENGTH = ("steps", "epochs", "learning_rate_boundaries", "learning_rate_epochs")
COLUMNS = 3
CHARACTER, LINE = 0.11, 0.2  # inches of the legend, at most


@dataclass(frozen=True)
class Curve:
    """Checkpoints of runs that differ in the length of their training and in their seed alone.

    Attributes:
      settings: the other flags of their training.
      rows: by step, and there by the flags that make the length.
    """

    defense: str
    network: str
    settings: dict[str, Any]
    rows: dict[tuple[int, str], list[RunRow]]

    def points(self, attack: str) -> Iterator[tuple[int, float, float]]:
        """Step, accuracy in percent, and what it is uncertain by: the standard error from the number of images of one
        run, the standard deviation between several that differ in their seed alone."""
        for (step, _), rows in sorted(self.rows.items()):
            measured = [row for row in rows if attack in row.entries]
            seeds = {row.about["training_flags"].get("seed") for row in measured}
            accuracies = [row.entries[attack]["accuracy"] for row in measured]
            if len(accuracies) == len(seeds) > 1:
                yield step, statistics.mean(accuracies), statistics.stdev(accuracies)
            else:
                for row, accuracy in zip(measured, accuracies, strict=True):
                    yield step, accuracy, binomial_error(accuracy, row.entries[attack]["images"])


def curves(table: RunTable) -> dict[str, Curve]:
    """The curves of a table by their labels: defence, network, and the settings in which those of a defence differ.

    The defences are in the table's order, the networks of each from small to large.
    """
    alike: dict[str, Curve] = {}
    for row in table.rows:
        if "checkpoint" not in row.about:  # a model from elsewhere
            continue
        step, flags = row.about["checkpoint"], ADDED | row.about["training_flags"]
        settings = {name: value for name, value in training_settings(row).items() if name not in LENGTH}
        settings |= {"purified_by": purified_by(row.about)} if purified_by(row.about) else {}
        settings |= {"run": row.folder} if step < flags.get("steps", step) else {}
        curve = Curve(row.about["defense"], row.about["network"], settings, {})
        curve = alike.setdefault(json.dumps(vars(curve), sort_keys=True), curve)
        length = json.dumps([flags.get(name) for name in LENGTH])
        curve.rows.setdefault((step, length), []).append(row)
    defenses = list(dict.fromkeys(row.about.get("defense") for row in table.rows))
    numbers = {curve.network: [int(number) for number in re.findall(r"\d+", curve.network)] for curve in alike.values()}
    found = sorted(alike.values(), key=lambda curve: (defenses.index(curve.defense), numbers[curve.network]))
    return {_label(curve, found): curve for curve in found}


def _label(curve, others):
    """Settings that differ between curves of a defence; those of its network only where its name does not tell them."""
    same = [other for other in others if other.defense == curve.defense]
    names = set()
    for other in same:
        told = {"depth", "width", "architecture"} if other.network != curve.network else set()
        names |= {name for name in _differing(other.settings, curve.settings) if name not in told}
    own = (f"{name}={curve.settings[name]}" for name in sorted(names) if name in curve.settings)
    return ", ".join([row_of(curve.defense).label, curve.network, *own])


def _differing(one, other):
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def panels(table: RunTable) -> list[str]:
    """The attacks that a defence of the table was measured under with several networks or lengths of training."""
    shown, found = [], curves(table).values()
    for attack in table.attacks:
        sizes = {(c.defense, c.network, step) for c in found for step, *_ in c.points(attack)}
        if len(sizes) > len({defense for defense, *_ in sizes}):
            shown.append(attack)
    return shown


def png(table: RunTable) -> bytes:
    """The plot: a panel for each of `panels`, of which there must be one."""
    shown, attacks = curves(table), panels(table)
    columns = min(COLUMNS, len(attacks))
    rows = -(-len(attacks) // columns)
    defenses = list(dict.fromkeys(curve.defense for curve in shown.values()))
    networks = list(dict.fromkeys(curve.network for curve in shown.values()))
    width = SIZE[0] * columns * 0.8
    names = {label: textwrap.fill(label, int(width / CHARACTER)) for label in shown}
    beside = min(3, len(shown)) if max(map(len, shown)) * 3 * CHARACTER < width else 1
    legend = sum(name.count("\n") + 1 for name in names.values()) / beside * LINE
    with matplotlib.rc_context(STYLE):
        sheet = Sheet(figsize=(width, SIZE[1] * rows * 0.8 + 0.5 + legend), layout="constrained")
        handles = {}
        for place, attack in enumerate(attacks, start=1):
            axes = sheet.add_subplot(rows, columns, place)
            axes.set_title("no attack" if attack == "natural" else column_of(attack).label)
            for number, (label, curve) in enumerate(shown.items()):
                points = list(curve.points(attack))
                if points:
                    style = {"color": COLOURS[defenses.index(curve.defense) % len(COLOURS)], "markersize": 4}
                    style |= {"marker": MARKERS[networks.index(curve.network) % len(MARKERS)], "capsize": 2}
                    style |= {"linestyle": LINES[number % len(LINES)], "linewidth": 1.2}
                    handles[label] = axes.errorbar(*zip(*points, strict=True), **style)
            _scale(axes, sorted({step for curve in shown.values() for step, *_ in curve.points(attack)}))
            axes.set(xlabel="training step", ylabel="accuracy %" if place % columns == 1 or columns == 1 else None)
            axes.set_ylim(bottom=0)
        sheet.legend(handles.values(), map(names.get, handles), loc="outside lower center", ncols=beside)
        file = io.BytesIO()
        sheet.savefig(file, dpi=200, metadata={"Title": table.title})
    return file.getvalue()


def _scale(axes, steps):
    """The axis of steps: in multiples where they lie far apart, with a mark at each if they are few."""
    if 0 < 5 * steps[0] < steps[-1]:
        axes.set_xscale("log")
    if len(steps) <= 5:
        axes.set_xticks(steps)
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
