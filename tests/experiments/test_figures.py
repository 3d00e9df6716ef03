"""Figures 2 to 4: the plotted numbers, and that they can be told apart."""

import csv
import io
import json
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from work_folder import WorkFolder

from experiments import figures, plots, statement
from experiments.measured import Work
from experiments.statement import SMOKE


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


def build(grid, part):
    work = Work(grid.folder)
    return figures.build(work, part, statement.build(work)), work


def points(figure):
    return list(csv.DictReader(io.StringIO(figures.tidy_csv(figure))))


def texts(sheet):
    return [text.get_text() for axes in sheet.axes for text in axes.texts]


def test_accuracy_over_epsilon(grid):
    grid.epsilons("rvs", {8: 50.0, 0: 80.0})
    figure, _ = build(grid, "figure2")
    ours = [point for point in points(figure) if point["numbers"] == "measured"]
    assert [(float(p["x"]), float(p["y"])) for p in ours] == [(0, 80.0), (8, 50.0)]
    expected = [100 * math.sqrt(p * (1 - p) / 1000) for p in (0.8, 0.5)]
    assert [float(p["error"]) for p in ours] == pytest.approx(expected)
    assert {(p["row"], p["runs"], p["images"]) for p in ours} == {("rvs", "cifar10/rvs-0a1b2c3d/seed-0", "1000")}


def test_the_published_points_of_figure_two_are_the_papers(grid):
    theirs = [point for point in points(build(grid, "figure2")[0]) if point["numbers"] == "published"]
    assert {(p["row"], p["x"], p["y"], p["source"], p["runs"]) for p in theirs} == {
        ("rvs", "8", "57.5", "Table II of the paper", ""),
        ("at", "8", "45.91", "Table II of the paper", ""),
    }


def test_seeds_in_figure_two(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=3)
    accuracies = [30.0, 33.0, 31.0]
    for seed, accuracy in enumerate(accuracies):
        grid.epsilons("at", {8: accuracy}, seed=seed)
    (point,) = (p for p in points(build(grid, "figure2")[0]) if p["numbers"] == "measured")
    assert float(point["y"]) == pytest.approx(np.mean(accuracies))
    assert float(point["error"]) == pytest.approx(np.std(accuracies, ddof=1))
    assert point["seeds"] == "0; 1; 2"


def test_findings_of_figure_two(grid):
    grid.white_box("rvs", {"natural": 81.0})
    grid.epsilons("rvs", {0: 80.0, 8: 30.0, 20: 40.0})
    assert [remark.level for remark in build(grid, "figure2")[0].remarks] == ["warning", "warning"]


def test_curves_differ_in_colour_marker_and_line(grid):
    grid.complete()
    sheet = plots.draw(build(grid, "figure2")[0])
    curves = [container.lines[0] for container in sheet.axes[0].containers]
    assert len(curves) == 2
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(curve, look)() for curve in curves}) == 2
    np.testing.assert_allclose(curves[0].get_xydata(), [(0, 80), (8, 30), (20, 5)])
    labels = [text.get_text() for text in sheet.axes[0].get_legend().get_texts()]
    assert labels == ["RvS, measured", "RvS, published", "AT, measured", "AT, published"]


