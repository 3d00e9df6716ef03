"""A command for a table that is killed or stopped goes on where it was."""

import json
import os
import signal

from experiments import table2


def test_killed_and_continued(start, invoke, tmp_path):
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
    assert "error: stopped by SIGTERM; the same command goes on where it stopped" in err.splitlines()[-1]

    process = start("experiments.table2", *flags)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on after step" in out
    assert (tmp_path / "report" / "table2.csv").exists()
