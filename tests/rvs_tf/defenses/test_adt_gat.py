"""What is particular to ADT and GAT beside the numbers that other programs computed of them."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

import rvs_tf.evaluate
import rvs_tf.train
from madry_cifar import WideResNet
from madry_cifar.runs.events import event_files, events
from madry_cifar.training.steps import inspect
from rvs_tf.attackers import DistributionAttacker, LatentEncoder, PlainAttacker
from rvs_tf.defenses import GAT, ADTExp, ADTExpAM, ADTImpAM, adt

RATE = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
STEP = tf.constant(0, tf.int64)


def make(kind, classifier=None, **options):
    sizes = {} if kind is ADTExp else {"generator_width": 4}
    return kind(classifier or WideResNet(10, 1, 10), kind.Options(**RATE | sizes | options), 1)


@pytest.fixture(scope="module")
def batch(digits):
    return tf.constant(digits.train.images[:6], tf.float32), tf.constant(digits.train.labels[:6])


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        (DistributionAttacker, 10.33e6),
        (lambda: DistributionAttacker(3, 64), 10.61e6),
        (LatentEncoder, 0.72e6),
        (PlainAttacker, 108e3),
    ],
)
def test_networks_have_the_weights_of_the_described_ones(network, weights):
    trained = sum(int(tf.size(variable)) for variable in network().trainable_variables)
    assert trained == pytest.approx(weights, rel=0.01)


def test_the_entropy_is_minus_the_log_of_the_density():
    """Of a = tanh(m + s·n), whose distribution function at a is Φ((artanh a − m)/s), by differences of that."""
    m, v, n = 0.3, -0.4, np.linspace(-1.5, 1.5, 7)
    scale = math.log1p(math.exp(v))
    distribution = tf.tile(tf.constant([[m, v]], tf.float64), [7, 1])[:, tf.newaxis, tf.newaxis]
    perturbation, entropy = adt.sample(distribution, tf.constant(n)[:, tf.newaxis, tf.newaxis, tf.newaxis])
    step = 1e-6
    for a, found in zip(np.ravel(perturbation), np.ravel(entropy), strict=True):
        below, above = (math.erf((math.atanh(a + d) - m) / scale / 2**0.5) / 2 for d in (-step, step))
        density = (above - below) / (2 * step)
        assert found == pytest.approx(-math.log(density * math.sqrt(2 * math.pi)), abs=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_entropy_is_finite_where_the_perturbation_is_at_its_bound(jit_compile):
    compiled = tf.function(adt.sample, autograph=False, jit_compile=jit_compile)
    distribution = tf.concat([tf.fill([1, 2, 2, 3], 40.0), tf.fill([1, 2, 2, 3], -200.0)], axis=3)
    perturbation, entropy = compiled(distribution, tf.zeros([1, 2, 2, 3]))
    np.testing.assert_array_equal(perturbation, 1)
    np.testing.assert_allclose(entropy, 2 * math.log(1e-8), rtol=1e-5)


@pytest.mark.parametrize("accumulated", [True, False])
def test_inner_steps_follow_all_gradients_or_their_own(accumulated):
    """Of gradients 3, -1; 1, -2.5; -2, -4 in three steps of two samples each."""
    rule = make(ADTExp, inner_samples=2, accumulated_gradients=accumulated).rule()
    gradients = [3.0, -1.0, 1.0, -2.5, -2.0, -4.0]
    total, moves = rule.begin(tf.constant(0.0)), []
    for number, gradient in enumerate(gradients):
        move, total = rule.step(tf.constant(gradient), total, number)
        moves.append(float(move))
    sums = [2.0, 0.5, -5.5] if accumulated else [2.0, -1.5, -6.0]
    expected = list(itertools.chain(*([0, 0.3 * np.sign(each)] for each in sums)))
    np.testing.assert_allclose(moves, expected, rtol=1e-6)


def test_what_is_added_to_small_gradients_makes_steps_smaller():
    rule = make(ADTExp, inner_samples=1).rule()
    move, _ = rule.step(tf.constant(1e-8), rule.begin(tf.constant(0.0)), 0)
    assert float(move) == pytest.approx(0.15)


def test_the_distributions_that_are_found_mislead_more_than_the_first_ones(batch, trained):
    images, labels = batch
    subject = make(ADTExp, trained, inner_steps=4, inner_samples=2)

    def loss(distribution):
        perturbation, _ = adt.sample(distribution, tf.zeros_like(images))
        logits = trained(adt.moved(images, perturbation, 8.0)).logits
        return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))

    found = tf.function(subject.search, autograph=False)(images, labels, STEP).point
    assert loss(found) > loss(tf.zeros([6, 32, 32, 6])) + 0.1
    wide = make(ADTExp, trained, inner_steps=4, inner_samples=2, entropy_weight=1e6)
    wider = tf.function(wide.search, autograph=False)(images, labels, STEP).point
    assert float(tf.reduce_mean(wider[..., 3:])) > float(tf.reduce_mean(found[..., 3:]))


def test_a_reversed_gradient():
    x = tf.constant([1.0, -2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(adt.reversed_gradient(x) ** 2)
    assert float(y) == 5
    np.testing.assert_array_equal(tape.gradient(y, x), [-2, 4])


def test_the_bound_of_the_entropy_is_paid_for_above_its_threshold(batch):
    """It is the mean surprise of z under the encoder's normal distribution, as NumPy has it."""
    penalties = {}
    for threshold in (0.0, 5.0):
        subject = make(ADTImpAM, entropy_threshold=threshold, entropy_weight=2.0)
        seen = subject.seen(*batch)
        with tf.GradientTape() as tape:
            perturbation, penalty = subject.perturb(seen, STEP, "frozen")
        of_encoder = tape.gradient(penalty, subject.optimizers["encoder"].variables)
        penalties[threshold] = float(penalty), max(float(tf.reduce_max(tf.abs(each))) for each in of_encoder)
    z = subject.latent(seen, STEP).numpy()
    assert z.shape == (6, 64)
    assert -1 <= z.min() < -0.9 < 0.9 < z.max() < 1
    mean, scale = np.split(subject.encoder(perturbation, batch_norm="frozen").numpy(), 2, axis=1)
    variance = np.log1p(np.exp(scale))
    surprise = np.mean(np.log(2 * np.pi * variance) / 2 + (z - mean) ** 2 / (2 * variance))
    assert 0 < surprise < 5
    assert penalties[0.0][0] == pytest.approx(2 * surprise, rel=1e-5)
    assert penalties[0.0][1] > 0
    assert penalties[5.0] == (0, 0)


