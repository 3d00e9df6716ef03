"""What every attack is given, checked: the model, images and labels of whoever calls.

    admit            all of it, for a function that attacks; with what is worth knowing of the model
    check_images, check_labels    the arrays alone

A wrong input is refused where it could otherwise give a number that looks right: a model seems robust on normalised
images, or with labels of another shape.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from madry_cifar.attacks.losses import cross_entropy
from madry_cifar.attacks.steps import gradient_of
from madry_cifar.cli.errors import UsageError
from madry_cifar.predictor import Predictor, as_predictor

LOOKED_AT = 8  # images by which a model is judged
# Shares of the logits' standard deviation that rounding may cause: in passes alike, and in batches of other sizes, for
# which a GPU may choose other algorithms (and by default multiplies with eleven bits)
SAME, ROUNDING = 1e-5, 1e-2


class Inputs(NamedTuple):
    """What was admitted.

    Attributes:
      predictor: of the model.
      images: [N, H, W, C] pixels in [0, 255], of the type that they had.
      labels: [N] int32 classes.
      sample: [n, H, W, C] float: the first of the images.
      logits: [n, K] of these.
    """

    predictor: Predictor
    images: np.ndarray
    labels: np.ndarray
    sample: np.ndarray
    logits: np.ndarray


def admit(model, images, labels) -> Inputs:
    """Checks what is to be attacked.

    Args:
      model: a `Predictor`, or what `as_predictor` makes one of.
      images: [N, H, W, C] pixels in [0, 255], of any type of numbers.
      labels: the true classes: integers [N] or [N, 1], or one-hot [N, K].

    Raises:
      UsageError: naming what is wrong with the model, the images or the labels, and what would do.
    """
    predictor = as_predictor(model)
    images = check_images(images, predictor.image_shape)
    sample = images[:LOOKED_AT]
    sample = sample if sample.dtype.kind == "f" else sample.astype(np.float32)
    logits = check_logits(_first_pass(predictor, sample), len(sample))
    return Inputs(predictor, images, check_labels(labels, len(images), logits.shape[1]), sample, logits)


def _first_pass(predictor, images):
    try:
        return predictor(tf.constant(images)).logits
    except UsageError:
        raise
    except Exception as error:  # of somebody's code
        reason = " ".join(str(error).strip().split("\n")[0].split())[:200]
        raise _wrong(
            f"the model cannot be called with images {list(images.shape)} {images.dtype} ({type(error).__name__}: "
            f"{reason})"
        ) from error


def check_images(images, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Images as an array [N, H, W, C]; `shape` is [H, W, C] where a model takes no other.

    Raises:
      UsageError: for something else, no image, or pixels that are not in [0, 255].
    """
    images = np.asarray(images)
    if images.dtype.kind not in "uif":
        raise _wrong(f"images must be numbers. Received: {images.dtype}")
    if images.ndim == 3:
        raise _wrong(
            f"images must be [N, H, W, C]. Received: one of {images.shape}; images[np.newaxis] is a batch of it"
        )
    if images.ndim != 4:
        raise _wrong(f"images must be [N, H, W, C]. Received: shape {images.shape}")
    if not images.size:
        raise _wrong(f"there are no images. Received: shape {images.shape}")
    _, channels, height, width = images.shape  # if they were [N, C, H, W]
    if (height, width, channels) == shape or (shape is None and channels in (1, 3) and width > 4):
        raise _wrong(
            f"images must be [N, H, W, C]. Received: shape {images.shape}, channels first; "
            "np.transpose(images, (0, 2, 3, 1)) is what is taken"
        )
    if shape is not None and images.shape[1:] != shape:
        raise _wrong(f"the model takes images {list(shape)}. Received: {list(images.shape[1:])}")
    if not np.isfinite(images).all():
        raise _wrong("images must be finite numbers")
    low, high = images.min(), images.max()
    if low < 0 or high > 255:
        raise _wrong(
            f"images must have pixels in [0, 255]. Received: from {low:.4g} to {high:.4g}; give them as they were "
            "before any scaling, and tell predictor() pixel_range, mean and std (by command --pixel_range, --mean, "
            "--std)"
        )
    if images.dtype.kind == "f" and 0 < high <= 1:
        raise _wrong(
            f"images must have pixels in [0, 255]. Received: from {low:.4g} to {high:.4g}; give 255 * images and, "
            "if the model takes [0, 1], tell predictor() pixel_range=(0, 1) (by command --pixel_range=0,1)"
        )
    return images


