"""The networks, the perturbation, the attacks' gradients and Algorithm 1, against the authors' released code.

All at full size (WRN-34-10) on the weights, images and draws of `tests/data/released_code.npz`.
"""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import tensorflow as tf
from released import RELEASED, is_running, probe_error, weight

from madry_cifar import WideResNet, attacks
from madry_cifar.networks.layers import BatchNorm, kernels
from rvs_tf import RobustnessViaSynthesis
from rvs_tf.defense import Draw, RvSOptions

NAMES = [line.split()[0] for line in RELEASED["variables"]]
SHAPES = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in RELEASED["variables"]}
CLASSIFIER_NAMES = {
    "init_conv/kernel": "init_conv/DW",
    "norm_last": "unit_last/BatchNorm",
    "logits/kernel": "pre_softmax/DW",
    "logits/bias": "pre_softmax/pre_softmaxbiases",
    "unit_1_0/norm1": "unit_1_0/shared_activation/BatchNorm",
    "/norm1": "/residual_only_activation/BatchNorm",
    "/norm2": "/sub2/BatchNorm",
    "/conv1/kernel": "/sub1/conv1/DW",
    "/conv2/kernel": "/sub2/conv2/DW",
}
GENERATOR_NAMES = {
    "dense/kernel": "attack/DW",
    "dense/bias": "attack/attackbiases",
    "deconv1/kernel": "init_deconv/DW",
    "deconv2/kernel": "deconv2/DW",
    "conv3/kernel": "deconv3/DW",
    "norm1": "BatchNorm",
    "norm2": "BatchNorm_1",
}


def released_names(network):
    """The variables of a network by their names in the released code."""
    is_generator = network.name == "generator"
    result = {}
    for variable in network.variables:
        name = variable.path.split("/", 1)[1]
        for ours, theirs in (GENERATOR_NAMES if is_generator else CLASSIFIER_NAMES).items():
            name = name.replace(ours, theirs)
        result["attack_module/" + name if is_generator else name] = variable.value
    return result


def relative_error(value, expected):
    return np.linalg.norm(value - np.asarray(expected, np.float64)) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def weights():
    return {name: weight(name, SHAPES[name]) for name in NAMES}


