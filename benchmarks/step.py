"""Times a training iteration of any defence at any size, beside others and against what the machine can do.

  python -m benchmarks.step --defense=rvs --depth=34 --width=10 --batch_size=8 --reference=DIR

In one run, each in a process of its own and in turns: our iteration, in each --precision; for RvS also the same
iteration written with Keras's own layers (with our Sinkhorn distance, and with one unrolled in the graph); and, with
--reference, the authors' released training. Tables: seconds per iteration (median), how many times ours the others
take (median over the rounds), the first iteration with all that is built and compiled for it, and how much memory a
process took beyond its imports; then the rate of convolutions and matrix products of our iteration, counted from its
graph, as a share of those same convolutions done one by one, and of a matrix product. With --json, one JSON object on
the last line.
"""

import contextlib
import statistics
from collections.abc import Sequence

import tensorflow as tf

from benchmarks import flops, iteration, machine, released, report
from benchmarks.iteration import Iteration
from benchmarks.rates import Convolutions, MatrixProduct
from benchmarks.report import Benchmark
from benchmarks.turns import Contender, take_turns
from madry_cifar import build
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import like, option
from madry_cifar.networks.architectures import PRECISIONS


class IterationWork:
    """The convolutions and matrix products of our iteration, and how fast this machine does them one by one."""

    def __init__(self, settings: dict):
        function = iteration.ours(settings).get_concrete_function()
        classifier = build(settings | {"defense": "natural"}).classifier
        images, _ = iteration.batch(settings["batch_size"])
        forward = tf.function(lambda: classifier(images).logits, autograph=False)
        self.precision, self.flops = settings["precision"], flops.count(function)
        self.forward_passes = self.flops / flops.count(forward.get_concrete_function())
        self.convolutions = Convolutions(flops.convolutions(function), settings["jit_compile"])
        self.product = MatrixProduct(dtype=settings["precision"])

    def measure(self) -> None:
        """Measures the machine once more."""
        self.convolutions.measure()
        self.product.measure()

    def row(self, seconds: float) -> dict:
        """The rates of an iteration of so many seconds."""
        achieved = 1e-9 * self.flops / seconds
        limits = {"convolutions": self.convolutions, "matrix_product": self.product}
        rates = {name: limit.gflop_per_second for name, limit in limits.items()}
        return {
            "iteration": f"ours, {self.precision}",
            "gflop": 1e-9 * self.flops,
            "forward_passes": self.forward_passes,
            "gflop_per_second": achieved,
            **{f"{name}_gflop_per_second": rate for name, rate in rates.items()},
            **{f"percent_of_{name}": 100 * achieved / rate for name, rate in rates.items()},
        }


def measure(precisions: Sequence[str], settings: dict, keras: bool, reference: str | None, repeats: int) -> dict:
    """The measurements that the module's head describes, as lists of rows; `settings` are those of `iteration.ours`."""
    chosen = [settings | {"precision": precision} for precision in precisions]
    work = [IterationWork(each) for each in chosen]
    programs = [(f"ours, {each['precision']}", {"program": "ours", "settings": each}) for each in chosen]
    if keras:
        programs += [(name, {"program": name, "settings": chosen[0]}) for name in iteration.KERAS]
    with contextlib.ExitStack() as stack:
        contenders = [stack.enter_context(Contender(name, "benchmarks.iteration", each)) for name, each in programs]
        if reference:
            each = {"folder": reference, "batch_size": settings["batch_size"]}
            contenders.append(stack.enter_context(Contender("released code", "benchmarks.released", each)))
        take_turns(contenders, repeats + 1, lambda: [each.measure() for each in work])
        rows = [_row(contender, contenders[0], settings["batch_size"]) for contender in contenders]
    return {
        "iterations": rows,
        "rates": [each.row(row["seconds"]) for each, row in zip(work, rows[: len(work)], strict=True)],
    }


def _row(contender, ours, batch_size):
    seconds = statistics.median(contender.seconds[1:])
    pairs = zip(contender.seconds[1:], ours.seconds[1:], strict=True)
    return {
        "iteration": contender.name,
        "seconds": seconds,
        "times_ours": statistics.median(one / other for one, other in pairs),
        "images_per_second": batch_size / seconds,
        "first_step_seconds": contender.seconds[0],
        **contender.end(),
    }


class StepSettings(Iteration, Benchmark):
    """What it is compared with."""

    precision: tuple[str, ...] = option(
        ("float32",), "of ours: float32, bfloat16, or both with a comma", choices=PRECISIONS
    )
    jit_compile: bool = like(Iteration, "jit_compile", help="compile with XLA (ours and Keras's)")
    keras: bool = option(True, "also RvS's iteration written with Keras's layers")
    reference: str | None = option(None, "folder of the authors' released code, to be timed too (WRN-34-10 alone)")


def main() -> None:
    """Measures as the flags say, and prints."""
    settings = flags.read(StepSettings)
    chosen, precisions = settings.iteration(), settings.precision
    if settings.reference:
        released.check(settings.reference, settings.depth, settings.width)
        if settings.defense != "rvs":
            raise UsageError("reference", settings.reference, "the released code trains --defense=rvs alone")
    keras = settings.keras and settings.defense == "rvs"
    measured = measure(precisions, chosen, keras, settings.reference, settings.repeats)
    about = {"machine": machine.describe(), "settings": chosen | {"repeats": settings.repeats}}
    report.show({"benchmark": "step"} | about | measured, settings.json)


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", StepSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
