"""The report command from end to end, and the page that it writes."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

import pytest
from parsed_page import Page
from work_folder import PROVENANCE, WorkFolder, png

from experiments import figures, report, statement, tables
from experiments.measured import Work
from experiments.parts import PARTS
from experiments.statement import SMOKE


def make(invoke, grid, *flags):
    status, out, err = invoke(report.command, f"--work_dir={grid.folder}", *flags)
    assert status == 0, err
    return out, err


def page(grid):
    return (grid.folder / "report" / "report.html").read_text()


ALL = {"header", "table2", "table3", "table4", "figure2", "figure3", "figure4", "attacks", "runs", "checks", "marks"}


@pytest.fixture(scope="module", params=["smoke", "reduced"])
def made(request, tmp_path_factory):
    """A complete work folder with all parts of its report."""
    folder = tmp_path_factory.mktemp("made") / "a folder"
    grid = WorkFolder(folder, profile=request.param, advgan_widths=[1]).complete()
    work = Work(grid.folder)
    main_files = report.GridReport(work, ["html", *PARTS]).write()
    assert work.problems == []
    assert [path.name for path in main_files][::6] == ["table2.md", "report.html"]
    return grid


def test_everything_is_built_once(invoke, tmp_path, monkeypatch):
    """For the files, the terminal and the page together; and what was written before, for the page alone."""
    grid = WorkFolder(tmp_path / "work").complete()
    built = []

    def counted(build):
        def wrapper(work, *part_and_statement):
            built.append(part_and_statement[0] if part_and_statement else "statement")
            return build(work, *part_and_statement)

        return wrapper

    for module in (tables, figures, statement):
        monkeypatch.setattr(module, "build", counted(module.build))
    make(invoke, grid)
    assert sorted(built) == sorted([*PARTS, "statement"])
    built.clear()
    make(invoke, grid, "--parts=html")
    assert sorted(built) == sorted([*PARTS, "statement"])
    built.clear()
    make(invoke, grid, "--parts=table3")
    assert built == ["statement", "table3"]


def test_what_was_written_before_agrees_with_the_page(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work").complete()
    make(invoke, grid)
    folder = grid.folder / "report"
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    grid.white_box("rvs", {"natural": 12.34, "pgd-20": 1.23})
    make(invoke, grid, "--parts=html")
    assert "12.34" in page(grid)
    for name in ("table2.md", "table2.csv", "table2.tex", "table4.csv"):
        assert (folder / name).read_bytes() != before[name]
        assert "12.34" in (folder / name).read_text()


def test_every_part_says_what_the_run_was(made):
    folder, smoke = made.folder / "report", made.config["profile"] == "smoke"
    names = [f"table{n}.{ending}" for n in (2, 3, 4) for ending in ("md", "csv", "tex", "json")]
    names += [f"figure{n}.{ending}" for n in (2, 3, 4) for ending in ("png", "pdf", "csv")]
    assert {path.name for path in folder.iterdir()} == {*names, "report.html", "model_info"}
    parsed = Page(page(made))
    assert set(parsed.sections) == ALL
    for part in ALL:
        assert parsed.banners[part].strip() == (SMOKE if smoke else "reduced run, not the paper's experiment")
    for word in ("WRN-10-2", "4,000 steps", "1,000 test images", PROVENANCE, "179,000 steps"):
        assert word in parsed.sections["header"]
    for path in folder.rglob("*.*"):
        if path.suffix in (".md", ".csv", ".tex", ".json"):
            assert (SMOKE[1:] in path.read_text()) == smoke


def test_the_page_needs_nothing_from_elsewhere(made):
    text = page(made)
    parsed = Page(text)
    for attribute, link in parsed.links:
        if attribute == "src":
            assert link.startswith("data:image/png;base64,")
        elif link.startswith("#"):
            assert link[1:] in parsed.sections
        else:
            assert not urllib.parse.urlsplit(link).scheme
            assert (made.folder / "report" / urllib.parse.unquote(link)).exists(), link
    assert ("href", "../runs/cifar10/rvs-0a1b2c3d/seed-0/") in parsed.links
    without_images = re.sub(r"base64,[\w+/=]+", "", text)
    for word in ("http:", "https:", "//cdn", "@import", "url(", "<script"):
        assert word not in without_images


def test_date_machine_and_the_files_of_each_table(made):
    parsed = Page(page(made))
    header = " ".join(parsed.sections["header"].split())
    assert "date 2026-03-01 machine 4 cores of a processor" in header
    assert "measured 2026-03-01, 4 cores of a processor" in " ".join(parsed.sections["runs"].split())
    for part in ("table2", "table3", "table4"):
        assert {("href", f"{part}.tex"), ("href", f"{part}.csv")} <= set(parsed.links)


def test_files_of_earlier_versions_say_neither_date_nor_machine(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work", parts=["table2"])
    grid.white_box("rvs", {"natural": 80.0}, date=None, machine=None)
    make(invoke, grid)
    parsed = Page(page(grid))
    assert "machine" not in parsed.sections["header"]
    assert "training time" not in parsed.sections["runs"]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_the_page_is_no_wider_than_a_phone(made, tmp_path):
    """Nothing but the boxes that scroll is wider than the window: published marks and hidden labels stay in them."""
    frame, shown = tmp_path / "frame.html", made.folder / "report" / "report.html"
    frame.write_text(
        f"<iframe id=page src='{shown.as_uri()}' style='width:390px'></iframe><script>"
        "page.onload = () => document.title = 'width ' + page.contentDocument.documentElement.scrollWidth</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--allow-file-access-from-files", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True).stdout
    assert 300 < int(re.search(r"<title>width (\d+)", dom)[1]) <= 390


def test_rows_of_the_page_are_ours_or_the_papers(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work", rows={"table4": ["rvs"]})
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0})
    make(invoke, grid, "--parts=table4,html")
    rows = {}
    for part, kind, entries in Page(page(grid)).rows:
        assert kind in ("measured", "published", "difference", None)
        rows.setdefault((part, kind), []).append([" ".join(entry.split()) for entry in entries])
    assert rows["table4", "measured"] == [["80.00 ± 1.26", "50.00 ± 1.58", "–"]]
    assert rows["table4", "published"] == [
        ["94.46", "24.55", "21.09"],
        ["94.44", "52.01", "36.70"],
        ["94.17", "57.50", "41.21"],
    ]
    assert rows["table4", "difference"] == [["−14.17", "−7.50", "–"]]


def test_what_is_there_and_what_is_missing(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work").complete()
    out, err = make(invoke, grid, "--parts=table2,figure3")
    assert err == ""
    assert out.splitlines()[-2:] == [str(grid.folder / "report" / name) for name in ("table2.md", "figure3.png")]
    assert "Table II. White-box attacks" in out
    assert not (grid.folder / "report" / "report.html").exists()
    make(invoke, grid, "--parts=html")
    parsed = Page(page(grid))
    assert ALL - set(parsed.sections) == {"table3", "table4", "figure2", "figure4"}
    assert "not made yet: table3, table4, figure2, figure4" in parsed.sections["header"]


def test_nothing_measured_at_all(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work", parts=["table2"])
    make(invoke, grid)
    parsed = Page(page(grid))
    assert "nothing measured yet" in parsed.sections["header"]
    assert "94.17" in parsed.sections["table2"]
    assert all(entry.strip() == "–" for _, kind, entries in parsed.rows if kind == "measured" for entry in entries)


def test_text_from_files_is_escaped(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work")
    grid.white_box("rvs", {"natural": 80.0, "<b>x</b>": 1.0}, provenance="<script>alert(1)</script> & | *x*")
    make(invoke, grid, "--parts=table2,html")
    assert "<script" not in page(grid)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page(grid)
    Page(page(grid))
    markdown = (grid.folder / "report" / "table2.md").read_text()
    assert r"\<script\>alert(1)\</script\> & \| \*x\*" in markdown


def test_protocols_and_provenance_are_on_the_page(made):
    parsed = Page(page(made))
    attacks = " ".join(parsed.sections["attacks"].split())
    assert (
        "PGD‑20 0, 8, 20 20 2 cross-entropy yes 1 1,000 white-box, transfer from AT, transfer from Natural" in attacks
    )
    runs = " ".join(parsed.sections["runs"].split())
    for word in (
        "cifar10/rvs-0a1b2c3d/seed-0",
        "sha-of-rvs-0",
        "step 4,000",
        "tensorflow 2.21.0",
        "git 0123abc",
        "--depth=10",
        "clean 80.00, reported 28.00, AutoAttack not measured",
        PROVENANCE,
    ):
        assert word in runs


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A work folder with the extended columns and diagnoses of two runs, and the page of its report."""
    grid = WorkFolder(tmp_path_factory.mktemp("extended") / "work", parts=["table2"])
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0, "apgd-ce": 44.0, "cw-l2-100": 12.0, "autoattack": 40.0})
    grid.diagnosis(
        "rvs", {"steps": "ok", "square": "suspect", "black-box": "not measured"}, surrogate={"defense": "at"}
    )
    grid.diagnosis("at", {"steps": "note"}, surface=None)
    report.GridReport(Work(grid.folder), ["table2", "html"]).write()
    return grid, Page(page(grid))


