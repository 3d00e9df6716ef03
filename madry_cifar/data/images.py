"""Images of any size to evaluate on: arrays in a file, pictures in folders, or a set of tensorflow-datasets."""

import hashlib
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.data import datasets
from madry_cifar.data.datasets import Dataset, Split

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
ARRAYS = (("images", "labels"), ("x_test", "y_test"), ("test_images", "test_labels"), ("x", "y"))  # in an .npz


def load_file(path: str, shape: Sequence[int] | None = None, max_images: int = 0) -> Dataset:
    """Images with their classes, from a file or folder.

    Args:
      path: an .npz with arrays `images` and `labels` (or `x_test` and `y_test`, …), or a folder with a folder of
        pictures for each class, whose names in alphabetic order are the classes 0, 1, …
      shape: [H, W, C] that the model takes; pictures of another size are resized to it.
      max_images: how many there are to be; 0 is all. Of pictures the first of each class, then the second, …

    Raises:
      UsageError: naming what is wrong with the file or folder.
    """
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise UsageError("data", path, "no such file or folder")
    if place.is_dir():
        images, labels, classes = _pictures(path, place, shape, max_images)
    else:
        images, labels = _arrays(path, place, max_images)
        classes = None
    return _dataset(place.name, images, labels, classes and len(classes), f"{place.name}")


def load_tfds(
    name: str,
    *,
    data_dir: str | None = None,
    download: bool = False,
    split: str = "test",
    shape: Sequence[int] | None = None,
    max_images: int = 0,
) -> Dataset:
    """A split of any image-classification set of tensorflow-datasets (with `split` "test" the one of that name, or
    "validation" where there is none); images of several sizes are resized to `shape`.

    Raises:
      UsageError: for a set that is not there, or that has no images and classes.
    """
    tfds, builder = datasets.prepared(name, data_dir, download)
    features, keys = builder.info.features, builder.info.supervised_keys or ()
    if (
        len(keys) != 2
        or not isinstance(features[keys[0]], tfds.features.Image)
        or not hasattr(features[keys[1]], "num_classes")
    ):
        raise UsageError("dataset", name, "no image-classification set: it has no images with one class each")
    known = list(builder.info.splits)
    if split == "test" and "test" not in known and "validation" in known:
        split = "validation"
    if split not in known:
        raise UsageError("split", split, f"{name} has {', '.join(known)}")
    wanted = f"{split}[:{min(max_images, builder.info.splits[split].num_examples)}]" if max_images else split
    in_order = {"shuffle_files": False, "read_config": tfds.ReadConfig(interleave_cycle_length=1)}
    try:
        examples = list(tfds.as_numpy(builder.as_dataset(split=wanted, as_supervised=True, **in_order)))
    except (tf.errors.OpError, OSError, KeyError, AssertionError) as error:
        raise RunError(f"{name} in {builder.data_dir} cannot be read: {str(error).splitlines()[0]}") from None
    images = _of_one_size("dataset", name, [image for image, _ in examples], shape)
    labels = np.array([label for _, label in examples], np.int32)
    classes = features[keys[1]].num_classes
    return _dataset(name, images, labels, classes, f"{name} {builder.version} (tensorflow-datasets), {split}")


def _dataset(name, images, labels, num_classes, provenance):
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:8]
    sizes = "×".join(map(str, images.shape[1:]))
    provenance = f"{provenance}, {len(images)} images of {sizes} (sha256 {digest})"
    split = Split(images, labels)
    return Dataset(name, None, split, None, num_classes, augmented=False, provenance=provenance)


def _arrays(path, place, max_images):
    try:
        content = np.load(place, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("one array")
        with content as stored:
            names = next((pair for pair in ARRAYS if set(pair) <= set(stored.files)), None)
            if names is None:
                raise UsageError(
                    "data", path, f"must hold arrays images and labels; it holds {', '.join(stored.files) or 'none'}"
                )
            images, labels = (stored[name][: max_images or None] for name in names)
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError("data", path, f"no .npz archive of arrays of numbers ({str(error)[:100]})") from None
    return images, labels


def _pictures(path, place, shape, max_images):
    classes = sorted(folder.name for folder in place.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    files = [
        (number, label, file)
        for label, name in enumerate(classes)
        for number, file in enumerate(sorted(f for f in (place / name).iterdir() if f.suffix.lower() in PICTURES))
    ]
    if not files:
        raise UsageError("data", path, f"must hold FOLDER/CLASS/PICTURE ({', '.join(PICTURES)}); there are none")
    if len(classes) < 2:
        raise UsageError("data", path, f"holds one folder ({classes[0]}): there must be one for each class")
    chosen = sorted(files)[: max_images or None]  # each class's first, then each one's second
    images = []
    for _, _, file in chosen:
        try:
            channels = shape[2] if shape else 3
            images.append(tf.io.decode_image(file.read_bytes(), channels=channels, expand_animations=False).numpy())
        except (tf.errors.OpError, OSError) as error:
            raise UsageError("data", file, f"no picture ({str(error).splitlines()[0][:80]})") from None
    images = _of_one_size("data", path, images, shape)
    return images, np.array([label for _, label, _ in chosen], np.int32), classes


def _of_one_size(flag, value, images, shape):
    """Images as one array [N, H, W, C] uint8, resized to `shape` if it is known."""
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1 and not shape:
        raise UsageError(
            flag,
            value,
            f"images of {len(sizes)} sizes, and the model does not tell which it takes; add --image_size=H,W",
        )
    size = tuple(shape[:2]) if shape else sizes.pop()
    return np.stack([image if image.shape[:2] == size else _resized(image, size) for image in images])


def _resized(image, size):
    large = tf.image.resize(image, size, method="bilinear", antialias=True)
    return np.rint(tf.clip_by_value(large, 0, 255).numpy()).astype(np.uint8)