def check_labels(labels, count: int, num_classes: int) -> np.ndarray:
    """Labels as classes [count] int32, from integers [count] or [count, 1] or one-hot [count, num_classes].

    Raises:
      UsageError: for others, or a class that is not there.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "uifb":
        raise _wrong(
            f"labels must be classes from 0 to {num_classes - 1}. Received: {labels.dtype}; names of classes are "
            "numbered by np.unique(names, return_inverse=True)[1], if the model's are in their order"
        )
    if labels.ndim == 2 and labels.shape == (count, num_classes) and num_classes > 1:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise _wrong("labels [N, K] must be one-hot: an attack needs the one true class of each image")
        labels = labels.argmax(axis=1)
    if labels.shape[:1] != (count,) or labels.size != count:
        raise _wrong(
            f"labels must be [{count}] or [{count}, 1], one for each image, or one-hot [{count}, {num_classes}]. "
            f"Received: shape {labels.shape}"
        )
    labels = labels.reshape(count)
    if labels.dtype.kind == "f" and not (labels == np.rint(labels)).all():
        raise _wrong("labels must be whole numbers: classes counted from 0")
    if len(wrong := np.flatnonzero((labels < 0) | (labels >= num_classes))):
        hint = (
            "; if they are counted from 1, give labels - 1" if labels.min() == 1 and labels.max() == num_classes else ""
        )
        raise _wrong(
            f"label {labels[wrong[0]]} of image {wrong[0]} is none of the model's {num_classes} classes, which are "
            f"counted from 0{hint}"
        )
    return labels.astype(np.int32)


def check_logits(logits, count: int) -> np.ndarray:
    """A model's outputs for `count` images as an array [count, K].

    Raises:
      UsageError: where they cannot be logits of K ≥ 2 classes.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or len(logits) != count:
        raise _wrong(f"the model must return logits [N, K]. Received: shape {logits.shape} for {count} images")
    if logits.shape[1] < 2:
        raise _wrong(
            "the model has a single output, whose gradient tells an attack nothing about classes; return two logits, "
            "0 and that output before its sigmoid: tf.concat([tf.zeros_like(z), z], axis=1)"
        )
    if np.all(logits >= 0) and np.all(np.abs(logits.sum(axis=1) - 1) < 1e-3):
        raise _wrong(
            "the model's outputs are probabilities or one-hot classes (not negative, and their sum is 1), where "
            "gradients vanish: take the logits before the softmax, or tell predictor() outputs='probabilities' (by "
            "command --outputs=probabilities)"
        )
    return logits


def check_passes(inputs: Inputs) -> None:
    """Further passes: the same images again, then the first of them alone and among others.

    Raises:
      UsageError: where the outputs are random, or depend on the rest of the batch, and the predictor does not say so.
    """
    predictor, sample, logits = inputs.predictor, inputs.sample, inputs.logits
    if predictor.stochastic or not np.isfinite(logits).all():
        return  # what is not finite is for whoever judges images, and can name them
    spread = max(float(logits.std(axis=0).max()), 1e-3 * float(np.abs(logits).max()))  # images may be all the same
    again = np.asarray(predictor(tf.constant(sample)).logits)
    if not np.abs(again - logits).max() <= SAME * spread:
        raise _wrong(
            "the model's outputs are random: two passes of the same images differ. Call it for inference (dropout off, "
            "training=False) or, if that is meant, tell predictor() stochastic=True"
        )
    if predictor.batch_dependent:
        return
    alone = np.asarray(predictor(tf.constant(sample[:1])).logits)
    others = np.asarray(predictor(tf.constant(np.concatenate([sample[:1], 255 - sample[1:]]))).logits)[:1]
    if max(np.abs(alone - logits[:1]).max(), np.abs(others - logits[:1]).max()) > ROUNDING * spread:
        raise _wrong(
            "the model's outputs for an image depend on the rest of its batch, so accuracies mean nothing: it seems to "
            "be in training mode (batch norm with the batch's statistics); call it for inference (training=False)"
        )


def has_gradient(inputs: Inputs) -> bool:
    """Whether cross-entropy has a gradient at any of the first images, so that attacks can follow it."""
    predict, labels = inputs.predictor.differentiable(), tf.constant(inputs.labels[: len(inputs.sample)])
    loss = gradient_of(lambda images, _: cross_entropy(predict(images).logits, labels))
    return bool(np.any(loss(tf.constant(inputs.sample), 0).gradient.numpy()))


NO_GRADIENT = (
    "the model has no gradient at the first images (does something round or encode them, or are logits huge?): attacks "
    "that follow it find nothing, and square alone, which asks for outputs only, says something"
)


def _wrong(reason):
    return UsageError(None, None, reason)
