"""Every table and figure, end to end: the smoke profile on digits, and what a later call does and does not do again."""

import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

from experiments import layout

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = ("experiments.all", "--profile=smoke", "--defenses=natural,at,rvs")  # of eight: others are only more rows


@pytest.fixture(scope="session")
def work(start, tmp_path_factory):
    """The work folder of a finished smoke run. Not to be written to."""
    folder = tmp_path_factory.mktemp("grid") / "work"
    process = start(*SMOKE, f"--work_dir={folder}")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    (folder / "stdout.txt").write_text(out)
    return folder


@pytest.fixture
def copied(work, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(work, tmp_path / "work")
    return tmp_path / "work"


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "experiments" / "Snakefile", "--nocolor"]
    command += ["--directory", folder, "--configfile", folder / "config.json", "--cores", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def due(folder):
    """The jobs that Snakemake would run, as a sorted list of rule and row."""
    plan = snakemake(folder, "--dry-run")
    found = re.findall(r"^(?:local)?rule (\w+):(?:\n    .*)*?\n    output: (\S+)", plan, re.MULTILINE)
    return sorted((rule, *re.findall(r"digits/(\w+)-\w+/", output)) for rule, output in found)


def test_everything_is_there_and_marked(work):
    report = work / "report"
    for names in layout.REPORT_FILES.values():
        for name in names:
            assert (report / name).stat().st_size > 500
    for name in ("report.html", *(f"table{n}.{ending}" for n in (2, 3, 4) for ending in ("md", "csv", "tex", "json"))):
        assert "smoke" in (report / name).read_text().lower()
    assert "smoke" in (work / "stdout.txt").read_text().lower()


def test_table_2_shows_what_the_runs_say(work):
    """Each cell against the file of its run, read here on its own."""
    with (work / "report" / "table2.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["measured"]]
    assert {line["row"] for line in lines} == {"natural", "at", "rvs"}
    for line in lines:
        (content,) = json.loads((work / line["measured_file"]).read_text())
        assert float(line["measured"]) == pytest.approx(content["attacks"][line["attack"]]["accuracy"], abs=0.005)
        assert content["images"] == 50


def test_nothing_is_done_twice(work):
    assert due(work) == []


def test_a_lost_result_is_measured_again_and_nothing_else(copied):
    (lost,) = copied.glob("results/digits/paired-*/seed-0/white-box-table4.json")
    lost.write_text("{")
    assert due(copied) == [("evaluate", "paired"), ("report",), ("table4",)]
    assert (
        "white-box-table4.json: damaged; measured again" in snakemake(copied, "--dry-run", "report")
        or not lost.exists()
    )


def test_a_run_that_vanished_is_trained_again(copied):
    (run,) = copied.glob("runs/digits/noreg_ot-*")
    shutil.rmtree(run)
    assert due(copied) == [("evaluate", "noreg_ot"), ("report",), ("table4",), ("train", "noreg_ot")]


def test_checkpoints_that_vanished_are_made_again(copied):
    (checkpoints,) = copied.glob("runs/digits/noreg_ot-*/seed-0/checkpoints")
    shutil.rmtree(checkpoints)
    assert due(copied) == [("evaluate", "noreg_ot"), ("report",), ("table4",), ("train", "noreg_ot")]


def test_a_changed_attack_is_measured_again_without_training(copied):
    config = json.loads((copied / "config.json").read_text())
    config["epsilons"] = [0, 8]
    (copied / "config.json").write_text(json.dumps(config))
    jobs = due(copied)
    assert jobs == [("attack_over_epsilon", "at"), ("attack_over_epsilon", "rvs"), ("figure2",), ("report",)]


def test_extended_columns_add_measurements_alone(copied, run):
    status, out, err = run(*SMOKE, "--columns=extended", f"--work_dir={copied}", "--plan")
    assert (status, err) == (0, "")
    assert "as if every image withstood every attack" in out
    jobs = re.findall(r"^  (\w+)  \S*?(?:digits/(\w+)-\w+/seed-0/([\w.-]+))?$", out, re.MULTILINE)
    rows = ("at", "natural", "rvs")
    expected = [("evaluate", row, "white-box-table2.json") for row in rows]
    expected += [("diagnose", row, "diagnosis.json") for row in rows]
    assert sorted(job for job in jobs if job[1]) == sorted(expected)
    assert {job[0] for job in jobs if not job[1]} == {"table2", "report"}


def test_a_changed_setting_trains_what_has_it(copied, run):
    given = ("--label_smoothing=0.3", f"--work_dir={copied}", "--plan")
    status, out, err = run(*SMOKE, *given)
    assert (status, err) == (0, "")
    jobs = re.findall(r"^  train  runs/digits/(\w+)-", out, re.MULTILINE)
    assert sorted(jobs) == ["noreg_ot", "otreg_xent", "paired", "rvs"]
    assert "digits rvs was trained with other settings here (--label_smoothing)" in out


def test_killed_and_continued(start, tmp_path):
    """A second command is refused; after SIGKILL the same one goes on, in spite of the lock; SIGTERM saves first."""
    command = (
        "experiments.table2",
        "--profile=smoke",
        "--defenses=natural",
        "--images=10",
        "--steps=120",
        "--learning_rate_boundaries=100",
        "--checkpoint_every=5",
        "--advgan_widths=",
        f"--work_dir={tmp_path}",
    )
    process = start(*command)
    process.until(lambda: list(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    snakemake_itself = json.loads((tmp_path / ".owner.json").read_text())["process"]
    os.killpg(snakemake_itself, signal.SIGSTOP)  # so that it cannot end while the second command starts
    _, err = (second := start(*command)).communicate()
    assert second.returncode == 2
    assert f"--work_dir={tmp_path}: in use by process {snakemake_itself}" in err
    os.killpg(snakemake_itself, signal.SIGKILL)
    assert list(tmp_path.glob(".snakemake/locks/*"))

    saved = set(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index"))
    process = start(*command)
    process.until(lambda: set(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index")) - saved)
    process.terminate()
    out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "going on after step" in out
    assert "error: stopped by SIGTERM; the same command goes on where it stopped" in err.splitlines()[-1]

    process = start(*command)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on after step" in out
    assert (tmp_path / "report" / "table2.csv").exists()
