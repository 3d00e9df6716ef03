"""Two iterations by the own code of the authors of L2L, L2L-DA, Direct and Learn2Perturb; see `tests/data/README.md`.

Their variables have other names, and those of PyTorch other axes: `Released` translates.
"""

import re
import zlib

import numpy as np
import tensorflow as tf
from released import DATA, normal, probe_distance, probe_error

from madry_cifar.runs.checkpoints import flat_state

ORIGINAL = np.load(DATA / "generative_code.npz")
IMAGES, LABELS = ORIGINAL["images"], ORIGINAL["labels"]  # [2, 4, 32, 32, 3], [2, 4]
SEED = 11


def drawn(number, kind, shape, tag="11"):
    """Draw number `number` of a script, of a PyTorch shape ([B, C, H, W] or less) and with our axes."""
    state = np.random.RandomState(zlib.crc32(f"{tag}/draw/{number}".encode()))
    values = state.standard_normal(shape) if kind == "normal" else state.uniform(size=shape)
    return values if len(shape) < 3 else np.moveaxis(values, -3, -1)


def pytorch_weight(name, shape):
    """The float32 values that a variable of a PyTorch script had."""
    n = normal(f"{SEED}/{name}", shape).astype("float32")
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(n)
    if name.endswith("running_mean"):
        return 0.1 * n
    if name.endswith("bias"):
        return 0.05 * n
    if "sigma_map" in name:
        return 0.25 + 0.02 * n
    if shape == (1,):
        return 0.25 + 0.05 * n
    if len(shape) == 1:
        return 1 + 0.1 * n
    if name.endswith("norm.weight"):
        return np.concatenate([0.02 * n[:-1], 1 + 0.1 * n[-1:]])
    return n * np.float32(np.sqrt(1 / np.prod(shape[1:])))


def tensorflow_weight(name, shape):
    """The same of a TensorFlow script."""
    n = normal(f"{SEED}/{name}", shape).astype("float32")
    if name.endswith("gamma"):
        return 1 + 0.1 * n
    if len(shape) == 1:
        return 0.05 * n
    return n * np.float32(np.sqrt(1 / np.prod(shape[:-1])))


def to_pytorch(name, value):
    """An array of ours with PyTorch's axes."""
    if "sigma_map" in name:
        return np.moveaxis(value, -1, 0)
    if value.ndim == 4:  # a convolution's [k, k, in, out], a transposed one's [k, k, out, in]
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 and name.split(".")[-2] != "norm" else value


def from_pytorch(name, value):
    """And back."""
    if "sigma_map" in name:
        return np.moveaxis(value, 0, -1)
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and name.split(".")[-2] != "norm" else value


class Released:
    """The numbers of one script, and the variables of our defence that are meant to have them.

    Args:
      script: l2l, l2l_da, direct or learn2perturb.
      defense: ours; all variables of its networks must have a counterpart, but Learn2Perturb's "on".
      rename: from the script's names to our flat ones; None for what has no part in anything.
      variables: the key of the list of its variables.
    """

    def __init__(self, script, defense, rename, variables="variables"):
        self.script, self.pytorch = script, script != "direct"
        state = flat_state(defense.networks, {})
        self.shapes, self.state = {}, {}
        for line in self[variables]:
            name, *shape = str(line).split()
            if (ours := rename(name)) is not None:
                self.shapes[name], self.state[name] = tuple(map(int, shape)), state[ours]
        missing = state.keys() - set(map(rename, self.shapes)) - {"noise.on"}
        assert not {name for name in missing if self.pytorch or "moving" not in name}
        self.rows = [str(line).split()[0] for line in self[variables]]

    def __getitem__(self, key):
        return ORIGINAL[f"{self.script}/{key}"]

    def fill(self):
        """Gives our variables the values that the script's had, and remembers them."""
        for name, shape in self.shapes.items():
            value = from_pytorch(name, pytorch_weight(name, shape)) if self.pytorch else tensorflow_weight(name, shape)
            self.state[name].assign(value)
        self.start = self.values()

    def values(self):
        return {name: variable.numpy() for name, variable in self.state.items()}

    def assert_changes(self, key, now, tolerance=1e-5):
        """The change of every variable since the start is the script's."""
        self.assert_each(key, {name: now[name] - self.start[name] for name in self.state}, self.rows, tolerance)

    def assert_each(self, key, values, rows, tolerance=1e-5):
        """Arrays of ours, by the names of the script's variables, are the script's, which `rows` are in their order.

        Norms to `tolerance`, and the inner product with a direction to as much of the norm. Biases of convolutions in
        front of a batch norm have no gradient, and move by rounding alone: an absolute 1e-9 is left for them.
        """
        expected = dict(zip(rows, self[key], strict=True))
        for name, value in values.items():
            value = to_pytorch(name, value) if self.pytorch else value
            size = expected[name][1]
            error = probe_distance(name, value, expected[name])
            assert error <= tolerance * size + 1e-9 * value.size**0.5, (name, error, size)

    def assert_equal(self, key, value, tolerance=1e-6):
        """An array of ours is the script's: all of it or, where it is large, its norm and a projection."""
        expected, value = self[key], np.asarray(value, np.float64)
        if expected.shape == (3,) and value.shape != (3,):
            assert probe_error(key, value, expected) <= tolerance, key
        else:
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


class Recorder:
    """Calls something, keeps inputs and outputs of each call, and is like it otherwise."""

    def __init__(self, subject):
        self.subject, self.inputs, self.outputs, self.modes = subject, [], [], []

    def __call__(self, *args, **kwargs):
        outputs = self.subject(*args, **kwargs)
        self.inputs.append(np.asarray(args[0]))
        self.outputs.append(outputs)
        self.modes.append(kwargs.get("batch_norm", "eval"))
        return outputs

    def __getattr__(self, name):
        return getattr(self.subject, name)


def batch(k):
    """Images and labels of iteration k."""
    return tf.constant(IMAGES[k], tf.float64), tf.constant(LABELS[k])


LAST = {"running_mean": "moving_mean", "running_var": "moving_variance"}


def renaming(*rules):
    """From a PyTorch name to ours: (pattern, replacement) for all but its last part; None where no pattern fits."""

    def rename(name):
        place, _, last = name.rpartition(".")
        fits = [(pattern, new) for pattern, new in rules if re.fullmatch(pattern, place)]
        if not fits:
            return None
        place = re.sub(*fits[0], place)
        layer = place.split(".")[-1]
        if layer.startswith("norm"):
            return f"{place}.{dict(weight='gamma', bias='beta', **LAST)[last]}"
        return f"{place}.{dict(weight='alpha' if 'prelu' in layer else 'kernel', bias='bias')[last]}"

    return rename
