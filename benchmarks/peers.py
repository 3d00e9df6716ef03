"""Attacks of other packages on a network of ours, each with the settings of the attack of ours that it is put beside.

    find(name)           the peers of our attack `name`; what they run and in what they differ is told by each
    art_autoattack       ART's AutoAttack, as near to `standard` as it goes
    in_torch             the code of AutoAttack's authors, as packaged by torchattacks

Foolbox has no APGD, FAB or Square. Its Fast Minimum Norm attack, another search for the smallest perturbation, stands
beside FAB. ART's APGD asks for a name that Keras 3 has no longer; it is given that, and runs as it is.
"""

import contextlib
import functools
import re
import types
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks import attacks, in_torch, machine
from benchmarks.batches import Attacker, by_batch
from madry_cifar.attacks import autoattack
from madry_cifar.attacks.restarts import nearest_classes
from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.predictor import as_predictor
from madry_cifar.randomness import Draws

PACKAGES = {  # what is imported, and the distributions that have it
    "original": (in_torch.MODULES, in_torch.MODULES),
    "PyTorch": (in_torch.MODULES, in_torch.MODULES),  # the original on the network in PyTorch
    "ART": (("art.attacks.evasion", "multiprocess"), ("adversarial-robustness-toolbox",)),  # its AutoAttack needs both
    "Foolbox": (("foolbox",), ("foolbox",)),
}
STEPS, TARGETS, QUERIES = 100, 9, 5000  # of AutoAttack's versions, whose attacks these are


class Subject(NamedTuple):
    """What is attacked, and how far it may be changed.

    Attributes:
      network: called as `network(images)`, returns `.logits` [B, K].
      epsilon, step_size: in grey levels.
      batch_size: images attacked at once.
      seed: of the peers' random numbers.
      stages: of AutoAttack.
      classifier: the network of this package that `network` is, for a copy of it in PyTorch.
      count: told the numbers of images that passed forward and backward through that copy.
    """

    network: Callable
    epsilon: float
    step_size: float = 2.0
    batch_size: int = 250
    seed: int = 0
    stages: tuple[str, ...] = autoattack.STAGES["standard"]
    classifier: keras.Model | None = None
    count: Callable[[int, int], None] | None = None

    def logits(self) -> Callable[..., tf.Tensor]:
        """Maps images [B, H, W, C] in grey levels to logits, compiled; ART says which mode it wants, to no effect."""

        def logits(images, training=False):
            return self.network(images).logits

        return tf.function(logits, autograph=False, reduce_retracing=True)


class Peer(NamedTuple):
    """An attack of another package; `settings` and `differs` tell people what is run, and how it differs from ours."""

    package: str
    settings: str
    differs: str
    make: Callable[..., Attacker]


@contextlib.contextmanager
def keras_2_names():
    """`tf.keras.losses.Reduction`, which ART 1.20 looks up and Keras 3 no longer has."""
    if hasattr(tf.keras.losses, "Reduction"):
        yield
        return
    names = {"NONE": "none", "SUM": "sum", "SUM_OVER_BATCH_SIZE": "sum_over_batch_size"}
    tf.keras.losses.Reduction = types.SimpleNamespace(**names)
    try:
        yield
    finally:
        del tf.keras.losses.Reduction


def _art_classifier(subject):
    from art.estimators.classification import TensorFlowV2Classifier

    logits = subject.logits()
    return TensorFlowV2Classifier(
        model=logits,
        nb_classes=logits(tf.zeros([1, 32, 32, 3])).shape[1],
        input_shape=(32, 32, 3),
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        clip_values=PIXEL_RANGE,
    )


def _art(subject, name, **settings):
    """An attack of ART's on a subject."""
    import art.attacks.evasion

    with keras_2_names():
        return getattr(art.attacks.evasion, name)(
            _art_classifier(subject), norm=np.inf, eps=subject.epsilon, batch_size=subject.batch_size, **settings
        )


