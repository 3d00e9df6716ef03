"""Measures how time and memory grow: of a training iteration with width and batch, of the Sinkhorn distance with n.

  python -m benchmarks.scaling --widths=1,2,4,8 --batch_sizes=8,16,32,64,128,256 --points=64,128,256,512,1024

Each point is measured in a process of its own: the median time of a call after the first one, and how much memory the
process took beyond its imports. Writes the curves as SCALING.png and .pdf where --plot says. With --json, one JSON
object on the last line.
"""

import itertools
import math
import pathlib
import statistics
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from benchmarks import machine, report
from benchmarks.iteration import Iteration
from benchmarks.report import Benchmark
from benchmarks.turns import Contender
from experiments.plots import COLOURS, MARKERS, STYLE
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.progress import progress_bar
from madry_cifar.cli.settings import Settings, like, option
from madry_cifar.runs.files import replacing

QUANTITIES = {"seconds": "time (s)", "memory_gib": "memory (GiB)"}


class Curve(NamedTuple):
    """What is measured against what: the program of `benchmarks.iteration` and its settings at each `value`.

    `growth` is the power of `over` that the work is proportional to, which the plot shows beside what was measured.
    """

    name: str
    over: str
    growth: int
    points: list[tuple[int, str, dict]]


def curves(settings: dict, widths: list[int], batch_sizes: list[int], points: list[int], dimensions: int):
    """The three curves; `settings` are those of `iteration.ours`."""
    return [
        Curve(
            f"iteration of {settings['defense']}, WRN-{settings['depth']}-w, batch {settings['batch_size']}",
            "width",
            2,
            [(width, "ours", settings | {"width": width}) for width in widths],
        ),
        Curve(
            f"iteration of {settings['defense']}, WRN-{settings['depth']}-{settings['width']}",
            "batch_size",
            1,
            [(size, "ours", settings | {"batch_size": size}) for size in batch_sizes],
        ),
        Curve(
            f"Sinkhorn distance and gradient, {dimensions} dimensions",
            "n",
            2,
            [(n, "sinkhorn", {"n": n, "dimensions": dimensions}) for n in points],
        ),
    ]


def measure(curves: list[Curve], repeats: int) -> dict[str, list[dict]]:
    """The rows of each curve, by what they are measured over; `growth` is the power of it since the row before."""
    rows = {f"over_{curve.over}": [] for curve in curves}
    with progress_bar(sum(len(curve.points) for curve in curves), "point") as bar:
        for curve in curves:
            for value, program, settings in curve.points:
                row = {curve.over: value} | _point(program, settings, repeats)
                rows[f"over_{curve.over}"].append(row)
                bar.update()
    return {name: _with_growth(each) for name, each in rows.items()}


def _point(program, settings, repeats):
    with Contender(program, "benchmarks.iteration", {"program": program, "settings": settings}) as contender:
        for _ in range(repeats + 1):
            contender.turn()
        return {"seconds": statistics.median(contender.seconds[1:])} | contender.end()


def _with_growth(rows):
    over = next(iter(rows[0]))
    result = [rows[0] | {"growth_of_time": None, "growth_of_memory": None}]
    for before, row in itertools.pairwise(rows):
        powers = (math.log(row[name] / before[name]) / math.log(row[over] / before[over]) for name in QUANTITIES)
        result.append(row | dict(zip(("growth_of_time", "growth_of_memory"), powers, strict=True)))
    return result


def plot(curves: list[Curve], rows: dict[str, list[dict]], path: pathlib.Path) -> None:
    """Writes the curves to `path` with .png and .pdf added."""
    with matplotlib.rc_context(STYLE):
        sheet = Figure(figsize=(4.2 * len(curves), 5.6), layout="constrained")
        for column, curve in enumerate(curves):
            for line, (name, label) in enumerate(QUANTITIES.items()):
                axes = sheet.add_subplot(len(QUANTITIES), len(curves), line * len(curves) + column + 1)
                _draw(axes, curve, [(row[curve.over], row[name]) for row in rows[f"over_{curve.over}"]], column)
                axes.set(ylabel=label, xlabel=curve.over.replace("_", " "), title="" if line else curve.name)
        for ending in ("png", "pdf"):
            date = {"CreationDate": None} if ending == "pdf" else {}  # the same numbers, the same file
            with replacing(path.with_name(f"{path.name}.{ending}")) as temporary:
                sheet.savefig(temporary, dpi=200, metadata={"Title": "Growth of time and memory"} | date)


def _draw(axes: Axes, curve: Curve, points: list[tuple[int, float]], number: int):
    xs, ys = zip(*points, strict=True)
    expected = [ys[-1] * (x / xs[-1]) ** curve.growth for x in xs]  # if there were nothing but this work
    power = curve.over.replace("_", " ") + ("²" if curve.growth == 2 else "")
    axes.loglog(xs, expected, color="#777777", linestyle=":", linewidth=1.2, label=f"∝ {power}")
    axes.loglog(xs, ys, color=COLOURS[number], marker=MARKERS[number], linewidth=1.4, label="measured")
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.legend(loc="lower right")


class Varied(Settings):
    """The points of the curves."""

    widths: tuple[int, ...] = option((1, 2, 4, 8), "of the network, at --batch_size", minimum=1)
    batch_sizes: tuple[int, ...] = option((8, 16, 32, 64, 128, 256), "at --width", minimum=1)
    points: tuple[int, ...] = option(
        (64, 128, 256, 512, 1024), "n: points in each of the two sets of the Sinkhorn distance", minimum=1
    )
    dimensions: int = option(640, "of the points", minimum=1)


class ScalingSettings(Iteration, Benchmark):
    """What is not varied."""

    width: int = like(Iteration, "width", help="of the network, where it is not varied")
    batch_size: int = like(Iteration, "batch_size", default=32, help="images per iteration, where it is not varied")
    repeats: int = like(Benchmark, "repeats", default=3, help="calls of each after the first")
    plot: str = option("scaling", "path of the plots without their ending; empty: none")


def main() -> None:
    """Measures as the flags say, prints and plots."""
    settings, wanted = flags.read(ScalingSettings), flags.read(Varied)
    iteration = settings.iteration() | {"precision": "float32"}
    sizes = [_sizes(name, values) for name, values in wanted.pick("widths", "batch_sizes", "points").items()]
    path = pathlib.Path(settings.plot) if settings.plot else None
    if path and not path.parent.is_dir():
        raise UsageError("plot", path, f"no folder {path.parent}")
    chosen = curves(iteration, *sizes, wanted.dimensions)
    rows = measure(chosen, settings.repeats)
    if path:
        plot(chosen, rows, path)
    about = {"machine": machine.describe(), "settings": iteration | {"repeats": settings.repeats}}
    names = {f"over_{curve.over}": curve.name for curve in chosen}
    report.show({"benchmark": "scaling"} | about | {"curves": names} | rows, settings.json)


def _sizes(name, values):
    """The values of a flag in rising order. Raises UsageError unless there are two at least."""
    if len({*values}) < 2:
        raise UsageError(name, values, "must be two positive numbers or more, with commas")
    return sorted({*values})


def command() -> None:
    """Entry point."""
    flags.define("Curves", Varied)
    flags.define("Benchmark", ScalingSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
