"""The data sets' original files: the pickled CIFAR batches that the released code reads, and SVHN's .mat files."""

import pathlib
import pickle

import numpy as np

from madry_cifar.cli.errors import RunError, UsageError

_FILES = {  # data set: (folders where they may lie, training files, test files)
    "cifar10": (
        (".", "cifar-10-batches-py", "cifar10_data"),
        [f"data_batch_{k}" for k in range(1, 6)],
        ["test_batch"],
    ),
    "cifar100": ((".", "cifar-100-python", "cifar100_data"), ["train"], ["test"]),
    "svhn_cropped": ((".",), ["train_32x32.mat"], ["test_32x32.mat"]),
}


def find(name: str, data_dir: str | None) -> pathlib.Path | None:
    """The folder with the original files of a data set, at or below `data_dir`; None when there is none of them.

    Raises:
      UsageError: when only some of the files are there; the missing ones are named.
    """
    folders, train, test = _FILES.get(name, ((), [], []))
    for folder in (pathlib.Path(data_dir or ".", sub) for sub in folders if data_dir):
        missing = [file for file in train + test if not (folder / file).is_file()]
        if missing and len(missing) < len(train + test):
            raise UsageError("data_dir", data_dir, f"{name} is incomplete in {folder}: {', '.join(missing)} missing")
        if not missing:
            return folder
    return None


def read(name: str, folder: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images [N, 32, 32, 3] uint8 and labels [N] int32 of the training and of the test files.

    Raises:
      RunError: for a file that is damaged, or a pickle that holds anything but arrays, lists, numbers and text.
    """
    _, train, test = _FILES[name]
    reader = _read_mat if name == "svhn_cropped" else _read_pickle
    return [_concatenate([reader(folder / file) for file in files]) for files in (train, test)]


def _concatenate(parts):
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


class _ArraysOnly(pickle.Unpickler):
    """Knows the four names by which NumPy pickles an array, and no other: a pickle cannot run code through it."""

    _ALLOWED = ("_reconstruct", "ndarray", "dtype", "encode")
    _MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs")

    def find_class(self, module, name):
        if module not in self._MODULES or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data set needs")
        return super().find_class(module, name)


def _read_pickle(path):
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        labels = content[b"fine_labels"] if b"fine_labels" in content else content[b"labels"]
        images = np.asarray(content[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _checked(images, np.asarray(labels, np.int32))
    except Exception as error:  # an unpickler fed with arbitrary bytes may raise anything
        raise RunError(f"{path}: not a batch of CIFAR ({error}); download it again") from None


def _read_mat(path):
    from scipy.io import loadmat  # slow to import, and needed for this alone

    try:
        content = loadmat(path)
        labels = content["y"].reshape(-1).astype(np.int32) % 10  # the digit 0 is stored as 10
        return _checked(np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2)), labels)
    except Exception as error:  # as above: SciPy has no one error for a damaged file
        raise RunError(f"{path}: not a file of SVHN ({error}); download it again") from None


def _checked(images, labels):
    if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
        raise ValueError(f"{len(labels)} labels, images {images.shape} {images.dtype}")
    return images, labels