def _art_apgd(subject, loss, **settings):
    """ART's APGD with the published steps and first step size, 2ε."""
    return _art(
        subject,
        "AutoProjectedGradientDescent",
        loss_type=loss,
        eps_step=2 * subject.epsilon,
        max_iter=STEPS,
        nb_random_init=1,
        verbose=False,
        **settings,
    )


def _art_square(subject):
    return _art(subject, "SquareAttack", max_iter=QUERIES, p_init=0.8, nb_restarts=1, verbose=False)


def _generate(attack) -> Attacker:
    def perturb(images, labels):
        with keras_2_names():
            return attack.generate(images, labels)

    return perturb


def art_untargeted(subject: Subject, loss: str) -> Attacker:
    """ART's APGD with `loss` "cross_entropy" or "difference_logits_ratio"."""
    return _generate(_art_apgd(subject, loss))


def art_targeted(subject: Subject) -> Attacker:
    """ART's targeted APGD toward each of the nine classes that are ranked next, until the network is wrong."""
    attack, logits = _art_apgd(subject, "difference_logits_ratio", targeted=True), subject.logits()

    def perturb(images, labels):
        draws = Draws(tf.constant([subject.seed, 0], tf.int64)).of(len(images))
        ranked = nearest_classes(as_predictor(subject.network), tf.constant(images), labels, draws, TARGETS).numpy()
        adversarial = images.copy()
        for target in ranked.T:
            left = np.flatnonzero(np.argmax(logits(adversarial), axis=1) == labels)
            if len(left):
                adversarial[left] = _generate(attack)(images[left], target[left])
        return adversarial

    return by_batch(perturb, subject.batch_size)


def art_autoattack(subject: Subject) -> Attacker:
    """ART's AutoAttack, as near to `standard` as it goes, in the order of that: APGD-CE; DLR, then targeted; Square.

    A call of its AutoAttack for each of the subject's stages that it has, on what the one before returned, as one call
    has a single `targeted` for all.
    """
    apgd = functools.partial(_art_apgd, subject)
    known = {
        "apgd-ce": lambda: {"attacks": [apgd("cross_entropy")]},
        "apgd-t": lambda: {"attacks": [apgd("difference_logits_ratio")], "targeted": True},
        "square": lambda: {"attacks": [_art_square(subject)]},
    }
    chosen = [known[stage]() for stage in subject.stages if stage in known]
    calls = [_generate(_art(subject, "AutoAttack", eps_step=2 * subject.epsilon, **each)) for each in chosen]

    def perturb(images, labels):
        adversarial = images
        for call in calls:
            adversarial = call(adversarial, labels)
        return adversarial

    return perturb


def _foolbox(subject, attack, **settings):
    """An attack of Foolbox's on a subject whose pixels are in [0, 1], where its defaults belong."""
    import foolbox

    logits = subject.logits()
    model = foolbox.TensorFlowModel(lambda images: logits(255 * images), bounds=(0, 1))
    attack = getattr(foolbox.attacks, attack)(**settings)

    def perturb(images, labels):
        criterion = foolbox.criteria.Misclassification(tf.constant(labels, tf.int64))
        return 255 * attack.run(model, tf.constant(images) / 255, criterion)

    return by_batch(perturb, subject.batch_size)


def _pgd(make, subject, steps):
    sizes = {"epsilon": subject.epsilon, "step_size": subject.step_size, "steps": int(steps)}
    return make(subject.logits(), sizes, subject.batch_size)


