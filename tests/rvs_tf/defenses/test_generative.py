"""What is particular to L2L, L2L-DA, Direct and Learn2Perturb beside the numbers of their authors' code."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

import rvs_tf.train
from madry_cifar import WideResNet, attacks, build, load_classifier
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import diagnosis
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.networks.resnet import ResNet
from madry_cifar.predictor import Outputs, Predictor
from madry_cifar.randomness import noise
from madry_cifar.runs.checkpoints import flat_state
from madry_cifar.training.trainer import Schedule, Trainer
from rvs_tf.attackers import ConditionalUNet, ResidualAttacker, WideAttacker
from rvs_tf.defenses import L2L, L2LDA, Direct, Learn2Perturb

RATE = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
SMALL = {"attacker_width": 4, "generator_width": 4}


def make(kind, seed=1, **options):
    names = {field.name for field in dataclasses.fields(kind.Options)}
    small = {name: value for name, value in SMALL.items() if name in names}
    return kind(WideResNet(10, 1, 10, seed=seed), kind.Options(**RATE, **small, **options), seed)


@pytest.mark.parametrize(
    ("network", "weights"),
    [  # counted in the released code
        (lambda: ResNet(20, 1, architecture="resnet_pad"), 272e3),
        (lambda: ResNet(20, 1, architecture="resnet_append"), 270e3),
        (lambda: ResNet(20, 1, architecture="resnet_project"), 273e3),
        (lambda: ResNet(20, 10, architecture="resnet_project"), 26.8e6),
        (lambda: ResNet(18, 1, architecture="resnet18"), 11.2e6),
        (WideAttacker, 1.75e6),
        (ConditionalUNet, 0.50e6),
        (ResidualAttacker, 7.9e6),
    ],
)
def test_networks_have_the_weights_of_the_released_ones(network, weights):
    trained = sum(int(tf.size(variable)) for variable in network().trainable_variables)
    assert trained == pytest.approx(weights, rel=0.01)


def test_the_noise_of_learn2perturb_has_the_numbers_of_the_released_maps():
    for architecture, depth, expected in (("resnet_append", 20, 102e3), ("resnet18", 18, 311e3)):
        shapes = ResNet(depth, 1, architecture=architecture).map_shapes
        assert sum(np.prod(shape) for shape in shapes) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "layers", "depth"),
    [
        *itertools.product(["resnet_pad", "resnet_append", "resnet_project"], [6], [2, 9, 10, 19]),
        *itertools.product(["resnet18"], [8], [2, 8, 11, 20]),
    ],
)
def test_depths_that_no_resnet_has(architecture, layers, depth):
    with pytest.raises(UsageError, match=rf"--depth={depth}: must be {layers}n \+ 2"):
        ResNet(depth, 1, architecture=architecture)


@pytest.mark.parametrize("network", ["standard", "resnet_append"])
def test_noise_is_added_to_each_map(network):
    """Noise in one map alone changes the logits, as its own tensor and as one for each image."""
    subject = WideResNet(10, 1, architecture="standard") if network == "standard" else ResNet(8, architecture=network)
    images = tf.random.stateless_uniform([2, 32, 32, 3], (1, 2), 0, 255)
    plain = subject(images).logits
    zeros = [tf.zeros(shape) for shape in subject.map_shapes]
    np.testing.assert_array_equal(subject(images, noise=zeros).logits, plain)
    for index, shape in enumerate(subject.map_shapes):
        noise = [*zeros[:index], tf.ones(shape), *zeros[index + 1 :]]
        moved = subject(images, noise=noise).logits
        assert np.abs(moved - plain).max() > 1e-4
        of_each = [tf.broadcast_to(each, [2, *each.shape]) for each in noise]
        np.testing.assert_array_equal(subject(images, noise=of_each).logits, moved)


def test_a_noisy_predictor(digits):
    """Equal draws, equal outputs, in any batch; other draws others; σ = 0 or noise that is off yet: none."""
    subject = make(Learn2Perturb)
    subject.noise.on.assign(1)
    predictor, images = subject.predictor(), tf.constant(digits.test.images[:6], tf.float32)
    draws = tf.constant([5, 6, 7, 8, 9, 10], tf.int64)
    whole = predictor(images, draws).logits
    np.testing.assert_allclose(predictor(images[2:4], draws[2:4]).logits, whole[2:4], rtol=0, atol=1e-5)
    assert np.abs(predictor(images, draws + 1).logits - whole).max() > 0.01
    assert np.abs(whole - predictor.noiseless()(images).logits).max() > 0.01
    repeated = predictor(tf.repeat(images[:1], 400, axis=0), tf.range(400, dtype=tf.int64)).logits.numpy()
    assert len(np.unique(repeated[:, 0])) == 400
    subject.noise.on.assign(0)
    np.testing.assert_array_equal(predictor(images, draws).logits, predictor.noiseless()(images).logits)


def test_noise_and_attack_of_learn2perturb_begin_at_their_epochs(digits):
    subject = make(Learn2Perturb, steps=100, training_epochs=10, noise_epoch=2, attack_epoch=4, attack_steps=1)
    images, labels = tf.constant(digits.train.images[:8], tf.float32), tf.constant(digits.train.labels[:8])
    calls = []
    subject.attack = lambda images, labels, step: calls.append(int(step)) or images
    for step, noisy in ((0, 0), (19, 0), (20, 1), (39, 1), (40, 1)):
        losses = subject.train_step(images, labels, tf.constant(step, tf.int64))
        assert float(subject.noise.on) == noisy
        moved = float(tf.reduce_max(tf.abs(subject.noise.sigmas[0].value - 0.25)))
        assert (moved > 0) == (step >= 20)
        if step < 40:
            assert float(losses["total"]) == float(losses["natural"])
    assert calls == [40]


@pytest.mark.parametrize(("harmonic", "last"), [("released", [1, 1, 2, 3]), ("shifted", [1, 2, 3, 4])])
def test_the_harmonic_weight_of_an_epoch(harmonic, last):
    subject = make(Learn2Perturb, harmonic=harmonic)
    found = [float(subject._harmonic(tf.constant(10 + k, tf.int64), tf.float64)) for k in range(4)]
    np.testing.assert_allclose(found, [sum(1 / i for i in range(1, n + 1)) for n in last])


def test_the_gradient_of_sigma_as_released_and_exact(digits):
    """In value nothing differs; as released σ itself is added to what noise weighs it by, but for the first map."""
    images, labels = tf.constant(digits.train.images[:4], tf.float32), tf.constant(digits.train.labels[:4])
    gradients, losses = {}, {}
    for which in ("released", "exact"):
        subject = make(Learn2Perturb, sigma_gradient=which)
        subject.noise.on.assign(1)
        with tf.GradientTape() as tape:
            logits = subject.logits(images, 0, 0)
            losses[which] = tf.reduce_mean(attacks.cross_entropy(logits, labels))
        gradients[which] = tape.gradient(losses[which], [sigma.value for sigma in subject.noise.sigmas])
    assert float(losses["released"]) == float(losses["exact"])
    differences = [np.abs(a - b).max() for a, b in zip(gradients["released"], gradients["exact"], strict=True)]
    assert differences[0] < 1e-7
    assert all(difference > 1e-5 for difference in differences[1:])


def test_more_steps_of_the_attacker_stay_in_the_ball(digits):
    images, labels = tf.constant(digits.train.images[:8], tf.float32), tf.constant(digits.train.labels[:8])
    interpolated = {"interpolation": True}
    for options in ({}, {"attacker_gradient": False}, interpolated, interpolated | {"attacker_batch_norm": "first"}):
        subject = make(L2L, attacker_steps=3, epsilon=5.0, **options)
        subject.attacker.last.bias.assign([9.0, -9.0, 9.0])  # ε·tanh of it: its steps go as far as they can
        moved = subject.adversarial_images(images, labels, tf.constant(0, tf.int64)) - images
        assert 4.9 < float(tf.reduce_max(tf.abs(moved))) <= 5 + 1e-4
        subject.train_step(images, labels, tf.constant(0, tf.int64))


def test_the_perturbation_of_direct_is_clipped_if_asked_for(digits):
    images = tf.constant(digits.train.images[:4], tf.float32)
    for clipped in (False, True):
        subject = make(Direct, clip_pixels=clipped)
        subject.generator.last.bias.assign([9.0, -9.0, 9.0])
        adversarial = subject.perturb(images)
        assert (float(tf.reduce_min(adversarial)) < 0) == (not clipped)


def test_the_momentum_of_direct_starts_anew_where_the_rate_drops(digits):
    images, labels = tf.constant(digits.train.images[:4], tf.float32), tf.constant(digits.train.labels[:4])
    kept = {}
    for fresh in (True, False):
        subject = make(Direct, gradient_term="none", generator_updates=1, fresh_momentum=fresh)
        subject.optimizers["classifier"].schedule.boundaries = (2,)
        accumulated = subject.optimizers["classifier"].state["momentum"][-1]
        for step in (2, 3):
            accumulated.assign(tf.fill(accumulated.shape, 1e6))
            subject.apply = lambda name, gradients, step, **_: None
            subject.train_step(images, labels, tf.constant(step, tf.int64))
            kept[fresh, step] = float(accumulated[0])
    assert kept == {(True, 2): 1e6, (True, 3): 0.0, (False, 2): 1e6, (False, 3): 1e6}


def test_diversity_is_paid_for(digits):
    """Trained for nothing else, the generator sets the images of two random vectors further apart."""
    images, labels = tf.constant(digits.train.images[:8], tf.float32), tf.constant(digits.train.labels[:8])
    subject = make(L2LDA, attacker_steps=2, diversity_weight=1e6, generator_learning_rate=0.1)
    first = float(subject.train_step(images, labels, tf.constant(0, tf.int64))["diversity"])
    for step in range(1, 8):
        last = float(subject.train_step(images, labels, tf.constant(step, tf.int64))["diversity"])
    assert last > 2 * first > 0


def test_predictors_are_told_apart_by_all_that_they_depend_on():
    eval_, frozen = (make(Direct, test_batch_norm=mode).predictor() for mode in ("eval", "frozen"))
    assert eval_.fingerprint() != frozen.fingerprint()
    subject = make(Learn2Perturb)
    before = subject.predictor().fingerprint()
    subject.noise.sigmas[1].assign(subject.noise.sigmas[1] + 0.1)
    assert subject.predictor().fingerprint() != before


@pytest.fixture(scope="module")
def evaluated(digits, tmp_path_factory):
    """By defence, its predictor after a short training on digits: Direct with batch statistics, Learn2Perturb."""
    never = Schedule(checkpoint_every=0, log_every=0, image_every=0, eval_every=0)
    predictors = {}
    for kind, options in (
        (Direct, {"test_batch_norm": "frozen", "generator_updates": 1, "gradient_term": "none"}),
        (Learn2Perturb, {"noise_epoch": 0, "attack_epoch": 0, "attack_steps": 1}),
    ):
        subject = make(kind, batch_size=32, steps=30, **options)
        Trainer(subject, digits, tmp_path_factory.mktemp(kind.name), never).train()
        predictors[kind.name] = subject.predictor()
    return predictors


@pytest.mark.parametrize(("name", "check"), [("direct", "batch-dependence"), ("learn2perturb", "randomness")])
def test_the_diagnosis_says_what_is_wrong_with_them(evaluated, digits, name, check):
    (found,) = diagnosis.diagnose(evaluated[name], digits.test.take(slice(40)), batch_size=40, checks=[check]).checks
    assert found.verdict == "suspect", found


def test_random_outputs_are_judged_by_several_draws(evaluated, digits):
    predictor, split = evaluated["learn2perturb"], digits.test.take(slice(64))
    natural = Evaluator(predictor, batch_size=32).run(attacks.attack("natural"), split)
    assert natural.redrawn.shape == (64, 10)
    each = [float(np.mean(column == split.labels)) for column in natural.redrawn.T]
    spread = natural.as_dict()["draws"]
    assert spread["number"] == 10
    assert spread["mean"] == pytest.approx(100 * np.mean(each))
    assert spread["std"] == pytest.approx(100 * np.std(each, ddof=1))
    assert len(set(each)) > 1
    skipping = Evaluator(predictor, batch_size=32).run(attacks.attack("fgsm"), split, earlier=natural)
    wrong = natural.predictions != split.labels
    np.testing.assert_array_equal(skipping.redrawn[wrong], natural.redrawn[wrong])


def test_eot_pgd_follows_the_mean_of_20_draws():
    """With noise of its own size in the gradient, single steps go astray; their mean does not."""
    attack = attacks.attack("eot-pgd-10", epsilon=8)
    assert attack.protocol["eot"] == 20

    class NoisyGradient(Predictor):
        stochastic = True

        def __call__(self, images, draw=0):
            x = tf.reshape(images, [-1, 48])
            noisy = x + noise(draw, tf.shape(x)) * (x - tf.stop_gradient(x))
            return Outputs(None, noisy @ tf.constant(np.float32([[1e-3, -1e-3]] * 48)))

    split = Split(np.full((16, 4, 4, 3), 128, np.uint8), np.zeros(16, np.int32))
    moved = {}
    for name in ("pgd-10", "eot-pgd-10"):
        evaluator = Evaluator(NoisyGradient(), batch_size=16, keep_adversarial=True)
        moved[name] = -np.mean(evaluator.run(attacks.attack(name), split).adversarial - 128.0) / 8
    assert moved["eot-pgd-10"] > 0.999 > moved["pgd-10"] + 0.01


@pytest.fixture
def start(invoke, tiny, tmp_path):
    """The folder of a natural run of one step."""
    flags = (*tiny, "--steps=1", "--eval_every=0", "--image_every=0")
    assert invoke(rvs_tf.train.command, "--defense=natural", *flags, f"--train_dir={tmp_path}/natural")[0] == 0
    return tmp_path / "natural"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--defense=l2l_da"], "--starts_from=: --defense=l2l_da needs the weights of a run of natural: its folder"),
        (["--defense=l2l_da", "--starts_from={start}", "--width=2"], "its network is another one (--width=1)"),
        (["--defense=l2l_da", "--starts_from={start}/nowhere"], "no such folder"),
        (["--defense=l2l", "--diversity_weight=1"], "--diversity_weight"),
        (["--defense=l2l", "--label_share=0.3"], "has no effect without --interpolation"),
        (["--defense=direct", "--gradient_term=squared"], "--gradient_term=squared"),
        (["--defense=learn2perturb", "--first_sigma=0"], "--first_sigma=0"),
        (["--defense=l2l", "--architecture=resnet_pad"], "--depth=10: must be 6n + 2"),
    ],
)
def test_what_is_typed_wrong(invoke, tiny, start, tmp_path, flags, named):
    flags = [flag.format(start=start) for flag in flags]
    status, _, err = invoke(rvs_tf.train.command, *tiny, "--steps=1", *flags, f"--train_dir={tmp_path}/run")
    assert status == 2
    assert named in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_l2l_da_starts_with_the_weights_of_the_natural_run(invoke, tiny, start, tmp_path):
    given = ("--defense=l2l_da", f"--starts_from={start}", "--generator_width=4", "--attacker_steps=1")
    quiet = ("--steps=0", "--eval_every=0", "--image_every=0")
    status, _, err = invoke(rvs_tf.train.command, *tiny, *quiet, *given, f"--train_dir={tmp_path}/run")
    assert status == 0, err
    ours, theirs = (load_classifier(folder) for folder in (tmp_path / "run", start))
    for mine, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())


def test_they_are_built_from_the_settings_of_a_run():
    for name in ("l2l", "l2l_da", "direct", "learn2perturb"):
        subject = build({"defense": name, "depth": 8, "width": 1, "architecture": "resnet_append", **SMALL}, seed=3)
        assert isinstance(subject.classifier, ResNet)
        assert flat_state(subject.networks, subject.optimizers)