def test_verdicts_and_evidence_of_each_diagnosis(extended):
    parsed = extended[1]
    text = " ".join(parsed.sections["masking"].split())
    assert "Of rvs: see below." in text
    assert "1,000 test images of" in text
    assert "surrogate: AT" in text
    for row in (
        "steps ok Is steps well? steps: 12.5 ± 3.1",
        "square suspect Is square well? square: 12.5 ± 3.1",
        "black-box not measured Is black-box well?",
        "steps note Is steps well?",
    ):
        assert row in text
    pictures = [link for attribute, link in parsed.links if attribute == "src"]
    assert pictures == ["data:image/png;base64," + base64.b64encode(png(640, 4)).decode()]
    assert ("href", "#masking") in parsed.links
    assert parsed.banners["masking"].strip() == "reduced run, not the paper's experiment"


def test_accuracy_after_each_stage_of_autoattack(extended):
    text = " ".join(extended[1].sections["attacks"].split())
    assert "AutoAttack: accuracy after each of its attacks" in text
    stages = "Natural APGD‑CE APGD‑T FAB‑T Square"
    assert f"Run images largest change not finite {stages} CIFAR-10, RvS, seed 0" in text
    assert "1,000 8.000 – 80.00 43.00 42.00 41.00 40.00" in text


