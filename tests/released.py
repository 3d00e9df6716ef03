"""The numbers of authors' released code, the rule that fills its variables, and the probes of large arrays.

See `tests/data/README.md`.
"""

import pathlib
import zlib

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"
RELEASED = np.load(DATA / "released_code.npz")


def weight(name, shape, seed=int(RELEASED["seed"])):
    """The float32 values that the released code's variable of a name and shape had."""
    n = normal(f"{seed}/{name}", shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return 1 + 0.1 * np.abs(n)
    if name.endswith("gamma"):
        return 1 + 0.1 * n
    if name.endswith(("beta", "moving_mean")):
        return 0.1 * n
    if name.endswith(("bias", "biases")):
        return 0.01 * n
    return n * np.float32(np.sqrt(2 / np.prod(shape[:3]) if len(shape) == 4 else 1 / shape[0]))


def probe_distance(name, value, probe):
    """About how far an array is from the one whose sum, norm and inner product with a direction of its name are given.

    An array that is off by e changes the inner product by about the norm of e.
    """
    _, size, product = probe
    found = np.vdot(value, normal(f"probe/{name}", value.shape))
    return max(abs(np.linalg.norm(value) - size), abs(found - product))


def probe_error(name, value, probe):
    """The same relative to that norm."""
    return probe_distance(name, value, probe) / probe[1]


def is_running(name):
    """Whether a variable is a running statistic of batch norm, which no optimizer trains."""
    return name.endswith(("moving_mean", "moving_variance"))


def normal(key, shape):
    """N(0, 1) numbers that a name stands for."""
    return np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
