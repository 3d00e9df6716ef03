"""Looks for signs that a run's network, or a model from elsewhere, masks its gradients, so that PGD says too much.

  python -m rvs_tf.diagnose --train_dir=runs/rvs
  python -m rvs_tf.diagnose --model=own.keras --pixel_range=0,1 --data=images.npz
  python -m rvs_tf.diagnose --train_dir=runs/rvs --surrogate_dir=runs/natural --max_images=500 --output=diagnosis.json

Eleven checks, each with a verdict and its evidence: whether the outputs are random or depend on the rest of the batch;
the share of zero gradients; the loss along the gradient and along random directions; the scale of the logits; accuracy
against steps, restarts and ε; margins against cross-entropy; another run's network (--surrogate_dir) and Square against
white-box attacks. A difference between attacks is "suspect" where it is larger than its tolerance and than two standard
errors, a "note" where there are too few images to tell. No sign is no proof: report AutoAttack's accuracy.

Each image that is classified correctly costs about 700 gradients, and one that withstands PGD-100 and APGD-CE up to
5,000 forward passes more (Square). The bar's time left is an upper limit. A diagnosis that was killed goes on
after its last batch when the same command is typed again. The result is JSON in the run's results/, with a plot beside
it if matplotlib is installed.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Download, like, option
from madry_cifar.evaluation import diagnosis, results
from madry_cifar.evaluation.diagnosis.strength import step_size
from madry_cifar.evaluation.settings import Images, Surrogate, Target
from madry_cifar.evaluation.targets import results_folder, surrogate_of, target_of
from madry_cifar.runs.files import write_json
from madry_cifar.runs.run_folder import SCHEMA_VERSION, environment

COLOURS = {"ok": "green", "note": "yellow", "suspect": "bold red", "not measured": "dim"}


class DiagnoseSettings(Download, Images, Surrogate, Target):
    """A diagnosis of one checkpoint, or of a model from elsewhere."""

    surrogate_dir: str | None = like(
        Surrogate, "surrogate_dir", help="another run of the same data, to make adversarial images on"
    )
    max_images: int = like(
        Images,
        "max_images",
        default=200,
        help="of the split, from its beginning; 0 is all. Two standard errors are about 3 points with 200 and 1 with "
        "2000",
    )
    seed: int = like(Images, "seed", help="of random starts and directions")
    batch_size: int = like(Images, "batch_size", help="images attacked at once")
    epsilon: float = option(
        8.0, "radius of the L∞ ball, in grey levels of 255; steps are a quarter of it", maximum=255, kind="radius"
    )
    output: str | None = option(None, "a second copy of the result, .json, with its plot beside it", kind="path")

    def __post_init__(self):
        super().__post_init__()
        if self.epsilon <= 0:
            raise UsageError("epsilon", self.epsilon, "must be above 0 (grey levels)")


def main() -> None:
    """Diagnoses as the flags say, and prints the table."""
    settings = flags.read(DiagnoseSettings)
    target = target_of(settings)
    outputs = _outputs(settings, target)
    dataset, split = target.images(settings)
    about = target.load(settings.checkpoint)
    surrogate, its_about = surrogate_of(target, settings)
    if surrogate and its_about["classifier_sha256"] == about["classifier_sha256"]:
        raise UsageError("surrogate_dir", settings.surrogate_dir, "is the network diagnosed; name another run")
    about |= {"dataset": dataset.name, "provenance": dataset.provenance, "split": settings.split, "images": len(split)}
    about |= {"step_size": step_size(settings.epsilon)} | settings.pick("epsilon", "seed", "batch_size")
    about |= {"surrogate": its_about} if surrogate else {}
    outputs[0] = results.path_of(outputs[0], about, "diagnosis_")
    kept: dict[str, results.Partial] = {}

    def keep(name, attack):
        partial = results.Partial(outputs[0], about, attack, name.replace(" ", "-"))
        if not kept and partial.path.exists():
            tqdm.write("going on where this diagnosis was ended")
        kept[name] = partial
        return partial

    result = diagnosis.diagnose(
        target.predictor,
        split,
        epsilon=settings.epsilon,
        surrogate=surrogate,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=True,
        keep=keep,
    )
    written = [file for path in outputs for file in write(path, result, about)]
    for partial in kept.values():
        partial.remove()
    Console().print(table(result.checks, about))
    Console().print(_verdict(result.checks))
    if len(written) == len(outputs):
        print("no plot: matplotlib is not installed (pip install 'robustness-via-synthesis[experiments]')")
    for file in written:
        print(file)


def _outputs(settings, target):
    """The folder of results and the path of --output, if given: told now that they cannot be written, not at the end.

    Raises:
      UsageError: naming the flag.
    """
    output = pathlib.Path(settings.output) if settings.output else None
    if output and output.suffix != ".json":
        raise UsageError("output", output, "must end in .json")
    if output:
        place = next(parent for parent in output.absolute().parents if parent.exists())
        if output.is_dir() or not (place.is_dir() and os.access(place, os.W_OK)):
            raise UsageError("output", output, f"{output} cannot be written")
    return [results_folder(target, settings.results_dir, settings.output)] + [output] * bool(output)


def write(path: pathlib.Path, found: diagnosis.Diagnosis, about: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes the diagnosis (.json) and, with matplotlib, its plot beside it (.png); returns what was written."""
    try:
        from madry_cifar.evaluation.diagnosis import plot
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        plot = None
    picture = path.with_suffix(".png")
    if plot:
        plot.write(picture, found, _title(about))
    content = {
        "schema_version": SCHEMA_VERSION,
        "numbers": "measured",
        **about,
        **environment(),
        "verdict": diagnosis.overall(found.checks),
        "checks": [check.as_dict() for check in found.checks],
        "curves": found.curves,
        "surface": picture.name if plot else None,
    }
    write_json(path, content)
    return [path] + [picture] * bool(plot)


def table(checks: list[diagnosis.Check], about: Mapping[str, Any]) -> Table:
    """The checks as a table for the terminal."""
    title = f"{_title(about)} of {about['provenance']}; ± are two standard errors"
    result = Table(title=title, box=box.SIMPLE, title_justify="left")
    result.add_column("check", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    result.add_column("evidence", overflow="fold")
    for check in checks:
        evidence = Text(f"{check.question} ", style="italic") + Text(check.evidence, style="not italic")
        result.add_row(check.name, Text(check.verdict, style=COLOURS[check.verdict]), evidence)
    return result


def _title(about):
    return f"{results.subject(about)}, ε = {about['epsilon']:g}: {about['images']} {about['split']} images"


def _verdict(checks):
    suspect = any(check.verdict == "suspect" for check in checks)
    return Text(diagnosis.overall(checks), style=COLOURS["suspect" if suspect else "ok"])


def command() -> None:
    """Entry point."""
    flags.define("Diagnosis", DiagnoseSettings)
    flags.run(main, __doc__, resumes=True)


if __name__ == "__main__":
    command()