def test_protocols_of_strong_attacks(extended):
    text = " ".join(extended[1].sections["attacks"].split())  # no-break spaces too
    assert "C&W L2 (100), radius 127.5 L2: 127.5 100 – margin and distance no 1 1,000 white-box searches: 9" in text
    assert "AutoAttack 8 – – – – 1 1,000 white-box version: standard; stages: APGD-CE, APGD-T, FAB-T, Square" in text
    assert "AutoAttack 40.00" in " ".join(extended[1].sections["runs"].split())


def test_without_extended_columns_nothing_is_said_of_them(made):
    text = page(made)
    for word in ("masking", "AutoAttack leaves", "AutoAttack must", "Not in the paper", "after each of its"):
        assert word not in text


def test_a_damaged_diagnosis_is_told_and_left_out(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work", parts=["table2"])
    grid.diagnosis("rvs", {"steps": "wonderful"})
    grid.diagnosis("at", {"steps": "ok"}, surface="../../elsewhere.png")
    _, err = make(invoke, grid)
    assert "masking" not in Page(page(grid)).sections
    found = {line.partition("cannot be used, taken as missing ")[2] for line in err.splitlines()}
    assert found == {"(check steps: verdict wonderful)", "(its plot ../../elsewhere.png is not beside it)"}


def test_warnings_are_on_the_page_and_on_the_terminal(invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work").complete()
    grid.transfer("rvs", "at", {"pgd-20": 10.0})
    broken = grid.path("paired", "white-box-table2.json")
    broken.write_text("{")
    out, err = make(invoke, grid, "--parts=table3,html")
    assert "the black-box attack (10.00 % left) is stronger" in " ".join(out.split())
    (line,) = err.splitlines()
    assert line.startswith(f"warning: {broken}: cannot be used, taken as missing (")
    parsed = Page(page(grid))
    assert "CIFAR-10, RvS (seed 0), PGD-20, transfer from AT" in parsed.sections["table3"]
    assert str(broken) in parsed.sections["checks"]


def test_it_is_the_same_again_and_elsewhere(made, tmp_path):
    parts = ("table2", "table3", "table4", "html")
    moved = Work(shutil.copytree(made.folder, tmp_path / "elsewhere"))
    files = {path.relative_to(made.folder): path.read_bytes() for path in (made.folder / "report").rglob("*.*")}
    report.GridReport(moved, parts).write()
    assert files == {path: (moved.folder / path).read_bytes() for path in files}
    assert not list((moved.folder / "report").rglob(".*"))


@pytest.mark.parametrize(
    ("flags", "content", "status", "words"),
    [
        ([], None, 2, "--work_dir=: required: work folder"),
        (["--work_dir=nowhere"], None, 2, "--work_dir=nowhere: holds no grid"),
        (["--work_dir={}"], "{", 1, "config.json: damaged"),
        (["--work_dir={}"], "[]", 1, "config.json: damaged"),
        (["--work_dir={}"], '{"schema_version": 2}', 1, "schema version 2"),
        (["--work_dir={}"], '{"schema_version": 1, "profile": "full", "datasets": [], "runs": [3]}', 1, "damaged"),
        (["--work_dir={}", "--output=elsewhere"], "good", 2, "--output=elsewhere: is for --runs"),
        (["--work_dir={}", "--parts=table5"], "good", 2, "--parts=table5: unknown; did you mean 'table"),
    ],
)
def test_what_was_asked_wrongly(flags, content, status, words, invoke, tmp_path):
    grid = WorkFolder(tmp_path / "work")
    if content and content != "good":
        (grid.folder / "config.json").write_text(content)
    ended, _, err = invoke(report.command, *(flag.format(grid.folder) for flag in flags))
    assert (ended, err.count("\n")) == (status, 1)
    assert words in err
    assert not (grid.folder / "report").exists()


@pytest.mark.parametrize(("package", "part"), [("jinja2", "html"), ("matplotlib", "figure2")])
def test_a_missing_package_is_named(package, part, invoke, tmp_path, monkeypatch):
    grid = WorkFolder(tmp_path / "work").complete()
    for module in ("page", "plots"):
        monkeypatch.delitem(sys.modules, f"experiments.{module}", raising=False)
        monkeypatch.delattr(f"experiments.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = invoke(report.command, f"--work_dir={grid.folder}", f"--parts={part}")
    assert (status, err.count("\n")) == (2, 1)
    assert f"{package} is not installed" in err
    assert 'pip install -e ".[experiments]"' in err
    status, _, err = invoke(report.command, f"--work_dir={grid.folder}", "--parts=table2")  # which needs neither
    assert status == 0, err


def test_a_full_disk_leaves_nothing_half_written(invoke, tmp_path, monkeypatch):
    grid = WorkFolder(tmp_path / "work").complete()
    make(invoke, grid, "--parts=table2")
    before = json.loads((grid.folder / "report" / "table2.json").read_text())
    grid.white_box("rvs", {"natural": 70.0})

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    status, _, err = invoke(report.command, f"--work_dir={grid.folder}", "--parts=table2")
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device" in err
    assert json.loads((grid.folder / "report" / "table2.json").read_text()) == before
    assert not [path for path in (grid.folder / "report").iterdir() if path.name.startswith(".")]
