"""Attacks on a predictor: names in `registry.py`, the loop in `steps.py`, each attack in a file of its own."""

from madry_cifar.attacks import apgd, autoattack, carlini_wagner, fab, multitargeted, square
from madry_cifar.attacks.losses import LOSSES, cross_entropy, lead, margin
from madry_cifar.attacks.pgd import fgsm, pgd
from madry_cifar.attacks.registry import Attack, Sizes, attack, register
from madry_cifar.attacks.steps import PIXEL_RANGE, noisy, project, random_start, sign_steps

__all__ = [
    "LOSSES",
    "PIXEL_RANGE",
    "Attack",
    "Sizes",
    "apgd",
    "attack",
    "autoattack",
    "carlini_wagner",
    "cross_entropy",
    "fab",
    "fgsm",
    "lead",
    "margin",
    "multitargeted",
    "noisy",
    "pgd",
    "project",
    "random_start",
    "register",
    "sign_steps",
    "square",
]
