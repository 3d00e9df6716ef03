"""Data sets in memory: CIFAR-10, CIFAR-100 and SVHN, from tensorflow-datasets or their original files, and digits.

A data set is uint8 arrays; a batch is a gather of rows, and augmentation one batched operation in the compiled step.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.cli.errors import RunError, UsageError, in_words, unknown
from madry_cifar.data import original_files
from madry_cifar.randomness import draw_seed, uniform

PADDING = 2  # of images before a crop, per side: the released code pads 32 to 36, where most later code pads by 4
NUM_CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "svhn_cropped": 10}


@dataclass(frozen=True)
class Split:
    """`images` [N, 32, 32, 3] uint8 and `labels` [N] int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def take(self, rows) -> "Split":
        """The rows given by indices or a slice."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """A data set: its splits, what it holds and where it came from.

    Attributes:
      train: None when it was not to be read.
      validation: held out of the training images; None when nothing was.
      augmented: whether training images are cropped and flipped (the CIFAR sets only).
      provenance: one line that belongs beside every number.
      crop_padding, crop_fill: for a crop, pixels are added on each side, of this grey level.
    """

    name: str
    train: Split | None
    test: Split
    validation: Split | None
    num_classes: int
    augmented: bool
    provenance: str
    crop_padding: int = PADDING
    crop_fill: int = 0

    def augment(self, images: tf.Tensor, seed: int, step) -> tf.Tensor:
        """Training images [B, H, W, C] as a step sees them: `augment`ed, or as they are."""
        if not self.augmented:
            return images
        return augment(images, seed, step, self.crop_padding, self.crop_fill)


def load(
    name: str = "digits",
    *,
    data_dir: str | None = None,
    download: bool = False,
    validation_size: int = 0,
    max_train_images: int = 0,
    train: bool = True,
    crop_padding: int = PADDING,
    crop_fill: int = 0,
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: one of `NUM_CLASSES`.
      data_dir: folder of prepared tensorflow-datasets data, None being its default, ~/tensorflow_datasets; or the
        folder of the original files (pickled CIFAR batches, SVHN's train_32x32.mat).
      download: prepare the data set there if it is missing.
      validation_size: images to hold out of the training ones. Which ones does not depend on any seed, so that runs
        are compared on the same images.
      max_train_images: how many of the training images there are at all, from the beginning; 0 is all of them.
      train: whether to read the training images (and with them those held out), which takes the longest.
      crop_padding, crop_fill: of a set whose training images are cropped.

    Raises:
      UsageError: unknown name, data not prepared and no `download`, more held out than there is, a padding or fill
        other than the default for a set that is not cropped.
      RunError: labels or images that the data set cannot hold.
    """
    if name not in NUM_CLASSES:
        raise unknown("dataset", name, NUM_CLASSES)
    check_crop(name, crop_padding, crop_fill)
    num_classes = NUM_CLASSES[name]
    if name == "digits":
        *images, test, provenance = _digits()
    elif folder := original_files.find(name, data_dir):
        *images, test = (Split(*arrays) for arrays in original_files.read(name, folder))
        provenance = f"{name} (original files)"
    else:
        limits = {"train": max_train_images} if train else {}
        *images, test, provenance = _from_tfds(name, data_dir, download, limits | {"test": 0})
    images = [split.take(slice(max_train_images or None)) for split in images if train]
    for split in (*images, test):
        check_labels(split.labels, num_classes, name)
    held_out, trained_on = _hold_out(*images, validation_size, name) if train else (None, None)
    return Dataset(
        name, trained_on, test, held_out, num_classes, is_augmented(name), provenance, crop_padding, crop_fill
    )


def check_there(name: str, data_dir: str | None = None, download: bool = False) -> None:
    """Raises what `load` would for data that are not there and no `download`; reads none of them."""
    if name != "digits" and not original_files.find(name, data_dir):
        _builder(name, data_dir, download)


def is_augmented(name: str) -> bool:
    """Whether the training images of a data set are cropped and flipped."""
    return name.startswith("cifar")


def check_crop(name: str, padding: int, fill: int) -> None:
    """Raises UsageError for a padding or fill other than the default for a set that is not cropped."""
    for option, value, default in (("crop_padding", padding, PADDING), ("crop_fill", fill, 0)):
        if value != default and not is_augmented(name):
            raise UsageError(option, value, f"images of {name} are not cropped; leave it out")


def _hold_out(images, size, name):
    """What is held out of the training images (None for nothing), and the rest."""
    if not 0 <= size < len(images):
        raise UsageError("validation_size", size, f"{name} has {len(images)} training images to hold out of")
    if not size:
        return None, images
    return tuple(images.take(rows) for rows in held_out_rows(len(images), size))


