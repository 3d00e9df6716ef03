"""L2L, L2L-DA, Direct and Learn2Perturb: two whole iterations of each in float64, against its authors' own code.

The draws of their scripts are given to our defences in place of our own.
"""

import re

import numpy as np
import pytest
import tensorflow as tf
from generative_code import LABELS, Recorder, Released, batch, drawn, renaming
from tiers import slow

from madry_cifar.networks.resnet import ResNet
from madry_cifar.networks.wide_resnet import WideResNet
from rvs_tf.attackers import ResidualAttacker
from rvs_tf.defenses import L2L, L2LDA, Direct, Learn2Perturb

PYTORCH = {"input_scaling": "unit", "batch_norm_epsilon": 1e-5, "dtype": "float64"}


class Given:
    """Uniform draws of a script in place of `Draws`."""

    def __init__(self, *draw):
        self.draw = drawn(*draw)

    def uniform(self, shape, low, high, dtype):
        return tf.constant(low + (high - low) * self.draw, dtype)


def remember_updates(defense, released):
    """Collects the values of all variables after each update of an optimizer."""
    seen, apply = [], defense.apply

    def remembering(*args, **kwargs):
        apply(*args, **kwargs)
        seen.append(released.values())

    defense.apply = remembering
    return seen


def logits_of(outputs):
    return np.stack([output.logits.numpy() for output in outputs])


PARTS = {"conv1": "conv1", "bn1": "norm1", "conv2": "conv2", "bn2": "norm2"}


def units(place, **parts):
    """The renaming of the layers of residual units, numbered by stage and unit in `place`: theirs=ours."""
    return [(rf"{place}\.{theirs}", rf"classifier.unit_\1_\2.{ours}") for theirs, ours in parts.items()]


L2L_NAMES = renaming(
    (r"model\.conv1", "classifier.init_conv"),
    (r"model\.bn1", "classifier.norm_last"),
    (r"model\.fc", "classifier.logits"),
    *units(r"model\.block(\d)\.layer\.(\d)", **PARTS, convShortcut="shortcut"),
    (r"attacker\.res_group\.0\.conv", "attacker.first"),
    (r"attacker\.res_group\.0\.bn", "attacker.norm_first"),
    (r"attacker\.res_group\.1\.b(\d)", r"attacker.block_0.norm\1"),
    *(
        (rf"attacker\.res_group\.{place}\.{theirs}", rf"attacker.block_{place - 1}.{ours}")
        for place in range(1, 5)
        for theirs, ours in (
            (r"b(\d)", r"norm\1"),
            (r"act(\d)", r"prelu\1"),
            (r"c(\d)", r"conv\1"),
            ("c_sc", "shortcut"),
        )
    ),
    (r"attacker\.res_group\.5", "attacker.norm_last"),
    (r"attacker\.res_group\.6", "attacker.last"),
)
RATE = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}


def l2l(**options):
    classifier = WideResNet(34, 1, 10, architecture="standard", **PYTORCH)
    subject = L2L(classifier, L2L.Options(epsilon=0.031 * 255, weight_decay_on="all", **RATE, **options))
    released = Released("l2l", subject, L2L_NAMES)
    released.fill()
    subject.attacker, subject.classifier = Recorder(subject.attacker), Recorder(classifier)
    return subject, released


@pytest.mark.parametrize(("variant", "calls"), [("grad", 1), pytest.param("two_step", 2, marks=slow)])
def test_l2l(variant, calls):
    subject, released = l2l(attacker_steps=calls)
    seen = remember_updates(subject, released)
    for k in range(2):
        losses = subject.train_step(*batch(k), tf.constant(k, tf.int64))
        released.assert_changes(f"{variant}_iter{k}_change_after_classifier_step", seen[2 * k])
        released.assert_changes(f"{variant}_iter{k}_change", seen[2 * k + 1])
        pair = [losses["cross_entropy"], -losses["attacker"]]
        released.assert_equal(f"{variant}_iter{k}_losses", [float(loss) for loss in pair])
        if k == 1:
            continue
        attacker, classifier = subject.attacker, subject.classifier
        for number in range(2 * calls):
            key = f"{variant}_{('classifier', 'attacker')[number // calls]}_{{}}{number % calls}"
            released.assert_equal(key.format("gradient"), attacker.inputs[number][..., 3:])
            released.assert_equal(key.format("perturbation"), 0.031 * attacker.outputs[number].numpy())
        for half, name in enumerate(("classifier", "attacker")):
            own = slice(half * (calls + 1), (half + 1) * (calls + 1))
            released.assert_equal(f"{variant}_{name}_logits", logits_of(classifier.outputs[own]))
            released.assert_equal(f"{variant}_{name}_adversarial", classifier.inputs[own][-1] / 255)
            assert set(classifier.modes[own]) == {("train", "eval")[half]}


