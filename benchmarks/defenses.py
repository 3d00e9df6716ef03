"""What a training iteration of every defence costs, on the same network and batch, with the options of its preset.

  python -m benchmarks.defenses                                       # WRN-10-2, batch 64
  python -m benchmarks.defenses --defenses=at,rvs --depth=34 --width=10 --batch_size=8

A defence's options are those that `experiments.table2` trains it with on CIFAR-10. Columns: `forward_passes`, the
convolutions and matrix products of an iteration, counted from its graph, in units of those of a forward pass; then what
was measured, each defence in a process of its own and in turns: seconds (median of the rounds), how many times those of
a natural iteration (median over the rounds), and how much memory the process took beyond its imports. With --json, one
JSON object on the last line.
"""

import contextlib
import dataclasses
import statistics
from typing import Any

import tensorflow as tf

from benchmarks import flops, iteration, machine, report
from benchmarks.iteration import DEFENSES, Network
from benchmarks.report import Benchmark
from benchmarks.turns import Contender, take_turns
from experiments.grid import preset
from madry_cifar import build
from madry_cifar.cli import flags
from madry_cifar.cli.settings import option
from madry_cifar.training import registry

BASE = "natural"


def options_of(name: str) -> dict[str, Any]:
    """The options of a defence as its preset for CIFAR-10 has them, but for batch size and learning rates."""
    kind, given = registry.find(name).Options, preset("cifar10", name)
    left_out = ("batch_size", "learning_rates", "learning_rate_boundaries", "learning_rate_epochs")
    names = {field.name for field in dataclasses.fields(kind)} - {*left_out}
    return kind.parse({name: given[name] for name in names & given.keys()}).pick(*sorted(names & given.keys()))


def measure(names: list[str], settings: dict, repeats: int) -> dict:
    """`iterations`: a row for each defence, as the module's head says, the natural one first."""
    chosen = {name: settings | {"defense": name, "options": options_of(name)} for name in dict.fromkeys([BASE, *names])}
    counted = {name: flops.count(iteration.ours(each).get_concrete_function()) for name, each in chosen.items()}
    classifier = build(settings | {"defense": BASE}).classifier
    images, _ = iteration.batch(settings["batch_size"])
    forward = tf.function(lambda: classifier(images).logits, autograph=False)
    of_forward = flops.count(forward.get_concrete_function())
    with contextlib.ExitStack() as stack:
        programs = {name: {"program": "ours", "settings": each} for name, each in chosen.items()}
        contenders = [
            stack.enter_context(Contender(name, "benchmarks.iteration", program)) for name, program in programs.items()
        ]
        take_turns(contenders, repeats + 1, lambda: None)
        rows = [_row(contender, contenders[0], counted[contender.name] / of_forward) for contender in contenders]
    return {"iterations": rows}


def _row(contender, natural, forward_passes):
    pairs = zip(contender.seconds[1:], natural.seconds[1:], strict=True)
    return {
        "defense": contender.name,
        "forward_passes": forward_passes,
        "seconds": statistics.median(contender.seconds[1:]),
        "times_natural": statistics.median(one / other for one, other in pairs),
        **contender.end(),
    }


class DefensesSettings(Network, Benchmark):
    """Which defences are compared."""

    defenses: tuple[str, ...] = option((), f"with commas [{','.join(DEFENSES)}]", choices=DEFENSES)


def main() -> None:
    """Measures as the flags say, and prints."""
    settings = flags.read(DefensesSettings)
    names = settings.defenses or DEFENSES
    sizes = settings.pick("depth", "width", "batch_size", "jit_compile")
    measured = measure(names, sizes | {"precision": "float32"}, settings.repeats)
    about = {"machine": machine.describe(), "settings": sizes | {"repeats": settings.repeats}}
    report.show({"benchmark": "defenses"} | about | measured, settings.json)


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", DefensesSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
