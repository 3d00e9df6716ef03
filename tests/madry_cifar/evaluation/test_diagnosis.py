"""The checks on networks made up for them: one whose gradients tell the truth, others that hide, tear or vary them.

Images are of 8 × 8 pixels and of four classes, each with the pattern of its class in an amplitude of its own. The plain
network is right until an attack may move pixels by that amplitude, so it is known what an attack leaves.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.diagnosis import CHECKS, diagnose, loss, overall
from madry_cifar.evaluation.diagnosis.trials import Case

CLASSES, SIDE, STEP = 4, 8, 2.0
SIGNS = np.sign(scipy.linalg.hadamard(64)[1 : 1 + CLASSES].reshape(CLASSES, SIDE, SIDE, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def split():
    """48 grey images with the pattern of their class, of amplitudes from 1 to 16."""
    labels = np.arange(48) % CLASSES
    amplitudes = np.linspace(1, 16, 48)[:, np.newaxis, np.newaxis, np.newaxis]
    images = 128 + amplitudes * SIGNS[labels]
    images[:, 0, 0] = 128  # tells nothing: it is the same in all patterns
    return Split(images.astype(np.float32), labels.astype(np.int32))


def plain(images, batch_norm="eval"):
    """How much of each pattern is in an image. Two patterns differ in half of the pixels."""
    assert batch_norm == "eval"
    return SimpleNamespace(logits=tf.einsum("bhwc,khwc->bk", images - 128.0, tf.constant(SIGNS)) / 128)


def after(function, scale=1.0):
    """The plain network on what the function makes of its images."""
    return lambda images, batch_norm="eval": SimpleNamespace(logits=scale * plain(function(images)).logits)


def without_gradient(function):
    """The function, with a gradient of zeros."""
    return tf.custom_gradient(lambda images: (function(images), lambda upstream: tf.zeros_like(upstream)))


def few_pixels(images):
    """The images, with a gradient for four pixels at a time; which, depends on the image."""

    def gradient(upstream):
        sums = tf.reduce_sum(tf.cast(tf.abs(images) * 1000, tf.int64), axis=[1, 2, 3])
        return upstream * tf.reshape(tf.tile(tf.one_hot(sums % 16, 16), [1, 4]), tf.shape(upstream))

    return tf.identity(images), gradient


def constant(images, batch_norm="eval"):
    return SimpleNamespace(logits=tf.constant([0.0, 2, 0, 0]) + 0 * tf.reduce_mean(images, axis=[1, 2]))


def depends_on_start(images, batch_norm="eval"):
    """Wrong where the first pixel is raised by more than six, as in one random start of eight; no gradient tells."""
    is_raised = images[:, 0, 0] > 134
    logits = plain(images).logits
    return SimpleNamespace(logits=tf.where(is_raised, -1.0, 1.0) * tf.stop_gradient(logits) + 0 * logits)


MODELS = {
    "saturated": after(lambda images: images, scale=1e4),
    "quantised": after(without_gradient(lambda images: 4 * tf.round(images / 4))),
    "rough": after(lambda images: images + 8 * tf.sin(images * 3)),
    "random": after(lambda images: images + tf.random.normal(tf.shape(images))),
    "batch-dependent": after(lambda images: images - tf.reduce_mean(images, axis=0, keepdims=True) + 128),
    "slow": after(tf.custom_gradient(few_pixels)),
    "depends on start": depends_on_start,
    "constant": constant,
    # without a derivative in TensorFlow; of grey pixels, which have no hue
    "hue": after(lambda images: tf.image.adjust_hue(tf.repeat(images, 3, axis=3), 0.1)[..., :1]),
}


def check(model, split, name, **settings):
    [found] = diagnose(model, split, checks=[name], batch_size=48, **settings).checks
    assert found.name == name
    assert found.question == CHECKS[name].text
    return found


# --- the network whose gradients tell the truth


@pytest.fixture(scope="module")
def honest(split):
    return diagnose(plain, split, checks=sorted({*CHECKS} - {"square", "black-box"}), batch_size=48)


def test_the_plain_network_is_not_suspected(honest):
    assert {found.name: found.verdict for found in honest.checks} == {found.name: "ok" for found in honest.checks}
    assert overall(honest.checks) == "no sign of masked gradients in 9 checks"


def test_the_accuracy_against_epsilon_is_what_the_amplitudes_say(honest, split):
    """An image is robust up to its amplitude: where two patterns differ, each pixel is moved by at most ε."""
    curve = honest.curves["epsilon"]
    amplitudes = np.linspace(1, 16, 48)
    expected = [100 * np.mean(amplitudes > radius) for radius in curve["epsilon"]]
    np.testing.assert_allclose(curve["accuracy"], expected, atol=100 * 1.01 / 48)
    assert curve["accuracy"][-1] == 0
    assert honest.curves["steps"]["steps"] == [1, 5, 10, 20, 50, 100]
    assert honest.curves["steps"]["accuracy"][3] == curve["accuracy"][curve["epsilon"].index(8.0)]


def test_the_surface_is_the_loss(split):
    found = loss.measure(case := Case(plain, split, epsilon=6.0, batch_size=20))
    images, labels = split.images.astype(np.float64), split.labels
    assert case.right["natural"].all()

    def losses(points, labels):
        logits = np.einsum("bhwc,khwc->bk", points - 128, SIGNS) / 128
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]

    logits = np.einsum("bhwc,khwc->bk", images - 128, SIGNS) / 128
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]
    along = np.sign(np.einsum("bk,khwc->bhwc", weights, SIGNS))
    for point, share in ((0, 0), (10, 0.5), (20, 1)):
        np.testing.assert_allclose(found.gradient[:, point], losses(images + 6 * share * along, labels), atol=1e-4)
    np.testing.assert_allclose(found.random[:, 0], losses(images, labels), atol=1e-4)
    assert found.planes.shape == (4, 21, 21)
    for number in range(4):  # along the first axis goes the gradient, through the middle of the second
        np.testing.assert_allclose(found.planes[number, 10::5, 10], found.gradient[number, ::10], atol=1e-4)
        ends = found.planes[number, 10, [0, -1]]
        np.testing.assert_allclose(ends.max(), found.random[number, -1], atol=1e-4)


# --- networks that are to be suspected


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("saturated", "zero-gradients"),
        ("saturated", "logit-scale"),
        ("saturated", "margin-loss"),
        ("saturated", "loss-surface"),
        ("quantised", "zero-gradients"),
        ("quantised", "loss-surface"),
        ("rough", "loss-surface"),
        ("random", "randomness"),
        ("batch-dependent", "batch-dependence"),
        ("slow", "steps"),
        ("depends on start", "restarts"),
        ("constant", "epsilon"),
        ("constant", "zero-gradients"),
        ("hue", "zero-gradients"),
    ],
)
def test_suspect(model, name, split):
    found = check(MODELS[model], split, name)
    assert found.verdict == "suspect", found


@pytest.mark.parametrize("name", ["batch-dependence", "randomness"])
@pytest.mark.parametrize("model", ["saturated", "rough", "constant"])
def test_what_is_wrong_elsewhere_is_not_suspected_here(model, name, split):
    assert check(MODELS[model], split, name).verdict == "ok"


def test_pixels_without_a_gradient(split):
    seen = (np.abs(SIGNS.sum(0)) < CLASSES).astype(np.float32)  # of the others the gradient is rounding, or nothing
    seen[:, 6:] = 0
    found = check(after(lambda images: 128 + (images - 128) * seen), split, "zero-gradients")
    assert found.verdict == "note"
    assert found.numbers["images_without_gradient"] == 0
    assert found.numbers["pixels_without_gradient"] == 100 * (1 - seen.mean()) > 25


@pytest.mark.parametrize(("share", "verdict"), [(1e-4, "ok"), (0.1, "suspect")])
def test_how_much_the_rest_of_the_batch_may_change(share, verdict, split):
    def model(images, batch_norm="eval"):
        logits = plain(images).logits
        return SimpleNamespace(logits=logits + share * tf.reduce_mean(logits, axis=0))

    found = check(model, split, "batch-dependence")
    assert found.verdict == verdict
    differences = found.numbers["largest_difference"]
    assert differences["backwards"] < 1e-5 < differences["alone"] < differences["among others"]


def test_a_loss_that_zigzags_on_its_way(split, monkeypatch):
    distance = np.linspace(0, 8, 21)

    def verdict(wave):
        line = np.tile(distance + wave, (48, 1))
        monkeypatch.setattr(loss, "measure", lambda case: loss.Surface(line, line / 10, np.zeros([4, 21, 21])))
        return check(plain, split, "loss-surface").verdict

    assert verdict(0) == "ok"
    assert verdict(4 * np.sin(distance)) == "ok"  # a summit and a valley
    assert verdict(4 * np.sin(3 * distance)) == "suspect"


def test_roughness():
    lines = np.array([[0, 1, 2, 4], [0, 3, 3, 0], [0, 2, 0, 2], [5, 5, 5, 5]])
    assert loss.roughness(lines).tolist() == [1, 2, 3]  # none where it is flat


def test_numbers_of_a_saturated_network(split):
    found = check(MODELS["saturated"], split, "zero-gradients")
    leads = 1e4 * np.linspace(1, 16, 48) * 64 / 128  # all but the first few underflow: e^−104 is 0 in float32
    assert found.numbers["images_without_gradient"] == 100 * np.mean(leads > 104)
    scale = check(MODELS["saturated"], split, "logit-scale")
    assert scale.numbers["saturated"] == 100
    np.testing.assert_allclose(scale.numbers["median_margin"], np.median(leads), rtol=1e-5)
    assert scale.numbers["accuracy"]["rescaled"] < 60 < scale.numbers["accuracy"]["pgd-20"]


def test_a_network_whose_outputs_are_random_is_not_said_to_depend_on_the_batch(split):
    assert check(MODELS["random"], split, "batch-dependence").verdict == "not measured"


def test_another_networks_gradient(split):
    assert check(plain, split, "black-box").verdict == "not measured"
    assert check(MODELS["saturated"], split, "black-box", surrogate=plain).verdict == "suspect"
    other = after(lambda images: tf.gather(images, [0, 1, 3, 2, 5, 7, 4, 6], axis=2))
    found = check(plain, split, "black-box", surrogate=other)
    assert found.verdict == "ok"
    assert found.numbers["transfer"] > found.numbers["white_box"]


def test_square_breaks_what_hidden_gradients_do_not(split):
    found = check(MODELS["quantised"], split, "square")
    assert found.verdict == "suspect"
    assert found.numbers["broken"] <= found.numbers["left"]


def test_square_on_what_an_honest_attack_leaves(split):
    robust = Split(split.images[-8:], split.labels[-8:])
    found = check(plain, robust, "square", epsilon=14.0)
    assert found.verdict == "ok"
    assert found.numbers["broken"] == 0 < found.numbers["left"] < 8


def test_few_images_left_are_attacked_in_a_small_batch(split):
    seen = []

    def model(images, batch_norm="eval"):
        seen.append(images.shape[0])
        return plain(images)

    left = check(model, split, "square", epsilon=14.0).numbers["left"]
    assert 0 < left <= 8
    assert 48 in seen
    assert seen[-1] == 8


def test_attacks_that_several_checks_need_run_once(split, monkeypatch):
    calls, original = [], Case.run

    def run(case, trials, advance):
        calls.extend(trials)
        original(case, trials, advance)

    monkeypatch.setattr(Case, "run", run)
    diagnose(plain, split, checks=["restarts", "logit-scale", "steps", "epsilon"], batch_size=48)
    assert len(calls) == len(set(calls))
    assert {"pgd-20", "pgd-20x5", "pgd-100", "pgd-20 at 255"} < set(calls)
    assert "pgd-20 at 8" not in calls


def test_no_image_is_right(split):
    wrong = Split(split.images, (split.labels + 1) % CLASSES)
    with pytest.raises(UsageError, match="--max_images=48: the network gets none"):
        diagnose(plain, wrong, checks=["steps"])
