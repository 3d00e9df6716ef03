"""AdvGAN's networks, losses and steps, against their formulas in NumPy; and what a short training achieves."""

import dataclasses
import functools
import signal

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from madry_cifar import WideResNet, randomness
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.networks.layers import kernels
from madry_cifar.predictor import Outputs, Predictor, as_predictor
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints, flat_state, saved_steps
from madry_cifar.training.trainer import Interrupted, Schedule, Trainer
from rvs_tf.advgan import advgan
from rvs_tf.advgan.advgan import AdvGAN, AdvGANOptions, TrainedAdvGAN, as_attack, perturb
from rvs_tf.advgan.networks import AdvGANGenerator, Discriminator, InstanceNorm

STEP = tf.constant(0, tf.int64)


def pixels(batch=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, 32, 32, 3)).astype(np.float64)


def make(dtype="float64", **options):
    """Against an untrained classifier, with a small loss of the norm (of which c = 1.5 leaves nothing at first)."""
    return AdvGAN(WideResNet(10, 1, 10, dtype=dtype), AdvGANOptions(**{"perturbation_bound": 0.5} | options), seed=3)


def values(variables):
    return [variable.numpy().copy() for variable in variables]


def same(before, variables):
    return [np.array_equal(*pair) for pair in zip(before, values(variables), strict=True)]


# --- Networks


@pytest.mark.parametrize("width", [1, 2])
def test_layers_of_the_generator(width):
    generator = AdvGANGenerator(width)
    shapes = {v.path.removeprefix("generator/"): tuple(v.shape) for v in generator.trainable_variables}
    few, some, many = 8 * width, 16 * width, 32 * width
    ends = [(3, few), (few, some), (some, many)]
    expected = {f"conv{k}/kernel": (3, 3, *end) for k, end in enumerate(ends, 1)}
    expected |= {f"conv{k}/bias": end[1:] for k, end in enumerate(ends, 1)}
    for k, (inputs, outputs) in enumerate([(many, some), (some, few), (few, 3)], 1):  # transposed: outputs come first
        expected |= {f"deconv{k}/kernel": (3, 3, outputs, inputs), f"deconv{k}/bias": (outputs,)}
    for k, channels in enumerate([few, some, many, some, few], 1):
        expected |= {f"norm{k}/{name}": (channels,) for name in ("gamma", "beta")}
    for block in range(1, 5):
        for k in (1, 2):
            expected |= {f"block{block}/conv{k}/kernel": (3, 3, many, many), f"block{block}/conv{k}/bias": (many,)}
            expected |= {f"block{block}/norm{k}/{name}": (many,) for name in ("gamma", "beta")}
    assert shapes == expected
    assert generator(pixels()).shape == (4, 32, 32, 3)


def test_sides_of_the_generator_and_of_the_discriminator():
    """32, 32, 16, 8, and back; 32, 15, 6, 2."""
    generator, discriminator = AdvGANGenerator(), Discriminator()

    def sides(layers, inputs):
        found = []
        for layer in layers:
            inputs = layer(inputs)
            found.append(inputs.shape[1:])
        return found

    up = sides([*generator.convs, *generator.deconvs, generator.deconv_last], pixels())
    assert up == [(32, 32, 8), (16, 16, 16), (8, 8, 32), (16, 16, 16), (32, 32, 8), (32, 32, 3)]
    assert sides(discriminator.convs, pixels()) == [(15, 15, 8), (6, 6, 16), (2, 2, 32)]
    assert [kernel.shape[0] for kernel in kernels(discriminator)] == [4, 4, 4, 2 * 2 * 32]
    assert [norm and norm.gamma.shape[0] for norm in discriminator.norms] == [None, 16, 32]


def test_discriminator_gives_a_probability_to_each_image_by_itself():
    discriminator, images = Discriminator(dtype="float64"), pixels(5)
    outputs = discriminator(images).numpy()
    assert outputs.shape == (5,)
    assert np.all((outputs > 0) & (outputs < 1))
    np.testing.assert_allclose(discriminator(images[2:3]), outputs[2:3], rtol=1e-9)
    discriminator.dense.bias.assign_add([0.75])  # what comes before the sigmoid
    shifted = discriminator(images).numpy()
    np.testing.assert_allclose(np.log(shifted / (1 - shifted)) - np.log(outputs / (1 - outputs)), 0.75, rtol=1e-9)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
