"""Times the Sinkhorn distance and its gradients beside the same computation unrolled in the graph, and beside peers.

  python -m benchmarks.sinkhorn --n=64 --dimensions=640 --iterations=100

Each program runs in a process of its own, and they take turns. For features of each of --scales: the time of a call,
the time until the first result of a function that was just built (tracing and compiling it), and the difference of
value and gradient from the iterations unrolled in float64. Then the memory of a first call at --memory_n points, and
how the implicit and the envelope gradient differ from the unrolled one. What the peers compute stands at the head of
benchmarks/sinkhorn_programs.py. With --json, one JSON object on the last line.

Points x are drawn from N(0, scale²) and y is x perturbed by N(0, (scale/10)²). From 0.03 on, where
features of small networks lie, our iterations end after one or two, because nothing changes any more; at 0.01 and 0.003
all of them are computed.
"""

import contextlib
import functools
import pathlib
import statistics
import sys
import tempfile

import numpy as np
import tensorflow as tf

from benchmarks import machine, report
from benchmarks.report import Benchmark
from benchmarks.sinkhorn_programs import (
    CALLS,
    PROGRAMS,
    installed,
    needed,
    points,
    unrolled_distance,
    value_and_gradients,
)
from benchmarks.turns import Contender, take_turns
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Settings, like, option
from sinkhorn_tf import sinkhorn_distance, squared_euclidean_cost, transport_plan
from sinkhorn_tf.iterations import iterate

PEERS = ("POT", "ott-jax", "jax", "geomloss", "torch")
GRADIENT_SCALES = (1e-3, 3e-3, 5e-3, 7e-3, 1e-2, 3e-2, 1e-1, 1.0)
MODULE = "benchmarks.sinkhorn_programs"


def exact(settings: dict, gradient: str | None = None) -> list[np.ndarray]:
    """Value and gradients in float64: unrolled by TensorFlow, or ours with the gradient of that name."""
    x, y = (tf.constant(each, tf.float64) for each in points(*(settings[key] for key in ("n", "dimensions", "scale"))))
    distance = functools.partial(sinkhorn_distance, gradient=gradient) if gradient else unrolled_distance
    distance = functools.partial(distance, **{key: settings[key] for key in ("regularization", "iterations")})
    return [each.numpy() for each in value_and_gradients(distance, x, y)]


def relative_error(values, expected) -> float:
    """‖values − expected‖ / ‖expected‖ of several arrays together."""
    flat, true = (np.concatenate([np.ravel(each) for each in arrays]) for arrays in (values, expected))
    return float(np.linalg.norm(flat - true) / np.linalg.norm(true))


