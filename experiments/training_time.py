"""How long a run was trained, from the times in its TensorBoard files."""

import pathlib

from madry_cifar.runs.events import event_files, events


def training_time(folder: str | pathlib.Path) -> float | None:
    """Seconds that the processes which trained the run in a folder wrote curves, together; None where none did.

    Each process has a file of its own; the times between them, in which nothing was trained, do not count.
    """
    times = [[event.wall_time for event in events(file)] for file in event_files(folder)]
    return sum(max(each) - min(each) for each in times if each) or None  # none at all where checkpoints were copied
