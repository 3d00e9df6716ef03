"""Result files of a work folder: what is taken from them, and what is not."""

import json
import math
import os
import shutil

import pytest
from work_folder import WorkFolder, build, cell

from experiments import model_info, statement
from experiments.measured import Work


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


def test_the_newest_file_that_has_a_number_is_taken(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0}, part="table4")
    grid.white_box("rvs", {"natural": 81.0, "pgd-7": 60.0}, part="table2")
    os.utime(grid.path("rvs", "white-box-table4.json"), (1, 1))
    work = Work(grid.folder)
    (run,) = work.runs_of("cifar10", "rvs")
    found = {name: m.accuracy for name, m in work.at_epsilon(run).items()}
    assert found == {"natural": 81.0, "pgd-7": 60.0, "pgd-20": 50.0}


def test_a_table_takes_its_own_file_and_no_number_of_other_images(grid):
    grid.images = 1000
    grid.white_box("rvs", {"natural": 80.0, "pgd-7": 60.0}, part="table2")
    grid.images = 500
    grid.white_box("rvs", {"natural": 70.0, "pgd-20": 50.0}, part="table4")  # the newest
    os.utime(grid.path("rvs", "white-box-table2.json"), (1, 1))
    work = Work(grid.folder)
    (run,) = work.runs_of("cifar10", "rvs")
    for part, expected in {
        "table2": {"natural": 80.0, "pgd-7": 60.0},
        "table4": {"natural": 70.0, "pgd-20": 50.0},
        "": {"natural": 70.0, "pgd-20": 50.0},
    }.items():
        assert {name: m.accuracy for name, m in work.at_epsilon(run, part=part).items()} == expected
    assert model_info.describe(work, run, statement.build(work))["reported"] == "60.00"
    assert sorted((m.attack, m.images) for m in work.measurements(run)) == [
        ("natural", 500),
        ("natural", 1000),
        ("pgd-20", 500),
        ("pgd-7", 1000),
    ]


def test_what_another_row_starts_from_takes_no_rows_place(tmp_path):
    """A row that the last call only needed for another one is shown with the settings that it was asked for with."""
    rows = {"table2": ["natural", "l2l_da"]}
    grid = WorkFolder(tmp_path / "work", rows=rows)
    grid.white_box("natural", {"natural": 80.0})
    before = grid.config
    start = grid.runs["natural", 0] | {"id": "cifar10/natural-99999999/seed-0"}
    asked = {**grid.config["rows"], "table2": ["l2l_da"]}
    last = {"parts": ["table2"], "rows": asked, "runs": [start, grid.runs["l2l_da", 0]]}
    config = before | last | {"earlier_runs": [grid.runs["natural", 0]], "shown": rows}
    (grid.folder / "config.json").write_text(json.dumps(config))
    assert cell(build(grid)[0], "natural", "natural").mean == 80.0
    config["rows"]["table2"] = ["natural", "l2l_da"]
    (grid.folder / "config.json").write_text(json.dumps(config))
    assert [run.id for run in Work(grid.folder).runs_of("cifar10", "natural")] == [start["id"]]


def test_another_epsilon_stands_in_no_table(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 60.0}, epsilon=4.0)
    table, work = build(grid)
    assert cell(table, "rvs", "pgd-20").mean is None
    assert cell(table, "rvs", "natural").mean == 80.0
    (problem,) = work.problems
    assert "at ε = 4; the tables are at ε = 8" in problem


def edited(change):
    def edit(path):
        contents = json.loads(path.read_text())
        change(contents[0])
        path.write_text(json.dumps(contents))

    return edit


def set_pgd(name, value):
    return edited(lambda content: content["attacks"]["pgd-20"].update({name: value}))


DAMAGE = {
    "cut off": lambda path: path.write_text(path.read_text()[:-40]),
    "empty": lambda path: path.write_text(""),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "not a list": lambda path: path.write_text("{}"),
    "a list of text": lambda path: path.write_text('["a"]'),
    "deeply nested": lambda path: path.write_text("[" * 100_000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "schema": edited(lambda content: content.update(schema_version=99)),
    "published": edited(lambda content: content.update(numbers="published")),
    "another run": edited(lambda content: content.update(train_dir="/somewhere/runs/cifar10/at-0a1b2c3d/seed-0")),
    "another seed": edited(lambda content: content.update(train_dir="/somewhere/runs/cifar10/rvs-0a1b2c3d/seed-1")),
    "a transfer": edited(lambda content: content.update(surrogate={"train_dir": "runs/cifar10/at-0a1b2c3d/seed-0"})),
    "no network": edited(lambda content: content.pop("network")),
    "attacks a list": edited(lambda content: content.update(attacks=[])),
    "NaN": set_pgd("accuracy", math.nan),
    "over 100": set_pgd("accuracy", 100.5),
    "text": set_pgd("accuracy", "50"),
    "no images": set_pgd("images", 0),
    "no protocol": set_pgd("protocol", None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_a_missing_number_and_a_line(damage, grid):
    grid.white_box("rvs", {"pgd-20": 50.0})
    grid.white_box("at", {"pgd-20": 40.0})
    path = grid.path("rvs", "white-box-table2.json")
    damage(path)
    table, work = build(grid)
    assert cell(table, "rvs", "pgd-20").mean is None
    assert cell(table, "rvs", "pgd-20").published.printed == "57.50"
    assert cell(table, "at", "pgd-20").mean == 40.0
    (problem,) = work.problems
    assert str(path) in problem
    assert "\n" not in problem


def test_white_box_numbers_are_not_taken_for_a_transfer(grid):
    grid.white_box("rvs", {"pgd-20": 50.0})
    shutil.copy(grid.path("rvs", "white-box-table2.json"), grid.path("rvs", "from-at.json"))
    grid.transfer("rvs", "at", {"pgd-20": 50.0})
    shutil.move(grid.path("rvs", "from-at.json"), grid.path("rvs", "from-natural.json"))
    table, work = build(grid, "table3")
    assert all(not found.measured for _, found in table.cells())
    assert len(work.problems) == 1
    assert "its attacks were made on" in work.problems[0]
