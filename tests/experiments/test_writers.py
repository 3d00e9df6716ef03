"""A table's forms: what they say is measured was, what they say is published is, and each says what the run was."""

import io
import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from work_folder import WorkFolder, build, lines, records

from experiments import latex, published, statement, writers
from experiments.measured import Work
from experiments.rows import column_of
from experiments.statement import SMOKE


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


TABLES = ("table2", "table3", "table4")
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
    heads = {column_of(attack).label: attack for attack in table.groups[0].attacks}
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
        for part in TABLES:
            table, _ = build(grid, part)
            assert said in writers.markdown(table).split("##")[0]
            assert latex.table_star(table).count(said) == 2  # a comment, and the caption
            start = said if grid is smoke else "reduced run: "
            assert json.loads(writers.as_json(table))["statement"].startswith(start)
            assert {record["statement"] for record in records(table)} == {said}
    text = statement.build(Work(reduced.folder)).text
    for word in ("WRN-10-2", "4,000 steps", "1,000 test images", "JPEG-recompressed", "179,000 steps"):
        assert word in text


def test_a_full_run_is_called_so_only_where_it_is_the_papers_experiment(tmp_path):
    grid = WorkFolder(tmp_path / "work", profile="full", images=10_000)
    same = {"network": "WRN-28-10", "checkpoint": 179_000, "provenance": "cifar10 (original files)"}
    grid.white_box("rvs", {"natural": 90.0}, **same)
    assert statement.build(Work(grid.folder)).caveat == ""
    differing = [
        ({"network": "WRN-10-1"}, "WRN-28-10"),
        ({"checkpoint": 1000}, "179,000 steps"),
        ({"provenance": "x, JPEG-recompressed images: not the original pixels"}, "JPEG"),
        ({"training_flags": {"max_train_images": 2000}}, "whole training set"),
    ]
    for changes, word in differing:
        grid.white_box("rvs", {"natural": 90.0}, **(same | changes))
        said = statement.build(Work(grid.folder))
        assert "not the paper's experiment" in said.short
        assert word in said.caveat


def test_the_json_tells_where_a_number_comes_from(grid):
    grid.complete()
    content = json.loads(writers.as_json(build(grid, "table3")[0]))
    (found,) = (
        c for c in content["cells"] if (c["row"], c["setting"], c["attack"]) == ("rvs", "transfer from at", "pgd-20")
    )
    (run,) = found["measured"]["runs"]
    assert run["run"] == "cifar10/rvs-0a1b2c3d/seed-0"
    assert (run["checkpoint"], run["classifier_sha256"], run["images"]) == (4000, "sha-of-rvs-0", 1000)
    assert run["protocol"]["steps"] == 20
    assert run["surrogate"]["classifier_sha256"] == "sha-of-at-0"
    assert (grid.folder / run["file"]).exists()
    assert content["runs"][run["run"]]["training_flags"]["depth"] == 10
    assert content["runs"][run["run"]]["trained"]["git_revision"] == "fedcba9"
    assert found["published"]["source"] == "Table III of the paper"


def test_the_csv_tells_who_measured_and_trained_when_and_where(grid):
    grid.complete()
    cells = records(build(grid)[0])
    (natural,) = (cell for cell in cells if (cell["row"], cell["attack"]) == ("rvs", "natural"))
    assert [natural[f"measured_{name}"] for name in ("seeds", "git_revision", "machine", "date")] == [
        *("0", "0123abc", "4 cores of a processor", "2026-03-01")
    ]
    assert [natural[f"trained_{name}"] for name in ("git_revision", "machine", "date")] == [
        *("fedcba9", "a graphics card", "2026-02-01")
    ]


def test_an_attack_that_was_measured_earlier_than_the_file_says(grid):
    grid.white_box("rvs", {"natural": 90.0, "pgd-20": 40.0})
    path = grid.path("rvs", "white-box-table2.json")
    (content,) = json.loads(path.read_text())
    content["attacks"]["natural"]["environment"] = {"git_revision": "earlier", "date": "2025-12-31"}
    path.write_text(json.dumps([content]))
    table = build(grid)[0]
    revisions = {cell["attack"]: cell["measured_git_revision"] for cell in records(table) if cell["row"] == "rvs"}
    assert (revisions["natural"], revisions["pgd-20"]) == ("earlier", "0123abc")
    said = json.loads(writers.as_json(table))
    revisions = {
        cell["attack"]: [run["git_revision"] for run in cell["measured"]["runs"]]
        for cell in said["cells"]
        if cell["row"] == "rvs" and cell.get("measured")
    }
    assert revisions == {"natural": ["earlier"], "pgd-20": ["0123abc"]}


def test_latex_escapes_what_it_must():
    text = latex.escaped(r"50 % & svhn_cropped #1 {x} \y ~ ^ ± ε 8×8 − – † < L∞")
    assert text == (
        r"50 \% \& svhn\_cropped \#1 \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} {\scriptsize$\pm$} "
        r"$\varepsilon$ 8$\times$8 $-$ -- \textsuperscript{\dag} \textless{} $\ell_\infty$"
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_compiles(tmp_path):
    grid = WorkFolder(tmp_path / "work", profile="smoke", dataset="svhn_cropped", advgan_widths=[1, 8]).complete()
    for part in TABLES:
        writers.write(build(grid, part)[0], tmp_path)
    document = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}"
    document += "".join(rf"\input{{{part}.tex}}" for part in TABLES) + r"\end{document}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_structure_of_the_latex(grid):
    text = latex.table_star(build(grid.complete())[0])
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {row.count(" & ") + 1 for row in rows} == {len(columns)}


@pytest.mark.parametrize("part", TABLES)
@pytest.mark.parametrize("profile", ["smoke", "reduced"])
def test_the_caption_of_the_latex_has_two_lines_and_no_number_of_its_own(tmp_path, part, profile):
    grid = WorkFolder(tmp_path / "work", profile=profile, advgan_widths=[1, 8]).complete()
    text = latex.table_star(build(grid, part)[0])
    (caption,) = re.findall(r"\\caption\[\{.*?\}\]\{(.*)\}\n\\label\{tab:" + part + r"\}", text)
    shown = re.sub(r"\\\w+|[{}$]", "", caption)
    assert 80 < len(shown) < 2 * 100  # signs in a line across two columns
    assert not re.search(r"Table I", shown)
    assert not re.search(r"Table I+V?(?! of the paper)\b", text)
    assert profile in shown.lower()


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
    assert set(first) == {f"table2.{ending}" for ending in ("md", "csv", "tex", "json")}
    writers.write(build(grid)[0], tmp_path / "report")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
