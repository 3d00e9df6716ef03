"""Robustness-via-Synthesis (Baytaş and Deb, Neurocomputing 2023) in TensorFlow 2."""

import madry_cifar  # noqa: F401 (first: imports TensorFlow without its chatter)
from madry_cifar.evaluation.benchmark import Benchmark, benchmark
from madry_cifar.predictor import Predictor, predictor
from rvs_tf import attacks
from rvs_tf.defense import RobustnessViaSynthesis
from rvs_tf.defense_gan import Purified, load_gan
from rvs_tf.defenses import DEFENSES
from rvs_tf.generator import Generator, load_generator

__all__ = [
    "DEFENSES",
    "Benchmark",
    "Generator",
    "Predictor",
    "Purified",
    "RobustnessViaSynthesis",
    "attacks",
    "benchmark",
    "load_gan",
    "load_generator",
    "predictor",
]
