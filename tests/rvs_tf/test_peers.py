"""Our attacks beside independent implementations, image by image, on a small network that is trained here.

The comparison at size is `python -m benchmarks.agreement`.
"""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neural_network import MLPClassifier

from benchmarks import agreement, peers
from madry_cifar import attacks
from madry_cifar.attacks import apgd, square
from madry_cifar.evaluation.evaluator import Evaluator

Outputs = collections.namedtuple("Outputs", "logits")


@pytest.fixture(scope="module")
def network(digits):
    """A network of one hidden layer, trained by scikit-learn; right on nearly all digits."""
    flat = digits.train.images.reshape(len(digits.train), -1) / 255
    trained = MLPClassifier((32,), max_iter=15, random_state=0, alpha=0.01)
    with pytest.warns(match="Maximum iterations"):
        trained.fit(flat, digits.train.labels)
    (first, second), (bias, last) = (
        [tf.constant(each, tf.float32) for each in values] for values in (trained.coefs_, trained.intercepts_)
    )

    def network(images):
        hidden = tf.nn.relu(tf.reshape(images / 255, [-1, first.shape[0]]) @ first + bias)
        return Outputs(hidden @ second + last)

    return network


@pytest.fixture(scope="module")
def judge(network, digits):
    return agreement.Judge(network, digits.test.take(slice(120)), batch_size=120)


@pytest.fixture(scope="module")
def compared(network, digits, judge):
    """compared(name, package, epsilon) is the 2 × 2 table of our attack and a peer's on 120 images."""
    evaluator = Evaluator(network, batch_size=120, keep_adversarial=True)

    def compared(name, package, epsilon=12.0):
        attack = attacks.attack(name, epsilon=epsilon)
        ball = agreement.ball(attack.protocol)
        (peer,) = [peer for peer in peers.find(name) if peer.package == package]
        mine = judge.broken(agreement.ours(evaluator, attack, digits.test.take(slice(120))).adversarial, *ball)
        theirs = judge.broken(perturbed(peer.make, network, judge, epsilon), *ball)
        return agreement.compare(judge.right, mine, theirs)

    return compared


def perturbed(make, network, judge, epsilon):
    np.random.seed(0)
    return make(peers.Subject(network, epsilon, batch_size=120))(judge.images, judge.labels)


def agree(row, only_by_ours=2, least=20):
    """Many images are broken and many not, and they are the same but for two; or more, where ours must be stronger."""
    assert min(row["broken_by_both"], row["by_neither"]) >= least
    assert row["only_by_peer"] <= 2
    assert row["only_by_ours"] <= only_by_ours
    return True


@pytest.mark.parametrize("name", ["pgd-20", "apgd-ce"])
def test_art(compared, name):
    pytest.importorskip("art")
    assert agree(compared(name, "ART"))


@pytest.mark.parametrize(("name", "bounds"), [("pgd-20", ()), ("cw-l2-30", (2, 5)), ("fab-t", (6,))])
def test_foolbox(compared, name, bounds):
    """Beside FAB is another search for the nearest error; within C&W's radius there are few."""
    pytest.importorskip("foolbox")
    assert agree(compared(name, "Foolbox"), *bounds)


def test_square_beside_arts(compared, monkeypatch):
    """Both with 200 queries."""
    pytest.importorskip("art")
    monkeypatch.setattr(peers, "QUERIES", 200)
    run = square.square
    monkeypatch.setattr(square, "square", lambda *args, **settings: run(*args, **settings, queries=200))
    assert agree(compared("square", "ART", epsilon=24.0), only_by_ours=20)  # ART has the same squares for all images


def test_arts_targeted_attack_goes_toward_the_next_classes(network, digits, monkeypatch):
    """With few steps: in the ball, and it breaks about what ours does with as many."""
    pytest.importorskip("art")
    monkeypatch.setattr(peers, "STEPS", 5)
    monkeypatch.setattr(apgd, "STEPS", 5)
    monkeypatch.setitem(apgd.apgd.__kwdefaults__, "steps", 5)
    split = digits.test.take(slice(40))
    judge = agreement.Judge(network, split, batch_size=40)
    found = perturbed(peers.art_targeted, network, judge, 12.0)
    assert np.abs(found - judge.images).max() <= 12.001
    theirs, attack = judge.broken(found, "linf", 12.0), attacks.attack("apgd-t", epsilon=12.0)
    ours = Evaluator(network, batch_size=40).run(attack, split)
    assert abs(theirs.sum() - (judge.right & (ours.predictions != split.labels)).sum()) <= 4
    assert 8 < theirs.sum() < 36


def test_arts_autoattack_is_put_together_right(network, digits, monkeypatch):
    """With few steps and queries: it breaks what its first attack does, and within the ball."""
    pytest.importorskip("art")
    pytest.importorskip("multiprocess")
    monkeypatch.setattr(peers, "QUERIES", 10)
    monkeypatch.setattr(peers, "STEPS", 3)
    judge = agreement.Judge(network, digits.test.take(slice(40)), batch_size=40)
    found = perturbed(peers.art_autoattack, network, judge, 8.0)
    assert np.abs(found - judge.images).max() <= 8.001
    together = judge.broken(found, "linf", 8.0)
    first = functools.partial(peers.art_untargeted, loss="cross_entropy")
    alone = judge.broken(perturbed(first, network, judge, 8.0), "linf", 8.0)
    assert not np.any(alone & ~together)
    assert together.sum() >= alone.sum() > 3
