"""Algorithm 1 and its variants, against the released order of operations written out, at a small size."""

import numpy as np
import pytest
import tensorflow as tf
from tiers import mostly_slow

from madry_cifar import WideResNet
from madry_cifar.networks.layers import kernels, standardize
from rvs_tf import RobustnessViaSynthesis
from rvs_tf.defense import Draw, RvSOptions
from rvs_tf.labels import smooth_labels
from rvs_tf.losses import soft_cross_entropy
from rvs_tf.perturbation import perturb
from sinkhorn_tf import sinkhorn_distance

STEP = tf.constant(0, tf.int64)


def make(dtype="float64", rate=0.1, **options):
    schedule = {"learning_rates": (rate,), "learning_rate_boundaries": ()}
    return RobustnessViaSynthesis(WideResNet(10, 1, 10, dtype=dtype), RvSOptions(**schedule | options))


@pytest.fixture
def images():
    return tf.constant(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)), tf.float64)


@pytest.fixture
def labels():
    return tf.constant([3, 1, 4, 1])


def draws(count, batch=4, epsilon=8.0):
    rng = np.random.default_rng(1)
    shape = (batch, 32, 32, 3)
    return [
        Draw(tf.constant(rng.normal(size=(batch, 640))), tf.constant(rng.uniform(-epsilon, epsilon, shape)))
        for _ in range(count)
    ]


def values(variables):
    return [variable.numpy().copy() for variable in variables]


def trained(network):
    return values(network.trainable_variables)


def same(first, second):
    return [np.array_equal(*pair) for pair in zip(first, second, strict=True)]


class Reference:
    """The released iteration as it stands there: both halves pass the natural and the adversarial images through the
    classifier. Where it has no order of its own (the running statistics), adversarial first, then natural first."""

    def __init__(self):
        self.classifier, self.generator = make().classifier, make().generator
        networks = self.classifier, self.generator
        self.momenta = {v.path: np.zeros(v.shape) for network in networks for v in network.trainable_variables}

    def minimize(self, network, loss, tape, rate):
        variables = network.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
            self.momenta[variable.path] = 0.9 * self.momenta[variable.path] + gradient
            variable.assign_sub(rate * self.momenta[variable.path])

    def adversarial(self, images, draw):
        delta = tf.clip_by_value(self.generator(draw.latent, batch_norm="train"), -8, 8)
        start = tf.clip_by_value(images + draw.noise, 0, 255)
        return tf.clip_by_value(tf.clip_by_value(start + delta, images - 8, images + 8), 0, 255)

    def __call__(self, images, labels, first, second):
        classifier, targets = self.classifier, np.full((4, 10), 0.5 / 9)
        targets[np.arange(4), labels] = 0.5

        with tf.GradientTape() as tape:
            adversarial = classifier(self.adversarial(images, first), batch_norm="train").features
            natural = classifier(images, batch_norm="train").features
            loss = -sinkhorn_distance(natural, adversarial)
        self.minimize(self.generator, loss, tape, 0.01)

        with tf.GradientTape() as tape:
            natural = classifier(images, batch_norm="train").features
            features, logits = classifier(self.adversarial(images, second), batch_norm="train")
            cross_entropy = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1))
            decay = 2e-4 * sum(tf.reduce_sum(kernel**2) / 2 for kernel in kernels(classifier))
            distance = sinkhorn_distance(natural, features)
            total = cross_entropy + distance + decay
        self.minimize(classifier, total, tape, 0.1)
        return {
            "total": total,
            "cross_entropy": cross_entropy,
            "optimal_transport": distance,
            "weight_decay": decay,
            "generator": loss,
        }


@pytest.mark.parametrize("way", mostly_slow(["eager", "function"], "function"))
def test_iterations_are_those_of_the_released_code(images, labels, way):
    defense, reference = make(), Reference()
    iteration = tf.function(defense.iteration, autograph=False) if way == "function" else defense.iteration
    some = draws(4)
    for k in range(2):
        ours = iteration(images, labels, tf.constant(k, tf.int64), *some[2 * k : 2 * k + 2])
        theirs = reference(images, labels, *some[2 * k : 2 * k + 2])
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, err_msg=name)
    for network in ("classifier", "generator"):
        pairs = zip(getattr(defense, network).variables, getattr(reference, network).variables, strict=True)
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6, err_msg=actual.path)
    for name, network in defense.networks.items():
        slots = defense.optimizers[name].state["momentum"]
        for variable, slot in zip(network.trainable_variables, slots, strict=True):
            np.testing.assert_allclose(slot, reference.momenta[variable.path], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "kept", "changed"),
    [({"rate": 0.0}, "classifier", "generator"), ({"generator_learning_rate": 0.0}, "generator", "classifier")],
)
def test_each_half_changes_its_own_network(images, labels, options, kept, changed):
    defense = make(**options)
    before = {name: trained(network) for name, network in defense.networks.items()}
    defense.iteration(images, labels, STEP, *draws(2))
    assert all(same(before[kept], trained(defense.networks[kept])))
    assert not any(same(before[changed], trained(defense.networks[changed])))


