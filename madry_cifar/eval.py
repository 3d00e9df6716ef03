"""Follows a run: evaluates each new checkpoint in its folder, into TensorBoard and the folder's results.

  python -m madry_cifar.eval --train_dir=runs/at --attacks=natural,pgd-20

Checkpoints that have these results already are not evaluated again. Ctrl-C ends it.
"""

import time

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Checkpoint, like, option
from madry_cifar.evaluation.run_evaluation import Evaluation, accuracies
from madry_cifar.evaluation.settings import EvaluationSettings
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.summaries import record_evaluation

POLL_SECONDS = 5


class EvalSettings(EvaluationSettings):
    """An evaluation of every checkpoint, as they come."""

    train_dir: str = like(Checkpoint, "train_dir")
    timeout: int = option(0, "seconds to wait for a new checkpoint; 0 is until the run has ended", minimum=0)


def main() -> None:
    """Evaluates as the flags say, until the run has ended or no checkpoint has come for --timeout seconds."""
    settings = flags.read(EvalSettings)
    train_dir, timeout = settings.train_dir, settings.timeout
    evaluation = Evaluation(settings)
    seen, waiting_since, told = set(), time.monotonic(), False
    while True:
        new = [step for step in checkpoints.saved_steps(train_dir) if step not in seen]
        for step in new:
            seen.add(step)
            try:
                contents = evaluation.of(step, reuse=True)
            except (UsageError, RunError):
                if step not in checkpoints.saved_steps(train_dir):
                    continue  # the run has deleted it in the meantime (--keep)
                raise
            measured = accuracies(contents)
            record_evaluation(train_dir, step, measured)
            print(f"step {step}: " + ", ".join(f"{name} {value:.2f} %" for name, value in measured.items()), flush=True)
            waiting_since = time.monotonic()
        ended = max(seen, default=0) >= run_folder.read_flags(train_dir)["steps"]
        if ended or (timeout and time.monotonic() - waiting_since > timeout):
            return
        if not new:
            if not told:
                print(f"waiting for checkpoints after step {max(seen, default=0)} (Ctrl-C ends it)", flush=True)
            told = True
            time.sleep(POLL_SECONDS)


def command() -> None:
    """Entry point."""
    flags.define("Evaluation", EvalSettings)
    flags.run(main, __doc__, resumes=True)


if __name__ == "__main__":
    command()
