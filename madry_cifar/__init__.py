"""The MadryLab-style base in TensorFlow 2: data, wide residual network, attacks, training and evaluation loops."""

from madry_cifar import quiet  # noqa: F401, I001 (first: imports TensorFlow without its chatter)
from madry_cifar import attacks
from madry_cifar.checkpoints import load_classifier
from madry_cifar.defense import Defense, register
from madry_cifar.model import Outputs, WideResNet

__all__ = ["Defense", "Outputs", "WideResNet", "attacks", "load_classifier", "register"]
