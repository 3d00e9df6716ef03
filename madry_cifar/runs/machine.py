"""What a run or a measurement ran on."""

import os
import pathlib
import platform

import tensorflow as tf


def cpu() -> str:
    """The model of the processor, as the system calls it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def gpus() -> list[str]:
    """The GPUs that TensorFlow sees."""
    devices = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in devices]


def describe() -> str:
    """All of it in a line."""
    number = cores()
    return ", ".join([f"{number} core{'s' if number > 1 else ''} of {cpu()}", *gpus()])
