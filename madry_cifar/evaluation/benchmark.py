"""A model's accuracy under several attacks, in one call."""

import hashlib
import json
import pathlib
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from madry_cifar.attacks.inputs import check_images
from madry_cifar.attacks.registry import attack
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import Evaluator, Task
from madry_cifar.evaluation.measuring import Measuring
from madry_cifar.evaluation.table import table

SMALL = "ε = {:.3g} is less than one grey level of 255, so there is next to no attack; 8/255 is epsilon=8"


@dataclass(frozen=True)
class Benchmark:
    """What attacks did to a model.

    Attributes:
      accuracies: in percent, by attack.
      per_image: by attack, [N] whether the model is right on what was made of each image.
      adversarial: by attack, [N, H, W, C] float32 pixels in [0, 255]; empty if they were not to be kept.
      notes: what is worth knowing of the model before the numbers are believed.
      content: all of it but the arrays, with protocols, times and versions: a results file.
    """

    accuracies: dict[str, float]
    per_image: dict[str, np.ndarray] = field(repr=False)
    adversarial: dict[str, np.ndarray] = field(repr=False)
    notes: tuple[str, ...]
    content: dict[str, Any] = field(repr=False)

    def to_json(self, path: str | None = None) -> str:
        """`content` as JSON; also written to `path`, if there is one."""
        text = json.dumps(self.content, indent=2)
        if path is not None:
            pathlib.Path(path).expanduser().write_text(text + "\n")
        return text

    def __str__(self):
        # plain wherever it is shown: a notebook would get a terminal's codes
        console = Console(width=100, color_system=None, force_jupyter=False)
        with console.capture() as captured:
            console.print(table([self.content]))
        return "\n".join([captured.get().rstrip(), *(f"note: {note}" for note in self.notes)])


def benchmark(
    model,
    images,
    labels,
    attacks: str | Iterable[str] = "natural,pgd-20,autoattack",
    *,
    epsilon: float = 8.0,
    step_size: float = 2.0,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 200,
    name: str | None = None,
    folder: str | None = None,
    keep_adversarial: bool = True,
    progress: bool = True,
    jit_compile: bool = False,
) -> Benchmark:
    """Measures a model's accuracy under attacks.

    Example:
      >>> import keras, numpy as np, rvs_tf
      >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
      >>> images, labels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)), np.arange(16) % 10
      >>> found = rvs_tf.benchmark(model, images, labels, "natural,pgd-20", progress=False)
      >>> sorted(found.accuracies)
      ['natural', 'pgd-20']

    Args:
      model: a Keras model or function that takes pixels in [0, 255] and returns logits; or a `Predictor`, which
        `rvs_tf.predictor` makes of others.
      images: [N, H, W, C] pixels in [0, 255], of any type of numbers.
      labels: true classes: integers [N] or [N, 1], or one-hot [N, K].
      attacks: their names, with commas or as a list; docs/evaluation.md tells which is for what.
      epsilon, step_size: radius of the L∞ ball, and size of a step of PGD and CW, in grey levels.
      restarts: random starts of attacks that have one and do not say how many.
      seed: of random starts.
      batch_size: images attacked at once.
      name: what the results call the model [its own name].
      folder: where results are kept; the same call goes on there when it was interrupted, and measures again only what
        is not there. None: nowhere.
      keep_adversarial: whether to return the adversarial images (and keep them in `folder`).
      progress: whether to draw bars with the time left, and print the table.
      jit_compile: whether the model's passes are compiled by XLA.

    Raises:
      ValueError: for a model, images or labels with which a number would mean nothing, or an attack that is not there
        or not for this model.
    """
    names = list(dict.fromkeys(name.strip() for name in (attacks.split(",") if isinstance(attacks, str) else attacks)))
    sizes = {"epsilon": float(epsilon), "step_size": float(step_size)}
    tasks = [Task(attack(name, **sizes, restarts=restarts)) for name in names if name]
    if not tasks:
        raise UsageError("attacks", "", "name at least one, for instance natural,pgd-20")
    split = Split(check_images(images), np.asarray(labels))
    evaluator = Evaluator(
        model,
        batch_size=min(batch_size, len(split)),
        progress=progress,
        keep_adversarial=keep_adversarial,
        jit_compile=jit_compile,
    )
    split = evaluator.admit(split, *(task.attack for task in tasks))
    notes = evaluator.notes + (SMALL.format(epsilon),) * (0 < epsilon < 1)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(folder).expanduser() if folder else pathlib.Path(temporary)
        measuring = Measuring(evaluator, split, place, seed)
        (content,) = measuring(_about(evaluator, name or _name(model), split, seed), [(sizes, tasks)], reuse=True)
        found = _benchmark(content, notes, keep_adversarial)
        if not folder:  # those files are gone
            for name in ("file", "predictions"):
                del found.content[name]
    if progress:
        print(found)
    return found


def _name(model):
    inner = getattr(model, "model", model)  # of a predictor
    return getattr(inner, "name", None) or getattr(inner, "__name__", None) or type(inner).__name__


def _about(evaluator, name, split, seed):
    digest = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()[:8]
    told = evaluator.predictor.purification()
    return ({"purification": told} if told else {}) | {
        "model": name,
        "classifier_sha256": evaluator.predictor.fingerprint(split.images.shape[1:]),
        "dataset": "given",
        "provenance": f"{'×'.join(map(str, split.images.shape[1:]))} (sha256 {digest})",
        "split": "given",
        "images": len(split),
        "seed": seed,
        "batch_size": evaluator.batch_size,
    }


def _benchmark(content, notes, keep_adversarial):
    """From the results file that `content` is of, and what lies beside it."""
    file, names = pathlib.Path(content["file"]), list(content["attacks"])
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        right = {name: stored[name] == stored["labels"] for name in names}
    kept = {name: np.load(results.adversarial_path(file, name)) for name in names} if keep_adversarial else {}
    accuracies = {name: entry["accuracy"] for name, entry in content["attacks"].items()}
    return Benchmark(accuracies, right, kept, notes, content | {"notes": list(notes)})
