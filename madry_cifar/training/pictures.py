"""A batch of images as one picture, with the label of each and what the classifier takes it for."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

COLUMNS = 8
SCALE = 3  # pixels of the picture for one of an image, so that there is room for words
LINE = 14  # pixels of the picture for a line of words
_RIGHT, _WRONG, _PLAIN = (0, 120, 0), (200, 0, 0), (0, 0, 0)


class Seen(NamedTuple):
    """Images [B, H, W, C] in [0, 255], and the classes [B] that the classifier takes them for."""

    images: tf.Tensor
    predicted: tf.Tensor


class Shown(NamedTuple):
    """A training batch: its labels [B], and how it is seen as it is and perturbed (None where a method does not)."""

    labels: tf.Tensor
    natural: Seen
    adversarial: Seen | None = None


def picture(shown: Shown) -> np.ndarray:
    """[height, width, 3] uint8: labels, natural images, predictions; then perturbations, perturbed images, predictions.

    Each column is an image, the first eight of the batch. Perturbations are stretched so that the largest of them is
    black or white; grey is none. Classes are numbers, predictions green where right and red where wrong.
    """
    labels, natural = np.asarray(shown.labels[:COLUMNS]), np.asarray(shown.natural.images[:COLUMNS], np.float32)
    strips = [
        _words("label", labels, [_PLAIN] * len(labels), natural.shape[2]),
        _row(natural),
        _predictions(shown.natural, labels),
    ]
    if shown.adversarial is not None:
        adversarial = np.asarray(shown.adversarial.images[:COLUMNS], np.float32)
        perturbation = adversarial - natural
        stretched = 127.5 + 127.5 * perturbation / max(np.abs(perturbation).max(), 1e-6)
        strips += [_row(stretched), _row(adversarial), _predictions(shown.adversarial, labels)]
    return np.concatenate(strips)


def grid(images) -> np.ndarray:
    """Images [N, H, W, C] of pixels in [0, 255] side by side, eight a row; N is a multiple of that, or less."""
    images = np.asarray(images, np.float32)
    return np.concatenate([_row(images[first : first + COLUMNS]) for first in range(0, len(images), COLUMNS)])


def _row(images):
    enlarged = np.concatenate(images, axis=1).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    pixels = np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _predictions(seen, labels):
    predicted = np.asarray(seen.predicted[:COLUMNS])
    colours = [_RIGHT if right else _WRONG for right in predicted == labels]
    return _words("predicted", predicted, colours, seen.images.shape[2])


def _words(word, classes, colours, width):
    strip = Image.new("RGB", (len(classes) * width * SCALE, LINE), "white")
    for column, (number, colour) in enumerate(zip(classes, colours, strict=True)):
        ImageDraw.Draw(strip).text((column * width * SCALE + 2, 1), f"{word} {number}", fill=colour)
    return np.asarray(strip)