def test_instance_norm(dtype, bound):
    rng = np.random.default_rng(0)
    inputs, gamma, beta = 2 + 3 * rng.normal(size=(4, 5, 6, 3)), rng.normal(size=3), rng.normal(size=3)
    layer = InstanceNorm(dtype=dtype)
    layer.build(inputs.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    mean, variance = inputs.mean(axis=(1, 2), keepdims=True), inputs.var(axis=(1, 2), keepdims=True)
    expected = gamma * (inputs - mean) / np.sqrt(variance + 1e-6) + beta
    np.testing.assert_allclose(layer(inputs.astype(dtype)), expected, rtol=bound, atol=10 * bound)


def test_residual_block_adds_to_its_inputs():
    """With the last norm's scale at zero nothing is added; its offset is."""
    block, inputs = AdvGANGenerator(dtype="float64").blocks[0], np.random.default_rng(0).normal(size=(2, 8, 8, 32))
    assert np.abs(block(inputs) - inputs).max() > 0.1
    assert np.any(block(inputs) < 0)  # no ReLU at the end
    block.norm2.gamma.assign(np.zeros(32))
    block.norm2.beta.assign(np.arange(32))
    np.testing.assert_allclose(block(inputs), inputs + np.arange(32), rtol=1e-12)


def test_perturbations_depend_on_the_running_statistics_in_evaluation_alone():
    generator, images = AdvGANGenerator(dtype="float64"), pixels()
    running = values(generator.non_trainable_variables)
    frozen, evaluated = (generator(images, batch_norm=mode).numpy() for mode in ("frozen", "eval"))
    assert all(same(running, generator.non_trainable_variables))
    np.testing.assert_allclose(generator(images[:1]), evaluated[:1], rtol=1e-9)
    assert np.abs(generator(images[:1], batch_norm="frozen") - frozen[:1]).max() > 1e-3
    np.testing.assert_array_equal(generator(images, batch_norm="train"), frozen)
    assert not any(same(running, generator.non_trainable_variables))
    np.testing.assert_array_equal(generator(images, batch_norm="frozen"), frozen)
    assert np.abs(generator(images) - evaluated).max() > 1e-3


def test_networks_start_from_the_seed_and_from_different_ones():
    same_seed, other = AdvGAN(WideResNet(10, 1, 10), seed=3), AdvGAN(WideResNet(10, 1, 10), seed=4)
    for name, network in make("float32").networks.items():
        assert all(same(values(network.variables), same_seed.networks[name].variables))
        assert not any(same(values(kernels(network)), kernels(other.networks[name])))


# --- Perturbations


@functools.cache
def compiled():
    generator = AdvGANGenerator()
    start = values(generator.trainable_variables)
    return generator, start, tf.function(lambda images, epsilon: perturb(generator, images, epsilon), autograph=False)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 64, width=32), st.floats(0.01, 3))
def test_adversarial_images_are_within_epsilon_and_the_range_of_pixels(seed, epsilon, scale):
    rng = np.random.default_rng(seed)
    generator, start, function = compiled()
    for variable, value in zip(generator.trainable_variables, start, strict=True):
        variable.assign(value * rng.normal(scale=scale, size=value.shape))
    images = rng.choice([0, 255, 128, 3.7, 254.9], size=(2, 32, 32, 3)).astype(np.float32)
    perturbation, adversarial = (tensor.numpy() for tensor in function(images, tf.constant(epsilon, tf.float32)))
    assert np.abs(perturbation).max() <= epsilon
    assert 0 <= adversarial.min() <= adversarial.max() <= 255
    assert np.abs(adversarial - images).max() <= epsilon + 2e-5  # float32 in the range of 255
    np.testing.assert_array_equal(adversarial, np.clip(images + perturbation, 0, 255))


