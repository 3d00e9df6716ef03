"""Checks of cross-entropy around images: is there a gradient, and does the loss rise along it?"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from madry_cifar.attacks.losses import cross_entropy
from madry_cifar.attacks.steps import gradient_of
from madry_cifar.evaluation.diagnosis.trials import Case
from madry_cifar.evaluation.diagnosis.verdicts import NOTE, OK, Difference, Finding, worst
from madry_cifar.randomness import draw_seed, uniform

# --- share of zeros

ZERO_TOLERANCE, PIXEL_TOLERANCE = 1.0, 10.0  # percent of the images, and of all their pixels


def zeros(case: Case) -> Finding:
    """Where float32 leaves a gradient of exactly zero, its sign is zero too, and an attack stays where it is.

    Pixels alone are a note: a network may leave out some of them, as at an image's edge.
    """
    gradients = gradient(case, case.attacked.images, case.attacked.labels)
    is_zero = (gradients == 0).reshape(len(gradients), -1)
    none = is_zero.all(axis=1)
    images = Difference(int(none.sum()), 0, len(none))
    share = 100 * float(is_zero.mean())
    evidence = (
        f"the gradient of cross-entropy is zero everywhere in {images.more} of {images.images} images that are "
        f"classified correctly, and in {share:.1f} % of all their pixels"
    )
    numbers = {"images_without_gradient": images.points, "pixels_without_gradient": share}
    verdict = worst([images.verdict(ZERO_TOLERANCE), NOTE if share > PIXEL_TOLERANCE else OK])
    return Finding(verdict, evidence, numbers | images.numbers(ZERO_TOLERANCE))


def gradient(case: Case, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """∇ of cross-entropy [n, H, W, C] at images [n, H, W, C]."""

    @tf.function(autograph=False, reduce_retracing=True)
    def compute(images, labels):
        predict = case.predictor.differentiable()
        return gradient_of(lambda images, draw: cross_entropy(predict(images, draw).logits, labels))(images, 0).gradient

    parts = []
    for first in range(0, len(images), case.batch_size):
        rows = slice(first, first + case.batch_size)
        parts.append(compute(tf.constant(images[rows], tf.float32), tf.constant(labels[rows])).numpy())
    return np.concatenate(parts)


# --- surface

POINTS = 20  # on the way from the image to ε
SHOWN, SIDE = 4, 10  # images whose surface is drawn, and points from the image to each side of it
RANDOM_TOLERANCE = 10.0  # percent of the images
ROUGHNESS = 2.0


class Surface(NamedTuple):
    """Cross-entropy around images, along the sign of its gradient g and a random direction r of signs.

    Attributes:
      gradient: [n, POINTS + 1] at x + t·g for t from 0 to ε.
      random: [n, POINTS + 1] at x + t·r, or x − t·r where that ends higher.
      planes: [SHOWN, 2·SIDE + 1, 2·SIDE + 1] at x + a·g + b·r, a (first axis) and b from −ε to ε.
    """

    gradient: np.ndarray
    random: np.ndarray
    planes: np.ndarray


def measure(case: Case) -> Surface:
    """The surfaces around the images that the network gets right; pixels are not clipped, which would bend them."""
    split = case.attacked
    images, labels = split.images.astype(np.float32), split.labels
    along = np.sign(gradient(case, images, labels))
    draws = uniform(images.shape, draw_seed(case.seed, 0, "loss surface"), -1.0, 1.0).numpy()
    across = np.where(draws < 0, np.float32(-1), np.float32(1))

    def line(direction):
        distances = np.linspace(0, case.epsilon, POINTS + 1, dtype=np.float32)
        return np.stack([_losses(case, images + distance * direction, labels) for distance in distances], axis=1)

    there, back = line(across), line(-across)
    planes = [_plane(case, *values) for values in zip(images, labels, along, across, range(SHOWN))]  # noqa: B905
    random = np.where(there[:, -1:] >= back[:, -1:], there, back)
    return Surface(line(along), random, np.stack([plane for plane in planes]))


def _plane(case, image, label, along, across, _):
    sides = np.linspace(-case.epsilon, case.epsilon, 2 * SIDE + 1, dtype=np.float32)
    first, second = np.meshgrid(sides, sides, indexing="ij")
    points = image + first[..., np.newaxis, np.newaxis, np.newaxis] * along
    points = points + second[..., np.newaxis, np.newaxis, np.newaxis] * across
    losses = _losses(case, points.reshape(-1, *image.shape), np.full(first.size, label))
    return losses.reshape(first.shape)


def _losses(case, images, labels):
    return cross_entropy(tf.constant(case.predict(images)), tf.constant(labels)).numpy()


def surface(case: Case) -> Finding:
    """Along the gradient the loss must end higher than along the random direction, and not go up and down on its way.

    Roughness is the length of the loss's way up and down over its range: 1 where it rises throughout, at most 2 with
    one summit, more where it zigzags. Its median over the images is judged (of those where the loss moves at all).
    """
    surfaces = measure(case)
    rise, chance = (line[:, -1] - line[:, 0] for line in (surfaces.gradient, surfaces.random))
    lower = Difference(int((rise <= chance).sum()), 0, len(rise))
    rough = roughness(surfaces.gradient)
    median = float(np.median(rough)) if len(rough) else None
    limit = Difference(int((rough > ROUGHNESS).sum()), 0, max(len(rough), 1))
    verdict = worst([lower.verdict(RANDOM_TOLERANCE), limit.verdict(50.0)])
    in_words = "flat everywhere" if median is None else f"roughness {median:.2f} (1 is a steady rise)"
    medians = {"rise_along_gradient": float(np.median(rise)), "rise_along_random": float(np.median(chance))}
    evidence = (
        f"over ε the loss rises by {medians['rise_along_gradient']:.3g} along the gradient's sign, by "
        f"{medians['rise_along_random']:.3g} along random signs (medians), in {lower.more} of {lower.images} "
        f"images by less than that; {in_words}"
    )
    numbers = medians | {"roughness": median, "share_rough": limit.points}
    curve = {
        "distance": np.linspace(0, case.epsilon, POINTS + 1).tolist(),
        "gradient": np.median(surfaces.gradient, axis=0).tolist(),
        "random": np.median(surfaces.random, axis=0).tolist(),
    }
    return Finding(verdict, evidence, numbers | lower.numbers(RANDOM_TOLERANCE), curve, surfaces.planes)


def roughness(lines: np.ndarray) -> np.ndarray:
    """Total variation over range of each of the `lines` [n, points] that is not flat."""
    way, reach = np.abs(np.diff(lines, axis=1)).sum(axis=1), np.ptp(lines, axis=1)
    return way[reach > 0] / reach[reach > 0]
