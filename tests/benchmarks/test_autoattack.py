import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import autoattack, peers
from madry_cifar import attacks
from madry_cifar.attacks import autoattack as versions
from madry_cifar.attacks.inputs import LOOKED_AT
from madry_cifar.cli.errors import UsageError

QUICK = ("--train_steps=0", "--images=10", "--batch_size=5", "--rounds=2")


@pytest.fixture
def short(monkeypatch):
    """A `standard` of two short attacks."""
    monkeypatch.setitem(versions.STAGES, "standard", ("pgd-1", "pgd-3"))


def test_passes_are_counted(trained, digits):
    counted = autoattack.Counted(trained)
    images, labels = digits.test.images[:6].astype(np.float32), digits.test.labels[:6]
    settings = {"epsilon": 8.0, "step_size": 2.0, "steps": 3}
    found = tf.function(lambda: attacks.pgd(counted, images, labels, **settings), autograph=False)()  # not admitted
    assert counted.take().tolist() == [18, 18]  # in a loop of the graph
    np.testing.assert_allclose(found, attacks.pgd(trained, images, labels, **settings), atol=1e-3)
    tf.function(counted, autograph=False)(images[:4])
    assert counted.take().tolist() == [4, 0]
    assert counted.take().tolist() == [0, 0]


def test_images_of_both_splits(digits):
    found = autoattack.pool(digits, 400)
    assert np.array_equal(found.images[:359], digits.test.images)
    assert np.array_equal(found.labels[359:], digits.train.labels[:41])
    with pytest.raises(UsageError, match="--images=1798: digits has 1797 images"):
        autoattack.pool(digits, 1798)


def test_what_is_measured(invoke, monkeypatch, trained, digits, short):
    """Beside ours, a "peer" that passes all images through the network twice and leaves them as they are."""

    def make(subject):
        logits = subject.logits()

        def twice(images, labels):
            logits(images), logits(images)
            return images

        return twice

    monkeypatch.setattr(autoattack.benchmark, "subject", lambda settings: (trained, digits))
    monkeypatch.setattr(peers, "find", lambda name: [peers.Peer("ART", "nothing", "much", make)])
    monkeypatch.setattr(peers, "is_installed", lambda package: True)
    status, out, err = invoke(autoattack.command, "--images=60", "--batch_size=30", "--rounds=2", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    ours, art = result["attacks"]
    assert (ours["attack"], ours["times_ours"], art["attack"]) == ("ours", 1, "ART")
    assert (art["forward_passes_per_image"], art["backward_passes_per_image"]) == (2, 0)
    assert 1 <= ours["backward_passes_per_image"] <= 4 + LOOKED_AT / 60  # one step for those that are right, then three
    assert ours["forward_passes_per_image"] > ours["backward_passes_per_image"]
    (after,) = result["accuracy_after"]
    assert list(after) == ["natural", "pgd-1", "pgd-3"]
    assert art["robust_accuracy"] == pytest.approx(after["natural"])
    assert ours["robust_accuracy"] == pytest.approx(after["pgd-3"])
    assert after["natural"] > after["pgd-1"] > after["pgd-3"]
    assert result["peers"] == [{"attack": "ART", "runs": "nothing", "differs_from_ours": "much"}]


def test_without_peers(invoke, monkeypatch, short):
    for module in ("art.attacks.evasion", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    status, out, err = invoke(autoattack.command, *QUICK, "--peers=ART,original,PyTorch", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    ours, *others = result["attacks"]
    assert ours["images_per_second"] > 0
    assert [row["attack"] for row in others] == [f"{peer}: not installed" for peer in ("original", "PyTorch", "ART")]
    for row in others:
        assert set(row) == set(ours)
        assert {value for name, value in row.items() if name != "attack"} == {None}
    assert result["note"] in out  # random weights


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--peers=Foolbox",), "--peers=Foolbox: unknown; Known: ART, PyTorch, original"),
        (("--stages=apgd-dlr",), "--stages=apgd-dlr: unknown; "),
        (("--rounds=11",), "--rounds=11: must be at most --images=10"),
        (("--images=2000",), "--images=2000: digits has 1797 images"),
        (("--depth=11",), "--depth=11: must be 6n + 4"),
    ],
)
def test_what_cannot_be_measured(invoke, flags, message):
    status, out, err = invoke(autoattack.command, *QUICK, *flags)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")
