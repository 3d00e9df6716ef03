"""A run's compiled training iteration as a StableHLO program, with its inputs, to be run without TensorFlow.

Three files belong together:

  NAME.stablehlo   the program: (images, labels, step, variables …) → (losses …, new values of the variables …)
  NAME.npz         its inputs, in order: a batch, the number of the step, and the variables of the checkpoint
  NAME.json        names, shapes and types of inputs and outputs, in order; `replaces` of an output is the number of the
                   input that it is the new value of, so that the next iteration takes it instead
"""

import json
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from madry_cifar import data
from madry_cifar.export import stablehlo
from madry_cifar.runs import checkpoints
from madry_cifar.runs.files import write_json
from madry_cifar.training.method import Defense


def batch(dataset: data.Dataset, step: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch that a training of `seed` takes at `step`: images [B, 32, 32, 3] float32, labels [B] int32."""
    drawn = dataset.train.take(data.Batches(len(dataset.train), size, seed)(step))
    images = dataset.augment(tf.constant(drawn.images), seed, step)
    return np.asarray(images, np.float32), drawn.labels


class TrainStep:
    """The training iteration of a defence on one batch.

    Args:
      method: the defence.
      images: [B, 32, 32, 3] in [0, 255], as they come out of augmentation.
      labels: [B].
      step: counted from 0; decides learning rates and random draws.
    """

    def __init__(self, method: Defense, images: np.ndarray, labels: np.ndarray, step: int):
        def iteration(images, labels, step):
            return dict(method.train_step(images, labels, tf.cast(step, tf.int64)))

        self.variables = checkpoints.flat_state(method.networks, method.optimizers)
        self._batch = {"images": np.float32(images), "labels": np.int32(labels), "step": np.int32(step)}
        self._arguments = [tf.constant(value) for value in self._batch.values()]
        self._specs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in self._batch.items()}
        self._function = tf.function(iteration, jit_compile=True, autograph=False)

    def restore(self, path: str) -> None:
        """Gives the variables their values in the checkpoint at `path`. Raises RunError when it does not have them."""
        checkpoints.assign(self.variables, checkpoints.read(path), path)

    def write(self, path: pathlib.Path, about: Mapping) -> None:
        """Writes the program to `path`, and beside it its inputs and their description, after what it is `about`."""
        program = stablehlo.program(self._function, self._specs, self.variables)
        names = [entry["name"] for entry in program.inputs]
        inputs = self._batch | {name: self.variables[name].numpy() for name in names[len(self._batch) :]}
        path.write_bytes(program.code)
        np.savez(path.with_suffix(".npz"), **inputs)
        write_json(path.with_suffix(".json"), {**about, "inputs": program.inputs, "outputs": program.outputs})

    def difference(self, path: pathlib.Path) -> tuple[float, float]:
        """Runs the files at `path`, and the iteration itself, as TensorFlow compiles it: both from the same state.

        Returns what `differences` does.
        """
        content = json.loads(path.with_suffix(".json").read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            loaded = stablehlo.run(path.read_bytes(), content["inputs"], content["outputs"], stored)
        return differences(loaded, self.variables, lambda: self._function(*self._arguments))


def differences(
    loaded: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable], step: Callable[[], Mapping]
) -> tuple[float, float]:
    """How far the losses and new values that a program gave are from what a `step` does, which returns its losses.

    Returns:
      The largest difference of a loss, relative to the loss (or to 1 if that is more); and the largest of a new
      value of a variable, relative to the variable's change, both in the Euclidean norm.
    """
    before = {name: variable.numpy() for name, variable in variables.items()}
    losses = step()
    of_losses = [abs(float(loaded[name] - loss)) / max(1.0, abs(float(loss))) for name, loss in losses.items()]
    of_variables = [
        _norm(loaded.get(name, old) - variable) / max(_norm(variable - old), 1e-6 * _norm(old), 1e-30)
        for (name, old), variable in zip(before.items(), variables.values(), strict=True)
    ]
    return float(np.max(of_losses)), float(np.max(of_variables))


def _norm(values) -> float:
    return float(np.linalg.norm(values))
