"""Times a training iteration of any defence at any size, against the machine's own rate in the same run.

  python -m benchmarks.step --defense=rvs --depth=34 --width=10 --batch_size=8

Prints seconds per iteration, images/s, the achieved rate of convolutions and matrix products (counted from the
graph), the same as a share of a measured matrix product, the cost in forward passes, and the peak memory.
With --json, one JSON object on the last line.
"""

import json
import resource
import statistics
import time

import tensorflow as tf
from absl import flags as absl_flags

import rvs_tf  # noqa: F401 (registers the defences)
from benchmarks import flops
from madry_cifar import defense, flags
from madry_cifar.errors import UsageError
from madry_cifar.model import WideResNet, check_size
from madry_cifar.randomness import normal, uniform

FLAGS = absl_flags.FLAGS


def matmul_rate(size: int = 2048, repeats: int = 8) -> float:
    """The rate of a float32 matrix product on this machine, in GFLOP/s (the best of several)."""
    a = normal([size, size], (0, 0))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product().numpy()
    return 2e-9 * size**3 / min(_seconds(product) for _ in range(repeats))


def _seconds(function):
    started = time.perf_counter()
    tf.nest.map_structure(lambda tensor: tensor.numpy(), function())
    return time.perf_counter() - started


def measure(name: str, depth: int, width: int, batch_size: int, repeats: int, jit_compile: bool) -> dict:
    """The measurements of one iteration of the defence called `name`, on random images."""
    rate = matmul_rate()
    classifier = WideResNet(depth, width)
    subject = defense.find(name)(classifier)
    images = uniform([batch_size, 32, 32, 3], (0, 1), 0, 255)
    labels = uniform([batch_size], (0, 2), 0, 10, tf.int32)
    step = tf.function(lambda k: subject.train_step(images, labels, k), jit_compile=jit_compile, autograph=False)
    forward = tf.function(lambda: classifier(images, batch_norm="eval").logits)

    started = time.perf_counter()
    work = flops.count(step.get_concrete_function(tf.TensorSpec([], tf.int64)))
    tf.nest.map_structure(lambda tensor: tensor.numpy(), step(tf.constant(0, tf.int64)))
    first = time.perf_counter() - started
    seconds = statistics.median(_seconds(lambda k=k: step(tf.constant(k, tf.int64))) for k in range(1, repeats + 1))
    achieved = 1e-9 * work / seconds
    return {
        "defense": name,
        "network": f"WRN-{depth}-{width}",
        "batch_size": batch_size,
        "jit_compile": jit_compile,
        "device": tf.config.list_logical_devices()[-1].device_type,
        "first_step_seconds": first,
        "seconds_per_iteration": seconds,
        "images_per_second": batch_size / seconds,
        "gflop_per_iteration": 1e-9 * work,
        "forward_passes_per_iteration": work / flops.count(forward.get_concrete_function()),
        "gflop_per_second": achieved,
        "matmul_gflop_per_second": rate,
        "share_of_matmul": achieved / rate,
        "host_peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Measures as the flags say, and prints."""
    try:
        check_size(FLAGS.depth, FLAGS.width, 10)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    result = measure(FLAGS.defense, FLAGS.depth, FLAGS.width, FLAGS.batch_size, FLAGS.repeats, FLAGS.jit_compile)
    for name, value in result.items():
        print(f"{name.replace('_', ' '):>30}  {f'{value:.4g}' if isinstance(value, float) else value}")
    if FLAGS.json:
        print(json.dumps(result))


def command() -> None:
    """Entry point."""
    define = flags.define
    define("Benchmark", "defense", "rvs", f"one of {', '.join(defense.REGISTRY)}")
    define("Benchmark", "depth", 10, "of the network, 6n + 4", kind=int)
    define("Benchmark", "width", 2, "of the network", kind=int, minimum=1)
    define("Benchmark", "batch_size", 64, "images per iteration", kind=int, minimum=1)
    define("Benchmark", "repeats", 5, "iterations timed; their median is reported", kind=int, minimum=1)
    define("Benchmark", "jit_compile", False, "compile with XLA", kind=bool)
    define("Benchmark", "json", False, "print one JSON object on the last line", kind=bool)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
