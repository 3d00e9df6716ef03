"""How near the transport plan is to the identity, over the scale of the features: a Markdown table.

  python -m benchmarks.plan

64 features of 640 dimensions are drawn from N(0, s²), and perturbed by N(0, (s/10)²).
"""

import tensorflow as tf

from madry_cifar.cli import flags
from madry_cifar.randomness import normal
from sinkhorn_tf import sinkhorn_distance, transport_plan

SCALES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0, 10.0)
COUNT, DIMENSIONS = 64, 640


def measure(scale: float) -> dict[str, float]:
    """The Sinkhorn distance, the paired distance and the share of the plan's mass on its diagonal, in float64."""
    x, y = (normal([COUNT, DIMENSIONS], (0, k), tf.float64) for k in range(2))
    x, y = scale * x, scale * (x + y / 10)
    return {
        "sinkhorn": float(sinkhorn_distance(x, y)),
        "paired": float(tf.reduce_mean(tf.reduce_sum(tf.square(x - y), axis=1))),
        "diagonal": float(tf.linalg.trace(transport_plan(x, y))),
    }


def main() -> None:
    """Prints the table."""
    print("| s | Sinkhorn distance | paired distance | ratio | mass on the diagonal |\n|--:|--:|--:|--:|--:|")
    for scale in SCALES:
        seen = measure(scale)
        ratio = seen["sinkhorn"] / seen["paired"]
        print(f"| {scale:g} | {seen['sinkhorn']:.6g} | {seen['paired']:.6g} | {ratio:.6f} | {seen['diagonal']:.6f} |")


def command() -> None:
    """Entry point."""
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
