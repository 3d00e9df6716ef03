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
    normal = _normal(f"{seed}/{name}", shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return 1 + 0.1 * np.abs(normal)
    if name.endswith("gamma"):
        return 1 + 0.1 * normal
    if name.endswith(("beta", "moving_mean")):
        return 0.1 * normal
    if name.endswith(("bias", "biases")):
        return 0.01 * normal
    return normal * np.float32(np.sqrt(2 / np.prod(shape[:3]) if len(shape) == 4 else 1 / shape[0]))


def probe_error(name, value, probe):
    """About how far an array is from the one whose sum, norm and inner product with a direction of its name are given.

    Relative to that norm; an array that is off by e changes the inner product by about the norm of e.
    """
    _, size, product = probe
    found = np.vdot(value, _normal(f"probe/{name}", value.shape))
    return max(abs(np.linalg.norm(value) - size), abs(found - product)) / size


def is_running(name):
    """Whether a variable is a running statistic of batch norm, which no optimizer trains."""
    return name.endswith(("moving_mean", "moving_variance"))


def _normal(key, shape):
    return np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
