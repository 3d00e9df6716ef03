"""Figures 2, 3 and 4: what they show, from a work folder's measured files (`plots.py` draws it)."""

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments import checks, published
from experiments.measured import EPSILON, Work
from experiments.parts import PARTS
from experiments.result_files import DISTANCES
from experiments.rows import WHITE_BOX, dataset_of, row_of
from experiments.statement import Statement, about
from experiments.tables import Cell

NOISE = {"noise": "with uniform noise", "no_noise": "without noise"}


@dataclass(frozen=True)
class Series:
    """A curve. `y` is by `x`, ± `error` (which may be None), all measured by us or all published: see `numbers`."""

    row: str
    label: str
    numbers: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float | None]
    origin: dict[str, Any]


@dataclass(frozen=True)
class Cloud:
    """Points of the latent space: positions [M, 2], classes [M] and whether each is a natural image [M]."""

    positions: np.ndarray
    labels: np.ndarray
    natural: np.ndarray
    origin: dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One set of axes; with neither curves nor a cloud, nothing was measured."""

    dataset: str
    title: str
    series: Sequence[Series] = ()
    cloud: Cloud | None = None


@dataclass(frozen=True)
class Figure:
    """One of the paper's figures. `about`: what was measured on what, a line for each data set."""

    part: str
    statement: Statement
    panels: list[Panel]
    about: list[str]
    remarks: list[checks.Remark] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Number and subject."""
        return PARTS[self.part].title

    @property
    def said(self) -> str:
        """The line below it: the statement, with what this figure was measured on."""
        return self.statement.with_facts(self.about)

    @property
    def caption(self) -> str:
        """How to read it, and what it was measured on."""
        return " ".join([PARTS[self.part].note, *(f"{line}." for line in self.about)])


def build(work: Work, part: str, statement: Statement) -> Figure:
    """The figure called `part` (figure2, figure3 or figure4) of a work folder."""
    figure = Figure(part, statement, [], [])
    for dataset in work.datasets:
        build_one = {"figure2": _epsilons, "figure3": _diversity, "figure4": _latent}[part]
        panels, line, remarks = build_one(work, dataset, dataset_of(dataset).label)
        figure.panels.extend(panels)
        figure.about.append(f"{dataset_of(dataset).label}: {line}")
        figure.remarks.extend(remarks)
    return figure


def _epsilons(work, dataset, name):
    series, measured, remarks = [], [], []
    for row in work.rows("figure2"):
        measured_on_row = []
        for run in work.runs_of(dataset, row):
            over_epsilon = [m for m in work.epsilons(run) if m.epsilon is not None]
            remarks += checks.check_epsilons(run, over_epsilon, work.at_epsilon(run).get("natural"))
            measured_on_row += over_epsilon
        series += _accuracy_curves(dataset, row, measured_on_row)
        measured += measured_on_row
    return [Panel(dataset, name, series)], about(measured), remarks


def _accuracy_curves(dataset, row, measured):
    label = row_of(row).label
    if measured:
        x = sorted({m.epsilon for m in measured})
        cells = [Cell(row, "pgd-20", tuple(m for m in measured if m.epsilon == epsilon), None) for epsilon in x]
        y, error = [cell.mean for cell in cells], [cell.uncertainty for cell in cells]
        yield Series(row, f"{label}, measured", "measured", x, y, error, _origin(measured))
    paper = published.find("II", dataset, WHITE_BOX, row, "pgd-20")
    if paper:
        yield Series(
            row, f"{label}, published", "published", [EPSILON], [paper.accuracy], [None], {"source": paper.source}
        )


def _origin(measured):
    values = {
        "runs": [m.run.id for m in measured],
        "seeds": [m.run.seed for m in measured],
        "images": [m.images for m in measured],
        "data": [m.about["provenance"] for m in measured],
        **{name: [m.about[name] for m in measured] for name in ("network", "checkpoint", "classifier_sha256")},
    }
    return {name: "; ".join(dict.fromkeys(map(str, entries))) for name, entries in values.items()}


def _diversity(work, dataset, name):
    series, lines, remarks = [], [], []
    for row in work.rows("figure3"):
        runs = [run for run in work.runs_of(dataset, row) if work.diversity(run)]
        if not runs:
            continue
        contents = [work.diversity(run) for run in runs]
        origin = {
            "runs": "; ".join(run.id for run in runs),
            "seeds": "; ".join(str(run.seed) for run in runs),
            "images": contents[0]["images"],
            "data": contents[0]["provenance"],
            "network": contents[0]["network"],
        }
        curves = [_distance_curve(row, variant, contents, origin) for variant in NOISE]
        series += curves
        lines.append(_distances_in_words(curves[0], contents, row))
        remarks += checks.check_diversity(f"{name}, {row_of(row).label}", contents)
    return [Panel(dataset, name, series)], "; ".join(lines) or about([]), remarks


def _distance_curve(row, variant, contents, origin):
    """Over the checkpoints that all seeds have, averaged over the seeds."""
    by_step = [{entry["checkpoint"]: entry[variant] for entry in content["checkpoints"]} for content in contents]
    steps = [step for step in by_step[0] if all(step in seed for seed in by_step)]
    means = [[statistics.mean(seed[step][kind] for seed in by_step) for step in steps] for kind in DISTANCES]
    label = f"{row_of(row).label}, {NOISE[variant]}"
    return Series(row, label, "measured", steps, means[0], means[1], origin)


def _distances_in_words(curve, contents, row):
    first = contents[0]
    images = f"{first['images']:,} {first['split']} images of {first['provenance']}"
    words = f"{row_of(row).label}, {first['network']}, {first['draws']} perturbations of each of {images}"
    if len(contents) > 1:
        words += f", mean over {len(contents)} seeds"
    if len(curve.x) > 1:
        words += (
            f"; with noise, from {curve.y[0]:.3f} ± {curve.error[0]:.3f} at step {curve.x[0]:,} to "
            f"{curve.y[-1]:.3f} ± {curve.error[-1]:.3f} at step {curve.x[-1]:,}"
        )
    return words


def _latent(work, dataset, name):
    """Two panels, early and late, of the first run that has an embedding."""
    runs = [run for row in work.rows("figure4") for run in work.runs_of(dataset, row)]
    run = next((run for run in runs if work.latent(run)), None)
    if not run:
        return [Panel(dataset, f"{name}, {when}") for when in ("early", "late")], about([]), []
    latent, panels = work.latent(run), []
    last = len(latent["checkpoints"]) - 1
    for place, when in [(0, "early"), (last, "late")] if last else [(0, "only checkpoint")]:
        step = int(latent["checkpoints"][place])
        origin = {"runs": run.id, "seeds": run.seed, "data": latent["about"]["provenance"], "checkpoint": step}
        cloud = Cloud(latent["embedding"][place], latent["labels"], latent["natural"], origin)
        panels.append(Panel(dataset, f"{name}, {when}: step {step:,}", cloud=cloud))
    return panels, _embedding_in_words(run, latent["about"]), []


def _embedding_in_words(run, about):
    words = f"run {run.id}, {about['network']}, test images of {about['provenance']}"
    if "draws" in about:
        words += f"; {about['draws']} perturbations each, {NOISE.get(about.get('variant'), 'as in training')}"
    return words + (f"; perplexity {about['perplexity']:g}" if "perplexity" in about else "")


ORIGIN = ("runs", "seeds", "images", "data", "network", "checkpoint", "classifier_sha256", "source")


def tidy_csv(figure: Figure) -> str:
    """The plotted numbers, a line a point."""
    out = io.StringIO()
    lines = list(_points(figure))
    names = ["figure", "dataset", *(_CLOUD if figure.part == "figure4" else _SERIES), *ORIGIN, "profile", "statement"]
    writer = csv.DictWriter(out, names, restval="")
    writer.writeheader()
    same = {"figure": figure.part.removeprefix("figure")}
    same |= {"profile": figure.statement.profile, "statement": figure.statement.short}
    writer.writerows(same | line for line in lines)
    return out.getvalue()


_SERIES = ("row", "curve", "numbers", "x", "y", "error")
_CLOUD = ("numbers", "class", "natural_image", "x", "y")


def _points(figure: Figure) -> Iterator[dict[str, Any]]:
    for panel in figure.panels:
        for s in panel.series:
            for x, y, error in zip(s.x, s.y, s.error, strict=True):
                point = {"row": s.row, "curve": s.label, "numbers": s.numbers, "x": x, "y": y, "error": error}
                yield {"dataset": panel.dataset, **point, **s.origin}
        if panel.cloud:
            cloud = panel.cloud
            for (x, y), label, natural in zip(cloud.positions.tolist(), cloud.labels, cloud.natural, strict=True):
                point = {"numbers": "measured", "class": int(label), "natural_image": bool(natural), "x": x, "y": y}
                yield {"dataset": panel.dataset, **point, **cloud.origin}