def uninitialized(dtype):
    """The classifier without its first weights: 46 million draws that would be replaced at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("madry_cifar.networks.initializers.released", lambda *args, **kwargs: None)
        return WideResNet(34, 10, dtype=dtype)


@pytest.fixture(scope="module")
def defense(weights):
    options = RvSOptions(learning_rates=(0.1,), learning_rate_boundaries=())
    defense = RobustnessViaSynthesis(uninitialized("float64"), options)
    variables = released_names(defense.classifier) | released_names(defense.generator)
    assert sorted(variables) == NAMES
    for name, variable in variables.items():
        assert tuple(variable.shape) == SHAPES[name], name
        variable.assign(weights[name])
    return defense


@pytest.fixture(scope="module")
def images():
    return tf.constant(RELEASED["x"], tf.float64)


@pytest.fixture(scope="module")
def labels():
    return tf.constant(RELEASED["y"], tf.int32)


def draw(index):
    return Draw(*(tf.constant(RELEASED[f"{name}{index}"], tf.float64) for name in ("z", "noise")))


def test_features_and_logits_in_float32(weights):
    classifier = uninitialized("float32")
    for name, variable in released_names(classifier).items():
        variable.assign(weights[name])
    features, logits = classifier(RELEASED["x"])
    assert features.dtype == tf.float32
    for kind in ("", "_float32"):
        assert relative_error(features, RELEASED["features" + kind]) <= 1e-5
        assert relative_error(logits, RELEASED["logits" + kind]) <= 1e-5


def test_perturbation_and_adversarial_images(defense, images):
    first = draw(0)
    perturbation = defense.generator(first.latent)
    np.testing.assert_allclose(np.clip(perturbation, -8, 8), RELEASED["delta"], atol=1e-6)
    np.testing.assert_allclose(defense.synthesize(images, first, "eval"), RELEASED["x_adv"], atol=1e-4)


def test_classifier_and_input_gradients_of_the_attacks_losses(defense, images, labels):
    some = images[1:3]  # only the third has a gradient of the margin loss
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(some)
        features, logits = defense.classifier(some)
        totals = {name: tf.reduce_sum(loss(logits, labels[1:3])) for name, loss in attacks.LOSSES.items()}
    assert relative_error(features, RELEASED["features"][1:3]) <= 1e-7
    assert relative_error(logits, RELEASED["logits"][1:3]) <= 1e-7
    for name, total in totals.items():
        assert relative_error(tape.gradient(total, some), RELEASED[f"grad_{name}"][1:3]) <= 1e-6, name


@pytest.fixture(scope="module")
def two_iterations(defense, weights, images, labels):
    """After each of two iterations: the losses, the generator's sum of kernel²/2, the change of each variable since
    the start, and the batch statistics that moved the running ones, by name."""
    variables = released_names(defense.classifier) | released_names(defense.generator)
    names = {variable.ref(): name for name, variable in variables.items()}
    statistics = defaultdict(list)
    normalize = BatchNorm._normalize

    def recording(layer, inputs, *args):
        outputs, mean, variance = normalize(layer, inputs, *args)
        statistics[names[layer.moving_mean.value.ref()]].append(mean.numpy())
        statistics[names[layer.moving_variance.value.ref()]].append(variance.numpy())
        return outputs, mean, variance

    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchNorm, "_normalize", recording)
        for k in range(2):
            statistics.clear()
            step = tf.constant(k, tf.int64)
            losses = defense.iteration(images, labels, step, draw(2 * k), draw(2 * k + 1))
            decay = sum(float(tf.nn.l2_loss(kernel)) for kernel in kernels(defense.generator))
            changes = {name: variable.numpy() - weights[name] for name, variable in variables.items()}
            results.append((losses, decay, changes, dict(statistics)))
    return results


@pytest.mark.parametrize("k", [0, 1])
def test_losses_of_an_iteration(two_iterations, k):
    losses, generator_decay, _, _ = two_iterations[k]
    decay = losses["weight_decay"] / 2e-4 + generator_decay  # the released sum includes the generator
    ours = [losses["cross_entropy"], decay, losses["optimal_transport"]]
    np.testing.assert_allclose(ours, RELEASED[f"iter{k}_ce_wd_ot"], rtol=1e-7)
    total = losses["cross_entropy"] + losses["weight_decay"] + losses["optimal_transport"]
    np.testing.assert_allclose(losses["total"], total, rtol=1e-12)


@pytest.mark.parametrize("k", [0, 1])
def test_change_of_every_trained_variable(two_iterations, k):
    for name, probe in zip(NAMES, RELEASED[f"iter{k}_change"], strict=True):
        if not is_running(name):
            assert probe_error(name, two_iterations[k][2][name], probe) <= 1e-5, name


def moved(running, batches):
    for batch in batches:
        running = 0.9 * running + 0.1 * batch
    return running


def test_change_of_every_running_statistic(two_iterations, weights):
    """Natural and adversarial images move the classifier's in both halves of an iteration. Which first, the released
    code leaves to chance: its numbers are met by one of the orders, and ours come from the order that is expected."""
    for row, name in filter(lambda item: is_running(item[1]), enumerate(NAMES)):
        ours, possible = weights[name].astype(np.float64), [weights[name].astype(np.float64)]
        for k, (_, _, changes, statistics) in enumerate(two_iterations):
            if name.startswith("attack_module/"):
                orders = [statistics[name]]  # of the two halves
                expected = orders[0]
            else:
                first, natural, second = statistics[name]
                halves = itertools.permutations([first, natural]), itertools.permutations([natural, second])
                orders = [half1 + half2 for half1, half2 in itertools.product(*halves)]
                expected = (first, natural, natural, second)
            ours = moved(ours, expected)
            np.testing.assert_allclose(weights[name] + changes[name], ours, rtol=1e-12, atol=1e-12)
            possible = [moved(running, order) for running in possible for order in orders]
            probe = RELEASED[f"iter{k}_change"][row]
            assert min(probe_error(name, running - weights[name], probe) for running in possible) <= 1e-5, (k, name)
