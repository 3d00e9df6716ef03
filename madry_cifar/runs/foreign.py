"""What checkpoints of other people's code have in common: they decide some settings, and their names must be ours."""

from collections.abc import Mapping
from typing import Any

from madry_cifar import data
from madry_cifar.cli.errors import UsageError


def agreed(read: Mapping[str, Any], num_classes: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `read` from a checkpoint of so many classes, with a data set that has as many.

    Raises:
      UsageError: where others were `given`.
    """
    dataset = given.get("dataset", "cifar100" if num_classes == 100 else "cifar10")
    if data.NUM_CLASSES.get(dataset) != num_classes:
        raise UsageError("dataset", dataset, f"not one with the checkpoint's {num_classes} classes")
    for name, value in read.items():
        if given.get(name, value) != value:
            raise UsageError(name, given[name], f"the checkpoint's is {value}")
    return {**read, "dataset": dataset}


def differences(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Every name that is missing, unmatched or of another shape; "" where all are as expected."""
    faults = {
        "missing": [name for name in expected if name not in found],
        "unmatched": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(found[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    return "; ".join(f"{len(names)} {what}: {', '.join(sorted(names))}" for what, names in faults.items() if names)
