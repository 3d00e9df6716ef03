import json
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import agreement, peers
from madry_cifar import attacks

QUICK = ("--train_steps=0", "--images=8", "--batch_size=8")


@pytest.fixture
def alone(monkeypatch):
    """No peer is installed."""
    for module in ("foolbox", "art.attacks.evasion", "torch", "torchattacks"):
        monkeypatch.setitem(sys.modules, module, None)


def a_peer(make):
    return [peers.Peer("ART", "something", "much", make)]


def test_the_table_of_two():
    right, ours, peer = (np.array(each, bool) for each in ([1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0]))
    row = agreement.compare(right, ours, peer)
    assert [row[name] for name in ("broken_by_both", "only_by_ours", "only_by_peer", "by_neither")] == [1, 2, 1, 1]
    assert (row["robust_accuracy"], row["peers_robust_accuracy"]) == (pytest.approx(200 / 6), pytest.approx(300 / 6))
    assert (row["agrees"], row["weaker"]) == (None, False)  # too few images


@pytest.mark.parametrize(
    ("count", "only_ours", "only_peer", "agrees", "weaker"),
    [
        (500, 0, 2, True, False),
        (500, 0, 3, False, False),
        (500, 3, 0, False, False),
        (500, 40, 42, True, False),
        (1000, 0, 5, True, False),
        (1000, 0, 6, False, False),
        (1000, 0, 7, False, True),  # 1 in 128
        (1000, 7, 0, False, False),
    ],
)
def test_when_it_agrees_and_when_ours_is_weaker(count, only_ours, only_peer, agrees, weaker):
    rows = np.arange(count)
    ours, peer = rows < only_ours, (rows >= only_ours) & (rows < only_ours + only_peer)
    row = agreement.compare(rows >= 0, ours, peer)
    assert (row["agrees"], row["weaker"]) == (agrees, weaker)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (0, 1), (3, 11), (11, 11), (40, 100)])
def test_the_sign_test(successes, trials):
    expected = stats.binom.cdf(successes, trials, 0.5)
    assert agreement.chance_of(successes, trials) == pytest.approx(expected)


def test_what_counts_as_broken(trained, digits):
    """What is misclassified, in the ball, and was not misclassified before."""
    split = digits.test.take(slice(40))
    judge = agreement.Judge(trained, split, batch_size=15)
    assert 30 < judge.right.sum() < 40
    others = split.take(np.roll(np.arange(40), 1)).images.astype(np.float32)  # mostly of another class
    predicted = np.argmax(trained(others).logits, axis=1)
    changes = (others - judge.images).reshape(40, -1)
    expected = judge.right & (predicted != split.labels)
    assert expected.sum() > 20
    assert np.array_equal(judge.broken(others, "linf", 255), expected)
    for norm, distances in (("linf", np.abs(changes).max(axis=1)), ("l2", np.sqrt(np.sum(changes**2, axis=1)))):
        radius = float(np.median(distances))
        found = judge.broken(others, norm, radius)
        assert np.array_equal(found, expected & (distances <= radius))
        assert 0 < found.sum() < expected.sum()
    assert not judge.broken(judge.images, "linf", 8).any()


def test_every_attack_has_peers():
    for name in agreement.ATTACKS:
        norm, radius = agreement.ball(attacks.attack(name).protocol)
        assert (norm, radius) == (("l2", 127.5) if "l2" in name else ("linf", 8))
        assert {peer.package for peer in peers.find(name)} <= {*peers.PACKAGES}
        assert len(peers.find(name)) >= 1
    assert peers.find("multitargeted") == []


def test_without_peers(invoke, alone):
    status, out, err = invoke(agreement.command, *QUICK, "--attacks=pgd-2,apgd-ce", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    expected = [("pgd-2", "ART"), ("pgd-2", "Foolbox"), ("apgd-ce", "original"), ("apgd-ce", "ART")]
    assert [(row["attack"], row["peer"]) for row in result["agreement"]] == [
        (name, f"{package}: not installed") for name, package in expected
    ]
    assert {row["only_by_peer"] for row in result["agreement"]} == {None}
    assert (result["peers"], result["disputed"]) == ([], {})
    assert "| ART: not installed |" in out


def test_a_peer_that_does_nothing(invoke, monkeypatch, trained, digits):
    """The real network and attack beside one that breaks nothing, and beside itself from another seed."""
    monkeypatch.setattr(agreement.benchmark, "subject", lambda settings: (trained, digits))
    monkeypatch.setattr(peers, "find", lambda name: a_peer(lambda subject: lambda images, labels: images))
    monkeypatch.setattr(peers, "is_installed", lambda package: True)
    status, out, err = invoke(
        agreement.command, "--images=50", "--batch_size=25", "--attacks=pgd-3", "--json", "--peers=ART,again"
    )
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    nothing, again = result["agreement"]
    assert (nothing["only_by_peer"], nothing["broken_by_both"], nothing["weaker"]) == (0, 0, False)
    assert nothing["only_by_ours"] > 10
    assert result["disputed"]["pgd-3, ART"]["peer"] == []
    assert len(result["disputed"]["pgd-3, ART"]["ours"]) == nothing["only_by_ours"]
    assert again["broken_by_both"] > 5 * (again["only_by_ours"] + again["only_by_peer"])
    assert again["robust_accuracy"] == nothing["robust_accuracy"]
    assert result["peers"][0] == {"attack": "pgd-3", "peer": "ART", "runs": "something", "differs_from_ours": "much"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--peers=Foolbx",), "--peers=Foolbx: unknown; did you mean 'Foolbox'?"),
        (("--attacks=apgd-cf",), "--attacks=apgd-cf: unknown"),
        (("--attacks=multitargeted",), "--attacks=multitargeted: has no peer"),
        (("--images=360",), "--images=360: digits has 359 test images"),
    ],
)
def test_what_cannot_be_compared(invoke, flags, message):
    status, out, err = invoke(agreement.command, *QUICK, *flags)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")