def change(network, before):
    return [now - then for now, then in zip(trained(network), before, strict=True)]


def pass_through(defense, images, labels, draw):
    """Both losses of the variants, computed here, without a trace in the running statistics."""
    adversarial_images = perturb(images, defense.generator(draw.latent, batch_norm="frozen"), 8.0, draw.noise)
    natural = defense.classifier(images, batch_norm="frozen")
    adversarial = defense.classifier(adversarial_images, batch_norm="frozen")
    cross_entropy = soft_cross_entropy(adversarial.logits, smooth_labels(labels, 10, 0.5, tf.float64))
    return cross_entropy, sinkhorn_distance(natural.features, adversarial.features)


@pytest.mark.parametrize("objective", ["ot", "xent"])
def test_generator_climbs_its_objective(images, labels, objective):
    defense = make(rate=0.0, generator_learning_rate=1e-3, generator_loss=objective)
    (draw,) = draws(1)
    before = trained(defense.generator)
    with tf.GradientTape() as tape:
        losses = dict(zip(("xent", "ot"), pass_through(defense, images, labels, draw), strict=True))
    gradients = tape.gradient(losses[objective], [v.value for v in defense.generator.trainable_variables])
    reported = defense.iteration(images, labels, STEP, draw, draw)["generator"]
    np.testing.assert_allclose(reported, -losses[objective], rtol=1e-6)
    for step, gradient in zip(change(defense.generator, before), gradients, strict=True):
        np.testing.assert_allclose(step, 1e-3 * gradient, rtol=1e-5, atol=1e-10)
    after = dict(zip(("xent", "ot"), pass_through(defense, images, labels, draw), strict=True))
    assert after[objective] > losses[objective]


@pytest.mark.parametrize(("options", "weight"), [({}, 1), ({"ot_weight": 30.0}, 30), ({"ot_regularizer": False}, 0)])
def test_classifier_descends_the_cross_entropy_and_pays_for_transport_if_asked(images, labels, options, weight):
    defense = make(rate=1e-3, generator_learning_rate=0.0, weight_decay=0.01, **options)
    first, second = draws(2)
    before = trained(defense.classifier)
    with tf.GradientTape() as tape:
        cross_entropy, transport = pass_through(defense, images, labels, second)
        decay = 0.01 * sum(tf.reduce_sum(kernel**2) / 2 for kernel in kernels(defense.classifier))
        total = cross_entropy + decay + weight * transport
    gradients = tape.gradient(total, [v.value for v in defense.classifier.trainable_variables])
    losses = defense.iteration(images, labels, STEP, first, second)
    np.testing.assert_allclose(losses["total"], total, rtol=1e-6)
    np.testing.assert_allclose(losses["optimal_transport"], transport, rtol=1e-6)
    for step, gradient in zip(change(defense.classifier, before), gradients, strict=True):
        np.testing.assert_allclose(step, -1e-3 * gradient, rtol=1e-5, atol=1e-10)


def test_distance_is_that_of_the_options():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    defense = make(sinkhorn_regularization=0.7, sinkhorn_iterations=3)
    assert defense.distance(x, y) == sinkhorn_distance(x, y, regularization=0.7, iterations=3)
    np.testing.assert_allclose(make(ot="paired").distance(x, y), np.mean(np.sum((x - y) ** 2, axis=1)), rtol=1e-12)


def test_draws_are_of_the_distributions_of_the_released_code():
    defense = make("float32")
    latent, noise = defense.draw(tf.zeros([64, 32, 32, 3]), STEP, "generator")
    assert latent.shape == (64, 640)
    assert noise.shape == (64, 32, 32, 3)
    values = np.sort(np.ravel(latent))
    assert abs(values.mean()) < 5 / values.size**0.5
    assert abs(values.std() - 1) < 5 / (2 * values.size) ** 0.5
    assert abs(np.mean(values**4) - 3) < 5 * (96 / values.size) ** 0.5  # normal
    noise = np.ravel(noise)
    assert np.abs(noise).max() <= 8
    counts = np.histogram(noise, 16, (-8, 8))[0]
    assert np.abs(counts / noise.size - 1 / 16).max() < 5 * (1 / 16 / noise.size) ** 0.5  # uniform


