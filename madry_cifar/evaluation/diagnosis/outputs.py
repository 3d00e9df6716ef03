"""Checks of the network's outputs without an attack: are they always the same, and each image's own?"""

import numpy as np

from madry_cifar.evaluation.diagnosis.trials import Case
from madry_cifar.evaluation.diagnosis.verdicts import NOT_MEASURED, OK, SUSPECT, Finding

PASSES = 5
IMAGES = 32  # in a pass
ALONE = 4
# Shares of the logits' standard deviation that rounding may cause: in passes alike, and in batches of other sizes, for
# which a GPU may choose other algorithms (and by default multiplies with eleven bits)
SAME, ROUNDING = 1e-5, 1e-2


def randomness(case: Case) -> Finding:
    """The same batch in several draws, outside a compiled function, which would keep what Python draws."""
    largest, spread = _difference(case, range(PASSES))
    count = len(_images(case))
    numbers = {"passes": PASSES, "images": count, "largest_difference": largest, "logits_std": spread}
    if largest <= SAME * spread:
        return Finding(OK, f"{PASSES} passes of {count} images give the same logits", numbers)
    evidence = (
        f"{PASSES} passes of {count} images give logits that differ by up to {largest:.2g} "
        f"(their standard deviation is {spread:.2g}): use autoattack-rand"
    )
    return Finding(SUSPECT, evidence, numbers)


def batch_dependence(case: Case) -> Finding:
    """A batch backwards, images alone, and images among others that are nothing like them (negatives of the rest)."""
    largest, spread = _difference(case, [0] * PASSES)
    if largest > SAME * spread:
        return Finding(NOT_MEASURED, "cannot be told from randomness that no draw fixes", {})
    images = _images(case)
    reference = _logits(case, images)
    few = min(ALONE, len(images))
    among = np.concatenate([images[:few], 255 - images[few:]])
    changes = {
        "backwards": _logits(case, images[::-1])[::-1] - reference,
        "alone": np.concatenate([_logits(case, images[row : row + 1]) for row in range(few)]) - reference[:few],
        "among others": _logits(case, among)[:few] - reference[:few],
    }
    largest, spread = {name: float(np.abs(values).max()) for name, values in changes.items()}, _spread(reference)
    how = max(largest, key=largest.get)
    numbers = {"images": len(images), "largest_difference": largest, "logits_std": spread}
    evidence = f"an image's logits differ by up to {largest[how]:.2g} ({how}; their standard deviation is {spread:.2g})"
    if largest[how] <= ROUNDING * spread:
        return Finding(OK, f"{evidence}: no more than rounding", numbers)
    evidence += ": they depend on the rest of the batch (batch statistics at test time?)"
    return Finding(SUSPECT, evidence, numbers)


def _images(case):
    return case.split.images[:IMAGES].astype(np.float32)


def _difference(case, draws):
    """The largest difference between the logits of the same images in several draws, and what to compare it with."""
    images = _images(case)
    _logits(case, images)  # a GPU chooses its algorithms in the first
    first, *others = (_logits(case, images, draw) for draw in draws)
    return float(max(np.abs(other - first).max() for other in others)), _spread(first)


def _logits(case, images, draw=0):
    return np.asarray(case.predictor(images, draw).logits, np.float64)


def _spread(logits):
    """Standard deviation over the images, of the class where it is largest; what all images share does not count."""
    return float(logits.std(axis=0).max())
