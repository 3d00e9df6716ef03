"""A run's compiled training iteration as a StableHLO program, with its inputs, to be run without TensorFlow.

Three files belong together:

  NAME.stablehlo   the program: (images, labels, step, variables …) → (losses …, new values of the variables …)
  NAME.npz         its inputs, in order: a batch, the number of the step, and the variables of the checkpoint
  NAME.json        names, shapes and types of inputs and outputs, in order; `replaces` of an output is the number of the
                   input that it is the new value of, so that the next iteration takes it instead
"""

import json
import pathlib
from collections.abc import Mapping

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
        self._function = tf.function(iteration, jit_compile=True, autograph=False)

    def restore(self, path: str) -> None:
        """Gives the variables their values in the checkpoint at `path`. Raises RunError when it does not have them."""
        checkpoints.assign(self.variables, checkpoints.read(path), path)

    def write(self, path: pathlib.Path, about: Mapping) -> None:
        """Writes the program to `path`, and beside it its inputs and their description, after what it is `about`."""
        program, replaces = stablehlo.lower(self._function, *self._arguments)
        function = self._function.get_concrete_function(*self._arguments)
        names = {id(variable.handle): name for name, variable in self.variables.items()}
        captured = [names[id(handle)] for handle in function.captured_inputs]
        inputs = self._batch | {name: self.variables[name].numpy() for name in captured}
        described = [_described(name, value) for name, value in inputs.items()]
        losses = sorted(function.structured_outputs)  # a dictionary's values are flattened in the order of its keys
        outputs = [_described(name, np.float32(0)) for name in losses]
        outputs += [described[replaces[number]] | {"replaces": replaces[number]} for number in sorted(replaces)]
        path.write_bytes(program)
        np.savez(path.with_suffix(".npz"), **inputs)
        write_json(path.with_suffix(".json"), {**about, "inputs": described, "outputs": outputs})

    def difference(self, path: pathlib.Path) -> tuple[float, float]:
        """Runs the files at `path`, and the iteration itself, as TensorFlow compiles it: both from the same state.

        Returns:
          The largest difference of a loss, relative to the loss (or to 1 if that is more); and the largest of a new
          value of a variable, relative to the variable's change, both in the Euclidean norm.
        """
        content = json.loads(path.with_suffix(".json").read_text())
        results = [tf.TensorSpec(output["shape"], output["dtype"]) for output in content["outputs"]]
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            inputs = [stored[entry["name"]] for entry in content["inputs"]]
        loaded = dict(
            zip(
                (entry["name"] for entry in content["outputs"]),
                stablehlo.load(path.read_bytes(), results)(*inputs),
                strict=True,
            )
        )
        before = {name: variable.numpy() for name, variable in self.variables.items()}
        losses = self._function(*self._arguments)
        of_losses = [abs(float(loaded[name] - loss)) / max(1.0, abs(float(loss))) for name, loss in losses.items()]
        of_variables = [
            _norm(loaded.get(name, old) - variable) / max(_norm(variable - old), 1e-6 * _norm(old), 1e-30)
            for (name, old), variable in zip(before.items(), self.variables.values(), strict=True)
        ]
        return float(np.max(of_losses)), float(np.max(of_variables))


def _norm(values) -> float:
    return float(np.linalg.norm(values))


def _described(name, value):
    return {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
