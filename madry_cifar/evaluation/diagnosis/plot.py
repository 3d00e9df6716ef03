"""Draws a diagnosis (matplotlib): cross-entropy around images and along its gradient, accuracy against steps and ε.

Colours are those of Okabe and Ito, which the colour-blind tell apart; lines have markers of their own for print.
"""

import pathlib

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from madry_cifar.evaluation.diagnosis.checks import Diagnosis
from madry_cifar.runs.files import replacing

STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
BLUE, ORANGE = "#0072B2", "#D55E00"


def write(path: pathlib.Path, diagnosis: Diagnosis, title: str) -> None:
    """Writes the plot (.png). Raises OSError, naming it, where it cannot be written."""
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        draw(diagnosis, title).savefig(temporary, dpi=150)


def draw(diagnosis: Diagnosis, title: str) -> Figure:
    """A sheet with the surfaces in the upper row and the curves in the lower, as far as they were measured."""
    sheet = Figure(figsize=(11, 6), layout="constrained")
    sheet.suptitle(f"Loss surface and accuracy: {title}")
    rows = [part for part in (diagnosis.planes is not None, bool(diagnosis.curves)) if part]
    parts = iter(sheet.subfigures(max(len(rows), 1), 1, squeeze=False)[:, 0])
    if diagnosis.planes is not None:
        _draw_planes(next(parts), diagnosis.planes, diagnosis.curves["loss-surface"]["distance"][-1])
    if diagnosis.curves:
        part = next(parts)
        for axes, (name, curve) in zip(
            part.subplots(1, len(diagnosis.curves), squeeze=False)[0], diagnosis.curves.items(), strict=True
        ):
            _draw_curve(axes, name, curve)
    return sheet


def _draw_planes(part, planes, epsilon):
    sides, levels = np.linspace(-epsilon, epsilon, planes.shape[1]), np.linspace(planes.min(), planes.max(), 21)
    levels = levels if levels[-1] > levels[0] else 1
    for number, (axes, plane) in enumerate(zip(part.subplots(1, len(planes), squeeze=False)[0], planes, strict=True)):
        drawn = axes.contourf(sides, sides, plane.T, levels=levels, cmap="cividis")
        axes.plot(0, 0, "w+", markersize=9)
        axes.set(title=f"image {number + 1}", xlabel="along the gradient's sign", aspect="equal")
        if number == 0:
            axes.set_ylabel("along random signs")
    part.colorbar(drawn, ax=part.axes, label="cross-entropy", shrink=0.8, format="%.3g")


def _draw_curve(axes, name, curve):
    if name == "loss-surface":
        axes.plot(curve["distance"], curve["gradient"], color=BLUE, marker="o", markersize=3, label="gradient's sign")
        axes.plot(curve["distance"], curve["random"], color=ORANGE, linestyle="--", label="random signs")
        axes.legend(frameon=False)
        axes.set(title="Loss on the way (median)", xlabel="distance in grey levels", ylabel="cross-entropy")
        return
    titles = {"steps": ("Accuracy against steps of PGD", "steps"), "epsilon": ("Accuracy against ε (PGD-20)", "ε")}
    title, label = titles[name]
    axes.plot(curve[name], curve["accuracy"], color=BLUE, marker="o", markersize=4, clip_on=False, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve[name])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.set(title=title, xlabel=label, ylabel="accuracy %")