def held_out_rows(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which `size` of `count` training images are held out, and which are left, both in order."""
    rows = np.random.default_rng(0).permutation(count)
    return np.sort(rows[:size]), np.sort(rows[size:])


def check_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    """Raises RunError, naming the first, unless all labels are from 0 to num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = wrong[0]
        raise RunError(
            f"{name}: label {labels[first]} of image {first} is out of range for {num_classes} classes "
            f"({wrong.size} such labels)"
        )


def _digits():
    """scikit-learn's 8×8 digits, enlarged to 32×32 grey RGB: every fifth image is for testing (359 of 1,797)."""
    from sklearn.datasets import load_digits  # slow to import, and needed for this alone

    digits = load_digits()
    small = tf.constant(digits.images[..., np.newaxis] * (255 / 16), tf.float32)
    large = tf.clip_by_value(tf.image.resize(small, (32, 32), method="bilinear"), 0, 255)
    images = np.repeat(np.rint(large.numpy()).astype(np.uint8), 3, axis=3)
    everything = Split(images, digits.target.astype(np.int32))
    is_test = np.arange(len(everything)) % 5 == 4
    provenance = "scikit-learn's 1,797 handwritten digits (8×8, enlarged to 32×32), every fifth one for testing"
    return everything.take(~is_test), everything.take(is_test), provenance


def prepared(name: str, data_dir: str | None, download: bool):
    """tensorflow-datasets, and its builder of a set whose data are there.

    Raises:
      UsageError: for a set that it does not know, or that is not prepared where `download` does not say so.
      RunError: where it cannot be used as installed, its files are damaged, or the preparation fails.
    """
    tfds, builder = _builder(name, data_dir, download)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:  # a download may fail in any way
            raise RunError(f"{name} could not be prepared in {builder.data_dir_root}: {in_words(error)}") from None
    return tfds, builder


def _from_tfds(name, data_dir, download, limits):
    """The splits named in `limits`, up to so many images each (0: all), and the provenance."""
    tfds, builder = prepared(name, data_dir, download)
    try:
        splits = [_read(tfds, builder, *wanted) for wanted in limits.items()]
        sample = next(iter(builder.as_dataset(split="test[:1]", decoders={"image": tfds.decode.SkipDecoding()})))
    except (tf.errors.OpError, OSError, KeyError, AssertionError) as error:
        raise RunError(f"{name} in {builder.data_dir} cannot be read: {in_words(error)}; prepare it again") from None
    provenance = f"{name} {builder.version} (tensorflow-datasets)"
    if sample["image"].numpy().startswith(b"\xff\xd8"):
        provenance += ", JPEG-recompressed images: not the original pixels"
    return *splits, provenance


def _builder(name, data_dir, download):
    """tensorflow-datasets, and its builder of a data set that is prepared, unless it may be downloaded."""
    import tensorflow_datasets as tfds  # slow to import, and not needed for the embedded digits

    try:
        tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise UsageError("dataset", name, "tensorflow-datasets knows no set of this name") from None
    except (ImportError, AttributeError) as error:  # it loads its parts late, and then lacks what cannot be imported
        remedy = "with a TensorFlow older than 2.20, pip install 'tensorflow-metadata<1.17'"
        raise RunError(f"tensorflow-datasets cannot be used as installed ({error}); {remedy}") from None
    except Exception as error:  # damaged descriptions of the data may make it raise anything
        raise RunError(f"{name} in --data_dir={data_dir}: {in_words(error)}; prepare it again") from None
    if not download and not builder.is_prepared():
        reason = (
            f"not prepared in --data_dir={builder.data_dir_root}; point --data_dir to where it is, or add --download"
        )
        raise UsageError("dataset", name, reason)
    return tfds, builder


def _read(tfds, builder, split, limit):
    """A split as arrays, in the order of the files, up to `limit` images; 0 is all."""
    size = builder.info.splits[split].num_examples
    if 0 < limit < size:
        split, size = f"{split}[:{limit}]", limit
    result = Split(np.empty((size, 32, 32, 3), np.uint8), np.empty(size, np.int32))
    config = tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=False)
    batches = builder.as_dataset(split=split, batch_size=1000, shuffle_files=False, read_config=config)
    filled = 0
    for batch in tfds.as_numpy(batches):
        rows = slice(filled, filled + len(batch["label"]))
        result.images[rows], result.labels[rows] = batch["image"], batch["label"]
        filled = rows.stop
    if filled != size:
        raise OSError(f"the files of split {split!r} hold {filled} images instead of {size}")
    return result


class Batches:
    """Rows of the training images by step: floor(N / batch_size) batches per epoch, the rest of it dropped.

    The order of an epoch depends on (seed, epoch) alone, so any step's batch can be had at any time.

    Raises:
      UsageError: for a batch larger than the data.
    """

    def __init__(self, size: int, batch_size: int, seed: int):
        if not 1 <= batch_size <= size:
            raise UsageError("batch_size", batch_size, f"there are {size} training images")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.steps_per_epoch = size // batch_size
        self._epoch, self._order = -1, np.empty(0, np.int32)

    def __call__(self, step: int) -> np.ndarray:
        """The rows [batch_size] int32 of the batch at `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            self._epoch, self._order = epoch, order.astype(np.int32)
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]


def augment(images: tf.Tensor, seed: int, step, padding: int = PADDING, fill: int = 0) -> tf.Tensor:
    """A random crop of each image [B, H, W, C] padded with `fill`, and a flip of every other one on average.

    Each image draws its own offsets and flip, from (seed, step).
    """
    batch, height, width, _ = tf.unstack(tf.shape(images))
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]], constant_values=fill)
    offsets = (draw_seed(seed, step, "augmentation"), 0, 2 * padding + 1, tf.int32)
    draws = replicas.draw(uniform, [2, batch, 1], *offsets, axis=1)
    flips = replicas.draw(uniform, [batch, 1], draw_seed(seed, step, "flip"), 0, 2, tf.int32)
    rows = draws[0] + tf.range(height)
    columns = draws[1] + tf.where(flips == 1, tf.range(width)[::-1], tf.range(width))
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