def test_draws_depend_on_seed_step_and_half_alone():
    images = tf.zeros([2, 32, 32, 3])

    def draw(seed, step, half):
        defense = RobustnessViaSynthesis(WideResNet(10, 1, 10), RvSOptions(), seed)
        return defense.draw(images, tf.constant(step, tf.int64), half)

    first = draw(0, 5, "generator")
    assert same(first, draw(0, 5, "generator")) == [True, True]
    for other in ((1, 5, "generator"), (0, 6, "generator"), (0, 5, "classifier")):
        assert not np.any(first.latent == draw(*other).latent)
        assert np.mean(first.noise == draw(*other).noise) < 1e-3


@pytest.mark.parametrize("number", [1, 2])
def test_halves_share_their_draw_if_asked(images, labels, number):
    """A training step is the iteration with the draws of that step."""
    images = tf.cast(images, tf.float32)
    one, other = make("float32", latent_draws=number), make("float32", latent_draws=number)
    step = tf.constant(3, tf.int64)
    halves = [other.draw(images, step, half) for half in ("generator", "classifier")]
    assert not np.array_equal(halves[0].latent, halves[1].latent)
    if number == 1:
        halves[1] = halves[0]
    assert one.train_step(images, labels, step) == other.iteration(images, labels, step, *halves)
    for name, network in one.networks.items():
        assert all(same(values(network.variables), values(other.networks[name].variables)))


@pytest.mark.parametrize("noisy", [True, False])
def test_adversarial_images(images, noisy):
    defense = make("float32", uniform_noise=noisy, epsilon=4.0)
    images = tf.cast(images, tf.float32)
    draw = defense.draw(images, STEP, "classifier")
    generated = defense.generator(draw.latent, batch_norm="frozen").numpy()
    delta = np.clip(generated, -4, 4)
    if noisy:
        assert np.abs(draw.noise).max() <= 4
        moved = np.clip(images + draw.noise, 0, 255) + delta
        expected = np.clip(np.clip(moved, images - 4, images + 4), 0, 255)
    else:
        assert draw.noise is None
        expected = np.clip(images + delta, 0, 255)
    np.testing.assert_allclose(defense.synthesize(images, draw, "frozen"), expected, atol=1e-4)


def test_shown_images_are_those_trained_on_and_change_nothing(images, labels):
    defense = make("float32", generator_learning_rate=0.0)
    images = tf.cast(images, tf.float32)
    before = {name: values(network.variables) for name, network in defense.networks.items()}
    shown = defense.adversarial_images(images, labels, STEP)
    for name, network in defense.networks.items():
        assert all(same(before[name], values(network.variables)))
    logits = defense.classifier(shown, batch_norm="frozen").logits
    expected = soft_cross_entropy(logits, smooth_labels(labels, 10))
    np.testing.assert_allclose(defense.train_step(images, labels, STEP)["cross_entropy"], expected, rtol=1e-5)


def test_networks_start_from_different_seeds():
    defenses = [RobustnessViaSynthesis(WideResNet(10, 1, 10, seed=seed), RvSOptions(), seed) for seed in (0, 0, 1)]
    kernel = [defense.generator.dense.kernel.numpy() for defense in defenses]
    assert np.array_equal(kernel[0], kernel[1])
    assert np.mean(kernel[0] == kernel[2]) < 1e-3
    assert set(defenses[0].networks) == set(defenses[0].optimizers) == {"classifier", "generator"}
    assert defenses[0].optimizers["generator"].schedule(10**6) == 0.01


@pytest.mark.parametrize("perturbed", [True, False])
def test_whether_perturbed_images_move_the_running_statistics(perturbed):
    """The first norm sees the first convolution's outputs: its means are computed here from the images alone."""
    options = RvSOptions(perturbed_statistics=perturbed, learning_rates=(0.0,), learning_rate_boundaries=())
    defense = RobustnessViaSynthesis(WideResNet(10, 1), options)
    images = 255 * tf.random.stateless_uniform([4, 32, 32, 3], (0, 1))
    classifier, step = defense.classifier, tf.constant(0, tf.int64)
    draws = [defense.draw(images, step, half) for half in ("generator", "classifier")]
    before = [v.numpy() for v in defense.generator.variables]
    first = defense.synthesize(images, draws[0])  # moves the generator's statistics, which do not matter in "train"
    for variable, value in zip(defense.generator.variables, before, strict=True):
        variable.assign(value)

    def mean(batch):
        return tf.reduce_mean(classifier.init_conv(standardize(batch)), axis=[0, 1, 2]).numpy()

    defense.iteration(images, tf.constant([0, 1, 2, 3]), step, *draws)
    second = defense.synthesize(images, draws[1])
    order = [first, images, images, second] if perturbed else [images, images]
    expected = 0
    for batch in order:
        expected = 0.9 * expected + 0.1 * mean(batch)
    np.testing.assert_allclose(classifier.units[0].norm1.moving_mean, expected, atol=1e-6)
