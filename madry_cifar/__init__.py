"""The MadryLab-style base in TensorFlow 2: data, networks, attacks, training and evaluation."""

from madry_cifar.cli import quiet  # noqa: F401, I001 (first: imports TensorFlow without its chatter)
from madry_cifar import attacks
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.predictor import Outputs, Predictor
from madry_cifar.training.adversarial import AdversarialTraining, Natural
from madry_cifar.training.construction import build, load_classifier, load_defense, load_predictor
from madry_cifar.training.method import Defense
from madry_cifar.training.registry import register

__all__ = [
    "AdversarialTraining",
    "Defense",
    "Natural",
    "Outputs",
    "Predictor",
    "WideResNet",
    "attacks",
    "build",
    "load_classifier",
    "load_defense",
    "load_predictor",
    "register",
]
