"""How far perturbations move a test image's features, and how much that differs among them: Figure 3 of the paper.

  python -m rvs_tf.analysis.diversity --train_dir=runs/rvs --output=diversity.json

Each test image is perturbed by --draws latent vectors of its own. The distances are Euclidean, between l2-normalised
features; their mean and standard deviation over an image's perturbations are averaged over the images, for each
checkpoint (train with --keep=0 to have them all), with the uniform noise of the training and without. The same
command again goes on after the last finished checkpoint. TensorBoard shows the curves: tensorboard --logdir runs
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from madry_cifar.cli import flags
from madry_cifar.cli.progress import progress_bar
from madry_cifar.cli.settings import like
from madry_cifar.evaluation.settings import Images
from madry_cifar.runs.files import write_json
from madry_cifar.runs.run_folder import environment
from madry_cifar.training.summaries import Summaries
from rvs_tf.analysis.perturber import VARIANTS, Perturber
from rvs_tf.analysis.run_analysis import Analysis, AnalysisSettings, check_finite

MEASURES = ("mean_distance", "mean_standard_deviation")
SHOWN = 12  # checkpoints in the terminal's table


def diversity(
    perturber: Perturber, images: np.ndarray, progress: Callable[[int], Any] = lambda images: None
) -> dict[str, dict[str, float]]:
    """The distances between images and their perturbations, with the networks' current weights (Figure 3).

    Of the images, one group at a time is in memory as floats, and only sums are kept.

    Args:
      perturber: makes the perturbations and features.
      images: [N, 32, 32, 3] uint8.
      progress: called after each group with its number of images.

    Returns:
      For each variant its `MEASURES`: the mean over the images of the mean, and of the standard deviation (divided
      by the number of draws, not by one less), of an image's distances over its draws.
    """
    sums = np.zeros([len(MEASURES), len(VARIANTS)])
    for number, group in perturber.groups(images):
        natural = perturber.features(group).astype(np.float64)
        distances = np.concatenate(  # [draws, variants, images]
            [
                np.linalg.norm(perturber.features(adversarial) - natural, axis=-1)
                for adversarial in perturber.adversarial(group, number)
            ]
        )
        sums += np.stack([distances.mean(axis=0), distances.std(axis=0)]).sum(axis=-1)
        progress(len(group))
    means = dict(zip(VARIANTS, (sums / len(images)).T.tolist(), strict=True))
    return {variant: dict(zip(MEASURES, values, strict=True)) for variant, values in means.items()}


class DiversitySettings(AnalysisSettings):
    """An analysis of many checkpoints on many images."""

    output: str = like(AnalysisSettings, "output", help="file for the result, .json")
    checkpoints: str = like(AnalysisSettings, "checkpoints", default="all", help="all, or steps with commas between")
    max_images: int = like(Images, "max_images", help="test images, from the first; 0 is all")


def main() -> None:
    """Measures as the flags say, checkpoint by checkpoint."""
    settings = flags.read(DiversitySettings)
    analysis = Analysis(settings, ".json")
    images = analysis.test.images[: settings.max_images or None]
    about = analysis.about(len(images))
    partial = analysis.output.with_name(f"{analysis.output.stem}.partial.json")
    known, entries, curves = unfinished(partial, about), [], Curves(analysis.train_dir / "analysis")
    content = about | environment() | {"checkpoints": entries}
    with progress_bar(len(analysis.steps) * len(images), "image") as bar:
        for step in analysis.steps:
            bar.set_postfix(checkpoint=step)
            entry = analysis.load(step)
            if known.get(step, {}).get("classifier_sha256") == entry["classifier_sha256"]:
                entries.append(known[step])
                bar.total -= len(images)
            else:
                entry |= diversity(analysis.perturber, images, bar.update)
                check_finite([list(entry[variant].values()) for variant in VARIANTS], step)
                entries.append(entry)
                write_json(partial, content)
            curves.add(entries[-1])
    write_json(analysis.output, content)
    partial.unlink(missing_ok=True)
    Console().print(table(content, entries))
    print(analysis.output)


class Curves:
    """The measures in TensorBoard: a run each, in `folder`, with and without the noise, under the same tags.

    The points of an earlier analysis are removed, so that none stands there twice.
    """

    def __init__(self, folder: pathlib.Path):
        for events in folder.glob("*/events.*"):
            events.unlink()
        self._summaries = {variant: Summaries(folder / variant) for variant in VARIANTS}

    def add(self, entry: dict) -> None:
        """The point of a checkpoint on each curve."""
        for variant, summaries in self._summaries.items():
            values = {f"diversity/{name}": entry[variant][name] for name in MEASURES}
            summaries.scalars(entry["checkpoint"], values)
            summaries.flush()


def unfinished(path: pathlib.Path, about: dict) -> dict[int, dict]:
    """The entries, by step, of an unfinished result; {}, with a warning, if it is damaged or not `about` the same."""
    try:
        content = json.loads(path.read_text())
        known = {entry["checkpoint"]: entry for entry in content["checkpoints"]}
        measured = [entry[variant][name] for entry in known.values() for variant in VARIANTS for name in MEASURES]
        if not np.all(np.isfinite(measured)):
            raise ValueError("not finite")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        reason = "damaged"
    else:
        if all(content.get(name) == value for name, value in about.items()):
            return known
        reason = "of other settings"
    print(f"warning: {path}: {reason}; all checkpoints are measured anew", file=sys.stderr)
    return {}


def table(content: dict, entries: list[dict]) -> Table:
    """The measures as a table for the terminal, of at most `SHOWN` checkpoints."""
    rows = np.unique(np.linspace(0, len(entries) - 1, min(len(entries), SHOWN)).round().astype(int))
    title = (
        f"{content['defense']}, {content['network']}: {content['draws']} perturbations of each of "
        f"{content['images']} test images of {content['provenance']}"
    )
    caption = None if len(rows) == len(entries) else f"{len(rows)} of {len(entries)} checkpoints"
    result = Table(title=title, caption=caption, box=box.SIMPLE, title_justify="left", caption_justify="left")
    for column in ("checkpoint", "distance", "± std. deviation", "without noise", "± std. deviation"):
        result.add_column(column, justify="right")
    for entry in (entries[row] for row in rows):
        values = [f"{entry[variant][name]:.4f}" for variant in VARIANTS for name in MEASURES]
        result.add_row(str(entry["checkpoint"]), *values)
    return result


def command() -> None:
    """Entry point."""
    flags.define("Analysis", DiversitySettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
