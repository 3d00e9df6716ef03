"""The attacks as functions: adversarial images of anybody's model, from arrays to an array.

    eot_pgd                                   the mean gradient of 20 queries, for a model whose outputs are random
    bpda_pgd                                  the gradient of a stand-in, for a model that has no useful one
    apgd_ce, apgd_dlr, apgd_t, fab_t, square  AutoAttack's, alone
    multitargeted, cw_l2                      toward each class; the nearest in L2

All take a model, images and labels as `benchmark` does, attack `batch_size` images at once and return
[N, H, W, C] float32 pixels in [0, 255]. `madry_cifar.attacks.fgsm` and `pgd` are their like for one batch,
`autoattack` for a whole evaluation. An image that the model gets wrong as it is, comes back so from those that stop at
the first error (where outputs are random, none does). What each attack is: docs/evaluation.md.
"""

import numpy as np

from madry_cifar.attacks.inputs import check_images
from madry_cifar.attacks.registry import attack
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator


def run(
    name: str,
    model,
    images,
    labels,
    *,
    epsilon: float = 8.0,
    step_size: float = 2.0,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 200,
    progress: bool = False,
) -> np.ndarray:
    """What the attack called `name` (as --attacks spells it: "pgd-100x10", …) makes of images.

    Args:
      epsilon, step_size: radius of the L∞ ball, and size of a step of attacks that have one, in grey levels.
      restarts: random starts of attacks that have one and do not say how many.
      seed: of random starts.

    Raises:
      ValueError: for a model, images or labels with which the result would mean nothing, or an attack that is not there
        or not for this model.
    """
    chosen = attack(name, epsilon=epsilon, step_size=step_size, restarts=restarts)
    if chosen.stages:
        raise ValueError(f"{name} is several attacks: rvs_tf.attacks.autoattack, or benchmark, runs them")
    split = Split(check_images(images), np.asarray(labels))
    size = min(batch_size, len(split))
    evaluator = Evaluator(model, batch_size=size, progress=progress, keep_adversarial=True)
    return evaluator.run(chosen, evaluator.admit(split, chosen), seed=seed).adversarial


def eot_pgd(model, images, labels, *, steps: int = 20, step_size: float = 2.0, loss: str = "pgd", **settings):
    """PGD whose steps follow the mean gradient of 20 queries (Athalye et al., 2018), for a model that draws at random.

    `loss` is "pgd" (cross-entropy) or "cw" (margin); other `settings` are those of `run`.
    """
    return run(f"eot-{loss}-{steps}", model, images, labels, step_size=step_size, **settings)


def bpda_pgd(model, images, labels, *, steps: int = 20, step_size: float = 2.0, loss: str = "pgd", **settings):
    """PGD by the gradient of a `Predictor`'s stand-in, `differentiable()` (BPDA, Athalye et al., 2018).

    The mean over 10 queries, if outputs are random. A model without a stand-in is refused. Arguments as in `eot_pgd`.
    """
    return run(f"bpda-{loss}-{steps}", model, images, labels, step_size=step_size, **settings)


def apgd_ce(model, images, labels, **settings) -> np.ndarray:
    """Auto-PGD on cross-entropy, 100 steps (Croce and Hein, 2020). `settings` are those of `run`."""
    return run("apgd-ce", model, images, labels, **settings)


def apgd_dlr(model, images, labels, **settings) -> np.ndarray:
    """Auto-PGD on the difference of logits ratio, 100 steps; for three classes or more. `settings`: see `run`."""
    return run("apgd-dlr", model, images, labels, **settings)


def apgd_t(model, images, labels, **settings) -> np.ndarray:
    """Auto-PGD toward each of the nine nearest classes; for four classes or more. `settings`: see `run`."""
    return run("apgd-t", model, images, labels, **settings)


def fab_t(model, images, labels, **settings) -> np.ndarray:
    """FAB toward each of the nine nearest classes (Croce and Hein, 2020). `settings`: see `run`."""
    return run("fab-t", model, images, labels, **settings)


def square(model, images, labels, **settings) -> np.ndarray:
    """Square Attack, 5,000 queries and no gradient (Andriushchenko et al., 2020). `settings`: see `run`."""
    return run("square", model, images, labels, **settings)


def multitargeted(model, images, labels, **settings) -> np.ndarray:
    """PGD toward each of the nine nearest classes in turn (Gowal et al., 2019). `settings`: see `run`."""
    return run("multitargeted", model, images, labels, **settings)


def cw_l2(model, images, labels, *, steps: int = 1000, **settings) -> np.ndarray:
    """Carlini and Wagner's L2 attack, radius 127.5 grey levels (0.5 of the pixels' range). `settings`: see `run`."""
    return run(f"cw-l2-{steps}", model, images, labels, **settings)
