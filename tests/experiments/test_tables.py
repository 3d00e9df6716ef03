"""Tables II to IV: what was measured beside what is published, and the two never mixed."""

import csv
import io
import json
import math
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from work_folder import WorkFolder

from experiments import latex, published, statement, tables, writers
from experiments.measured import Work
from experiments.names import attack_label
from experiments.statement import SMOKE

MARKDOWN_SIGNS = str.maketrans("", "", "\\")


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


def build(grid, part="table2"):
    work = Work(grid.folder)
    return tables.build(work, part, statement.of(work)), work


def cell(table, row, attack, group=0):
    (found,) = (found for found in table.groups[group].rows if found.name == row)
    return found.cells[attack]


def lines(table):
    """The body of the Markdown tables: defence (repeated), kind, entries by attack."""
    row, heads = None, None
    for line in writers.markdown(table).splitlines():
        entries = [entry.strip().translate(MARKDOWN_SIGNS) for entry in line.strip("|").split(" | ")]
        if line.startswith("| defence"):
            heads = entries[2:]
        elif line.startswith("| "):
            row = entries[0] or row
            yield row, entries[1], dict(zip(heads, entries[2:], strict=True))


def test_a_measured_number_beside_the_published_one(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0})
    table, work = build(grid)
    found = cell(table, "rvs", "pgd-20")
    assert (found.mean, found.deviation, found.published.printed) == (50.0, None, "57.50")
    assert found.uncertainty == pytest.approx(100 * math.sqrt(0.5 * 0.5 / 1000))
    assert found.difference == pytest.approx(50.0 - 57.5)
    shown = {kind: entries["PGD-20"] for row, kind, entries in lines(table) if row == "RvS"}
    assert shown == {"measured": "50.00 ± 1.58", "published": "57.50", "difference": "−7.50"}
    assert work.problems == []


def test_seeds_become_mean_and_standard_deviation(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=3)
    accuracies = [48.0, 50.5, 54.0]
    for seed, accuracy in enumerate(accuracies):
        grid.white_box("rvs", {"pgd-20": accuracy}, seed=seed)
    table, _ = build(grid)
    found = cell(table, "rvs", "pgd-20")
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.uncertainty == found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert found.difference == pytest.approx(np.mean(accuracies) - 57.5)
    assert [m.run.seed for m in found.measured] == [0, 1, 2]
    assert ("RvS", "measured, 3 seeds") in [line[:2] for line in lines(table)]


def test_missing_seeds_are_told(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=3)
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 48.0}, seed=0)
    grid.white_box("rvs", {"natural": 81.0}, seed=2)
    kinds = {row: kind for row, kind, _ in lines(build(grid)[0]) if kind.startswith("measured")}
    assert kinds == {"Natural": "measured: not yet", "AT": "measured: not yet", "RvS": "measured, 1–2 of 3 seeds"}


def test_missing_is_a_dash_and_never_a_zero(grid):
    grid.white_box("natural", {"pgd-20": 0.0})
    table, _ = build(grid)
    shown = {(row, kind): entries for row, kind, entries in lines(table)}
    assert shown["Natural", "measured"]["PGD-20"] == "0.00 ± 0.00"
    assert shown["Natural", "measured"]["PGD-7"] == "–"
    assert shown["Natural", "difference"]["PGD-7"] == "–"
    assert shown["Bilateral", "published"]["PGD-10"] == "–"
    (record,) = (r for r in records(table) if (r["row"], r["attack"]) == ("natural", "pgd-7"))
    assert (record["measured"], record["published"], record["difference"]) == ("", "0", "")
    (record,) = (r for r in records(table) if (r["row"], r["attack"]) == ("bilateral", "pgd-10"))
    assert (record["measured"], record["published"]) == ("", "")


def records(table):
    return list(csv.DictReader(io.StringIO(writers.tidy_csv(table))))


def test_all_of_the_papers_rows_and_those_of_ours(tmp_path):
    grid = WorkFolder(tmp_path / "work", rows={"table2": ["natural", "rvs", "trades"]})
    grid.white_box("trades", {"natural": 79.0, "autoattack": 40.0})
    table, _ = build(grid)
    (group,) = table.groups
    assert [row.name for row in group.rows] == [*published.rows("II", "cifar10", "white-box"), "trades"]
    assert group.attacks[-1] == "autoattack"
    assert list(group.rows[-1].kinds()) == ["measured"]
    at = next(row for row in group.rows if row.name == "at")  # published, and not trained here
    assert list(at.kinds()) == ["published"]


def test_the_order_of_the_columns(tmp_path):
    grid = WorkFolder(tmp_path / "work", advgan_widths=[8, 1])
    grid.white_box("rvs", {"pgd-50": 10.0})
    (group,) = build(grid)[0].groups
    assert group.attacks == [
        *("natural", "fgsm", "fgsm-rs", "pgd-7", "pgd-10", "pgd-20", "pgd-50", "pgd-100", "cw-20", "cw-100"),
        *("advgan", "advgan-final", "advgan-x8", "advgan-x8-final"),
    ]


