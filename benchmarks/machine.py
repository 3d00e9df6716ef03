"""What a measurement was taken on, and the memory of a process."""

import datetime
import importlib
import pathlib
import platform
import warnings
from importlib import metadata
from typing import Any

import tensorflow as tf

from madry_cifar.runs import machine

PACKAGES = ("tensorflow", "keras", "numpy")


def describe(*peers: str) -> dict[str, Any]:
    """The processor, the cores this process may use, GPUs, versions (None: not installed) and today's date.

    `peers` are further distributions whose versions matter, by the names that pip knows.
    """
    return {
        "cpu": machine.cpu(),
        "cores": machine.cores(),
        "gpus": machine.gpus(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in (*PACKAGES, *peers)},
        "date": datetime.date.today().isoformat(),
    }


def threads() -> int:
    """How many threads TensorFlow has for one operation: as it was told, or one for each core."""
    return tf.config.threading.get_intra_op_parallelism_threads() or machine.cores()


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_installed(module: str) -> bool:
    """Whether a module of a peer can be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ART misses PyTorch
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def resident() -> float:
    """The memory that this process has now, in GiB."""
    return _status("VmRSS")


def peak() -> float:
    """The most memory that this process ever had, in GiB.

    Not `getrusage`'s ru_maxrss: a process inherits that from the one that started it.
    """
    return _status("VmHWM")


def _status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20
