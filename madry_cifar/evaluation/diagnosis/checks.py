"""The checks of a diagnosis, and the function that makes them all."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from madry_cifar.attacks.registry import Attack
from madry_cifar.cli.progress import progress_bar
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.diagnosis import loss, outputs, strength
from madry_cifar.evaluation.diagnosis.trials import Case, Trial
from madry_cifar.evaluation.diagnosis.verdicts import Check, Finding
from madry_cifar.evaluation.results import Partial


class Question(NamedTuple):
    """A check before it is made: what it asks, the attacks that it needs, and what judges them."""

    text: str
    judge: Callable[[Case], Finding]
    trials: Callable[[Case], Mapping[str, Trial]] = lambda case: {}


CHECKS = {
    "randomness": Question("Are the outputs always the same?", outputs.randomness),
    "batch-dependence": Question(
        "Are an image's outputs its own, whatever else is in the batch?", outputs.batch_dependence
    ),
    "zero-gradients": Question("Does the loss have a gradient?", loss.zeros),
    "loss-surface": Question("Does the loss rise along its gradient?", loss.surface),
    "logit-scale": Question("Do large logits hide the gradient?", strength.scale, strength.scale_trials),
    "steps": Question("Have 20 steps come to rest?", strength.steps, strength.steps_trials),
    "restarts": Question("Is one start enough?", strength.restarts, strength.restarts_trials),
    "epsilon": Question("Does an unbounded attack break everything?", strength.epsilon, strength.epsilon_trials),
    "margin-loss": Question("Does a margin break what cross-entropy leaves?", strength.margin, strength.margin_trials),
    "black-box": Question("Does another network's gradient do more?", strength.transfer, strength.transfer_trials),
    "square": Question("Does a search without gradients do more?", strength.square, strength.square_trials),
}  # the cheap ones first


class Diagnosis(NamedTuple):
    """What `diagnose` found.

    Attributes:
      checks: in the order of `CHECKS`.
      curves: to plot, by the check's name: "steps" and "epsilon" (accuracy in percent against it), and "loss-surface"
        (median cross-entropy against the distance, along the gradient's sign and a random direction).
      planes: [n, 21, 21] cross-entropy around the first images; see `loss.Surface`. None without that check.
    """

    checks: list[Check]
    curves: dict[str, Mapping[str, list[float]]]
    planes: np.ndarray | None


def diagnose(
    predictor,
    split: Split,
    *,
    epsilon: float = 8.0,
    surrogate=None,
    seed: int = 0,
    batch_size: int = 200,
    checks: Iterable[str] = tuple(CHECKS),
    progress: bool = False,
    keep: Callable[[str, Attack], Partial] | None = None,
) -> Diagnosis:
    """Looks for signs that a network's gradients are masked.

    Attacks start at the images that the network gets right; with all checks each of these costs about 700 gradients,
    and each that withstands them 5,000 forward passes more (Square).

    Args:
      predictor: a `Predictor`, or a network of this package.
      split: images [N, H, W, C] with pixels in [0, 255], and labels [N].
      epsilon: radius of the L∞ ball, in grey levels.
      surrogate: another network for the same classes, for the black-box check.
      seed: of all draws.
      batch_size: images at once.
      checks: which of `CHECKS` to make.
      progress: whether to draw a bar with the time left (at most: images that are broken early cost less).
      keep: told the name of something to run and its attack, what keeps its outcome so far: a diagnosis that was
        killed goes on from there.

    Raises:
      UsageError: where the network gets none of the images right.
      RunError: where logits are not finite.
    """
    case = Case(predictor, split, epsilon=epsilon, surrogate=surrogate, seed=seed, batch_size=batch_size, keep=keep)
    questions = {name: CHECKS[name] for name in checks}
    trials: dict[str, Trial] = {}
    for question in questions.values():
        trials |= question.trials(case)
    findings = {}
    total = sum(trial.cost for trial in trials.values()) * len(split)
    with progress_bar(int(total), "gradient", unit_scale=True, disable=not progress) as bar:
        for name, question in questions.items():
            bar.set_postfix_str(name)
            case.run({key: trial for key, trial in question.trials(case).items() if key not in case.right}, bar.update)
            findings[name] = question.judge(case)
    return Diagnosis(
        [Check(name, questions[name].text, *finding[:3]) for name, finding in findings.items()],
        {name: finding.curve for name, finding in findings.items() if finding.curve},
        next((finding.planes for finding in findings.values() if finding.planes is not None), None),
    )
