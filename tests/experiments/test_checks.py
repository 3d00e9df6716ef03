"""What the reports warn of."""

import math
import os

import pytest
from work_folder import WorkFolder

from experiments import checks, figures, statement, tables
from experiments.measured import Work


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work", seeds=2)


def remarks(grid, part, numbers="measured"):
    work = Work(grid.folder)
    table = tables.build(work, part, statement.build(work))
    return [remark for remark in table.remarks if remark.numbers == numbers]


def test_black_box_stronger_than_white_box(grid):
    # 2 standard errors of the difference, on 1,000 images, of 50 and some 45 %
    noise = 2 * 100 * math.sqrt(0.5 * 0.5 / 1000 + 0.455 * 0.545 / 1000)
    assert 4.4 < noise < 4.5
    grid.white_box("rvs", {"pgd-20": 50.0, "pgd-100": 50.0, "cw-20": 50.0})
    grid.transfer("rvs", "at", {"pgd-20": 45.5, "pgd-100": 45.6, "cw-20": 50.0, "cw-100": 1.0})
    warning, note = sorted(remarks(grid, "table3"), key=lambda remark: remark.level, reverse=True)
    assert (warning.level, warning.subject) == ("warning", "CIFAR-10, RvS (seed 0), PGD-20, transfer from AT")
    assert "45.50 % left" in warning.text
    assert "50.00 %" in warning.text
    assert "beyond the noise of 1,000 images" in warning.text
    assert (note.level, note.subject) == ("note", "CIFAR-10, RvS (seed 0), PGD-100, transfer from AT")
    assert "within the noise" in note.text


def test_black_box_and_white_box_are_of_the_same_seed(grid):
    grid.white_box("rvs", {"pgd-20": 50.0}, seed=0)
    grid.transfer("rvs", "at", {"pgd-20": 10.0}, seed=1)
    assert remarks(grid, "table3") == []


def test_the_target_as_its_own_surrogate_is_told(grid):
    grid.transfer("rvs", "at", {"pgd-20": 45.0})
    path = grid.path("rvs", "from-at.json")
    path.write_text(path.read_text().replace("sha-of-at-0", "sha-of-rvs-0"))
    (remark,) = remarks(grid, "table3")
    assert "the target itself" in remark.text


@pytest.mark.parametrize(("rise", "level"), [(0.3, None), (-5.0, None), (0.5, "note"), (4.0, "warning")])
def test_accuracy_over_steps(grid, rise, level):
    # 2 standard errors of a difference near 20 % of 1,000 images are 3.6 points
    grid.white_box("rvs", {"pgd-7": 30.0, "pgd-20": 20.0, "pgd-100": 20.0 + rise, "natural": 80.0, "cw-20": 40.0})
    seen = remarks(grid, "table2")
    assert [remark.level for remark in seen] == ([level] if level else [])
    for remark in seen:
        assert remark.subject == "CIFAR-10, RvS (seed 0)"
        assert "from 20.00 % (PGD-20)" in remark.text
        assert "(PGD-100)" in remark.text


def test_slow_drift_over_steps_is_seen(grid):
    grid.white_box("rvs", {"pgd-7": 20.0, "pgd-10": 22.0, "pgd-20": 24.0, "pgd-100": 26.0})
    (remark,) = remarks(grid, "table2")
    assert remark.level == "warning"
    assert "from 20.00 % (PGD-7) to 26.00 % (PGD-100)" in remark.text


def test_a_ladder_in_order(grid):
    """Each attack at least as strong as what it contains; and an attack in another ball, which says nothing of it."""
    strong = {"pgd-100": 30.0, "pgd-100x10": 29.0, "cw-100": 27.0, "multitargeted": 26.5, "apgd-ce": 28.0}
    grid.white_box(
        "rvs", {**strong, "apgd-t": 26.0, "fab-t": 26.6, "square": 33.0, "cw-l2-100": 1.0, "autoattack": 25.9}
    )
    assert remarks(grid, "table2") == []