def test_tanh_bounds_the_perturbation_and_keeps_its_sign():
    """arctanh(δ/ε) is linear in the last kernel; far out δ is ±ε, and the gradient is gone."""
    generator, images = AdvGANGenerator(dtype="float64"), pixels(2)
    kernel = generator.deconv_last.kernel.numpy()
    before = np.arctanh(perturb(generator, images, 8.0)[0] / 8)
    generator.deconv_last.kernel.assign(0.5 * kernel)
    np.testing.assert_allclose(np.arctanh(perturb(generator, images, 8.0)[0] / 8), 0.5 * before, rtol=1e-6, atol=1e-9)
    generator.deconv_last.kernel.assign(1e9 * kernel)
    with tf.GradientTape() as tape:
        perturbation = perturb(generator, images, 8.0)[0]
    np.testing.assert_array_equal(perturbation, 8 * np.sign(before))
    assert not np.any(tape.gradient(perturbation, generator.deconv_last.bias.value))


# --- Losses


def test_losses_of_the_discriminator():
    rng = np.random.default_rng(0)
    natural, adversarial = rng.uniform(size=(2, 6))
    expected = sum((p - 1) ** 2 for p in natural) / 6 + sum(p**2 for p in adversarial) / 6
    np.testing.assert_allclose(advgan.discriminator_loss(natural, adversarial), expected, rtol=1e-12)
    np.testing.assert_allclose(advgan.gan_loss(adversarial), sum((p - 1) ** 2 for p in adversarial) / 6, rtol=1e-12)
    assert advgan.discriminator_loss(np.ones(3), np.zeros(3)) == 0
    assert advgan.gan_loss(np.ones(3)) == 0


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_adversarial_loss_is_the_sum_of_what_the_true_class_leads_by(seed, num_classes):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(7, num_classes)), rng.integers(0, num_classes, 7)
    leads = [row[label] - max(np.delete(row, label)) for row, label in zip(scores, labels, strict=True)]
    expected = sum(max(0, lead) for lead in leads)
    np.testing.assert_allclose(advgan.adversarial_loss(tf.constant(scores), labels), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bound", [0.0, 0.3, 1.5, 100.0])
def test_loss_of_the_norm_is_in_units_of_the_range_of_pixels(bound):
    sizes = np.array([0, 1, 4, 8, 16])[:, np.newaxis, np.newaxis, np.newaxis]
    perturbation = sizes * np.random.default_rng(0).uniform(-1, 1, (5, 32, 32, 3))
    norms = [np.linalg.norm(one.ravel() / 255) for one in perturbation]
    expected = sum(max(0, norm - bound) for norm in norms) / 5
    np.testing.assert_allclose(advgan.perturbation_loss(perturbation, bound), expected, rtol=1e-6, atol=1e-6)


def test_gradient_of_the_norm_is_finite_where_nothing_is_changed():
    perturbation = tf.zeros([2, 32, 32, 3])
    with tf.GradientTape() as tape:
        tape.watch(perturbation)
        loss = advgan.perturbation_loss(perturbation, 0.0)
    assert np.all(np.isfinite(tape.gradient(loss, perturbation)))


# --- Steps


def softmax(logits):
    shifted = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scores", ["probabilities", "logits"])
def test_losses_of_a_step(scores):
    """The discriminator's before its update, the generator's after it, as both networks then are."""
    options = {"adversarial_loss": scores, "gan_weight": 0.7, "perturbation_weight": 3.0, "epsilon": 16.0}
    attack, images = make(**options), pixels()
    perturbation, adversarial = perturb(attack.generator, images, 16.0, batch_norm="frozen")
    labels = np.argmax(attack.classifier(adversarial).logits, axis=1)
    labels[0] = (labels[0] + 1) % 10  # the others are not fooled yet
    natural, fake = attack.discriminator(images).numpy(), attack.discriminator(adversarial).numpy()
    losses = {name: float(loss) for name, loss in attack.train_step(tf.constant(images), labels, STEP).items()}
    updated = attack.discriminator(adversarial).numpy()
    logits = attack.classifier(adversarial, batch_norm="eval").logits.numpy()
    outputs = logits if scores == "logits" else softmax(logits)
    leads = [row[label] - max(np.delete(row, label)) for row, label in zip(outputs, labels, strict=True)]
    expected = {
        "discriminator": np.mean((natural - 1) ** 2) + np.mean(fake**2),
        "adversarial": sum(max(0, lead) for lead in leads),
        "gan": np.mean((updated - 1) ** 2),
        "perturbation": np.mean([max(0, np.linalg.norm(one / 255) - 0.5) for one in perturbation.numpy()]),
    }
    assert min(expected.values()) > 0
    expected["total"] = expected["adversarial"] + 0.7 * expected["gan"] + 3 * expected["perturbation"]
    assert losses == pytest.approx(expected, rel=1e-9)
    assert np.abs(updated - fake).max() > 1e-6


def first_adam_step(gradient):
    """m̂ = g and v̂ = g²: all but the sign of the gradient goes."""
    return -1e-3 * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))


