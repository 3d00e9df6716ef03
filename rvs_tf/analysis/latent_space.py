"""The first test image of each class among its perturbations, early and late in a training: Figure 4 of the paper.

  python -m rvs_tf.analysis.latent_space --train_dir=runs/rvs --output=latent.npz

The features are l2-normalised, the perturbations made as the training made them, and t-SNE brings the features of
each checkpoint into the plane. TensorBoard's projector shows them too, with the images: tensorboard --logdir runs
"""

import json
from typing import NamedTuple

import numpy as np

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.progress import progress_bar
from madry_cifar.cli.settings import like, option
from madry_cifar.runs.files import write_array
from madry_cifar.runs.run_folder import environment
from rvs_tf.analysis import projector
from rvs_tf.analysis.perturber import VARIANTS, Perturber
from rvs_tf.analysis.run_analysis import Analysis, AnalysisSettings, check_finite


class LatentSpaceSettings(AnalysisSettings):
    """An analysis of two checkpoints on an image of each class."""

    output: str = like(AnalysisSettings, "output", help="file for the result, .npz")
    checkpoints: str | None = like(
        AnalysisSettings,
        "checkpoints",
        help="steps with commas between, an early and a late one [the first and the last]",
    )
    perplexity: float = option(30.0, "of the t-SNE: about how many neighbours a point has")


def main() -> None:
    """Embeds as the flags say, and writes the file and the projector's."""
    settings = flags.read(LatentSpaceSettings)
    analysis, perplexity = Analysis(settings, ".npz"), settings.perplexity
    steps = _early_and_late(analysis.steps, settings.checkpoints)
    classes, rows = np.unique(analysis.test.labels, return_index=True)
    each = 1 + settings.draws  # points of an image
    _check_perplexity(perplexity, len(rows) * each)
    variant = "noise" if analysis.run_flags["uniform_noise"] else "no_noise"
    found = {}
    with progress_bar(len(steps), "checkpoint") as bar:
        for step in steps:
            analysis.load(step)
            images, features = points(analysis.perturber, analysis.test.images[rows], variant)
            check_finite(features, step)
            found[step] = Found(images, features, *embed(features, perplexity, settings.seed, step))
            bar.update()
    draw = np.tile(np.arange(each), len(rows))  # 0 is the image as it is
    columns = {
        "class": np.repeat(classes, each),
        "kind": np.where(draw, "perturbed", "natural"),
        "draw": draw,
        "image": np.repeat(rows, each),
    }
    tensors = {f"checkpoint-{step}": (result.features, result.images) for step, result in found.items()}
    projector.write(analysis.train_dir, tensors, columns)
    _save(analysis, {"variant": variant, "perplexity": perplexity}, found, columns["class"], draw == 0)
    print(
        f"{len(draw)} points of each of the checkpoints {', '.join(map(str, steps))}, perplexity "
        f"{perplexity:g}; in the projector of: tensorboard --logdir '{analysis.train_dir}'"
    )
    print(analysis.output)


class Found(NamedTuple):
    """Of a checkpoint: what `points` and `embed` return."""

    images: np.ndarray
    features: np.ndarray
    embedding: np.ndarray
    divergence: float


def _early_and_late(steps, chosen):
    steps = steps if chosen else sorted({steps[0], steps[-1]})
    if len(steps) < 2:
        raise UsageError(
            "checkpoints",
            chosen or "",
            f"an early and a late one are needed, not {steps[0]} alone; a training with --keep=0 keeps all",
        )
    return steps


def _check_perplexity(perplexity, count):
    if not 1 <= perplexity < count:
        raise UsageError(
            "perplexity",
            f"{perplexity:g}",
            f"must be at least 1 and below the number of points, {count}; more --draws make more",
        )


def _save(analysis, settings, found, labels, natural):
    results = found.values()
    about = analysis.about(int(natural.sum())) | environment() | settings
    about |= {"kl_divergence": [result.divergence for result in results]}
    write_array(
        analysis.output,
        np.savez_compressed,
        checkpoints=np.array(list(found)),
        embedding=np.stack([result.embedding for result in results]),
        features=np.stack([result.features for result in results]),
        labels=labels,
        natural=natural,
        about=np.array(json.dumps(about)),
    )


def points(perturber: Perturber, images: np.ndarray, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and their perturbations, and the normalised features of all, with the networks' current weights.

    Args:
      images: [K, 32, 32, 3].
      variant: of the perturbations, one of VARIANTS.

    Returns:
      Images [K·(draws+1), 32, 32, 3] and features [K·(draws+1), d]; each image stands before its perturbations.
    """
    which, parts = VARIANTS.index(variant), []
    for number, group in perturber.groups(images):
        chunks = [group[np.newaxis], *(chunk[:, which].numpy() for chunk in perturber.adversarial(group, number))]
        features = [perturber.features(chunk) for chunk in chunks]
        parts.append([np.concatenate(arrays).swapaxes(0, 1) for arrays in (chunks, features)])
    images, features = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images.reshape(-1, *images.shape[2:]), features.reshape(-1, features.shape[-1])


def embed(features: np.ndarray, perplexity: float, seed: int, step: int) -> tuple[np.ndarray, float]:
    """The t-SNE of `features` [P, d] in the plane, [P, 2] float32, from their principal components; its divergence.

    It runs in one thread: the result of several differs from run to run, and on a busy machine they take longer.

    Raises:
      RunError: naming the checkpoint's `step`, when all features (of unit norm) are the same but for rounding, so that
        there is nothing to show: their norm is a sum of d squares, which float32 gives to a relative d·2⁻²³.
    """
    from sklearn.manifold import TSNE  # slow to import
    from threadpoolctl import threadpool_limits

    spread = np.linalg.norm(features - features[0], axis=1).max()
    if spread <= features.shape[1] * np.finfo(np.float32).eps:
        raise RunError(f"checkpoint {step}: all features are the same; leave it out (--checkpoints)")
    method = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):
        return method.fit_transform(features), float(method.kl_divergence_)


def command() -> None:
    """Entry point."""
    flags.define("Analysis", LatentSpaceSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
