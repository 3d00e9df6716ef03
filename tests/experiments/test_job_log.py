"""What the grid prints of its jobs, from records as Snakemake logs them."""

import logging
import pathlib

import pytest

from experiments import job_log
from experiments.duration import duration
from experiments.job_log import DOING, JobLog

WILDCARDS = {"dataset": "cifar10", "row": "rvs-0a1b2c3d", "seed": "0"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (86400 * 3, "3.0 days")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def log(monkeypatch):
    """log(event, at=seconds, …) is a record at a time."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    handler = JobLog()

    def log(event, at=0.0, **content):
        now[0] = at
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
        vars(record).update(event=event, **content)
        handler.emit(record)

    return log


def test_a_job_is_told_with_its_row_and_the_time_left(log, capsys):
    log("run_info", stats={"train": 3, "train_advgan": 1, "table2": 1, "all": 1, "total": 6})
    log("job_info", jobid=7, rule_name="train", wildcards=WILDCARDS)
    log("job_info", jobid=8, rule_name="train", wildcards=WILDCARDS | {"row": "at-0a1b2c3d", "seed": "1"})
    log("job_finished", at=100.0, job_id=7)
    log("job_finished", at=300.0, job_id=8)
    assert capsys.readouterr().err.splitlines() == [
        "training RvS on CIFAR-10, seed 0 …",
        "training AT on CIFAR-10, seed 1 …",
        "training RvS on CIFAR-10, seed 0: done in 100 s; 1 of 5 jobs, about 6.7 min left",  # 4 × 100 s
        "training AT on CIFAR-10, seed 1: done in 5.0 min; 2 of 5 jobs, about 7.5 min left",  # 3 × 200 s, 4 in 3 s
    ]
    log("job_info", at=300.0, jobid=9, rule_name="train_advgan", wildcards=WILDCARDS | {"width": "8"})
    log("job_error", at=310.0, jobid=9)
    log("job_info", at=310.0, jobid=10, rule_name="table2", wildcards={})
    assert capsys.readouterr().err.splitlines() == [
        "training AdvGAN ×8 against RvS on CIFAR-10, seed 0 …",
        "training AdvGAN ×8 against RvS on CIFAR-10, seed 0: failed",
        "writing Table II …",
    ]


def test_other_records_are_left_to_snakemake(log, capsys):
    log("shellcmd", cmd="true")
    log(None)
    log("job_finished", job_id=3)  # never begun here
    log("job_info", jobid=1, rule_name="all", wildcards={})
    assert capsys.readouterr() == ("", "")


def test_every_rule_that_computes_has_words():
    lines = pathlib.Path(job_log.__file__).with_name("Snakefile").read_text().splitlines()
    rules = {line.split()[1].rstrip(":") for line in lines if line.startswith("rule ")}
    assert rules == DOING.keys() | {"all", "report"}
