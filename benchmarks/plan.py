"""How near the transport plan is to the identity: a table, over the scale of features, or over a run's checkpoints.

  python -m benchmarks.plan
  python -m benchmarks.plan --train_dir=runs/rvs

64 features of 640 dimensions are drawn from N(0, s²), and perturbed by N(0, (s/10)²). Of an RvS run, at each of its
checkpoints, they are those of a batch of training images, and of these as the generator perturbs them in training.
"""

import numpy as np
import tensorflow as tf

from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Download, Settings, like, option
from madry_cifar.randomness import normal
from madry_cifar.runs import checkpoints
from madry_cifar.training.construction import build, flags_of_a_classifier
from rvs_tf.defense import RobustnessViaSynthesis
from sinkhorn_tf import sinkhorn_distance, transport_plan
from sinkhorn_tf.cost import squared_euclidean_cost

SCALES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0, 10.0)
COUNT, DIMENSIONS = 64, 640


class PlanSettings(Settings):
    """What the features are of."""

    train_dir: str | None = option(None, "folder of an RvS run; without: drawn features", kind="path")
    data_dir: str | None = like(Download, "data_dir", help="of the run's data [as in its training]")


def compare(x: tf.Tensor, y: tf.Tensor) -> dict[str, float]:
    """The distances of paired features [n, d], and the share of the plan's mass on its diagonal.

    Returns:
      "sinkhorn" and "paired" distance, "diagonal", and "others": the least squared distance of a perturbed feature to
      one that is not its own, in the mean.
    """
    cost = squared_euclidean_cost(x, y).numpy()
    return {
        "sinkhorn": float(sinkhorn_distance(x, y)),
        "paired": float(np.trace(cost) / len(cost)),
        "diagonal": float(tf.linalg.trace(transport_plan(x, y))),
        "others": float(np.mean(np.min(cost + np.diag(np.full(len(cost), np.inf)), axis=0))),
    }


def drawn(scale: float) -> dict[str, float]:
    """Of drawn features, in float64."""
    x, y = (normal([COUNT, DIMENSIONS], (0, k), tf.float64) for k in range(2))
    return compare(scale * x, scale * (x + y / 10))


def trained(settings: PlanSettings) -> dict[int, dict[str, float]]:
    """Of a run, by checkpoint: with batch norm's statistics of the batch, as in training, on its first images.

    Raises:
      UsageError: for a folder that holds no run of RvS.
    """
    run_flags = flags_of_a_classifier(settings.train_dir)
    if run_flags["defense"] != RobustnessViaSynthesis.name:
        raise UsageError("train_dir", settings.train_dir, f"holds a run of --defense={run_flags['defense']}, not rvs")
    folder = settings.data_dir or run_flags.get("data_dir")
    split = data.load(run_flags["dataset"], data_dir=folder).train
    images = tf.cast(split.images[: run_flags["batch_size"]], tf.float32)
    defense, found = build(run_flags, dtype="float32"), {}
    for step in checkpoints.saved_steps(settings.train_dir):
        for name in ("classifier", "generator"):
            checkpoints.load_network(defense.networks[name], name, settings.train_dir, step)
        perturbed = defense.adversarial_images(images, None, tf.constant(step, tf.int64))
        features = (defense.classifier(batch, batch_norm="frozen").features for batch in (images, perturbed))
        found[step] = compare(*(tf.cast(values, tf.float64) for values in features))
    return found


def main() -> None:
    """Prints the table."""
    settings = flags.read(PlanSettings)
    if settings.train_dir:
        rows = {f"{step:,}": seen for step, seen in trained(settings).items()}
    else:
        rows = {f"{scale:g}": drawn(scale) for scale in SCALES}
    first = "step" if settings.train_dir else "s"
    print(f"| {first} | Sinkhorn distance | paired distance | ratio | mass on the diagonal | to the nearest other |")
    print("|--:|--:|--:|--:|--:|--:|")
    for name, seen in rows.items():
        distances = f"{seen['sinkhorn']:.6g} | {seen['paired']:.6g} | {seen['sinkhorn'] / seen['paired']:.6f}"
        print(f"| {name} | {distances} | {seen['diagonal']:.6f} | {seen['others']:.3g} |")


def command() -> None:
    """Entry point."""
    flags.define("Plan", PlanSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
