"""Figures 2, 3 and 4: what they show, from a work folder's measured files (`plots.py` draws it)."""

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments import checks, published
from experiments.measured import EPSILON, WHITE_BOX, Work
from experiments.names import DEFENSES, dataset_label, row_label
from experiments.result_files import DISTANCES
from experiments.statement import Statement, about
from experiments.tables import Cell

TITLES = {
    "figure2": "Figure 2. Accuracy under PGD-20 over ε",
    "figure3": "Figure 3. Diversity of the perturbations over the training",
    "figure4": "Figure 4. Natural images and their perturbations in the latent space",
}
CAPTIONS = {
    "figure2": "Steps of 2/255. Bars: ± standard error from the number of images, or, over several seeds, ± the "
    "standard deviation between them. Hollow marks: published, from Table II of the paper at ε = 8/255; its curves "
    "are not printed as numbers.",
    "figure3": "Euclidean distance between the l2-normalised features of a test image and of its perturbations: the "
    "mean over the images, and, shaded, ± the mean of the standard deviations over an image's perturbations; with the "
    "uniform noise that training adds to the perturbation, and without. The paper prints no numbers for this figure.",
    "figure4": "t-SNE of the l2-normalised features of one test image of each class (large, outlined) and of its "
    "perturbations (small), at an early and a late checkpoint. Each panel is an embedding of its own: distances are "
    "not to be compared between panels. The paper prints no numbers for this figure.",
}
VARIANTS = {"noise": "with uniform noise", "no_noise": "without noise"}


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
    findings: list[checks.Finding] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Number and subject."""
        return TITLES[self.part]

    @property
    def caption(self) -> str:
        """How to read it, and what it was measured on."""
        return " ".join([CAPTIONS[self.part], *(f"{line}." for line in self.about)])


def build(work: Work, part: str, statement: Statement) -> Figure:
    """The figure called `part` (figure2, figure3 or figure4) of a work folder."""
    panels, lines, findings = [], [], []
    for dataset in work.datasets:
        of_dataset = {"figure2": _epsilons, "figure3": _diversity, "figure4": _latent}[part]
        new_panels, line, new_findings = of_dataset(work, dataset, dataset_label(dataset))
        panels += new_panels
        lines.append(f"{dataset_label(dataset)}: {line}")
        findings += new_findings
    return Figure(part, statement, panels, lines, findings)


def _epsilons(work, dataset, name):
    series, measured, findings = [], [], []
    for row in work.rows("figure2"):
        runs = {run: [m for m in work.epsilons(run) if m.epsilon is not None] for run in work.of(dataset, row)}
        of_row = [m for of_run in runs.values() for m in of_run]
        cells = {e: _cell(row, of_row, e) for e in sorted({m.epsilon for m in of_row})}
        series += _accuracy_curves(dataset, row, cells)
        measured += of_row
        for run, of_run in runs.items():
            findings += checks.of_epsilons(run, of_run, work.at_epsilon(run).get("natural"))
    return [Panel(dataset, name, series)], about(measured), findings


def _cell(row, measured, epsilon):
    return Cell(row, "pgd-20", tuple(m for m in measured if m.epsilon == epsilon), None)


def _accuracy_curves(dataset, row, cells):
    label = DEFENSES.get(row, row)
    if cells:
        y, error = zip(*((cell.mean, cell.uncertainty) for cell in cells.values()), strict=True)
        origin = _origin([m for cell in cells.values() for m in cell.measured])
        yield Series(row, f"{label}, measured", "measured", list(cells), y, error, origin)
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
        "network": [m.about["network"] for m in measured],
        "checkpoint": [m.about["checkpoint"] for m in measured],
        "classifier_sha256": [m.about["classifier_sha256"] for m in measured],
    }
    return {name: "; ".join(dict.fromkeys(map(str, of_name))) for name, of_name in values.items()}


def _diversity(work, dataset, name):
    series, lines = [], []
    for row in work.rows("figure3"):
        found = [(run, content) for run in work.of(dataset, row) if (content := work.diversity(run))]
        if not found:
            continue
        contents = [content for _, content in found]
        origin = {"runs": "; ".join(run.id for run, _ in found), "seeds": "; ".join(str(run.seed) for run, _ in found)}
        origin |= {
            "images": contents[0]["images"],
            "data": contents[0]["provenance"],
            "network": contents[0]["network"],
        }
        curves = [_distance_curve(row, variant, contents, origin) for variant in VARIANTS]
        series += curves
        lines.append(_distances_in_words(curves[0], contents, row))
    return [Panel(dataset, name, series)], "; ".join(lines) or about([]), []


def _distance_curve(row, variant, contents, origin):
    """Over the checkpoints that all seeds have, averaged over the seeds."""
    by_step = [{entry["checkpoint"]: entry[variant] for entry in content["checkpoints"]} for content in contents]
    steps = [step for step in by_step[0] if all(step in of_seed for of_seed in by_step)]
    means = [[statistics.mean(of_seed[step][kind] for of_seed in by_step) for step in steps] for kind in DISTANCES]
    label = f"{DEFENSES.get(row, row)}, {VARIANTS[variant]}"
    return Series(row, label, "measured", steps, means[0], means[1], origin)


def _distances_in_words(curve, contents, row):
    first = contents[0]
    images = f"{first['images']:,} {first['split']} images of {first['provenance']}"
    words = f"{row_label(row)}, {first['network']}, {first['draws']} perturbations of each of {images}"
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
    runs = [run for row in work.rows("figure4") for run in work.of(dataset, row)]
    run, found = next(((run, found) for run in runs if (found := work.latent(run))), (None, None))
    if not found:
        return [Panel(dataset, f"{name}, {when}") for when in ("early", "late")], about([]), []
    panels = []
    last = len(found["checkpoints"]) - 1
    for place, when in dict.fromkeys([(0, "early"), (last, "late")] if last else [(0, "only checkpoint")]):
        step = int(found["checkpoints"][place])
        origin = {"runs": run.id, "seeds": run.seed, "data": found["about"]["provenance"], "checkpoint": step}
        cloud = Cloud(found["embedding"][place], found["labels"], found["natural"], origin)
        panels.append(Panel(dataset, f"{name}, {when}: step {step:,}", cloud=cloud))
    return panels, _embedding_in_words(run, found["about"]), []


def _embedding_in_words(run, about):
    words = f"run {run.id}, {about['network']}, test images of {about['provenance']}"
    if "draws" in about:
        words += f"; {about['draws']} perturbations each, {VARIANTS.get(about.get('variant'), 'as in training')}"
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
