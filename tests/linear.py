"""A linear classifier, of which it is known how far each image is from an error."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf


class Linear:
    """Logits [B, classes] are linear in the pixels [B, *shape]."""

    def __init__(self, classes=5, shape=(4, 4, 1), seed=0):
        draws = np.random.default_rng(seed)
        self.weights = draws.normal(size=(int(np.prod(shape)), classes)).astype(np.float32)
        self.bias = -128 * self.weights.sum(axis=0)  # all classes are equal on a grey image

    def __call__(self, images, batch_norm="eval"):
        assert batch_norm == "eval"
        flat = tf.reshape(images, [-1, len(self.weights)])
        return SimpleNamespace(logits=tf.matmul(flat, self.weights) + self.bias)

    def images(self, count, shape=(4, 4, 1), spread=40, seed=1):
        """Images far from the ends of the pixels' range, [count, *shape], and the classes that they are given."""
        images = np.random.default_rng(seed).integers(128 - spread, 127 + spread, (count, *shape), endpoint=True)
        images = images.astype(np.float32)  # whole numbers, as pixels are: differences are exact
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


def halfway(distances) -> float:
    """An ε that half of the distances are within, in eighths, so that adding it to a pixel is exact."""
    return float(np.rint(8 * np.median(distances)) / 8)
