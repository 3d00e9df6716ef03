"""Measures everything in docs/performance.md and writes its tables anew; the text around them stays.

  python -m benchmarks.performance --reference=DIR --train_dir=DIR
  python -m benchmarks.performance --only=sinkhorn,scaling

Each part is a benchmark with the settings that are listed here; what it measures is kept in docs/performance/ as
JSON. --only chooses parts, and --norun writes the tables from what is kept, measuring nothing. A part that needs a GPU
is skipped where there is none, and one that needs a run without --train_dir.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import tensorflow as tf

from benchmarks import report
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Settings, option
from madry_cifar.runs.files import replacing, write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = pathlib.Path("docs/performance.md")
KEPT = pathlib.Path("docs/performance")  # folder of JSON and plots
LARGE = ["--depth=34", "--width=10"]
COMMANDS = {  # of each part, by the name of its JSON; where it is all of a part, that is the part's
    "sinkhorn": ["sinkhorn"],
    "step-small": ["step", "--depth=10", "--width=2", "--batch_size=64", "--precision=float32,bfloat16"],
    "step-large": ["step", *LARGE, "--batch_size=8", "--precision=float32,bfloat16"],
    "step-gpu": [
        "step",
        "--depth=28",
        "--width=10",
        "--batch_size=64",
        "--precision=float32,bfloat16",
        "--jit_compile",
        "--nokeras",
        "--repeats=20",
    ],
    "defenses": ["defenses", "--defenses=natural,at,rvs,adv_interp,adv_vertex,bilateral,featscatter,trades"],
    "attacks-small": ["attacks"],
    "attacks-width2": ["attacks", "--width=2", "--repeats=3"],
    "attacks-width4": ["attacks", "--width=4", "--images=64", "--repeats=3"],
    "attacks-large": ["attacks", *LARGE, "--images=8", "--batch_size=8", "--train_steps=0", "--repeats=2"],
    "autoattack": ["autoattack"],
    "autoattack-apgd": [
        "autoattack",
        "--images=100",
        "--batch_size=50",
        "--stages=apgd-ce,apgd-t",
        "--peers=original,PyTorch",
    ],
    "autoattack-run": ["autoattack", "--images=500", "--peers=original,PyTorch"],
    "scaling": ["scaling", f"--plot={KEPT / 'scaling'}"],
    "estimate": ["estimate", "--defenses=natural,at,rvs"],
}
FOLDERS = {"step-large": "reference", "autoattack-run": "train_dir"}  # what is measured there, by the flag
PARTS = tuple(dict.fromkeys(name.partition("-")[0] for name in COMMANDS))


def measure(name: str, folder: str | None) -> None:
    """Runs a benchmark, with the folder of `FOLDERS` that it is given, and keeps its JSON.

    Raises:
      RunError: when it fails; its own line stands above.
    """
    benchmark, *arguments = COMMANDS[name]
    shown = _shown(name, folder)
    arguments += [f"--{FOLDERS[name]}={pathlib.Path(folder).absolute()}"] if folder else []
    print(f"{name}: {shown}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments, "--json"]
    devices = os.environ if name.endswith("-gpu") else os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=ROOT, env=devices, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RunError(f"benchmarks.{benchmark} failed (status {done.returncode}); see above")
    write_json(ROOT / KEPT / f"{name}.json", {"command": shown} | json.loads(done.stdout.splitlines()[-1]))


def _shown(name, with_folder):
    """A part's command, for people."""
    benchmark, *arguments = COMMANDS[name]
    flag = [f"--{FOLDERS[name]}=DIR"] if with_folder else []
    return " ".join([f"python -m benchmarks.{benchmark}", *arguments, *flag])


def render(page: str, kept: pathlib.Path) -> str:
    """The page with what is between <!-- NAME --> and <!-- end --> made of NAME.json in the folder `kept`.

    Raises:
      RunError: for a mark that is not closed, or of no known name.
    """
    parts = re.split(r"^(<!-- (?:[\w-]+) -->)\n", page, flags=re.MULTILINE)
    result, inside = [parts[0]], None
    for mark, text in zip(parts[1::2], parts[2::2], strict=True):
        name = mark.removeprefix("<!-- ").removesuffix(" -->")
        if (name == "end") == (inside is None) or name not in ("end", *COMMANDS):
            raise RunError(f"{PAGE}: {mark} is out of place; each <!-- NAME --> needs its <!-- end -->")
        inside = None if name == "end" else name
        result += [mark, "\n", text if name == "end" else f"\n{_section(kept / f'{name}.json')}\n\n"]
    if inside:
        raise RunError(f"{PAGE}: <!-- {inside} --> has no <!-- end -->")
    return "".join(result)


def _section(file):
    """What the page shows of a JSON file."""
    if not file.exists():
        reason = "no GPU at hand" if file.stem.endswith("-gpu") else f"`{_shown(file.stem, file.stem in FOLDERS)}`"
        return f"*not measured: {reason}*"
    result = json.loads(file.read_text())
    return f"{report.markdown(result)}\n\n`{result['command']}`"


def _lacking(name, folder):
    """What a part needs and has not, in words; empty if nothing."""
    if name.endswith("-gpu") and not tf.config.list_physical_devices("GPU"):
        return "no GPU at hand"
    return f"no --{FOLDERS[name]}" if name.endswith("-run") and not folder else ""


class PerformanceSettings(Settings):
    """What is measured."""

    only: tuple[str, ...] = option(
        (), f"parts or benchmarks with commas [all]: {', '.join(COMMANDS)}", choices={*PARTS, *COMMANDS}
    )
    run: bool = option(True, "measure; --norun: write the tables alone")
    reference: str | None = option(None, "folder of the authors' released code (see benchmarks.step)")
    train_dir: str | None = option(None, "run, best on CIFAR-10, whose network autoattack-run attacks")


def main() -> None:
    """Runs the parts that the flags choose, then writes the page."""
    settings = flags.read(PerformanceSettings)
    chosen = settings.only or PARTS
    if not (ROOT / PAGE).exists():
        raise UsageError(None, None, f"{PAGE} is not there: this command works in a checkout of the source")
    for name in COMMANDS:
        if settings.run and {name, name.partition("-")[0]} & {*chosen}:
            folder = getattr(settings, FOLDERS[name]) if name in FOLDERS else None
            if lacking := _lacking(name, folder):
                print(f"{name}: skipped, {lacking}", file=sys.stderr)
            else:
                measure(name, folder)
    with replacing(ROOT / PAGE) as temporary:
        temporary.write_text(render((ROOT / PAGE).read_text(), ROOT / KEPT))


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", PerformanceSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
