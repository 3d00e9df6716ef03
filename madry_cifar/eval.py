"""Follows a run: evaluates each new checkpoint in its folder, into TensorBoard and the folder's results.

  python -m madry_cifar.eval --train_dir=runs/at --attacks=natural,pgd-20

Checkpoints that have these results already are not evaluated again. Ctrl-C ends it.
"""

import pathlib
import time

from absl import flags as absl_flags

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.evaluation.run_evaluation import Evaluation, accuracies, define_flags
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.summaries import Summaries

FLAGS = absl_flags.FLAGS
POLL_SECONDS = 5


def main() -> None:
    """Evaluates as the flags say, until the run has ended or no checkpoint has come for --timeout seconds."""
    evaluation = Evaluation()
    summaries = Summaries(pathlib.Path(FLAGS.train_dir) / "evaluation")
    seen, waiting_since = set(), time.monotonic()
    while True:
        new = [step for step in checkpoints.saved_steps(FLAGS.train_dir) if step not in seen]
        for step in new:
            seen.add(step)
            try:
                contents = evaluation.of(step, reuse=True)
            except (UsageError, RunError):
                if step not in checkpoints.saved_steps(FLAGS.train_dir):
                    continue  # the run has deleted it in the meantime (--keep)
                raise
            measured = accuracies(contents)
            summaries.scalars(step, {f"evaluation/{name}": value for name, value in measured.items()})
            summaries.flush()
            print(f"step {step}: " + ", ".join(f"{name} {value:.2f} %" for name, value in measured.items()), flush=True)
            waiting_since = time.monotonic()
        ended = max(seen, default=0) >= run_folder.read_flags(FLAGS.train_dir)["steps"]
        if ended or (FLAGS.timeout and time.monotonic() - waiting_since > FLAGS.timeout):
            return
        if not new:
            time.sleep(POLL_SECONDS)


def command() -> None:
    """Entry point."""
    define_flags(checkpoint=False)
    flags.define(
        "Evaluation",
        "timeout",
        0,
        "seconds to wait for a new checkpoint; 0 is until the run has ended",
        kind=int,
        minimum=0,
    )
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
