"""A command for a table that is killed or stopped says so in a line, and goes on where it was."""

import json
import os
import signal
import time

import pytest

from experiments import table2

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


@pytest.mark.parametrize("seconds", [0.5, 1.5])  # Snakemake is being imported
def test_ctrl_c_while_snakemake_starts(start, tmp_path, seconds):
    process = start("experiments.table2", "--profile=smoke", "--defenses=natural", f"--work_dir={tmp_path}")
    owner = tmp_path / ".owner.json"
    process.until(lambda: owner.exists() and json.loads(owner.read_text())["process"] != process.pid)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert err.splitlines()[-1] == STOPPED.format("SIGINT")
    assert "Traceback" not in err
