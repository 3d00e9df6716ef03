"""Robustness-via-Synthesis (Baytaş and Deb, Neurocomputing 2023) in TensorFlow 2."""

import madry_cifar  # noqa: F401 (first: imports TensorFlow without its chatter)
from rvs_tf.defense import RobustnessViaSynthesis
from rvs_tf.defenses import DEFENSES
from rvs_tf.generator import Generator, load_generator

__all__ = ["DEFENSES", "Generator", "RobustnessViaSynthesis", "load_generator"]
