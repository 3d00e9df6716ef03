"""How long a run was trained, from the times in its TensorBoard files."""

import pathlib

import tensorflow as tf


def training_time(folder: str | pathlib.Path) -> float | None:
    """Seconds that the processes which trained the run in a folder wrote curves, together; None where none did.

    Each process has a file of its own; the times between them, in which nothing was trained, do not count.
    """
    files = pathlib.Path(folder).glob("events.*")
    times = [_times(file) for file in files]
    return sum(max(each) - min(each) for each in times if each) if any(times) else None


def _times(file):
    """When the events of a file were written; of one that was cut off, those before."""
    times = []
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            times.append(tf.compat.v1.Event.FromString(record).wall_time)
    except tf.errors.DataLossError:
        pass
    return times
