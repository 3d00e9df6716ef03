"""An attack, ours or a peer's, as what maps arrays to arrays, batch by batch."""

from collections.abc import Callable

import numpy as np

Attacker = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of images [N, H, W, C] in grey levels and labels [N]


def by_batch(perturb: Callable, batch_size: int) -> Attacker:
    """Of what maps a batch of images and labels to adversarial images: an array, or a tensor of any library."""

    def attack(images, labels):
        starts = range(0, len(images), batch_size)
        batches = (slice(start, start + batch_size) for start in starts)
        return np.concatenate([np.asarray(perturb(images[rows], labels[rows])) for rows in batches])

    return attack
