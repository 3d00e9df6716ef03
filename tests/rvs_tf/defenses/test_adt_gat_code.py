"""ADT's three variants against its authors' code, GAT against a second implementation: two iterations in float64 each.

Draws are given to our defences in place of our own. For GAT, whose authors' code is not public, it is a second
program of the same description, in PyTorch.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from generative_code import Recorder, Released, batch, drawn, pytorch_weight, renaming

from madry_cifar.networks.wide_resnet import WideResNet
from rvs_tf.defenses import GAT, ADTExp, ADTExpAM, ADTImpAM

RATE = {"learning_rates": (0.1,), "learning_rate_boundaries": ()}
NORMAL = ("normal", (4, 3, 32, 32))
CLASSIFIER = (
    (r"model\.conv1", "classifier.init_conv"),
    (r"model\.bn1", "classifier.norm_last"),
    (r"model\.fc", "classifier.logits"),
    (r"model\.block(\d)\.layer\.(\d)\.bn(\d)", r"classifier.unit_\1_\2.norm\3"),
    (r"model\.block(\d)\.layer\.(\d)\.conv(\d)", r"classifier.unit_\1_\2.conv\3"),
    (r"model\.block(\d)\.layer\.(\d)\.convShortcut", r"classifier.unit_\1_\2.shortcut"),
)
BLOCKS = [
    (rf"generator\.model\.{place}\.{theirs}", rf"generator.block_{place - 3}.{ours}")
    for place in (3, 4, 5)
    for theirs, ours in (
        (r"conv_block\.0", "conv1"),
        (r"conv_block\.1", "norm1"),
        (r"conv_block\.3", "conv2"),
        (r"conv_block\.4", "norm2"),
        (r"short_cut\.0", "shortcut"),
        (r"short_cut\.1", "norm_shortcut"),
    )
]
ADT_NAMES = renaming(
    *CLASSIFIER,
    (r"generator\.model\.0", "generator.first"),
    (r"generator\.model\.1", "generator.norm_first"),
    *BLOCKS,
    (r"generator\.model\.6", "generator.last"),
    (r"generator\.z_encoder\.0", "generator.encoder0"),
    (r"generator\.z_encoder\.2", "generator.encoder1"),
    *((rf"encoder\.main1\.{3 * i}", f"encoder.conv{i}") for i in range(4)),
    *((rf"encoder\.main1\.{3 * i + 1}", f"encoder.norm{i}") for i in range(4)),
    (r"encoder\.main2\.0", "encoder.last"),
)
_GAT_NAMES = renaming(
    *CLASSIFIER,
    *((rf"generator\.network\.{3 * i}", f"generator.conv{i}") for i in range(7)),
    *((rf"generator\.network\.{3 * i + 1}", f"generator.norm{i}") for i in range(7)),
    (r"generator\.network\.21", "generator.last"),
)


IDLE = [f"generator.network.{3 * i}.bias" for i in range(7)]  # in front of batch norms: ours has none


def gat_names(name):
    return None if name in IDLE else _GAT_NAMES(name)


def make(kind, script, rename, variables, **options):
    network = {"architecture": "standard", "input_scaling": "unit", "batch_norm_epsilon": 1e-5, "dtype": "float64"}
    names = {field.name for field in dataclasses.fields(kind.Options)}
    options = RATE | {"weight_decay_on": "all", "generator_width": 16} | options
    chosen = {name: value for name, value in options.items() if name in names}
    subject = kind(WideResNet(10, 1, 10, **network), kind.Options(**chosen))
    released = Released(script, subject, rename, variables)
    released.fill()
    return subject, released


def recorded(subject, *names):
    for name in names:
        setattr(subject, name, Recorder(getattr(subject, name)))


def test_adt_exp():
    """36 draws an iteration: five for each of seven steps, and that of the image trained on."""
    subject, released = make(ADTExp, "adt", ADT_NAMES, "exp_variables")
    draws = tf.Variable(tf.zeros([36, 4, 32, 32, 3], tf.float64))
    subject.noise = lambda images, step, number: draws[number]
    examples = tf.function(subject.examples, autograph=False)
    for k in range(2):
        images, labels, step = *batch(k), tf.constant(k, tf.int64)
        draws.assign([drawn(36 * k + number, *NORMAL, "11/exp") for number in range(36)])
        adversarial = examples(images, labels, step)
        if k == 0:
            released.assert_equal("exp_adversarial", adversarial[0] / 255)
            for inner in (6, 0):
                subject.options = dataclasses.replace(subject.options, inner_steps=inner + 1)
                found = tf.function(subject.search, autograph=False)(images, labels, step)
                for half, name in enumerate(("mean", "var")):
                    point, total = (tf.split(each, 2, axis=3)[half] for each in (found.point, found.memory))
                    released.assert_equal(f"exp_step{inner}_{name}", point)
                    released.assert_equal(f"exp_step{inner}_{name}_gradient", -total)  # the script descends
        subject.examples = lambda images, labels, step, made=adversarial: made
        losses = subject.train_step(images, labels, step)
        released.assert_equal(f"exp_iter{k}_loss", losses["cross_entropy"])
        released.assert_changes(f"exp_iter{k}_change", released.values())


@pytest.mark.parametrize("kind", [ADTExpAM, ADTImpAM])
def test_adt_with_a_generator(kind):
    variant = kind.name.removeprefix("adt_")
    subject, released = make(kind, "adt", ADT_NAMES, f"{variant}_variables")
    recorded(subject, "classifier", "generator", *(["encoder"] if kind is ADTImpAM else []))
    for k in range(2):
        subject.noise = lambda seen, step, k=k: tf.constant(drawn(k, *NORMAL, "11/expam"))
        subject.latent = lambda seen, step, k=k: tf.constant(2 * drawn(k, "uniform", (4, 64), "11/impam") - 1)
        losses = subject.train_step(*batch(k), tf.constant(k, tf.int64))
        released.assert_equal(f"{variant}_iter{k}_cross_entropy", losses["cross_entropy"])
        total = losses["cross_entropy"] + losses["entropy_penalty"]
        released.assert_equal(f"{variant}_iter{k}_total", total)
        np.testing.assert_allclose(losses["generator"], losses["entropy_penalty"] - losses["cross_entropy"])
        released.assert_changes(f"{variant}_iter{k}_change", released.values())
        if k == 0:
            seen = subject.generator.inputs[0]
            released.assert_equal("gradient", seen[..., 3:6])
            released.assert_equal("gradient_fgsm", seen[..., 6:])
            released.assert_equal(f"{variant}_output", subject.generator.outputs[0])
            released.assert_equal(f"{variant}_adversarial", subject.classifier.inputs[-1] / 255)
            assert subject.classifier.modes == ["eval", "eval", "train"]
            if kind is ADTImpAM:
                released.assert_equal("impam_encoder_output", subject.encoder.outputs[0])


@pytest.mark.parametrize("perturbation", ["free", "bounded"])
def test_gat(perturbation):
    subject, released = make(GAT, "gat", gat_names, "variables", weight_decay=0.0, generator_width=48)
    subject.options = dataclasses.replace(subject.options, perturbation=perturbation)
    for norm, name in zip(subject.generator.norms, IDLE, strict=True):  # the running mean is one of sums without them
        norm.moving_mean.assign(norm.moving_mean - pytorch_weight(name, (48,)))
    released.start = released.values()
    recorded(subject, "classifier", "generator")
    for k in range(2):
        raw = dataclasses.replace(subject.options, normalized_gradient=False)
        subject.options, options = raw, subject.options
        largest = np.abs(subject.gradient(*batch(k))).max(axis=(1, 2, 3), keepdims=True)
        subject.options = options
        calls = len(subject.classifier.inputs)
        losses = subject.train_step(*batch(k), tf.constant(k, tf.int64))
        values = {name: float(loss) for name, loss in losses.items()}
        probability, norm = values["generator"] - values["penalty"], values["penalty"] / float(released["c_g"])
        found = [probability, norm, *(values[name] for name in ("generator", "natural", "perturbed", "total"))]
        np.testing.assert_allclose(found, released[f"{perturbation}_iter{k}_losses"], rtol=1e-6)
        released.assert_changes(f"{perturbation}_iter{k}_change", released.values())
        if k == 0:
            assert subject.classifier.modes[calls:] == ["eval", "eval", "train", "train"]
            assert subject.generator.modes == ["train", "frozen"]
            seen = subject.generator.inputs[0]  # the file has it as it was before it was divided
            np.testing.assert_allclose(np.abs(seen).max(axis=(1, 2, 3)), 1)
            released.assert_equal("gradient", seen * largest)
            size = float(released["epsilon"]) if perturbation == "bounded" else 1
            released.assert_equal(f"{perturbation}_perturbation", size * subject.generator.outputs[0].numpy())
            released.assert_equal(f"{perturbation}_adversarial", subject.classifier.inputs[calls + 3] / 255)
