"""RobustBench's description of each run: ours alone, and null where nothing was measured."""

import json

import pytest
from work_folder import WorkFolder

from experiments import model_info, statement
from experiments.measured import Work

KEYS = [
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
    "external",
    "unreliable",
    "footnote",
]


def described(grid, row="rvs"):
    work = Work(grid.folder)
    (run,) = (run for run in work.runs if run.row == row)
    return model_info.describe(work, run, statement.build(work))


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


def test_what_was_measured(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 30.0, "cw-100": 21.25, "fgsm": 50.0})
    info = described(grid)
    assert list(info) == KEYS
    assert (info["clean_acc"], info["reported"], info["autoattack_acc"]) == ("80.00", "21.25", None)
    assert (info["architecture"], info["eps"], info["dataset"]) == ("WideResNet-10-2", "8/255", "cifar10")
    assert info["additional_data"] is False
    for word in ("CW-100", "1,000 test images", "JPEG-recompressed", "checkpoint 4000", "sha-of-rvs-0", "Reduced run"):
        assert word in info["footnote"]
    for text in (info["name"], info["footnote"]):
        assert "reproduction" in text
    assert "cifar10/rvs-0a1b2c3d/seed-0" in info["name"]


def test_what_was_not_measured_is_null(grid):
    info = described(grid)
    for key in ("clean_acc", "reported", "autoattack_acc", "architecture", "unreliable", "external"):
        assert info[key] is None
    grid.white_box("rvs", {"natural": 80.0})
    assert described(grid)["reported"] is None
    grid.transfer("rvs", "at", {"pgd-20": 60.0})  # black-box is not it
    assert described(grid)["reported"] is None


def test_autoattack_once_it_is_measured(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 30.0, "autoattack": 20.0})
    info = described(grid)
    assert (info["autoattack_acc"], info["reported"]) == ("20.00", "20.00")
    assert "under AutoAttack, the strongest" in info["footnote"]


def test_another_version_is_not_autoattack(grid):
    grid.white_box("rvs", {"pgd-20": 30.0, "autoattack": 20.0})
    path = grid.path("rvs", "white-box-table2.json")
    path.write_text(path.read_text().replace('"version": "standard"', '"version": "rand"'))
    assert described(grid)["autoattack_acc"] is None


def test_an_attack_in_another_ball_is_not_reported(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 30.0, "cw-l2-100": 5.0})
    info = described(grid)
    assert info["reported"] == "30.00"
    assert "PGD-20" in info["footnote"]


def test_published_numbers_are_not_in_it(grid):
    text = json.dumps(described(grid))
    for number in ("94.17", "57.50", "27.54"):
        assert number not in text


def test_methods_are_named(grid):
    assert described(grid, "at")["authors"].startswith("Aleksander Madry")
    assert "noReg + OT" in described(grid, "noreg_ot")["footnote"]
    assert described(grid, "natural")["link"] is None


def test_a_smoke_run_says_so(tmp_path):
    grid = WorkFolder(tmp_path / "work", profile="smoke").complete()
    assert statement.SMOKE[1:] in described(grid)["footnote"]


def test_a_file_for_each_run(grid, tmp_path):
    work = Work(grid.folder)
    model_info.write(work, statement.build(work), tmp_path / "info")
    files = sorted((tmp_path / "info").rglob("*.*"))
    assert [str(path.relative_to(tmp_path / "info")) for path in files] == sorted(f"{run.id}.json" for run in work.runs)
    for path in files:
        assert list(json.loads(path.read_text())) == KEYS