def test_table_three_has_a_group_for_each_surrogate(grid):
    grid.transfer("rvs", "at", {"pgd-20": 60.0})
    grid.white_box("rvs", {"pgd-20": 20.0})  # not to be taken for black-box
    table, _ = build(grid, "table3")
    assert [group.title for group in table.groups] == ["CIFAR-10, transfer from Natural", "CIFAR-10, transfer from AT"]
    assert cell(table, "rvs", "pgd-20", group=0).mean is None
    assert cell(table, "rvs", "pgd-20", group=0).published.printed == "71.11"
    found = cell(table, "rvs", "pgd-20", group=1)
    assert (found.mean, found.published.printed) == (60.0, "74.53")
    assert found.measured[0].surrogate["classifier_sha256"] == "sha-of-at-0"
    assert [[row.name for row in group.rows] for group in table.groups] == [["rvs", "at"], ["rvs", "natural"]]


def test_table_four_has_our_row_last_with_nothing_published(grid):
    for row, accuracy in (("noreg_ot", 10.0), ("paired", 20.0), ("rvs", 21.0)):
        grid.white_box(row, {"natural": 80.0, "pgd-20": accuracy, "pgd-100": 5.0})
    table, _ = build(grid, "table4")
    (group,) = table.groups
    assert [row.name for row in group.rows] == ["noreg_ot", "otreg_xent", "rvs", "paired"]
    assert group.attacks == ["natural", "pgd-20", "cw-20"]
    assert cell(table, "paired", "pgd-20").published is None
    assert cell(table, "rvs", "pgd-20").published.printed == "57.50"
    assert cell(table, "noreg_ot", "pgd-20").difference == pytest.approx(10.0 - 24.55)


def test_a_data_set_that_the_paper_has_not(tmp_path):
    grid = WorkFolder(tmp_path / "work", dataset="digits")
    grid.white_box("rvs", {"natural": 99.0})
    table, _ = build(grid)
    assert {kind.split(":")[0] for _, kind, _ in lines(table)} == {"measured"}


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
    path = grid.path("rvs", "white-box.json")
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
    shutil.copy(grid.path("rvs", "white-box.json"), grid.path("rvs", "from-at.json"))
    grid.transfer("rvs", "at", {"pgd-20": 50.0})
    shutil.move(grid.path("rvs", "from-at.json"), grid.path("rvs", "from-natural.json"))
    table, work = build(grid, "table3")
    assert all(not found.measured for _, found in table.cells())
    assert len(work.problems) == 1
    assert "its attacks were made on" in work.problems[0]


ROWS = ("natural", "at", "rvs")
ATTACKS = ("natural", "fgsm", "fgsm-rs", "pgd-20", "cw-100", "advgan", "advgan-final")


@settings(max_examples=25)
@given(
    st.dictionaries(st.tuples(st.sampled_from(ROWS), st.sampled_from(ATTACKS)), st.integers(0, 1000)),
    st.sampled_from(["full", "reduced", "smoke"]),
)
def test_measured_and_published_are_never_taken_for_each_other(tmp_path_factory, right, profile):
    """Whatever is measured, each form says `measured` of these numbers alone, and `published` of the paper's alone."""
    grid = WorkFolder(tmp_path_factory.mktemp("property") / "work", profile=profile)
    wanted = {key: count / 10 for key, count in right.items()}
    for row in ROWS:
        grid.white_box(row, {attack: accuracy for (r, attack), accuracy in wanted.items() if r == row})
    paper = {key[3:]: number for key, number in published.read().items() if key[:2] == ("II", "cifar10")}
    table, _ = build(grid)

    content = json.loads(writers.as_json(table))
    ours = {(c["row"], c["attack"]): c["measured"]["accuracy"] for c in content["cells"] if c["measured"]}
    theirs = {(c["row"], c["attack"]): c["published"]["printed"] for c in content["cells"] if c["published"]}
    assert ours == wanted
    assert theirs == {key: number.printed for key, number in paper.items()}

    of_csv = {(record["row"], record["attack"]): record for record in records(table)}
    assert {key: float(record["measured"]) for key, record in of_csv.items() if record["measured"]} == wanted
    assert {key: record["published"] for key, record in of_csv.items() if record["published"]} == theirs
    assert all(bool(record["measured_runs"]) == bool(record["measured"]) for record in of_csv.values())
    assert all(bool(record["published_source"]) == bool(record["published"]) for record in of_csv.values())

    labels = {row.label: row.name for group in table.groups for row in group.rows}
    heads = {attack_label(attack): attack for attack in table.groups[0].attacks}
    for label, kind, entries in lines(table):
        for head, text in entries.items():
            key = labels[label], heads[head]
            if kind.startswith("measured"):
                assert text == "–" if key not in wanted else text.startswith(f"{wanted[key]:.2f} ± ")
            elif kind == "published":
                assert text == (paper[key].text if key in paper else "–")
            else:
                both = key in wanted and key in paper
                expected = f"{wanted[key] - paper[key].accuracy:+.2f}".replace("-", "−") if both else "–"
                assert text == expected


