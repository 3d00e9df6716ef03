"""The images of a data set as tensorflow-datasets stores them: JPEG or PNG files, smaller than their pixels."""

import io

import numpy as np
from PIL import Image

from madry_cifar.cli.errors import UsageError
from madry_cifar.data import original_files
from madry_cifar.data.datasets import Dataset, Split, held_out_rows, prepared

Files = dict[str, list[bytes]]
COMPARED = 200  # images, of each split


def stored_files(
    dataset: Dataset, evaluated: Split, data_dir: str | None = None
) -> tuple[dict[str, list[bytes]], str | None]:
    """The files of the training images ("train") and of those to be evaluated ("evaluated"), in their order.

    And how far the pixels that Pillow decodes them to are from TensorFlow's, in words; None for PNG: for JPEG
    TensorFlow takes a faster transform, and Pillow the exact one.

    Args:
      dataset: as `data.load` gave it, from the same `data_dir`.
      evaluated: the first of its held-out images, or of its test images where nothing was held out.

    Raises:
      UsageError: for a data set that is not of tensorflow-datasets.
    """
    if dataset.name == "digits" or original_files.find(dataset.name, data_dir):
        raise UsageError("images", "files", f"there are none of {dataset.provenance}; use --images=pixels")
    train = _read(dataset.name, data_dir, "train", len(dataset.train) + len(dataset.validation or ()))
    if dataset.validation:
        held_out, rest = held_out_rows(len(train), len(dataset.validation))
        files = {"train": [train[row] for row in rest], "evaluated": [train[row] for row in held_out[: len(evaluated)]]}
    else:
        files = {"train": train, "evaluated": _read(dataset.name, data_dir, "test", len(evaluated))}
    return files, _difference(files, {"train": dataset.train, "evaluated": evaluated})


def _difference(files, splits):
    found = []
    for name, split in splits.items():
        for row in range(0, len(split), max(1, len(split) // COMPARED)):
            with Image.open(io.BytesIO(files[name][row])) as picture:
                found.append(np.abs(np.int16(picture.convert("RGB")) - split.images[row]))
    mean, most = np.mean(found), np.max(found)
    return f"{mean:.2g} grey levels on average, {most} at most" if most else None


def _read(name, data_dir, split, count):
    tfds, builder = prepared(name, data_dir, download=False)
    config = tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=False)
    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = builder.as_dataset(split=split, shuffle_files=False, read_config=config, decoders=decoders)
    return [example["image"] for example in tfds.as_numpy(examples.take(count))]
