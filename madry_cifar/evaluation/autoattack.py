"""AutoAttack as a function (Croce and Hein, ICML 2020, L∞); its attacks and versions are in `attacks/autoattack.py`."""

from typing import NamedTuple

import numpy as np

from madry_cifar.attacks.inputs import check_images
from madry_cifar.attacks.registry import attack
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator, Task, against


class Report(NamedTuple):
    """What AutoAttack did.

    Attributes:
      adversarial: [N, H, W, C] float32; where no attack succeeded, what the last one left.
      robust: [N] whether the model is right on all of it.
      accuracy_after: in percent, without an attack ("natural") and after each one in turn.
      linf: the largest change of a pixel, in grey levels.
    """

    adversarial: np.ndarray
    robust: np.ndarray
    accuracy_after: dict[str, float]
    linf: float


def autoattack(
    model,
    images,
    labels,
    *,
    epsilon: float = 8.0,
    version: str = "standard",
    seed: int = 0,
    batch_size: int = 200,
    progress: bool = False,
) -> Report:
    """Attacks a model by AutoAttack (L∞).

    Args:
      model: a `Predictor`, or what `as_predictor` makes one of, with at least four classes (three for rand).
      images: [N, H, W, C] pixels in [0, 255].
      labels: [N] true classes.
      epsilon: radius of the ball, in grey levels.
      version: standard, plus or rand; see `madry_cifar.attacks.autoattack`.
      seed: of the random starts and of Square's queries.
      batch_size: images attacked at once.
      progress: whether to draw bars with the time left.

    Raises:
      UsageError: for an unknown version, a model of too few classes, or inputs that would give a wrong number (see
        `madry_cifar.attacks.inputs`).
    """
    chosen = attack(f"autoattack-{version}", epsilon=epsilon)
    split = Split(check_images(images), np.asarray(labels))
    evaluator = Evaluator(model, batch_size=min(batch_size, len(split)), progress=progress, keep_adversarial=True)
    split, chosen = evaluator.admit(split, chosen), against(chosen, evaluator.attacked)

    def measure(stage, part="", earlier=None):
        return evaluator.run(stage, split, seed=seed, earlier=earlier)

    (outcome,) = Task(chosen).outcomes(measure).values()
    return Report(
        outcome.adversarial,
        outcome.predictions == split.labels,
        outcome.attack.protocol["accuracy_after"],
        outcome.linf,
    )
