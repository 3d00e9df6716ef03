"""Trains and attacks natural, PGD adversarial (AT) and RvS training side by side, small, on handwritten digits.

  python -m experiments.demo

Runs the same commands that a user would type, and prints each. A few minutes on two cores; nothing is downloaded.
"""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Settings, option

NETWORK = "--dataset=digits --depth=10 --width=1 --batch_size=64 --learning_rates=0.1,0.01 --eval_every=0"
TRAINING = {
    "natural": "--steps=200 --learning_rate_boundaries=150",
    "at": "--steps=200 --learning_rate_boundaries=150",
    "rvs": "--steps=300 --learning_rate_boundaries=200",
}
EVALUATION = "--attacks=natural,fgsm,pgd-20,cw-20"
CAVEAT = """\
What this shows: the trainings and the attacks at work. Natural training is expected to fall under attack, PGD
adversarial training (at) to hold; here {natural:.0f} % against {at:.0f} % remain under PGD-20. What it does not show:
the paper's results. RvS is run as it is, but on digits, with some 76,000 weights for some hundred steps; the paper
trains 36 to 46 million weights on CIFAR-10 for 179,000 steps.
ε = 8 of 255 grey levels, steps of 2; accuracy in percent on {images} test images, one seed."""


class DemoSettings(Settings):
    """Where the demo works."""

    work_dir: str = option("runs/demo", "folder for the runs; one of a former demo is replaced", kind="path")


def main() -> None:
    """Trains, evaluates and prints the table."""
    folder = pathlib.Path(flags.read(DemoSettings).work_dir)
    if folder.exists() and not (folder / ".demo").exists():
        raise UsageError("work_dir", folder, "exists and is not of a former demo; choose another")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / ".demo").touch()
    results = {}
    for defense, settings in TRAINING.items():
        train_dir = folder / defense
        given = [f"--defense={defense}", f"--train_dir={train_dir}", *NETWORK.split(), *settings.split()]
        _run("rvs_tf.train", *given)
        _run("rvs_tf.evaluate", f"--train_dir={train_dir}", *EVALUATION.split())
        (file,) = (train_dir / "results").glob("*.json")
        results[defense] = json.loads(file.read_text())
    Console().print(_table(results))
    held = {defense: content["attacks"]["pgd-20"]["accuracy"] for defense, content in results.items()}
    print(CAVEAT.format(images=results["rvs"]["images"], **held))
    watch = shlex.join([sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)])
    print(f"\nTo watch the curves and images of these runs:\n  {watch}")


def _run(*command):
    shown = f"python -m {shlex.join(command)}"
    print(f"\n$ {shown}", flush=True)
    done = subprocess.run([sys.executable, "-m", *command])
    if done.returncode:
        raise RunError(f"{shown}: ended with status {done.returncode}")


def _table(results):
    table = Table(title="\nAccuracy %", box=box.SIMPLE, title_justify="left")
    for column in ("defence", *results["rvs"]["attacks"]):
        table.add_column(column, justify="left" if column == "defence" else "right")
    for defense, content in results.items():
        table.add_row(defense, *(f"{attack['accuracy']:.1f}" for attack in content["attacks"].values()))
    return table


def command() -> None:
    """Entry point."""
    flags.define("Demo", DemoSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
