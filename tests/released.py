"""The numbers of the authors' released code, and the rule that fills its variables (see `tests/data/README.md`)."""

import pathlib
import zlib

import numpy as np

RELEASED = np.load(pathlib.Path(__file__).parent / "data" / "released_code.npz")


def weight(name, shape):
    """The float32 values that the released code's variable of a name and shape had."""
    state = np.random.RandomState(zlib.crc32(f"{RELEASED['seed']}/{name}".encode()))
    normal = state.standard_normal(shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return 1 + 0.1 * np.abs(normal)
    if name.endswith("gamma"):
        return 1 + 0.1 * normal
    if name.endswith(("beta", "moving_mean")):
        return 0.1 * normal
    if name.endswith("biases"):
        return 0.01 * normal
    return normal * np.float32(np.sqrt(2 / np.prod(shape[:3]) if len(shape) == 4 else 1 / shape[0]))