def test_autoattack_leaves_no_more_than_a_part_of_it(grid):
    grid.white_box("rvs", {"apgd-ce": 28.0, "apgd-t": 25.9, "autoattack": 26.0})
    (remark,) = remarks(grid, "table2")
    assert (remark.level, remark.subject) == ("warning", "CIFAR-10, RvS (seed 0)")
    assert "AutoAttack leaves 26.00 %, but APGD-T, a part of it, 25.90 % by itself" in remark.text


@pytest.mark.parametrize(("accuracy", "level"), [(25.8, None), (25.0, "note"), (21.0, "warning")])
def test_autoattack_beside_other_attacks(grid, accuracy, level):
    # 2 standard errors of a difference near 25 % of 1,000 images are 3.8 points
    grid.white_box("rvs", {"apgd-t": 28.0, "multitargeted": accuracy, "pgd-100": 30.0, "autoattack": 26.0})
    seen = remarks(grid, "table2")
    assert [remark.level for remark in seen] == ([level] if level else [])
    for remark in seen:
        assert f"MultiTargeted ({accuracy:.2f} % left) is stronger than AutoAttack (26.00 %)" in remark.text


@pytest.mark.parametrize(("square", "level"), [(28.0, None), (27.0, "note"), (20.0, "warning")])
def test_square_below_apgd(grid, square, level):
    grid.white_box("rvs", {"apgd-ce": 28.0, "square": square})
    seen = remarks(grid, "table2")
    assert [remark.level for remark in seen] == ([level] if level else [])
    for remark in seen:
        assert f"Square, which needs no gradients, is stronger ({square:.2f} % left) than APGD-CE" in remark.text
        assert remark.text.endswith(": gradients are masked") == (level == "warning")


@pytest.mark.parametrize(("many", "level"), [(30.2, None), (31.0, "note"), (40.0, "warning")])
def test_accuracy_over_restarts(grid, many, level):
    grid.white_box("rvs", {"pgd-100": 30.0, "pgd-100x10": many})
    seen = remarks(grid, "table2")
    assert [remark.level for remark in seen] == ([level] if level else [])
    for remark in seen:
        assert f"rises with more random starts, from 30.00 % (PGD-100) to {many:.2f} % (PGD-100 ×10)" in remark.text


def test_the_papers_own_numbers_are_checked_as_such(tmp_path):
    grid = WorkFolder(tmp_path / "cifar100", dataset="cifar100")
    (remark,) = remarks(grid, "table3", "published")
    assert (remark.level, remark.subject) == ("warning", "CIFAR-100, RvS, AdvGAN, transfer from Natural")
    assert "52.19" in remark.text
    assert "54.52" in remark.text
    grid = WorkFolder(tmp_path / "svhn", dataset="svhn_cropped")
    (remark,) = remarks(grid, "table2", "published")
    assert remark.subject == "SVHN, FeatScatter"
    assert "55.40 % (PGD-10) to 62.90 % (PGD-20)" in remark.text


def epsilon_remarks(grid, natural=80.0):
    work = Work(grid.folder)
    (run,) = (run for run in work.runs if (run.row, run.seed) == ("rvs", 0))
    grid.white_box("rvs", {"natural": natural})
    return checks.check_epsilons(run, work.epsilons(run), work.at_epsilon(run)["natural"])


def test_accuracy_over_epsilon(grid):
    grid.epsilons("rvs", {8: 30.0, 0: 80.0, 16: 30.3})  # in any order
    assert epsilon_remarks(grid) == []
    grid.epsilons("rvs", {0: 80.0, 8: 30.0, 16: 36.0})
    (remark,) = epsilon_remarks(grid)
    assert remark.level == "warning"
    assert "from 30.00 % (ε = 8) to 36.00 % (ε = 16)" in remark.text


def test_epsilon_zero_must_be_natural(grid):
    grid.epsilons("rvs", {0: 79.9, 8: 30.0})
    (remark,) = epsilon_remarks(grid)
    assert remark.level == "warning"
    assert "79.90 % at ε = 0, but 80.00 % without" in remark.text
    grid.epsilons("rvs", {0: 79.9, 8: 30.0}, classifier_sha256="another")  # not comparable to the last digit
    assert epsilon_remarks(grid) == []


