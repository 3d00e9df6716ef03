"""When a difference between attacks is suspect, on made-up outcomes: the paper's accuracies, and an exact test."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from madry_cifar.evaluation.diagnosis import overall, strength, verdicts
from madry_cifar.evaluation.diagnosis.verdicts import Check, Difference


def outcomes(images=10_000, **shares):
    """A case in which trials leave these shares of the images, the same ones first."""
    right = {name.replace("_", "-"): np.arange(images) < share * images / 100 for name, share in shares.items()}
    return SimpleNamespace(right=right, accuracy=lambda name: 100 * right[name].mean())


PGD = {"natural": 89.7, "fgsm": 72.9, "pgd_1": 80, "pgd_5": 62, "pgd_10": 58, "pgd_20": 57.5, "pgd_50": 52}


def test_the_papers_accuracies_have_not_come_to_rest():
    assert strength.steps(outcomes(**PGD, pgd_100=48.6)).verdict == "suspect"
    assert strength.steps(outcomes(**PGD | {"pgd_50": 57.2}, pgd_100=57.1)).verdict == "ok"
    assert strength.steps(outcomes(**PGD | {"pgd_50": 54}, pgd_100=54, images=50)).verdict == "note"
    assert strength.steps(outcomes(**PGD | {"fgsm": 50, "pgd_50": 57}, pgd_100=57)).verdict == "suspect"


def test_accuracy_that_rises_with_epsilon():
    def found(*accuracies):
        names = ["pgd-20" if radius == 8 else f"pgd-20 at {radius:g}" for radius in strength.EPSILONS]
        case = outcomes()
        case.right |= {name: np.arange(1000) < share * 10 for name, share in zip(names, accuracies, strict=True)}
        case.epsilon, case.split = 8.0, range(1000)
        return strength.epsilon(case)

    assert found(80, 70, 60, 40, 20, 5, 0, 0, 0).verdict == "ok"
    assert found(80, 70, 60, 40, 48, 5, 0, 0, 0).verdict == "suspect"
    assert "ε = 16 leaves 8.0" in found(80, 70, 60, 40, 48, 5, 0, 0, 0).evidence
    assert found(80, 70, 60, 40, 20, 15, 12, 10, 9).verdict == "suspect"


def test_differences():
    found = Difference(more=10, less=3, images=100)
    assert found.points == 7
    p12, p21 = 11 / 102, 4 / 102  # Bonett and Price's formula
    np.testing.assert_allclose(found.standard_error, 100 * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / 102))
    assert found.verdict(tolerance=2) == "note"
    assert Difference(9, 0, 100).verdict(tolerance=2) == "suspect"
    assert Difference(9, 0, 100).verdict(tolerance=9) == "ok"
    assert str(Difference(0, 5, 100)) == "−5.0 ± 5.1 points"


@pytest.mark.parametrize("less", [0, 1, 5, 20])
def test_two_standard_errors_are_about_a_sign_test_at_a_fortieth(less):
    """The fewest images that are suspect, against those that are by an exact test (McNemar's)."""
    ours = next(more for more in range(less + 1, 200) if Difference(more, less, 1000).verdict(0) == "suspect")
    exact = next(
        more
        for more in range(less + 1, 200)
        if scipy.stats.binomtest(more, more + less, alternative="greater").pvalue < 0.025
    )
    assert abs(ours - exact) <= 1


def test_the_overall_verdict():
    def named(**found):
        return [Check(name, "", verdict, "", {}) for name, verdict in found.items()]

    assert overall(named(a="ok", b="not measured")) == "no sign of masked gradients in 1 checks"
    assert overall(named(a="ok", b="note")) == "no sign of masked gradients in 2 checks; not clear: b"
    assert overall(named(a="suspect", b="note")).startswith("1 of 2 checks is suspect (a): do not trust PGD")
    assert verdicts.worst(["ok", "suspect", "note"]) == "suspect"
