"""Every table and figure, end to end: the smoke profile on digits, and what a later call does and does not do again."""

import csv
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiments import all as everything
from experiments import layout, plan, report

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = (
    "--profile=smoke",
    "--defenses=natural,rvs",  # of eight: others are only more rows. AT is a surrogate, and in Figure 2
    # Smaller yet than the profile: the same commands, files and tables, whatever the networks have learned.
    "--batch_size=16",
    "--steps=8",
    "--learning_rate_boundaries=6",
    "--max_train_images=320",
    "--images=10",
    "--epsilons=0,8",
    "--advgan_epochs=1",
    "--draws=5",
    "--diversity_images=10",
)

SIGNS = "it's {mine}; $(touch ran) & `touch ran`"  # in a path


@pytest.fixture(scope="session")
def work(start, tmp_path_factory):
    """The work folder of a finished smoke run, with signs of the shell in every path. Not to be written to."""
    folder = tmp_path_factory.mktemp("grid") / SIGNS
    process = start("experiments.all", *SMOKE, f"--work_dir={folder}", f"--data_dir={folder.parent / 'data' / SIGNS}")
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    (folder / "stdout.txt").write_text(out)
    (folder / "stderr.txt").write_text(err)
    return folder


@pytest.fixture
def copied(work, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(work, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def planned(invoke, copied, monkeypatch):
    """planned(*flags) calls the command with --plan; how long a step takes is not measured: test_command.py does."""
    monkeypatch.setattr(plan, "_training_step", lambda *_: 1.0)
    monkeypatch.setattr(plan, "_attack_step", lambda *_: 1.0)

    def planned(*flags):
        status, out, err = invoke(everything.command, *SMOKE, *flags, f"--work_dir={copied}", "--plan")
        assert status == 0, err
        return out

    return planned


def snakemake(folder, *arguments, python=sys.executable):
    command = [python, "-m", "snakemake", "--snakefile", ROOT / "experiments" / "Snakefile", "--nocolor"]
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


def test_nothing_in_a_path_is_run_by_the_shell(work):
    assert not list(work.parent.rglob("ran"))
    for file in work.glob("runs/digits/*/seed-0/flags.json"):
        assert json.loads(file.read_text())["flags"]["data_dir"] == str(work.parent / "data" / SIGNS)


def test_the_path_of_the_interpreter_is_quoted(copied, tmp_path):
    """Python in an environment whose path has a space: each job's command line begins with that one word."""
    environment = tmp_path / "my env"
    environment.mkdir()
    for name in ("lib", "pyvenv.cfg"):
        (environment / name).symlink_to(pathlib.Path(sys.prefix) / name)
    (environment / "bin").mkdir()
    python = environment / "bin" / "python"
    python.symlink_to(sys.executable)
    shutil.rmtree(copied / "runs")
    out = snakemake(copied, "--dry-run", "--printshellcmds", python=python)
    commands = [words for line in out.splitlines() if " -m rvs_tf." in line for words in [shlex.split(line)]]
    assert len(commands) > 10
    for words in commands:
        assert (words[words.index("-m") - 1], words[-1].partition("=")[0]) == (str(python), "--data_dir")


def test_each_job_is_told_with_its_row_and_the_time_left(work):
    told = (work / "stderr.txt").read_text().splitlines()
    done = [line for line in told if ": done in " in line]
    assert [int(re.search(r"; (\d+) of ", line)[1]) for line in done] == list(range(1, len(done) + 1))
    assert all(re.search(r"jobs, about .* left$", line) for line in done[:-1])
    assert {line.partition(":")[0] + " …" for line in done} == {line for line in told if line.endswith(" …")}
    for row in ("Natural", "RvS", "noReg + OT"):
        assert f"training {row} on digits, seed 0 …" in told
    assert not [line for line in told if "%|" in line]  # bars of two jobs at once would overwrite one another
    assert (work / "stdout.txt").read_text().splitlines()[-1].endswith(f": {work / 'report' / 'report.html'}")


def test_table_2_shows_what_the_runs_say(work):
    """Each cell against the file of its run, read here on its own."""
    with (work / "report" / "table2.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["measured"]]
    assert {line["row"] for line in lines} == {"natural", "rvs"}
    for line in lines:
        (content,) = json.loads((work / line["measured_file"]).read_text())
        assert float(line["measured"]) == pytest.approx(content["attacks"][line["attack"]]["accuracy"], abs=0.005)
        assert content["images"] == 10


def test_each_row_has_a_gallery(work, digits):
    """Of the images that were evaluated, within ε, with what the evaluation saw in them."""
    files = sorted((work / "report" / "gallery").rglob("*.json"))
    assert {file.parent.name.split("-")[0] for file in files} == {
        "natural",
        "at",
        "rvs",
        "noreg_ot",
        "otreg_xent",
        "paired",
    }
    assert (work / "report" / "report.html").read_text().count('class="gallery"') == len(files)
    for file in files:
        content = json.loads(file.read_text())
        rows = np.split(tf.io.decode_png(file.with_suffix(".png").read_bytes()).numpy().astype(int), 3)
        natural, adversarial, shown = (np.stack(np.split(row, 6, axis=1)) for row in rows)
        np.testing.assert_array_equal(natural, digits.test.images[:6])
        assert 4 < np.abs(adversarial - natural).max() <= 8
        assert np.abs(shown - 127.5 - 127.5 / 8 * (adversarial - natural)).max() <= 127.5 / 16 + 1  # rounding
        assert content["images"]["labels"] == digits.test.labels[:6].tolist()
        (kept,) = (work / "runs" / file.relative_to(work / "report" / "gallery").with_suffix("")).glob(
            "results/ckpt-8_test-10_eps-8_step-2_seed-0.npz"
        )
        with np.load(kept) as outcomes:
            if file.parent.name.startswith("at-"):  # in Figure 2 alone
                assert "natural" not in outcomes
            else:
                assert content["images"]["natural"] == outcomes["natural"][:6].tolist()
            # batches of another size round differently, which may turn a step around
            assert sum(content["images"]["adversarial"] == outcomes["pgd-20"][:6]) >= 5


def test_a_gallery_is_made_again_when_its_measurement_changes(invoke, copied):
    def reported():
        """Warnings, and the number of galleries."""
        status, _, err = invoke(report.command, f"--work_dir={copied}", "--parts=html")
        assert status == 0
        return err.splitlines(), (copied / "report" / "report.html").read_text().count('class="gallery"')

    files = sorted((copied / "report" / "gallery").rglob("*.json"))
    times = [file.stat().st_mtime_ns for file in files]
    before = files[0].read_text()
    files[0].write_text("{")
    assert reported() == ([], 6)
    assert files[0].read_text() == before
    assert [file.stat().st_mtime_ns for file in files[1:]] == times[1:]
    (measured,) = copied.glob("results/digits/paired-*/seed-0/white-box-table4.json")
    content = json.loads(measured.read_text())
    content[0]["classifier_sha256"] = "another"
    measured.write_text(json.dumps(content))
    (problem,), shown = reported()
    assert "paired" in problem
    assert "no gallery (its checkpoint is another than the one that was measured)" in problem
    assert shown == 5
    shutil.rmtree(copied / "runs")
    assert reported() == ([], 5)


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
    config["epsilons"] = [0, 4]
    (copied / "config.json").write_text(json.dumps(config))
    jobs = due(copied)
    assert jobs == [("attack_over_epsilon", "at"), ("attack_over_epsilon", "rvs"), ("figure2",), ("report",)]


def test_extended_columns_add_measurements_alone(planned):
    out = planned("--columns=extended")
    assert "as if every image withstood every attack" in out
    jobs = re.findall(r"^  (\w+)  \S*?(?:digits/(\w+)-\w+/seed-0/([\w.-]+))?$", out, re.MULTILINE)
    rows = ("natural", "rvs")
    expected = [("evaluate", row, "white-box-table2.json") for row in rows]
    expected += [("diagnose", row, "diagnosis.json") for row in rows]
    assert sorted(job for job in jobs if job[1]) == sorted(expected)
    assert {job[0] for job in jobs if not job[1]} == {"table2", "report"}


def test_a_changed_setting_trains_what_has_it(planned):
    out = planned("--label_smoothing=0.3")
    jobs = re.findall(r"^  train  runs/digits/(\w+)-", out, re.MULTILINE)
    assert sorted(jobs) == ["noreg_ot", "otreg_xent", "paired", "rvs"]
    assert "digits rvs was trained with other settings here (--label_smoothing)" in out
