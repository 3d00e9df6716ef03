"""A run's whole training as StableHLO programs, for machines that have XLA and no TensorFlow.

A folder of:

  train_xla.py          what runs it there (JAX and NumPy)
  about.json            the programs' inputs and outputs, the variables, the data, and the settings of the run
  train.stablehlo       (images, labels, rows, steps, count, variables …) → (losses …, new values of the variables …)
  evaluate.stablehlo    (images, labels, seed, first, variables …) → which images are classified correctly, by attack
  initial.stablehlo     (seeds) → the variables that begin as random draws
  variables.npz         those that are neither constant nor such draws: none before the first step
  data.npz              training images and those that are evaluated, as pixels or as stored files; their labels

So an untrained run carries no weights, and a trained one those that it has.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from madry_cifar import data
from madry_cifar.attacks.registry import Attack
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.stored import stored_files
from madry_cifar.evaluation.evaluator import JUDGED
from madry_cifar.export import stablehlo
from madry_cifar.export.train_step import differences
from madry_cifar.randomness import ConsecutiveDraws
from madry_cifar.runs import checkpoints
from madry_cifar.runs.files import write_json
from madry_cifar.training.method import Defense

RUNNER = pathlib.Path(__file__).with_name("train_xla.py")  # not imported: it needs JAX
EVALUATED_AT_ONCE = 250  # images


class Training:
    """The training of a defence on a data set, from the weights that it has.

    Args:
      method: the defence.
      dataset: with its training images.
      evaluated: the images to evaluate on.
      chosen: the attacks of the evaluation, none of several stages.
      steps_per_call: training steps that the program takes at most at once.
    """

    def __init__(
        self,
        method: Defense,
        dataset: data.Dataset,
        evaluated: data.Split,
        chosen: Sequence[Attack],
        steps_per_call: int,
    ):
        self.method, self.dataset, self.evaluated, self.attacks = method, dataset, evaluated, chosen
        self.steps_per_call, self.batch_size = steps_per_call, method.options.batch_size
        self.variables = checkpoints.flat_state(method.networks, method.optimizers)

    def write(
        self, folder: pathlib.Path, about: Mapping, images: str = "pixels", data_dir: str | None = None
    ) -> str | None:
        """Writes the folder, which must not exist; its description begins with what it is `about`.

        Args:
          images: as "pixels"; as the "files" in which tensorflow-datasets stores them in `data_dir`; or "none".

        Returns:
          How far the pixels that the runner decodes from files are from those here, in words; None if not at all.

        Raises:
          UsageError: for files of a data set that has none.
        """
        files, difference = None, None
        if images == "files":
            files, difference = stored_files(self.dataset, self.evaluated, data_dir)
        folder.mkdir()
        self.drawn = self._drawn()
        programs = {"train": self._train(), "evaluate": self._evaluate(), "initial": self._initial()}
        for name, program in programs.items():
            (folder / f"{name}.stablehlo").write_bytes(program.code)
        starts = {name: _start(variable.numpy(), name in self.drawn) for name, variable in self.variables.items()}
        kept = {name: self.variables[name].numpy() for name, start in starts.items() if start == "stored"}
        if kept:
            np.savez(folder / "variables.npz", **kept)
        if images != "none":
            told = {"provenance": self.dataset.provenance, "decoded_difference": difference or ""}
            np.savez_compressed(folder / "data.npz", **told, **self._arrays(files))
        variables = {
            name: {"shape": variable.shape.as_list(), "dtype": variable.dtype.name, "start": starts[name]}
            for name, variable in self.variables.items()
        }
        described = {
            "programs": {
                name: {"inputs": program.inputs, "outputs": program.outputs} for name, program in programs.items()
            },
            "variables": variables,
            "seeds": [value.seed for value in self.drawn.values()],
            "weights": list(checkpoints.flat_state(self.method.networks, {})),
            "images": images,
            "train_images": len(self.dataset.train),
            "evaluated_images": len(self.evaluated),
            "steps_per_call": self.steps_per_call,
            "evaluated_at_once": EVALUATED_AT_ONCE,
        }
        write_json(folder / "about.json", {**about, **described})
        shutil.copy(RUNNER, folder)
        return difference

    def _arrays(self, files):
        splits = {"train": self.dataset.train, "evaluated": self.evaluated}
        arrays = {f"{name}_labels": split.labels for name, split in splits.items()}
        if files is None:
            return arrays | {name: split.images for name, split in splits.items()}
        for name, each in files.items():  # one after another, with the places where they end
            arrays[name] = np.frombuffer(b"".join(each), np.uint8)
            arrays[f"{name}_ends"] = np.cumsum([len(file) for file in each])
        return arrays

    def difference(self, folder: pathlib.Path) -> tuple[float, float]:
        """Takes one step by the programs in the folder, from the weights there, and one as TensorFlow compiles it.

        Returns what `train_step.differences` does.
        """
        about = json.loads((folder / "about.json").read_text())

        def run(name, values):
            described = about["programs"][name]
            code = (folder / f"{name}.stablehlo").read_bytes()
            return stablehlo.run(code, described["inputs"], described["outputs"], values)

        values = run("initial", {"seeds": np.reshape(about["seeds"], [-1, 2]).astype(np.int32)})
        for name, variable in about["variables"].items():
            if variable["start"] not in ("drawn", "stored"):
                values[name] = np.full(variable["shape"], variable["start"], variable["dtype"])
        if (folder / "variables.npz").exists():
            with np.load(folder / "variables.npz", allow_pickle=False) as stored:
                values |= dict(stored)
        step, images, labels = about["checkpoint"], self.dataset.train.images, self.dataset.train.labels
        rows = data.Batches(len(labels), self.batch_size, self.method.seed)(step)
        given = {"images": images, "labels": labels, "count": np.int32(1)}
        given |= {"rows": np.stack([rows] * self.steps_per_call), "steps": np.full(self.steps_per_call, step, np.int32)}
        loaded = {name.removeprefix("loss/"): value for name, value in run("train", given | values).items()}
        one = tf.function(self._step, jit_compile=True, autograph=False)
        return differences(loaded, self.variables, lambda: one(images, labels, rows, step))

    def _step(self, images, labels, rows, step):
        step = tf.cast(step, tf.int64)
        batch = tf.cast(self.dataset.augment(tf.gather(images, rows), self.method.seed, step), self.method.dtype)
        return dict(self.method.train_step(batch, tf.gather(labels, rows), step))

    def _train(self):
        def checked(losses):
            return losses, tf.reduce_all([tf.math.is_finite(loss) for loss in losses.values()])

        def train(images, labels, rows, steps, count):
            def next_step(taken, losses, finite):
                return taken + 1, *checked(self._step(images, labels, rows[taken], steps[taken]))

            if self.steps_per_call == 1:  # without a loop, in which XLA's convolutions are slow on a CPU
                taken, losses, finite = next_step(0, None, None)
            else:
                one = tf.function(self._step, autograph=False)
                traced = one.get_concrete_function(images, labels, rows[0], steps[0])
                losses = {name: tf.zeros([], loss.dtype) for name, loss in traced.structured_outputs.items()}
                taken, losses, finite = tf.while_loop(
                    lambda taken, losses, finite: finite & (taken < count), next_step, (0, losses, True)
                )
            return {f"loss/{name}": loss for name, loss in losses.items()} | {"taken": taken, "finite": finite}

        images, labels = self.dataset.train.images, self.dataset.train.labels
        return self._program(
            train,
            images=tf.TensorSpec(images.shape, tf.uint8),
            labels=tf.TensorSpec(labels.shape, tf.int32),
            rows=tf.TensorSpec([self.steps_per_call, self.batch_size], tf.int32),
            steps=tf.TensorSpec([self.steps_per_call], tf.int32),
            count=tf.TensorSpec([], tf.int32),
        )

    def _evaluate(self):
        predictor = self.method.predictor()

        def evaluate(images, labels, seed, first):
            images, place = tf.cast(images, tf.float32), first + tf.range(EVALUATED_AT_ONCE, dtype=tf.int64)
            draws = ConsecutiveDraws(tf.stack([seed, 0]), place)

            def right(attack):
                adversarial = attack.run(predictor, images, labels, draws, **attack.settings)
                logits = predictor(adversarial, draws.query(JUDGED)).logits
                return tf.argmax(logits, axis=1, output_type=labels.dtype) == labels

            return {f"{index}/{attack.name}": right(attack) for index, attack in enumerate(self.attacks)}

        size = EVALUATED_AT_ONCE
        try:
            return self._program(
                evaluate,
                images=tf.TensorSpec([size, *self.evaluated.images.shape[1:]], tf.uint8),
                labels=tf.TensorSpec([size], tf.int32),
                seed=tf.TensorSpec([], tf.int64),
                first=tf.TensorSpec([], tf.int64),
            )
        except ValueError as error:
            if isinstance(error, UsageError) or "compile-time constant" not in str(error):
                raise
            names = ",".join(attack.name for attack in self.attacks)
            reason = "XLA cannot compile one of these; those of one size compile: natural, fgsm, pgd-N, cw-N"
            raise UsageError("eval_attacks", names, reason) from None

    def _drawn(self):
        """The first values of the variables that still have them."""
        first = {name: getattr(variable, "first_value", None) for name, variable in self.variables.items()}
        return {
            name: value
            for name, value in first.items()
            if value and np.array_equal(value.draw(value.seed).numpy(), self.variables[name].numpy())
        }

    def _initial(self):
        def initial(seeds):
            return {name: value.draw(seeds[k]) for k, (name, value) in enumerate(self.drawn.items())}

        return self._program(initial, seeds=tf.TensorSpec([len(self.drawn), 2], tf.int32))

    def _program(self, function, **arguments):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        return stablehlo.program(compiled, arguments, self.variables)


def _start(value, drawn):
    """How a variable of this value begins: "drawn", a number that all of it is, or "stored"."""
    if drawn:
        return "drawn"
    first = value.flat[0]
    return first.item() if np.all(value == first) else "stored"