def test_other_noise_gives_other_perturbations(batch):
    for kind in (ADTExpAM, ADTImpAM):
        subject = make(kind)
        first, second, again = (subject.adversarial_images(*batch, tf.constant(s, tf.int64)) for s in (0, 1, 0))
        assert np.abs(first - second).max() > 0.01
        np.testing.assert_array_equal(first, again)


def probability_gradients(classifier, images, labels):
    """Of each image by itself: the gradient of the probability of its class, and of the sum of all ten."""
    found = []
    for image, label in zip(images, labels, strict=True):
        point = image[tf.newaxis]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            probabilities = tf.nn.softmax(classifier(point).logits)[0]
            own, summed = probabilities[label], tf.reduce_sum(probabilities)
        found.append([255 * tape.gradient(each, point)[0] for each in (own, summed)])
    return (np.stack(each) for each in zip(*found, strict=True))


def test_the_generator_sees_the_gradient_of_each_images_own_probability(digits):
    """And not, as in two public ports, that of the sum of all classes' probabilities, which is 1: zero but rounding."""
    classifier = WideResNet(10, 1, 10, dtype="float64")
    images, labels = tf.constant(digits.train.images[:4], tf.float64), tf.constant(digits.train.labels[:4])
    own, summed = probability_gradients(classifier, images, labels)
    assert np.abs(summed).max() < 1e-12 < 1e-4 < np.abs(own).max(axis=(1, 2, 3)).min()
    raw = make(GAT, classifier, normalized_gradient=False).gradient(images, labels)
    np.testing.assert_allclose(raw, own, rtol=0, atol=1e-9 * np.abs(own).max())
    seen = make(GAT, classifier).gradient(images, labels).numpy()
    np.testing.assert_allclose(seen, own / np.abs(own).max(axis=(1, 2, 3), keepdims=True), rtol=0, atol=1e-9)
    alone = make(GAT, classifier).gradient(images[2:3], labels[2:3])
    np.testing.assert_allclose(alone[0], seen[2], rtol=0, atol=1e-9)  # whatever else is in the batch