def test_seeds_must_differ_in_the_seed_alone(grid):
    grid.white_box("rvs", {"natural": 80.0}, seed=0)
    grid.white_box("rvs", {"natural": 81.0}, seed=1, checkpoint=2000)
    (remark,) = remarks(grid, "table2")
    assert remark.level == "warning"
    assert "differ in checkpoint: 4000, 2000" in remark.text
    grid.white_box("rvs", {"natural": 81.0}, seed=1, training_flags={"seed": 1, "depth": 10, "width": 3, "keep": 9})
    (remark,) = remarks(grid, "table2")
    assert "differ in --width: 2, 3" in remark.text


def test_one_checkpoint_for_all_numbers_of_a_run(grid):
    grid.white_box("rvs", {"natural": 80.0})
    grid.epsilons("rvs", {0: 80.0})
    assert checks.check_work(Work(grid.folder)) == []
    grid.epsilons("rvs", {0: 80.0}, checkpoint=5000)
    (remark,) = checks.check_work(Work(grid.folder))
    assert "4000, 5000" in remark.text
    grid.epsilons("rvs", {0: 80.0})
    grid.diagnosis("rvs", {"square": "ok"}, checkpoint=6000)
    (remark,) = checks.check_work(Work(grid.folder))
    assert "4000, 6000" in remark.text
    grid.diagnosis("rvs", {"square": "ok"})
    assert checks.check_work(Work(grid.folder)) == []
    grid.epsilons("rvs", {0: 80.0}, classifier_sha256="of another training")
    (remark,) = checks.check_work(Work(grid.folder))
    assert "different weights" in remark.text


def test_seeds_under_unlike_attacks_are_told(grid):
    for seed, steps in enumerate((20, 10)):
        grid.white_box("rvs", {"pgd-20": 50.0}, seed=seed)
        path = grid.path("rvs", "white-box-table2.json", seed)
        path.write_text(path.read_text().replace('"steps": 20', f'"steps": {steps}'))
    (remark,) = remarks(grid, "table2")
    assert remark.text == "the mean is over runs that differ in the attack's steps: 20, 10"


def test_a_transfer_is_compared_with_the_white_box_attacks_of_its_table(grid):
    """Though another table was measured later, on other images."""
    grid.white_box("rvs", {"pgd-20": 40.0}, part="table3")
    os.utime(grid.path("rvs", "white-box-table3.json"), (1, 1))
    grid.transfer("rvs", "at", {"pgd-20": 10.0})
    grid.images //= 2
    grid.white_box("rvs", {"cw-20": 38.0}, part="table4")
    (remark,) = remarks(grid, "table3")
    assert checks.BLACK_BOX.format("10.00") in remark.text


def test_images_made_on_unlike_surrogates_are_told(grid):
    grid.transfer("rvs", "at", {"pgd-20": 50.0}, seed=0)
    grid.transfer("rvs", "at", {"pgd-20": 50.0}, seed=1)
    assert remarks(grid, "table3") == []
    path = grid.path("rvs", "from-at.json", 1)
    path.write_text(path.read_text().replace("at-0a1b2c3d", "at-ffffffff"))
    told = {remark.text for remark in remarks(grid, "table3")}
    assert told == {
        "the mean is over runs that differ in surrogate: at-0a1b2c3d, at-ffffffff",
        "its rows are attacked on networks that differ in more than the seed: at-0a1b2c3d, at-ffffffff",
    }


def test_seeds_of_figure_3_that_are_unlike_are_told(grid):
    for seed in (0, 1):
        grid.diversity("rvs", {400: (0.2, 0.1)}, seed)
    path = grid.path("rvs", "diversity.json", 1)
    path.write_text(path.read_text().replace('"draws": 100', '"draws": 10'))
    work = Work(grid.folder)
    (remark,) = figures.build(work, "figure3", statement.build(work)).remarks
    assert (remark.level, remark.text) == ("warning", "the mean is over runs that differ in draws: 100, 10")