def compare(programs: list[str], settings: dict, repeats: int) -> list[dict]:
    """A row for each program, at the settings that `sinkhorn_programs.main` takes."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = {}
        for name in filter(installed, programs):
            given = settings | {"program": name, "results": str(folder / f"{name}.npz")}
            contender = stack.enter_context(Contender(name, MODULE, given))
            if _first_turn(contender):
                contenders[name] = contender
        take_turns(list(contenders.values()), repeats, lambda: None)
        expected = exact(settings)
        rows = []
        for name in programs:
            contender = contenders.get(name)
            if contender:
                contender.end()
                rows.append(_row(contender, contenders["ours"], np.load(folder / f"{name}.npz"), expected))
            else:
                rows.append({"program": _missing(name)})
    return _complete(rows)


def _first_turn(contender):
    """Whether it succeeded; where ours or the unrolled iterations do not, nothing can be compared."""
    try:
        contender.turn()
    except RunError as error:
        if not needed(contender.name):
            raise
        print(error, file=sys.stderr)
        return False
    return True


def _row(contender, ours, results, expected):
    seconds = contender.seconds[1:]
    value, *gradients = results.values()
    return {
        "program": contender.name,
        "milliseconds": 1000 * statistics.median(seconds) / CALLS,
        "times_ours": statistics.median(one / other for one, other in zip(seconds, ours.seconds[1:], strict=True)),
        "first_result_seconds": contender.seconds[0],
        "first_result_times_ours": contender.seconds[0] / ours.seconds[0],
        "error_of_value": relative_error([value], expected[:1]),
        "error_of_gradients": relative_error(gradients, expected[1:]),
    }


def _missing(name):
    return f"{name} ({'failed' if installed(name) else 'not installed'})"


def _complete(rows):
    """The rows with None for what was not measured; the first one is ours and has everything."""
    return [dict.fromkeys(rows[0]) | row for row in rows]


def memory(programs: list[str], settings: dict) -> list[dict]:
    """The memory of a first call of each program alone, beyond its imports and its inputs."""
    rows = []
    for name in programs:
        row = {"program": _missing(name)}
        if installed(name):
            with contextlib.suppress(RunError), Contender(name, MODULE, settings | {"program": name}) as contender:
                contender.turn()
                used = contender.end()["memory_gib"]
                row = {"program": name, "memory_gib": used, "seconds": contender.seconds[0]}
                row["times_ours"] = used / (rows[0]["memory_gib"] if rows else used)
        rows.append(row)
    return _complete(rows)


def gradients(settings: dict) -> list[dict]:
    """For features of several scales: how many iterations float32 needs, how far the plan's rows are from their weight,
    its mass on the diagonal, and the relative difference of the other gradients from the unrolled one in float64."""
    rows = []
    iterations, regularization = settings["iterations"], settings["regularization"]
    for scale in GRADIENT_SCALES:
        x, y = points(settings["n"], settings["dimensions"], scale)
        last = iterate(squared_euclidean_cost(x, y) / -regularization, iterations)[2]
        plan = transport_plan(
            *(tf.constant(each, tf.float64) for each in (x, y)), regularization=regularization, iterations=iterations
        ).numpy()
        unrolled, implicit, envelope = (
            exact(settings | {"scale": scale}, name)[1:] for name in ("unrolled", "implicit", "envelope")
        )
        rows.append(
            {
                "scale": scale,
                "iterations_computed": int(last) + 1,
                "mass_on_the_diagonal": float(np.trace(plan)),
                "error_of_rows": float(np.abs(plan.sum(axis=1) * len(plan) - 1).max()),
                "implicit": relative_error(implicit, unrolled),
                "envelope": relative_error(envelope, unrolled),
            }
        )
    return rows


class Points(Settings):
    """What the distance is of."""

    n: int = option(64, "points in each of the two sets", minimum=1)
    dimensions: int = option(640, "of the points", minimum=1)
    scales: tuple[float, ...] = option(
        (0.01, 1.0), "of the points, with commas; ours ends early from 0.03 on, not at 0.01"
    )
    memory_n: int = option(1024, "points where memory is measured; 0: do not measure it", minimum=0)


class Distance(Settings):
    """How it is computed."""

    iterations: int = option(100, "of Sinkhorn", minimum=1)
    regularization: float = option(0.01, "of the plan", minimum=1e-6)


class Programs(Benchmark):
    """Which programs are compared."""

    programs: tuple[str, ...] = option((), f"with commas, of {', '.join(PROGRAMS)} [all]", choices=PROGRAMS)
    repeats: int = like(Benchmark, "repeats", default=10, help="rounds after the first, of ten calls each")


def main() -> None:
    """Measures as the flags say, and prints."""
    of_points, settings = flags.read(Points), flags.read(Programs)
    programs = list(dict.fromkeys(["ours", *(settings.programs or PROGRAMS)]))
    sizes, scales = of_points.pick("n", "dimensions") | flags.read(Distance).as_dict(), of_points.scales
    if not scales or min(scales) <= 0:
        raise UsageError("scales", scales, "must be positive numbers with commas")
    result = {"benchmark": "sinkhorn", "machine": machine.describe(*PEERS)}
    result["settings"] = sizes | settings.pick("repeats") | of_points.pick("memory_n")
    for scale in scales:
        result[f"features_of_scale_{scale:g}"] = compare(programs, sizes | {"scale": scale}, settings.repeats)
    if of_points.memory_n:
        result["memory"] = memory(programs, sizes | {"n": of_points.memory_n, "scale": scales[0]})
    result["gradients_against_the_unrolled_one"] = gradients(sizes)
    report.show(result, settings.json)


def command() -> None:
    """Entry point."""
    for section, settings in (("Points", Points), ("Distance", Distance), ("Benchmark", Programs)):
        flags.define(section, settings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
