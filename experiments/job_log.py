"""Tells which job of the grid begins and ends, of which row, and the time left for all; read by the Snakefile."""

import collections
import logging
import signal
import sys
import time

from experiments.duration import duration
from experiments.parts import PARTS
from experiments.rows import dataset_of, row_of

DOING = {  # by rule, of the row on the data set with the seed
    "train": "training {row}",
    "train_advgan": "training AdvGAN ×{width} against {row}",
    "train_gan": "training the GAN of {row}",
    "evaluate": "attacking {row} for {part}",
    "transfer": "attacking {row} with images made on {surrogate}",
    "attack_over_epsilon": "attacking {row} over ε",
    "diagnose": "looking for masked gradients of {row}",
    "diversity": "measuring the diversity of {row}",
    "latent_space": "the latent space of {row}",
}


def stand_in(logger: logging.Logger) -> None:
    """Tells of the jobs in place of Snakemake's lines on the terminal, but for its warnings and errors.

    From Ctrl-C on nothing is told: that jobs end by it is no error.
    """
    shown = [handler for handler in logger.handlers if not isinstance(handler, logging.FileHandler)]
    for handler in shown:
        handler.setLevel(logging.WARNING)
    shown.append(JobLog())
    logger.addHandler(shown[-1])

    def fall_silent(*arguments):
        for handler in shown:
            handler.addFilter(lambda record: False)
        sys.excepthook = lambda *_: None
        signal.default_int_handler(*arguments)

    signal.signal(signal.SIGINT, fall_silent)


class JobLog(logging.Handler):
    """Takes the records of Snakemake's logger, and prints a line on stderr when a job begins, ends or fails.

    The time left is estimated by what jobs of the same kind took, or of any kind where none has ended yet.
    """

    def __init__(self):
        super().__init__()
        self.number = 0
        self.waiting = collections.Counter()  # jobs that have not ended, by rule
        self.running: dict[int, tuple[str, str, float]] = {}  # by job: rule, what it does, when it began
        self.took = collections.defaultdict(list)  # seconds of those that ended, by rule
        self.started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Follows a record of Snakemake's; others are none of its business."""
        follow = getattr(self, f"_{getattr(record, 'event', None)}", None)
        if follow:
            follow(record)

    def _run_info(self, record):
        self.waiting.update({rule: n for rule, n in record.stats.items() if rule not in ("all", "total")})
        self.number = sum(self.waiting.values())

    def _job_info(self, record):
        if record.rule_name != "all":
            doing = _doing(record.rule_name, record.wildcards)
            self.running[record.jobid] = (record.rule_name, doing, time.monotonic())
            _say(f"{doing} …")

    def _job_finished(self, record):
        if record.job_id in self.running:
            rule, doing, began = self.running.pop(record.job_id)
            self.took[rule].append(time.monotonic() - began)
            self.waiting[rule] -= 1
            done = self.number - sum(self.waiting.values())
            said = f"{doing}: done in {duration(self.took[rule][-1])}; {done} of {self.number} jobs"
            _say(said + (f", about {duration(self.left())} left" if done < self.number else ""))

    def _job_error(self, record):
        if record.jobid in self.running:
            _say(f"{self.running.pop(record.jobid)[1]}: failed")

    def left(self) -> float:
        """Seconds until all jobs have ended, if as many run at once as so far."""
        ended = [seconds for times in self.took.values() for seconds in times]
        means = {rule: sum(times) / len(times) for rule, times in self.took.items()}
        work = sum(n * means.get(rule, sum(ended) / len(ended)) for rule, n in self.waiting.items())
        return (time.monotonic() - self.started) * work / sum(ended)


def _doing(rule, wildcards):
    """What a job does, in words."""
    if rule not in DOING:
        return f"writing {PARTS[rule].label if rule in PARTS else rule}"
    names = {"row": row_of(wildcards["row"].rpartition("-")[0]).label}
    if "surrogate" in wildcards:
        names["surrogate"] = row_of(wildcards["surrogate"]).label
    if "part" in wildcards:
        names["part"] = PARTS[wildcards["part"]].label
    doing = DOING[rule].format(**{**wildcards, **names})
    return f"{doing} on {dataset_of(wildcards['dataset']).label}, seed {wildcards['seed']}"


def _say(line):
    print(line, file=sys.stderr, flush=True)