@slow
def test_l2l_with_interpolation():
    subject, released = l2l(interpolation=True)
    seen = remember_updates(subject, released)
    for k in range(2):
        subject.start_draws = lambda step, k=k: Given(k, "uniform", (4, 3, 32, 32), "11")
        subject.train_step(*batch(k), tf.constant(k, tf.int64))
        released.assert_changes(f"interp_iter{k}_change", seen[2 * k + 1])
        if k == 0:
            inputs = subject.attacker.inputs[0]
            released.assert_equal("interp_start", inputs[..., :3])
            released.assert_equal("interp_gradient", inputs[..., 3:])
            released.assert_equal("interp_perturbation", 0.031 * subject.attacker.outputs[0].numpy())
            released.assert_equal("interp_adversarial", subject.classifier.inputs[-1] / 255)
            released.assert_equal("interp_logits_train", subject.classifier.outputs[-1].logits)


L2L_DA_PLACES = renaming(
    (r"model\.feature_extractor\.conv1", "classifier.init_conv"),
    (r"model\.feature_extractor\.bn1", "classifier.norm_first"),
    (r"model\.feature_extractor\.linear", "classifier.logits"),
    *units(r"model\.feature_extractor\.layer(\d)\.(\d)", **PARTS),
    (r"generator\.(\w+\d)\.(?:up)?conv", r"generator.\1"),
    (r"generator\.(\w+\d)\.norm", r"generator.norm_\1"),
    (r"generator\.final\.0", "generator.last"),
    (r"generator\.z_encoder\.0", "generator.encoder1"),
    (r"generator\.z_encoder\.2", "generator.encoder2"),
)


def l2l_da_names(name):
    """The statistics of a conditional batch norm are in a layer of their own here."""
    return re.sub(r"^(generator\.norm_\w+)\.moving", r"\1.norm.moving", L2L_DA_PLACES(name))


def test_l2l_da():
    classifier = ResNet(8, 1, 10, architecture="resnet_pad", **PYTORCH | {"input_scaling": "imagenet"})
    subject = L2LDA(classifier, L2LDA.Options(epsilon=0.031372549 * 255, **RATE | {"learning_rates": (0.01,)}))
    released = Released("l2l_da", subject, l2l_da_names)
    released.fill()
    seen = remember_updates(subject, released)
    generator, recorded = Recorder(subject.generator), Recorder(classifier)
    subject.generator, subject.classifier = generator, recorded
    for k in range(2):
        subject.latent = lambda images, step, k=k: tf.constant(drawn(k, "normal", (8, 8)))
        losses = subject.train_step(*batch(k), tf.constant(k, tf.int64))
        released.assert_changes(f"iter{k}_change", seen[2 * k + 1])
        minus_ce, minus_diversity, last_diversity, total, cross_entropy = released[f"iter{k}_losses"]
        np.testing.assert_allclose(float(losses["generator"]), total, rtol=1e-6)
        np.testing.assert_allclose(float(losses["diversity"]), last_diversity, rtol=1e-6)
        np.testing.assert_allclose(float(losses["total"]), cross_entropy, rtol=1e-6)
        np.testing.assert_allclose(minus_ce + minus_diversity, total, rtol=1e-6)
        if k == 0:
            released.assert_equal("gradient0", generator.inputs[0][:4, ..., 3:6])
            for step in (0, 1, 9):
                released.assert_equal(f"output{step}", generator.outputs[step])
            for step in (1, 9):
                released.assert_equal(f"gradient{step}", generator.inputs[step][..., 3:6])
            released.assert_equal("adversarial", recorded.inputs[-1][4:] / 255)
            # the released code asks for the logits of steps 1 to 9 twice; ours once
            theirs = np.split(released["logits"], np.cumsum([4] + [8] * 19))
            once = np.concatenate([theirs[0], *theirs[1:20:2], theirs[20]])
            np.testing.assert_allclose(np.concatenate([output.logits for output in recorded.outputs]), once, 1e-6)