def test_each_network_descends_its_own_loss():
    attack, images, labels = make(epsilon=16.0), pixels(), np.array([3, 1, 4, 1])
    before = {name: values(network.trainable_variables) for name, network in attack.networks.items()}
    with tf.GradientTape() as tape:
        _, adversarial = perturb(attack.generator, images, 16.0, batch_norm="frozen")
        natural, fake = attack.discriminator(images), attack.discriminator(tf.stop_gradient(adversarial))
        loss = tf.reduce_mean((natural - 1) ** 2 + fake**2)
    variables = [v.value for v in attack.discriminator.trainable_variables]
    gradients = {"discriminator": tape.gradient(loss, variables)}
    attack.train_step(tf.constant(images), labels, STEP)
    after = {name: values(network.trainable_variables) for name, network in attack.networks.items()}

    for variable, value in zip(attack.generator.trainable_variables, before["generator"], strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:  # the discriminator is the new one here
        perturbation, adversarial = perturb(attack.generator, images, 16.0, batch_norm="frozen")
        probabilities = tf.nn.softmax(attack.classifier(adversarial).logits)
        true = tf.gather(probabilities, labels, axis=1, batch_dims=1)
        other = tf.reduce_max(probabilities - 2 * tf.one_hot(labels, 10, dtype=tf.float64), axis=1)
        loss = tf.reduce_sum(tf.maximum(true - other, 0)) + tf.reduce_mean((attack.discriminator(adversarial) - 1) ** 2)
        loss += 5 * tf.reduce_mean(tf.maximum(tf.norm(tf.reshape(perturbation / 255, [4, -1]), axis=1) - 0.5, 0))
    gradients["generator"] = tape.gradient(loss, [v.value for v in attack.generator.trainable_variables])

    for name in ("generator", "discriminator"):
        network, compared = attack.networks[name], 0
        for variable, then, now, gradient in zip(
            network.trainable_variables, before[name], after[name], gradients[name], strict=True
        ):
            clear = np.abs(gradient) > 1e-7  # a bias before a norm has no gradient but for rounding
            compared += clear.sum()
            np.testing.assert_allclose(
                (now - then)[clear], first_adam_step(gradient.numpy())[clear], rtol=1e-3, err_msg=variable.path
            )
        assert compared > 0.7 * sum(value.size for value in before[name])


@pytest.mark.parametrize("resting", ["generator", "discriminator"])
def test_each_update_changes_its_own_network_and_never_the_target(resting):
    attack, labels = make("float32", **{f"{resting}_learning_rate": 0.0}), np.array([3, 1, 4, 1])
    moving = {"generator": attack.discriminator, "discriminator": attack.generator}[resting]
    before = values(attack.networks[resting].trainable_variables), values(kernels(moving))
    target, norms = values(attack.classifier.variables), values(attack.generator.non_trainable_variables)
    function = tf.function(attack.train_step, autograph=False)
    for step in range(2):
        function(tf.constant(pixels(seed=step), tf.float32), labels, tf.constant(step, tf.int64))
    assert all(same(before[0], attack.networks[resting].trainable_variables))
    assert not any(same(before[1], kernels(moving)))
    assert all(same(target, attack.classifier.variables))  # weights and running statistics
    assert not any(same(norms, attack.generator.non_trainable_variables))


def test_optimizers_have_the_variables_of_their_networks_and_no_others():
    attack = make()
    for name, network in attack.networks.items():
        expected = {id(v.value) for v in network.trainable_variables}
        assert {id(variable) for variable in attack.optimizers[name].variables} == expected
    assert set(attack.networks) == set(attack.optimizers) == {"generator", "discriminator"}


def test_nothing_is_done_within_an_empty_ball():
    attack, images = make("float32", epsilon=0.0, perturbation_bound=0.0), tf.constant(pixels(), tf.float32)
    losses = attack.train_step(images, np.array([3, 1, 4, 1]), STEP)
    assert all(np.isfinite(loss) for loss in losses.values())
    assert np.array_equal(attack.adversarial_images(images, None, STEP), images)
    assert all(np.all(np.isfinite(v)) for v in attack.generator.variables)


def test_shown_images_are_those_of_the_step_and_change_nothing():
    attack, images = make("float32", generator_learning_rate=0.0), tf.constant(pixels(), tf.float32)
    before = values(attack.generator.variables)
    shown = attack.adversarial_images(images, None, STEP)
    assert all(same(before, attack.generator.variables))
    np.testing.assert_array_equal(shown, perturb(attack.generator, images, 8.0, batch_norm="train")[1])


# --- Training


NEVER = {"checkpoint_every": 0, "log_every": 0, "image_every": 0, "eval_every": 0}


def trainer(classifier, dataset, folder, images, options, **schedule):
    few = dataclasses.replace(dataset, train=dataset.train.take(slice(images)), augmented=False)
    return Trainer(AdvGAN(classifier, options, seed=1), few, folder, Schedule(**NEVER | schedule))


def test_a_short_training_fools_the_target(trained, digits, tmp_path):
    """Against natural accuracy, and against an untrained generator, whose perturbations are as large."""
    options = AdvGANOptions(batch_size=32, epochs=3, epsilon=16.0, perturbation_weight=0.0)
    made = trainer(trained, digits, tmp_path, 512, options)
    before = as_predictor(trained).fingerprint()
    evaluator = Evaluator(trained, [as_attack(made.method.generator, options)], max_images=200)
    untrained = evaluator(digits.test)["advgan"].accuracy
    made.train()
    outcome = evaluator(digits.test)["advgan"]
    natural = np.argmax(trained(digits.test.images[:200].astype(np.float32)).logits, axis=1)
    accuracy = 100 * np.mean(natural == digits.test.labels[:200])
    assert outcome.accuracy < min(accuracy, untrained) - 20, (accuracy, untrained)
    assert 15 < outcome.linf < 16 + 1e-4
    assert as_predictor(trained).fingerprint() == before


def test_a_stopped_training_goes_on_bit_for_bit(digits, tmp_path):
    options = AdvGANOptions(batch_size=8, epochs=2)  # of three steps

    def part(folder, **schedule):
        return trainer(WideResNet(10, 1, 10), digits, folder, 30, options, **schedule)

    whole = part(tmp_path / "whole")
    whole.train()
    stopped = part(tmp_path / "stopped", eval_every=4)
    stopped.evaluator = lambda split, seed: signal.raise_signal(signal.SIGTERM) or {}
    with pytest.raises(Interrupted):
        stopped.train()
    resumed = part(tmp_path / "stopped")
    assert resumed.step == 4
    resumed.train()
    assert list(saved_steps(tmp_path / "stopped")) == [4, 6]
    ours, expected = (flat_state(made.method.networks, made.method.optimizers) for made in (resumed, whole))
    assert all(same(values(expected.values()), ours.values()))
    assert [int(expected[f"{name}.count"]) for name in whole.method.networks] == [6, 6]


# --- What was trained, as an attack


def settings_of(options, **others):
    own = {"attack": "advgan", "target_sha256": "abc", "steps_per_epoch": 5}
    return {"depth": 10, "width": 1, "num_classes": 10} | own | options.as_dict() | others


@pytest.fixture
def folder(tmp_path):
    """Of a generator of twice the width: two epochs of five steps have ended, a third was interrupted."""
    options = AdvGANOptions(generator_width=2, epsilon=4.0, epochs=7)
    run_folder.create(tmp_path, settings_of(options))
    for step in (5, 10, 12):
        Checkpoints(tmp_path, {"generator": AdvGANGenerator(2, seed=step)}, {}, keep=0).save(step)
    return tmp_path


def test_what_was_trained_is_an_attack(folder):
    trained, images = TrainedAdvGAN(folder), tf.constant(pixels(), tf.float32)
    assert (trained.name, trained.steps, trained.epsilon, trained.target_sha256) == ("advgan-x2", [5, 10], 4.0, "abc")
    assert trained.attack.name == "advgan-x2"
    expected = {"norm": "linf", "epsilon": 4.0, "generator_width": 2, "epochs": 2, "train_dir": str(folder)}
    assert expected.items() <= trained.attack.protocol.items()
    run = tf.function(lambda images: trained.attack.run(None, images, None, None))
    for step in (5, 10):
        trained.restore(step)
        expected = perturb(AdvGANGenerator(2, seed=step), images, 4.0)[1]
        np.testing.assert_allclose(run(images), expected, atol=1e-4)  # compiled
    assert np.abs(expected - perturb(AdvGANGenerator(2, seed=5), images, 4.0)[1]).max() > 1


def test_the_last_epoch_is_restored_at_first(folder):
    images = tf.constant(pixels(), tf.float32)
    adversarial = TrainedAdvGAN(folder).attack.run(None, images, None, None)
    np.testing.assert_allclose(adversarial, perturb(AdvGANGenerator(2, seed=10), images, 4.0)[1], atol=1e-4)


def test_the_plain_generator_has_the_plain_name(tmp_path):
    run_folder.create(tmp_path, settings_of(AdvGANOptions()))
    with pytest.raises(UsageError, match="no epoch of this AdvGAN has ended"):
        TrainedAdvGAN(tmp_path)
    Checkpoints(tmp_path, {"generator": AdvGANGenerator()}, {}).save(5)
    assert TrainedAdvGAN(tmp_path).name == TrainedAdvGAN(tmp_path).attack.name == "advgan"


def test_folders_without_an_advgan(tmp_path, folder):
    with pytest.raises(UsageError, match="no such folder"):
        TrainedAdvGAN(tmp_path / "missing")
    run_folder.create(tmp_path / "run", {"depth": 10, "width": 1, "num_classes": 10, "defense": "natural"})
    with pytest.raises(UsageError, match="run: holds no AdvGAN"):
        TrainedAdvGAN(tmp_path / "run")
    incomplete = settings_of(AdvGANOptions())
    del incomplete["steps_per_epoch"]
    run_folder.create(tmp_path / "incomplete", incomplete)
    with pytest.raises(RunError, match=r"incomplete/flags.json: damaged \(no 'steps_per_epoch'\)"):
        TrainedAdvGAN(tmp_path / "incomplete")
    (folder / "checkpoints" / "ckpt-10.index").write_bytes(b"")
    with pytest.raises(RunError, match="ckpt-10: damaged"):
        TrainedAdvGAN(folder)


class Projection(Predictor):
    """Logits that are one fixed projection of the pixels, with noise in front: no network, and not differentiable."""

    num_classes, image_shape, stochastic = 10, (32, 32, 3), True

    def __init__(self, rounds=True):
        self.rounds, self.asked = rounds, []

    def __call__(self, images, draw=0):
        self.asked.append(np.array(draw))
        images = tf.round(images) if self.rounds else images
        weights = tf.constant(np.random.default_rng(0).standard_normal((3072, 10)) / 3072, images.dtype)
        return Outputs(None, tf.reshape(images + randomness.noise(draw, tf.shape(images)), [-1, 3072]) @ weights)

    def differentiable(self):
        other = Projection(rounds=False)
        other.asked = self.asked
        return other


def test_any_predictor_can_be_trained_against():
    """By the gradient of its stand-in, with other draws in each step."""
    target = Projection()
    subject = AdvGAN(target, AdvGANOptions(gan_weight=0.0, perturbation_weight=0.0), seed=3)
    images = tf.constant(pixels(), tf.float32)
    labels = tf.argmax(Projection()(images).logits, axis=1)  # it is right, so that there is something to gain
    before = values(subject.generator.trainable_variables)
    losses = [subject.train_step(images, labels, tf.constant(step, tf.int64)) for step in range(2)]
    assert all(np.isfinite(loss) for step in losses for loss in step.values())
    after = values(subject.generator.trainable_variables)
    assert not all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    assert len(np.unique(np.concatenate(target.asked))) == 8
    assert subject.watched_logits(images, STEP).shape == (4, 10)