def test_it_sees_something_where_the_classifier_is_sure(digits):
    """Where the probability is 1 in float32 its own gradient is zero: that of the lead is not."""
    images, labels = tf.constant(digits.train.images[:3], tf.float32), tf.constant(digits.train.labels[:3])
    classifier = WideResNet(10, 1, 10)
    bias = np.zeros(10, np.float32)
    bias[labels[0]] = 40
    classifier.logits.bias.assign(bias)
    own, _ = probability_gradients(classifier, images[:1], labels[:1])
    assert np.abs(own).max() < 1e-12
    seen = make(GAT, classifier).gradient(images[:1], labels[:1])
    assert float(tf.reduce_max(tf.abs(seen))) == 1
    assert np.mean(np.abs(seen) > 0.01) > 0.1


@pytest.mark.parametrize(("perturbation", "least", "most"), [("bounded", 3.9, 4), ("free", 100, 255)])
def test_the_size_of_gats_perturbations(batch, perturbation, least, most):
    subject = make(GAT, perturbation=perturbation, **({"epsilon": 4.0} if perturbation == "bounded" else {}))
    subject.generator.last.bias.assign([9.0, -9.0, 9.0])
    moved = subject.adversarial_images(*batch, STEP)
    assert least < float(tf.reduce_max(tf.abs(moved - batch[0]))) <= most
    assert float(tf.reduce_min(moved)) >= 0
    assert float(tf.reduce_max(moved)) <= 255


@pytest.mark.parametrize(("perturbation", "at_epsilon"), [("bounded", [100.0]), ("free", [])])
def test_what_has_no_bound_is_not_said_to_be_at_it(batch, perturbation, at_epsilon):
    subject = make(GAT, perturbation=perturbation)
    subject.generator.last.bias.assign([9.0, -9.0, 9.0])
    images = tf.fill(batch[0].shape, 128.0)  # of which nothing is clipped
    scalars, _ = inspect(subject, images, batch[1], STEP)
    assert [value for tag, value in scalars.items() if tag.endswith("percent_at_epsilon")] == at_epsilon
    assert scalars["perturbation/mean_absolute"] > 7


def test_the_updates_of_gats_generator_in_a_step(batch):
    subject = make(GAT, generator_updates=3)
    first = subject.train_step(*batch, STEP)["generator"]
    assert int(subject.optimizers["generator"].count) == 3
    once = make(GAT).train_step(*batch, STEP)["generator"]
    assert float(first) != float(once)


def test_alpha_is_the_share_of_the_natural_images(batch):
    for alpha in (0.0, 0.25, 1.0):
        losses = make(GAT, natural_weight=alpha, weight_decay=0.0).train_step(*batch, STEP)
        natural, perturbed = float(losses["natural"]), float(losses["perturbed"])
        assert float(losses["total"]) == pytest.approx(alpha * natural + (1 - alpha) * perturbed, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--defense=adt"], "Known: adt_exp, adt_expam, adt_impam, "),
        (["--defense=adt_exp", "--generator_width=4"], "--generator_width=4: does not apply to --defense=adt_exp"),
        (["--defense=adt_expam", "--inner_steps=4"], "--inner_steps=4: does not apply to --defense=adt_expam"),
        (["--defense=adt_expam", "--entropy_threshold=1"], "--entropy_threshold=1.0: does not apply to"),
        (["--defense=adt_impam", "--inner_samples=0"], "--inner_samples=0"),
        (["--defense=gat", "--perturbation=bound"], "--perturbation=bound"),
        (["--defense=gat", "--perturbation=free", "--epsilon=4"], "--epsilon=4: has no effect with"),
        (["--defense=gat", "--natural_weight=1.5"], "--natural_weight=1.5"),
    ],
)
def test_what_is_typed_wrong(invoke, tiny, tmp_path, flags, named):
    status, _, err = invoke(rvs_tf.train.command, *tiny, "--steps=1", *flags, f"--train_dir={tmp_path}/run")
    assert status == 2
    assert named in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_run_shows_its_distribution_and_is_evaluated(invoke, tiny, tmp_path):
    flags = ("--defense=adt_expam", "--generator_width=4", "--steps=2", "--image_every=2", "--eval_every=0")
    status, _, err = invoke(rvs_tf.train.command, *tiny, *flags, f"--train_dir={tmp_path}/run")
    assert status == 0, err
    (file,) = event_files(tmp_path / "run")
    shown = {value.tag: value.metadata for event in events(file) for value in event.summary.value}
    for name in ("center", "deviation"):
        assert shown[f"distribution/{name}"].plugin_data.plugin_name == "histograms"
        assert shown[f"distribution/{name}"].summary_description
    evaluated = ("--attacks=natural,fgsm", "--max_images=10", f"--train_dir={tmp_path}/run")
    status, out, err = invoke(rvs_tf.evaluate.command, *evaluated)
    assert status == 0, err
    assert "fgsm" in out