L2P_PLACES = renaming(
    (r"model\.conv_1_3x3", "classifier.init_conv"),
    (r"model\.bn_1", "classifier.norm_first"),
    (r"model\.classifier", "classifier.logits"),
    *units(r"model\.stage_(\d)\.(\d)", conv_a="conv1", bn_a="norm1", conv_b="conv2", bn_b="norm2"),
    (r"v2\.conv1", "classifier.init_conv"),
    (r"v2\.bn1", "classifier.norm_first"),
    (r"v2\.linear", "classifier.logits"),
    *units(r"v2\.layer(\d)\.(\d)", **PARTS, **{r"shortcut\.0": "shortcut", r"shortcut\.1": "norm_shortcut"}),
)


def l2p_names(name):
    if not name.endswith("sigma_map"):
        return L2P_PLACES(name)
    stage = re.search(r"(?:stage_|layer)(\d)", name)
    return f"noise.sigma_{stage[1] if stage else 0}"  # one block a stage


def learn2perturb(architecture, depth, variables, **options):
    network = PYTORCH | {"input_scaling": "cifar10"}
    classifier = ResNet(depth, 1, 10, architecture=architecture, **network)
    subject = Learn2Perturb(classifier, Learn2Perturb.Options(**options))
    released = Released("learn2perturb", subject, l2p_names, variables)
    released.fill()
    return subject, released


def channels_first(shape):
    return (shape[-1], *shape[-3:-1])


def test_learn2perturb():
    """Epoch 21 of 350, of which ten steps are one."""
    subject, released = learn2perturb("resnet_append", 8, "variables", steps=3500, **RATE)
    seen, first = remember_updates(subject, released), 210

    def draw(step, forward, index, shape):  # 37 an iteration: four a pass, and the attack's start after the first pass
        place = 37 * (int(step) - first) + 4 * int(forward) + index + (int(forward) > 0)
        return tf.constant(drawn(place, "normal", channels_first(shape)))

    subject.draw = draw
    subject.start_draws = lambda step: Given(37 * (int(step) - first) + 4, "uniform", (4, 3, 32, 32))
    subject.classifier = Recorder(subject.classifier)
    for k in range(2):
        calls = len(subject.classifier.outputs)
        losses = subject.train_step(*batch(k), tf.constant(first + k, tf.int64))
        released.assert_changes(f"iter{k}_change_after_sigma_step", seen[3 * k])
        released.assert_changes(f"iter{k}_change", released.values())
        names = ("natural", "adversarial", "total")
        released.assert_equal(f"iter{k}_losses", [float(losses[name]) for name in names])
        released.assert_equal(f"iter{k}_logits", logits_of(subject.classifier.outputs[calls:]))
        released.assert_equal(f"iter{k}_adversarial", subject.classifier.inputs[-1] / 255)
        if k == 0:
            released.assert_equal("attack_start", subject.classifier.inputs[1] / 255)


@pytest.mark.parametrize(("mode", "number"), [("eval", 0), ("train", 1)])
def test_learn2perturb_v2(mode, number):
    subject, released = learn2perturb("resnet18", 10, "v2_variables")
    subject.noise.on.assign(1)
    if mode == "train":  # after the pass in "eval", which changes nothing
        number = 1
    subject.draw = lambda step, forward, index, shape: tf.constant(
        drawn(5 * number + index, "normal", channels_first(shape), "11/v2")
    )
    images, labels = batch(0)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = subject.logits(images, 0, 0, batch_norm=mode)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    released.assert_equal(f"v2_{mode}_logits", logits)
    released.assert_equal(f"v2_{mode}_gradient", 255 * tape.gradient(loss, images).numpy())


