"""The weights that come with the project: they are read as a run, and are as good as their card says."""

import json
import pathlib

import numpy as np
import pytest

from madry_cifar import load_classifier
from madry_cifar.attacks import attack
from madry_cifar.data import Split
from madry_cifar.evaluation.evaluator import Evaluator

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUN = ROOT / "pretrained" / "rvs-16-4"


def test_they_classify_and_are_attacked():
    """90.6 % natural and 12 % under PGD-20, of 500 test images; of the first 24, at least 75 % and at most a third."""
    with np.load(ROOT / "tests" / "data" / "cifar10_first_test_images.npz") as stored:
        images = Split(**stored)
    classifier = load_classifier(RUN)
    weights = sum(int(np.prod(variable.shape)) for variable in classifier.trainable_variables)
    assert weights == pytest.approx(2.7e6, rel=0.01)
    evaluator = Evaluator(classifier, [attack("natural"), attack("pgd-20")], batch_size=24)
    outcomes = evaluator(images, seed=0)
    assert outcomes["natural"].accuracy >= 75
    assert outcomes["pgd-20"].accuracy <= 33


def test_what_is_shipped():
    files = [RUN / "flags.json", *(RUN / "checkpoints").iterdir()]  # evaluations leave more
    assert sum(path.stat().st_size for path in files) < 6e6
    about = json.loads((RUN / "flags.json").read_text())
    assert about["flags"]["data_dir"] == "~/tensorflow_datasets"
    assert about["elsewhere"]["device"] == "NVIDIA H100 80GB HBM3"
