"""AutoAttack on a linear classifier, whose nearest errors are known; its stages, and outputs that are refused."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from linear import Linear, halfway

import rvs_tf
from madry_cifar import attacks
from madry_cifar.attacks import autoattack as versions
from madry_cifar.attacks import square
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator
from rvs_tf.attacks.autoattack import autoattack


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    """Square's last stage takes the time of all others."""
    monkeypatch.setattr(square.square, "__kwdefaults__", {"queries": 200})


def test_what_is_robust_is_known():
    linear = Linear()
    images, labels = linear.images(60)
    exact = linear.distances(images, labels)
    labels[:6] = (labels[:6] + 1) % 5  # wrong as they are
    epsilon = halfway(exact)
    report = autoattack(linear, images, labels, epsilon=epsilon, batch_size=32)
    np.testing.assert_array_equal(report.robust, (exact > epsilon) & (np.arange(60) >= 6))
    np.testing.assert_array_equal(np.argmax(linear(report.adversarial).logits, axis=1) == labels, report.robust)
    assert list(report.accuracy_after) == ["natural", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert report.accuracy_after["natural"] == 90
    assert report.accuracy_after["square"] == 100 * report.robust.mean()
    assert report.linf <= epsilon
    np.testing.assert_array_equal(report.adversarial[:6], images[:6])


@pytest.mark.parametrize(
    ("version", "stages", "restarts"),
    [
        ("standard", ["apgd-ce", "apgd-t", "fab-t", "square"], [1, 1, 1, 1]),
        ("plus", ["apgd-cex5", "apgd-dlrx5", "fab-t", "square", "apgd-t"], [5, 5, 1, 1, 1]),
        ("rand", ["apgd-ce", "apgd-dlr"], [1, 1]),
    ],
)
def test_versions(version, stages, restarts):
    attack = attacks.attack(f"autoattack-{version}", epsilon=4.0, restarts=3)
    assert [stage.name for stage in attack.stages] == stages == attack.protocol["stages"]
    assert [stage.protocol["restarts"] for stage in attack.stages] == restarts
    assert {stage.protocol["epsilon"] for stage in attack.stages} == {4}
    assert [stage.protocol.get("eot", 1) for stage in attack.stages] == [20 if version == "rand" else 1] * len(stages)
    published = {
        "apgd-ce": {"steps": 100},
        "apgd-dlr": {"steps": 100},
        "apgd-t": {"steps": 100, "targets": 9},
        "fab-t": {"steps": 100, "targets": 9},
        "square": {"queries": 5000},
    }
    for stage in attack.stages:
        name = stage.name.partition("x")[0] if stage.name[-2:] == "x5" else stage.name
        assert published[name].items() <= stage.protocol.items()


def test_the_standard_version_is_the_one_without_a_name():
    plain, named = (attacks.attack(name) for name in ("autoattack", "autoattack-standard"))
    assert plain.protocol == named.protocol
    assert tuple(stage.name for stage in plain.stages) == versions.STAGES["standard"]


def test_robust_is_robust_against_each_stage_alone():
    linear = Linear(classes=7)
    images, labels = linear.images(48)
    epsilon = halfway(linear.distances(images, labels))
    split, evaluator = Split(images, labels), Evaluator(linear, batch_size=32)
    names = versions.STAGES["standard"]
    alone = {name: evaluator.run(attacks.attack(name, epsilon=epsilon), split) for name in names}
    report = autoattack(linear, images, labels, epsilon=epsilon, batch_size=32)
    right = np.stack([outcome.predictions == labels for outcome in alone.values()])
    np.testing.assert_array_equal(report.robust, right.all(axis=0))
    assert len({accuracy.accuracy for accuracy in alone.values()}) > 1  # not all are equally strong
    assert 10 < report.robust.sum() < 40


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda logits: tf.nn.softmax(logits), "probabilities or one-hot"),
        (lambda logits: tf.one_hot(tf.argmax(logits, axis=1), 5), "probabilities or one-hot"),
        (lambda logits: logits[:, :3], "autoattack-standard: compares the logits of 4 classes, and there are 3"),
        (lambda logits: logits[:, :2], "autoattack-standard: compares the logits of 4 classes, and there are 2"),
    ],
)
def test_outputs_that_are_no_logits(outputs, message):
    linear = Linear()
    images, _ = linear.images(8)
    model = lambda x: SimpleNamespace(logits=outputs(linear(x).logits))  # noqa: E731
    with pytest.raises(UsageError, match=message):
        autoattack(model, images, np.zeros(8))


def test_the_name_that_it_had_first():
    import rvs_tf.attacks.autoattack as module

    assert module.autoattack is rvs_tf.attacks.autoattack is autoattack
    assert importlib.import_module("rvs_tf.attacks.autoattack").autoattack is autoattack


def test_an_unknown_version():
    with pytest.raises(UsageError, match="autoattack-standart: unknown; did you mean 'autoattack"):
        autoattack(Linear(), *Linear().images(8), version="standart")


def test_the_padding_of_a_batch_costs_nothing():
    """Five images in a batch of 32: Square asks for 16, their number rounded up, and not for 32."""
    linear, asked = Linear(), []

    def unbreakable(images):
        tf.py_function(lambda images: asked.append(len(images)), [images], [])
        return linear(tf.stop_gradient(images) * 0 + 200)

    images, _ = linear.images(5)
    labels = np.argmax(unbreakable(images).logits, axis=1).astype(np.int32)
    evaluator = Evaluator(unbreakable, batch_size=32)
    evaluator.admit(Split(images, labels))
    asked.clear()
    outcome = evaluator.run(attacks.attack("square"), Split(images, labels))
    assert outcome.accuracy == 100
    assert asked.count(32) == 3  # which are right; the stripes; the judging pass
    assert set(asked) == {16, 32}
