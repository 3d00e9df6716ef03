"""A command for a table that is killed or stopped says so in a line, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys

import pytest

from experiments import command, table2

STOPPED = "error: stopped by {}; the same command goes on where it stopped"


@pytest.fixture
def ignored():
    """As in a script, which starts with SIGINT ignored what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_killed_and_continued(start, invoke, tmp_path, ignored):
    """A second command is refused; after SIGKILL the same one goes on, in spite of the lock; SIGTERM saves first."""
    flags = (
        "--profile=smoke",
        "--defenses=natural",
        "--batch_size=16",
        "--images=10",
        "--steps=120",
        "--learning_rate_boundaries=100",
        "--checkpoint_every=5",
        "--advgan_widths=",
        f"--work_dir={tmp_path}",
    )
    process = start("experiments.table2", *flags)
    process.until(lambda: list(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    snakemake_itself = json.loads((tmp_path / ".owner.json").read_text())["process"]
    os.killpg(snakemake_itself, signal.SIGSTOP)  # so that it cannot end while the second command starts
    status, _, err = invoke(table2.command, *flags)
    assert status == 2
    assert f"--work_dir={tmp_path}: in use by process {snakemake_itself}" in err
    os.killpg(snakemake_itself, signal.SIGKILL)
    assert list(tmp_path.glob(".snakemake/locks/*"))

    saved = set(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index"))
    process = start("experiments.table2", *flags)
    process.until(lambda: set(tmp_path.glob("runs/*/*/*/checkpoints/ckpt-*.index")) - saved)
    process.terminate()
    out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "going on after step" in out
    told, saved, stopped = (line for line in err.splitlines() if line.strip() and "%|" not in line)
    assert told == "training Natural on digits, seed 0 …"
    assert saved.startswith("error: stopped by SIGINT after step")
    assert stopped == STOPPED.format("SIGTERM")

    process = start("experiments.table2", *flags)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on after step" in out
    assert (tmp_path / "report" / "table2.csv").exists()


def test_ctrl_c_while_snakemake_is_imported(tmp_path):
    """It ends at once and says nothing; the command tells it, as above."""
    (tmp_path / "snakemake").mkdir()
    (tmp_path / "snakemake" / "__init__.py").touch()
    (tmp_path / "snakemake" / "cli.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    arguments = [sys.executable, "-c", command.SNAKEMAKE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, env=environment, **pipes) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("", "")
    assert process.returncode == -signal.SIGINT
