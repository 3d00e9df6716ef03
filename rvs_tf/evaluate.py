"""Evaluates a checkpoint of a run under attacks: a table here, JSON and the outcome of each image in its results/.

python -m rvs_tf.evaluate --train_dir=runs/rvs --attacks=natural,fgsm,pgd-7,pgd-20,cw-20
"""

from absl import flags as absl_flags
from rich import box
from rich.console import Console
from rich.table import Table

import rvs_tf  # noqa: F401 (registers the defences)
from madry_cifar import flags
from madry_cifar.run_evaluation import Evaluation, define_flags

FLAGS = absl_flags.FLAGS


def main() -> None:
    """Evaluates as the flags say, and prints the table."""
    evaluation = Evaluation(FLAGS.save_adversarial)
    content = evaluation.of(FLAGS.checkpoint)
    Console().print(table(content, evaluation.names))
    print(content["file"])


def table(content: dict, names: list[str]) -> Table:
    """The results of the named attacks as a table for the terminal."""
    title = (
        f"{content['defense']}, {content['network']}, step {content['checkpoint']}: {content['images']} "
        f"{content['split']} images of {content['provenance']}"
    )
    result = Table(title=title, box=box.SIMPLE, title_justify="left")
    for column in ("attack", "accuracy %", "± std. error", "ε", "steps", "step size", "images/s"):
        result.add_column(column, justify="left" if column == "attack" else "right")
    for name in names:
        entry = content["attacks"][name]
        protocol, share = entry["protocol"], entry["accuracy"] / 100
        error = 100 * (share * (1 - share) / entry["images"]) ** 0.5
        sizes = [f"{protocol[key]:g}" if key in protocol else "" for key in ("epsilon", "steps", "step_size")]
        speed = f"{entry['images'] / max(entry['seconds'], 1e-9):.0f}"
        result.add_row(name, f"{entry['accuracy']:.2f}", f"{error:.2f}", *sizes, speed)
    return result


def command() -> None:
    """Entry point."""
    define_flags()
    help = "keep the adversarial images in results/, a .npy an attack (for madry_cifar.run_attack)"
    flags.define("Evaluation", "save_adversarial", False, help, kind=bool)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
