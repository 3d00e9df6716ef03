"""A run's TensorBoard files, read."""

import os
import pathlib
from collections.abc import Iterator

import tensorflow as tf


def event_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Those that the processes which trained the run in a folder wrote, one each, the earliest first."""
    return sorted(pathlib.Path(folder).glob("events.*"))


def events(file: pathlib.Path) -> Iterator[tf.compat.v1.Event]:
    """The events of a file; of one that was cut off, those before."""
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)
    except tf.errors.DataLossError:
        return