def test_every_form_says_what_the_run_was(tmp_path):
    smoke, reduced = (WorkFolder(tmp_path / name, profile=name).complete() for name in ("smoke", "reduced"))
    for grid, said in ((smoke, SMOKE), (reduced, "reduced run, not the paper's experiment")):
        for part in tables.TITLES:
            table, _ = build(grid, part)
            assert said in writers.markdown(table).split("##")[0]
            assert latex.table_star(table).count(said) == 2  # a comment, and the caption
            start = said if grid is smoke else "reduced run: "
            assert json.loads(writers.as_json(table))["statement"].startswith(start)
            assert {record["statement"] for record in records(table)} == {said}
    text = statement.of(Work(reduced.folder)).text
    for word in ("WRN-10-2", "4,000 steps", "1,000 test images", "JPEG-recompressed", "179,000 steps"):
        assert word in text


def test_a_full_run_is_called_so_only_where_it_is_the_papers_experiment(tmp_path):
    grid = WorkFolder(tmp_path / "work", profile="full", images=10_000)
    same = {"network": "WRN-28-10", "checkpoint": 179_000, "provenance": "cifar10 (original files)"}
    grid.white_box("rvs", {"natural": 90.0}, **same)
    assert statement.of(Work(grid.folder)).caveat == ""
    differing = [
        ({"network": "WRN-10-1"}, "WRN-28-10"),
        ({"checkpoint": 1000}, "179,000 steps"),
        ({"provenance": "x, JPEG-recompressed images: not the original pixels"}, "JPEG"),
        ({"training_flags": {"max_train_images": 2000}}, "whole training set"),
    ]
    for changes, word in differing:
        grid.white_box("rvs", {"natural": 90.0}, **(same | changes))
        said = statement.of(Work(grid.folder))
        assert "not the paper's experiment" in said.short
        assert word in said.caveat


def test_images_and_provenance_stand_over_every_group(grid):
    grid.complete()
    for part in tables.TITLES:
        table, _ = build(grid, part)
        for group in table.groups:
            assert "1,000 test images of cifar10 3.0.2 (tensorflow-datasets), JPEG-recompressed" in group.about


def test_the_json_tells_where_a_number_comes_from(grid):
    grid.complete()
    content = json.loads(writers.as_json(build(grid, "table3")[0]))
    (found,) = (c for c in content["cells"] if (c["row"], c["setting"], c["attack"]) ==
                ("rvs", "transfer from at", "pgd-20"))  # fmt: skip
    (run,) = found["measured"]["runs"]
    assert run["run"] == "cifar10/rvs-0a1b2c3d/seed-0"
    assert (run["checkpoint"], run["classifier_sha256"], run["images"]) == (4000, "sha-of-rvs-0", 1000)
    assert run["protocol"]["steps"] == 20
    assert run["surrogate"]["classifier_sha256"] == "sha-of-at-0"
    assert (grid.folder / run["file"]).exists()
    assert content["runs"][run["run"]]["training_flags"]["depth"] == 10
    assert found["published"]["source"] == "Table III of the paper"


def test_latex_escapes_what_it_must():
    text = latex.escaped(r"50 % & svhn_cropped #1 {x} \y ~ ^ ± ε 8×8 − – † < L∞")
    assert text == (
        r"50 \% \& svhn\_cropped \#1 \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} {\scriptsize$\pm$} "
        r"$\varepsilon$ 8$\times$8 $-$ -- \textsuperscript{\dag} \textless{} $\ell_\infty$"
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_compiles(tmp_path):
    grid = WorkFolder(tmp_path / "work", profile="smoke", dataset="svhn_cropped", advgan_widths=[1, 8]).complete()
    for part in tables.TITLES:
        writers.write(build(grid, part)[0], tmp_path)
    document = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}"
    document += "".join(rf"\input{{{part}.tex}}" for part in tables.TITLES) + r"\end{document}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_structure_of_the_latex(grid):
    text = latex.table_star(build(grid.complete())[0])
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {row.count(" & ") + 1 for row in rows} == {len(columns)}


def test_the_terminal_shows_ours_beside_theirs(grid):
    grid.white_box("rvs", {"pgd-20": 50.0})
    console = Console(width=100, record=True, file=io.StringIO())
    writers.show(build(grid)[0], console)
    shown = console.export_text()
    (line,) = (line.split() for line in shown.splitlines() if "PGD-20" in line and "50.00" in line)
    assert line == ["PGD-20", "50.00", "±", "1.58", "57.50", "−7.50"]
    assert "Bilateral" not in shown


def test_files_are_written_whole_and_the_same_again(grid, tmp_path):
    table, _ = build(grid.complete())
    writers.write(table, tmp_path / "report")
    first = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert set(first) == {f"table2.{ending}" for ending in writers.ENDINGS}
    writers.write(build(grid)[0], tmp_path / "report")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
