"""The weights that come with the project: they are read as a run, and are as good as their card says."""

import json
import pathlib

import numpy as np
import pytest
from tiers import mostly_slow

from madry_cifar import load_classifier
from madry_cifar.attacks import attack
from madry_cifar.data import Split
from madry_cifar.evaluation.evaluator import Evaluator

ROOT = pathlib.Path(__file__).resolve().parent.parent
CARDS = {  # of the first 24 test images: the least natural accuracy in percent, least and most under PGD-20
    "rvs-16-4": (75, 0, 33),  # 90.6 % natural and 11.6 % under PGD-20, of 500 test images
    "at-16-4": (60, 25, 60),  # 78.0 % and 41.8 %
}


@pytest.mark.parametrize("name", mostly_slow(CARDS, "rvs-16-4"))
def test_they_classify_and_are_attacked(name):
    with np.load(ROOT / "tests" / "data" / "cifar10_first_test_images.npz") as stored:
        images = Split(**stored)
    classifier = load_classifier(ROOT / "pretrained" / name)
    weights = sum(int(np.prod(variable.shape)) for variable in classifier.trainable_variables)
    assert weights == pytest.approx(2.7e6, rel=0.01)
    evaluator = Evaluator(classifier, [attack("natural"), attack("pgd-20")], batch_size=24)
    outcomes = evaluator(images, seed=0)
    natural, least, most = CARDS[name]
    assert outcomes["natural"].accuracy >= natural
    assert least <= outcomes["pgd-20"].accuracy <= most


@pytest.mark.parametrize("name", CARDS)
def test_what_is_shipped(name):
    run = ROOT / "pretrained" / name
    files = [run / "flags.json", *(run / "checkpoints").iterdir()]  # evaluations leave more
    assert sum(path.stat().st_size for path in files) < 6e6
    about = json.loads((run / "flags.json").read_text())
    assert about["flags"]["data_dir"] == "~/tensorflow_datasets"
    assert about["elsewhere"]["device"] == "NVIDIA H100 80GB HBM3"


def test_each_has_a_line_on_the_page():
    page = (ROOT / "pretrained" / "README.md").read_text()
    assert {path.parent.name for path in ROOT.glob("pretrained/*/flags.json")} == set(CARDS)
    assert all(page.count(f"| `{name}` |") == 1 for name in CARDS)
