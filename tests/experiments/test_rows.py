"""What rows and attacks are called, and their order."""

import re

import pytest

from experiments.parts import PARTS
from experiments.rows import COLUMNS, column_of
from madry_cifar import attacks
from madry_cifar.attacks import carlini_wagner

LABELS = {
    "natural": "Natural",
    "fgsm-rs": "FGSM-RS",
    "pgd-20": "PGD-20",
    "pgd-100x10": "PGD-100 ×10",
    "cw-100": "CW-100",
    "advgan-x8-final": "AdvGAN ×8 final",
    "multitargeted": "MultiTargeted",
    "apgd-ce": "APGD-CE",
    "apgd-cex5": "APGD-CE ×5",
    "apgd-dlr": "APGD-DLR",
    "apgd-t": "APGD-T",
    "fab-t": "FAB-T",
    "square": "Square",
    "cw-l2-100": "C&W L2 (100), radius 127.5",
    "cw-l2": "C&W L2 (1000), radius 127.5",
    "autoattack": "AutoAttack",
    "autoattack-rand": "AutoAttack rand",
    "box1": "BOX1",
}


@pytest.mark.parametrize(("attack", "label"), LABELS.items())
def test_labels(attack, label):
    assert column_of(attack).label == label


def test_the_label_of_the_l2_attack_has_its_radius_and_steps():
    assert f"radius {carlini_wagner.RADIUS:g}" in LABELS["cw-l2"]
    assert attacks.attack("cw-l2").protocol["steps"] == 1000


def test_every_extended_column_is_an_attack_with_a_label():
    for name in COLUMNS["extended"]:
        assert attacks.attack(name).name == name
        assert not column_of(name).in_paper
        assert re.search("[×a-z]|-[A-Z]", column_of(name).label)
    assert all(column_of(name).in_paper for part in PARTS.values() for name in part.attacks)
    assert column_of("advgan-x8-final").in_paper


def test_the_order_is_the_papers_and_then_of_strength():
    expected = [
        "natural",
        "pgd-20",
        "pgd-100",
        "pgd-100x5",
        "pgd-100x10",
        "cw-20",
        "advgan",
        "advgan-x8",
        "apgd-ce",
        "apgd-cex5",
        "apgd-t",
        "square",
        "cw-l2-100",
        "cw-l2-1000",
        "autoattack",
        "another",
    ]
    assert sorted(reversed(expected), key=lambda attack: column_of(attack).order) == expected


@pytest.mark.parametrize("name", sorted(LABELS.keys() - {"advgan-x8-final", "box1"}))  # which are not made by name
def test_captions_say_of_the_right_ones_that_they_leave_mistakes_alone(name):
    """Of those whose protocols do; AutoAttack's version for random outputs meets no others, where none does."""
    stops = attacks.attack(name).protocol.get("stops_at_error", False) and name != "autoattack-rand"
    assert column_of(name).stops == stops