def test_the_palette_is_told_apart_with_colour_blindness():
    """Under protan- and deuteranopia (Viénot 1999) no two of the first six colours fall together."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    colours = np.array([to_rgb(colour) for colour in plots.COLOURS[:6]]) ** 2.2
    for blindness in (protan, deutan):
        seen = (colours @ to_lms.T @ blindness.T @ np.linalg.inv(to_lms).T).clip(0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(6)
        assert distances.min() > 0.1


def test_diversity_over_checkpoints_that_all_seeds_have(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=2)
    grid.diversity("rvs", {4000: (0.3, 0.10), 400: (0.5, 0.12), 2000: (0.4, 0.1)}, seed=0)
    grid.diversity("rvs", {400: (0.7, 0.14), 4000: (0.2, 0.08)}, seed=1)
    figure, _ = build(grid, "figure3")
    noisy, plain = figure.panels[0].series
    assert noisy.x == plain.x == [400, 4000]
    assert noisy.y == pytest.approx([0.6, 0.25])
    assert noisy.error == pytest.approx([0.13, 0.09])
    assert plain.y == pytest.approx([0.3, 0.125])
    assert "from 0.600 ± 0.130 at step 400 to 0.250 ± 0.090 at step 4,000" in figure.caption
    assert "1,000 test images of cifar10 3.0.2" in figure.caption
    assert {point["numbers"] for point in points(figure)} == {"measured"}


def test_latent_space_early_and_late(grid):
    embedding = grid.latent("rvs", steps=(400, 2000, 4000), classes=10, draws=5)
    figure, _ = build(grid, "figure4")
    early, late = figure.panels
    assert (early.title, late.title) == ("CIFAR-10, early: step 400", "CIFAR-10, late: step 4,000")
    np.testing.assert_array_equal(early.cloud.positions, embedding[0])
    np.testing.assert_array_equal(late.cloud.positions, embedding[2])
    sheet = plots.draw(figure)
    for axes, panel in zip(sheet.axes, figure.panels, strict=True):
        drawn = np.concatenate([collection.get_offsets() for collection in axes.collections])
        np.testing.assert_allclose(sorted(drawn.tolist()), sorted(panel.cloud.positions.tolist()))
        outlined = [
            c for c in axes.collections if c.get_edgecolor().tolist() == [[0, 0, 0, 1]] and c.get_sizes()[0] > 50
        ]
        assert [len(collection.get_offsets()) for collection in outlined] == [1] * 10
    labels = [text.get_text() for text in sheet.axes[1].get_legend().get_texts()]
    assert labels[0] == "airplane"
    assert labels[-1] == "natural image"
    numbers = points(figure)
    assert len(numbers) == 2 * 60
    assert sum(point["natural_image"] == "True" for point in numbers) == 2 * 10


def test_a_hundred_classes_are_drawn_without_a_legend(tmp_path):
    grid = WorkFolder(tmp_path / "work", dataset="cifar100")
    grid.latent("rvs", classes=100, draws=1)
    assert all(axes.get_legend() is None for axes in plots.draw(build(grid, "figure4")[0]).axes)


@pytest.mark.parametrize("part", ["figure2", "figure3", "figure4"])
def test_nothing_measured_is_said(part, grid):
    figure, _ = build(grid, part)
    sheet = plots.draw(figure)
    assert texts(sheet) == ["not measured"] * len(figure.panels)
    assert "nothing measured yet" in figure.caption
    assert "measured" not in {point["numbers"] for point in points(figure)}


DAMAGE = {
    "figure2": ("epsilons.json", lambda path: path.write_text(path.read_text()[:-9])),
    "figure3": ("diversity.json", lambda path: path.write_text(path.read_text().replace("0.3", "NaN"))),
    "figure3 of another run": ("diversity.json", lambda path: path.write_text(path.read_text().replace("seed-0", "s"))),
    "figure4": ("latent.npz", lambda path: path.write_bytes(path.read_bytes()[:500])),
    "figure4 pickled": ("latent.npz", lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True)),
    "figure4 of another shape": ("latent.npz", lambda path: resave(path, labels=np.zeros(3, int))),
    "figure4 not finite": ("latent.npz", lambda path: resave(path, embedding=np.full([2, 60, 2], np.nan))),
}


def resave(path, **changes):
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **arrays)


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_taken_as_missing(case, grid):
    grid.complete()
    name, damage = DAMAGE[case]
    path = grid.path("rvs", name)
    damage(path)
    figure, work = build(grid, case.split()[0])
    (problem,) = work.problems
    assert str(path) in problem
    assert "\n" not in problem
    assert all(point["row"] != "rvs" for point in points(figure) if point["numbers"] == "measured" and "row" in point)
    plots.draw(figure)


@pytest.mark.parametrize("part", ["figure2", "figure3", "figure4"])
@pytest.mark.parametrize("profile", ["smoke", "reduced"])
def test_the_sheet_says_what_the_run_was(part, profile, tmp_path):
    grid = WorkFolder(tmp_path / "work", profile=profile).complete()
    figure, _ = build(grid, part)
    sheet = plots.draw(figure)
    said = (sheet.get_suptitle() if profile == "smoke" else sheet.get_supxlabel()).replace("\n", " ")
    caveat = figure.statement.caveat
    assert said == (SMOKE if profile == "smoke" else f"reduced run: {'; '.join(figure.about)}. {caveat}")
    assert caveat.startswith("Not the paper's experiment: ")
    assert texts(sheet).count("SMOKE RUN") == (len(figure.panels) if profile == "smoke" else 0)


def test_the_sheet_tells_of_its_own_rows_alone(tmp_path):
    """Also where others of the same folder were trained for longer, and attacked on more images than it shows."""
    grid = WorkFolder(tmp_path / "work").complete()
    grid.white_box("natural", {"natural": 80.0}, checkpoint=7000)
    path = grid.path("rvs", "diversity.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": 200}))
    for part, images in (("figure2", "1,000 test images"), ("figure3", "200 test images"), ("figure4", "test images")):
        said = plots.draw(build(grid, part)[0]).get_supxlabel().replace("\n", " ")
        assert images in said
        assert "7,000" not in said
        assert ("1,000 test images" in said) == (part == "figure2")


def test_the_files(grid, tmp_path):
    figure, _ = build(grid.complete(), "figure2")
    plots.write(figure, tmp_path / "report")
    files = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert set(files) == {"figure2.png", "figure2.pdf"}
    assert files["figure2.pdf"].startswith(b"%PDF")
    with Image.open(tmp_path / "report" / "figure2.png") as image:
        assert image.width >= 1000
        assert image.info["Description"] == figure.said
    plots.write(figure, tmp_path / "report")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