def direct_names(name):
    """Direct's layers have numbers, in the order in which they are made."""
    network, layer, last = name.split("/")
    kind, _, number = re.fullmatch(r"(conv2d_transpose|conv2d|batch_normalization|dense)(_(\d+))?", layer).groups()
    places = {"generator": GENERATOR, "discriminator": CLASSIFIER}[network]
    place = places[kind][int(number or 0)]
    return f"{'generator' if network == 'generator' else 'classifier'}.{place}.{last}"


def block_convolutions(block, projection):
    return [f"{block}.shortcut"] * projection + [f"{block}.conv1", f"{block}.conv2"]


def norm_of(convolution):
    parts = {"init_conv": "norm_first", "shortcut": "norm_shortcut"}
    *place, last = convolution.split(".")
    if last in parts or "conv" in last:
        return ".".join([*place, parts.get(last, last.replace("conv", "norm"))])
    return f"norm_{last}"


UNITS = [name for s in (1, 2, 3) for u in range(3) for name in block_convolutions(f"unit_{s}_{u}", u == 0)]
CLASSIFIER = {"conv2d": ["init_conv", *UNITS], "dense": ["logits"]}
CLASSIFIER["batch_normalization"] = list(map(norm_of, CLASSIFIER["conv2d"]))
BLOCKS = [name for i in range(6) for name in block_convolutions(f"block_{i}", i == 0)]
GENERATOR = {"conv2d": ["down0", "down1", "down2", *BLOCKS, "last"], "conv2d_transpose": ["up1", "up0"]}
GENERATOR["batch_normalization"] = list(map(norm_of, [*GENERATOR["conv2d"][:-1], *GENERATOR["conv2d_transpose"]]))


def direct(**options):
    classifier = ResNet(20, 1, 10, architecture="resnet_project", **PYTORCH | {"input_scaling": "signed"})
    subject = Direct(classifier, Direct.Options(epsilon=0.0625 * 127.5, generator_width=8, **RATE, **options))
    released = Released("direct", subject, direct_names)
    released.fill()
    return subject, released


def test_direct():
    subject, released = direct()
    for k in range(2):
        recorded = Recorder(subject.networks["classifier"])
        subject.classifier = recorded
        losses = subject.train_step(*batch(k), tf.constant(k, tf.int64))
        released.assert_changes(f"iter{k}_change", released.values())
        entropies = [
            float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS[k], output.logits)))
            for output in recorded.outputs
        ]
        released.assert_equal(f"iter{k}_generator_losses", entropies[:5])
        released.assert_equal(f"iter{k}_losses", entropies[5:])
        assert float(losses["perturbed"]) == entropies[6]
        if k == 0:
            released.assert_equal("logits_noise", recorded.outputs[0].logits)
            released.assert_equal("logits_real", recorded.outputs[5].logits)
            released.assert_equal("adversarial", recorded.inputs[0] / 127.5 - 1)
            released.assert_equal("adversarial_after_five_steps", recorded.inputs[6] / 127.5 - 1)


@pytest.mark.parametrize(("term", "key"), [("released", "iter0_term"), ("penalty", "iter0_term_as_penalty")])
def test_gradient_term_of_direct(term, key):
    """The finite difference as released, and the exact gradient of ½‖∇_φF‖²."""
    subject, released = direct(gradient_term=term)
    apply = subject.apply
    subject.apply = lambda name, *args, **kwargs: apply(name, *args, **kwargs) if name == "generator" else None
    terms, make = [], subject._perturbed_gradients
    subject._perturbed_gradients = lambda *args: terms.append(make(*args)) or terms[-1]
    subject.train_step(*batch(0), tf.constant(0, tf.int64))
    of_variables = dict(zip(map(id, subject.optimizers["classifier"].variables), terms[0][2], strict=True))
    names = [name for name in released.rows if name.startswith("discriminator")]
    released.assert_each(key, {name: of_variables[id(released.state[name])].numpy() for name in names}, names)


def test_the_generator_of_direct_has_its_size():
    assert ResidualAttacker(64).count_params() == pytest.approx(7.9e6, rel=0.01)
