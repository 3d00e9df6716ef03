"""A linear classifier, of which it is known how far each image is from an error."""

import numpy as np
import tensorflow as tf

from madry_cifar.predictor import Outputs, Predictor, as_predictor
from madry_cifar.randomness import Draws


class Linear(Predictor):
    """Logits [B, classes] are linear in the pixels [B, *shape]."""

    def __init__(self, classes=5, shape=(4, 4, 1), seed=0, dtype=np.float32):
        draws = np.random.default_rng(seed)
        self.weights = draws.normal(size=(int(np.prod(shape)), classes)).astype(dtype)
        self.bias = -128 * self.weights.sum(axis=0)  # all classes are equal on a grey image

    def __call__(self, images, draw=0):
        flat = tf.reshape(images, [-1, len(self.weights)])
        return Outputs(None, tf.matmul(flat, self.weights) + self.bias)

    def images(self, count, shape=(4, 4, 1), spread=40, seed=1):
        """Images far from the ends of the pixels' range, [count, *shape], and the classes that they are given."""
        images = np.random.default_rng(seed).integers(128 - spread, 127 + spread, (count, *shape), endpoint=True)
        images = images.astype(self.weights.dtype)  # whole numbers, as pixels are: differences are exact
        return images, np.argmax(self(images).logits, axis=1).astype(np.int32)

    def distances(self, images, labels, norm=np.inf):
        """To the nearest error [B], in this norm of the pixels, whose range is not reached."""
        logits, rows = self(images).logits.numpy(), np.arange(len(labels))
        gaps = logits[rows, labels][:, np.newaxis] - logits
        difference = self.weights.T[labels][:, np.newaxis] - self.weights.T
        dual = {np.inf: 1, 2: 2}[norm]
        with np.errstate(invalid="ignore"):
            distances = gaps / np.linalg.norm(difference, ord=dual, axis=2)
        return np.nanmin(distances, axis=1)


def compiled(attack, model):
    """run(images, labels, place=None, seed=0): what an attack makes of images, compiled once for each shape.

    `place`: of each image in its split, those of a batch by default.
    """
    predictor = as_predictor(model)
    function = tf.function(
        lambda images, labels, place, seed: attack.run(
            predictor, images, labels, Draws(seed, place), **attack.settings
        ),
        autograph=False,
    )

    def run(images, labels, place=None, seed=0) -> np.ndarray:
        place = range(len(images)) if place is None else place
        arguments = tf.constant(images), tf.constant(labels), tf.constant(place, tf.int64)
        return function(*arguments, tf.constant([seed, 0], tf.int64)).numpy()

    return run


def run_attack(attack, model, images, labels, place=None, seed=0) -> np.ndarray:
    """The same, once."""
    return compiled(attack, model)(images, labels, place, seed)


def halfway(distances) -> float:
    """An ε that half of the distances are within, in eighths, so that adding it to a pixel is exact."""
    return float(np.rint(8 * np.median(distances)) / 8)