ART_APGD = (
    "returns the last point and not the best, and does not stop at the first error; counts as a rise what "
    "exceeds the best loss so far; checkpoints are rounded up"
)
ORIGINAL = "APGD (ce), APGDT, FAB, Square with the published settings, those that are among the stages"
BY_NAME = {  # pattern of our name: peers, whose `make` gets what the pattern captures
    r"pgd-(\d+)": (
        Peer("ART", "PGD, one random start", "", functools.partial(_pgd, attacks.art)),
        Peer("Foolbox", "LinfPGD, one random start", "", functools.partial(_pgd, attacks.foolbox)),
    ),
    "apgd-ce": (
        Peer("original", "APGD, ce, 100 steps", in_torch.APGD, functools.partial(in_torch.apgd, loss="ce")),
        Peer(
            "ART", "APGD, cross_entropy, 100 steps", ART_APGD, functools.partial(art_untargeted, loss="cross_entropy")
        ),
    ),
    "apgd-dlr": (
        Peer("original", "APGD, dlr, 100 steps", in_torch.APGD, functools.partial(in_torch.apgd, loss="dlr")),
        Peer(
            "ART",
            "APGD, difference_logits_ratio, 100 steps",
            ART_APGD,
            functools.partial(art_untargeted, loss="difference_logits_ratio"),
        ),
    ),
    "apgd-t": (
        Peer("original", "APGDT, 100 steps, 9 targets", in_torch.APGD, in_torch.apgd_targeted),
        Peer(
            "ART",
            "APGD, targeted, 100 steps, 9 targets",
            f"{ART_APGD}; has no targeted DLR: it takes the "
            "untargeted one of the target, and another error does not count",
            art_targeted,
        ),
    ),
    "fab-t": (
        Peer("original", "FAB, multi_targeted, 100 steps, 9 targets", "", in_torch.fab),
        Peer(
            "Foolbox",
            "LInfFMNAttack, 100 steps",
            "another attack that looks for the smallest perturbation, untargeted and so with a ninth of the gradients",
            functools.partial(_foolbox, attack="LInfFMNAttack", steps=STEPS),
        ),
    ),
    "square": (
        Peer("original", "Square, 5000 queries", in_torch.SQUARE, in_torch.square),
        Peer(
            "ART",
            "SquareAttack, 5000 queries",
            f"{in_torch.SQUARE}; three passes for a query",
            lambda subject: _generate(_art_square(subject)),
        ),
    ),
    r"cw-l2(?:-(\d+))?": (
        Peer(
            "Foolbox",
            "L2CarliniWagnerAttack, 9 constants",
            "ends the search for a constant where the loss of the whole batch stalls; does not stop at the radius",
            lambda subject, steps: _foolbox(subject, "L2CarliniWagnerAttack", steps=int(steps or 1000)),
        ),
    ),
    "autoattack": (
        Peer("original", ORIGINAL, f"{in_torch.APGD}; {in_torch.SQUARE}", in_torch.autoattack),
        Peer(
            "PyTorch",
            f"{ORIGINAL}, on the network written in PyTorch",
            f"{in_torch.APGD}; {in_torch.SQUARE}",
            in_torch.autoattack_in_torch,
        ),
        Peer(
            "ART",
            "AutoAttack once for each stage that it has: APGD (cross_entropy); APGD (difference_logits_ratio), then "
            "targeted at each class; SquareAttack, 5000 queries",
            f"no FAB, and no targeted DLR; the second attack also runs without a target; {ART_APGD}; {in_torch.SQUARE}",
            art_autoattack,
        ),
    ),
}


def find(name: str) -> list[Peer]:
    """The peers of our attack called `name`; the `make` of each takes a `Subject`. None if there are none."""
    for pattern, found in BY_NAME.items():
        if match := re.fullmatch(pattern, name):
            return [peer._replace(make=functools.partial(_with, peer.make, match.groups())) for peer in found]
    return []


def _with(make, captured, subject):
    np.random.seed(subject.seed)  # ART's
    tf.random.set_seed(subject.seed)  # Foolbox's
    return make(subject, *captured)


def is_installed(package: str) -> bool:
    """Whether all modules of a package are there."""
    return all(map(machine.is_installed, PACKAGES[package][0]))
