"""Data sets in memory: CIFAR-10, CIFAR-100, SVHN and digits; their batches and augmentation."""

from madry_cifar.data.datasets import (
    NUM_CLASSES,
    PADDING,
    Batches,
    Dataset,
    Split,
    augment,
    check_crop,
    check_labels,
    check_there,
    is_augmented,
    load,
)

__all__ = [
    "NUM_CLASSES",
    "PADDING",
    "Batches",
    "Dataset",
    "Split",
    "augment",
    "check_crop",
    "check_labels",
    "check_there",
    "is_augmented",
    "load",
]
