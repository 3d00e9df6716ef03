"""The front door: what is made of labels, images and models that are not as they should be."""

import warnings

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import rvs_tf
from madry_cifar import attacks
from madry_cifar.attacks.inputs import admit, check_labels
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.autoattack import autoattack
from madry_cifar.evaluation.diagnosis import diagnose
from madry_cifar.evaluation.evaluator import Evaluator

SHAPE, CLASSES = (6, 5, 3), 10  # of no two equal sides, so that a wrong layout shows
WEIGHTS = np.random.default_rng(0).normal(size=(90, CLASSES)).astype(np.float32) / 200
IMAGES = np.random.default_rng(1).integers(0, 256, (12, *SHAPE)).astype(np.uint8)


def model(images):
    return tf.reshape(images - 127.5, [-1, 90]) @ WEIGHTS


LABELS = np.argmax(model(IMAGES.astype(np.float32)), axis=1)


def test_any_form_of_labels_is_the_same():
    expected = attacks.pgd(model, IMAGES, LABELS, epsilon=3, steps=3)
    forms = [LABELS.astype(kind) for kind in ("uint8", "int16", "uint64", "float32")]
    forms += [LABELS[:, np.newaxis], LABELS.tolist(), tf.constant(LABELS), np.eye(CLASSES)[LABELS]]
    forms += [np.eye(CLASSES, dtype=bool)[LABELS]]
    for labels in forms:
        np.testing.assert_array_equal(attacks.pgd(model, IMAGES, labels, epsilon=3, steps=3), expected)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=50, deadline=None)
def test_labels_are_as_numpy_has_them(data):
    count, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 6))
    labels = np.array(data.draw(st.lists(st.integers(-1, classes), min_size=count, max_size=count)))
    form = data.draw(st.sampled_from([lambda x: x, lambda x: x[:, np.newaxis], lambda x: x.astype(np.float64)]))
    if ((labels >= 0) & (labels < classes)).all():
        np.testing.assert_array_equal(check_labels(form(labels), count, classes), labels)
        np.testing.assert_array_equal(check_labels(np.eye(classes)[labels], count, classes), labels)
    else:
        with pytest.raises(UsageError, match="is none of the model's"):
            check_labels(form(labels), count, classes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, r"label \d+ of image \d+ is none of the model's 10 classes, which are counted from 0"),
        (np.arange(12) % 10 + 1, "if they are counted from 1, give labels - 1"),
        (LABELS[:5], r"labels must be \[12\] or \[12, 1\].*Received: shape \(5,\)"),
        (np.tile(LABELS, (2, 1)), r"Received: shape \(2, 12\)"),
        (np.full((12, CLASSES), 0.1), "must be one-hot"),
        (LABELS + 0.5, "must be whole numbers"),
        (np.array(["cat"] * 12), "names of classes are numbered by np.unique"),
    ],
)
def test_labels_that_are_none(labels, message):
    for run in (attacks.pgd, rvs_tf.attacks.square, autoattack):
        with pytest.raises(ValueError, match=message):
            run(model, IMAGES, labels)
    with pytest.raises(ValueError, match=message):
        Evaluator(model).run(attacks.attack("natural"), Split(IMAGES, labels))


UNIT = IMAGES / np.float32(255)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (UNIT, r"from 0.* to 1; give 255 \* images and, if the model takes \[0, 1\]"),
        ((UNIT - 0.5) / 0.25, r"must have pixels in \[0, 255\]. Received: from -2 to 2; .*any scaling"),
        (IMAGES.astype(np.int32) + 1, "to 256"),
        (IMAGES.transpose(0, 3, 1, 2), r"channels first; np.transpose\(images, \(0, 2, 3, 1\)\)"),
        (IMAGES[:0], "there are no images"),
        (IMAGES[0], r"one of \(6, 5, 3\); images\[np.newaxis\]"),
        (IMAGES.reshape(12, -1), r"must be \[N, H, W, C\]. Received: shape \(12, 90\)"),
        (np.where(IMAGES[0, 0, 0, 0] == IMAGES, np.nan, IMAGES), "must be finite"),
        (IMAGES.astype(str), "must be numbers"),
    ],
)
def test_images_that_are_none(images, message):
    for run in (attacks.fgsm, rvs_tf.attacks.apgd_ce, autoattack):
        with pytest.raises(ValueError, match=message):
            run(model, images, LABELS[: len(images)])


def test_images_of_any_type_are_the_same():
    expected = attacks.pgd(model, IMAGES, LABELS, epsilon=3, steps=3)
    for kind in ("int32", "float32", "uint16"):
        np.testing.assert_array_equal(attacks.pgd(model, IMAGES.astype(kind), LABELS, epsilon=3, steps=3), expected)


def network(*layers):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), *layers])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (network(keras.layers.Dense(10, "softmax")), "are probabilities .*tell predictor.. outputs=.probabilities."),
        (network(keras.layers.Dense(1)), "single output"),
        (
            keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]),
            r"takes images \[8",
        ),
        (lambda images: model(images)[:4], r"must return logits \[N, K\]. Received: shape \(4, 10\) for 8 images"),
        (lambda images: tf.reduce_sum(model(images), axis=1), r"Received: shape \(8,\)"),
        (lambda images: model(images) + tf.random.normal([10]), "outputs are random"),
        (lambda images: model(images - tf.reduce_mean(images, axis=0)), "depend on the rest of its batch"),
        (object(), "must be callable"),
        (lambda images: {"one": images, "two": images}, r"several outputs \(one, two\)"),
        (lambda images: images @ images, "cannot be called with images"),
    ],
)
def test_models_that_are_none(wrong, message):
    for run in (attacks.pgd, rvs_tf.attacks.fab_t, autoattack):
        with pytest.raises(ValueError, match=message):
            run(wrong, IMAGES, LABELS)


def test_dropout_and_batch_norm_are_for_inference():
    close = {"rtol": 1e-6, "atol": 1e-6}  # float32: of terms of about 1, some of which cancel
    wild = network(keras.layers.BatchNormalization(), keras.layers.Dropout(0.9), keras.layers.Dense(10))
    expected = wild(IMAGES.astype(np.float32), training=False)
    np.testing.assert_allclose(admit(wild, IMAGES, LABELS).logits, expected[:8], **close)

    class Module(tf.Module):
        def __call__(self, images, is_training):
            return wild(images, training=is_training)

    np.testing.assert_allclose(admit(Module(), IMAGES, LABELS).logits, expected[:8], **close)


def test_a_replaced_network_is_attacked_and_not_the_one_before():
    class Wrapper:
        def __init__(self, weights):
            self.weights = weights

        def __call__(self, images):
            return tf.reshape(images - 127.5, [-1, 90]) @ self.weights

    wrapper, settings = Wrapper(WEIGHTS), {"epsilon": 4, "step_size": 1, "steps": 5}
    attacks.pgd(wrapper, IMAGES, LABELS, **settings)
    wrapper.weights = WEIGHTS[:, ::-1].copy()
    expected = attacks.pgd(Wrapper(wrapper.weights), IMAGES, LABELS, **settings)
    np.testing.assert_array_equal(attacks.pgd(wrapper, IMAGES, LABELS, **settings), expected)


def rounded(images):
    return model(tf.round(images))


def as_jpeg(images):
    return model(tf.map_fn(lambda image: tf.cast(tf.image.adjust_jpeg_quality(image / 255, 90), tf.float32), images))


@pytest.mark.parametrize("without", [rounded, as_jpeg])
def test_without_a_gradient_it_is_said(without):
    with pytest.warns(UserWarning, match="no gradient .*square alone"):
        attacks.pgd(without, IMAGES, LABELS, steps=1)


def test_without_a_gradient_square_goes_on():
    with pytest.warns(UserWarning, match="no gradient"):
        found = rvs_tf.benchmark(
            rounded, IMAGES, LABELS, "pgd-2,square", epsilon=200, step_size=1, progress=False, keep_adversarial=False
        )
    assert "square alone" in found.notes[0]
    assert "square alone" in found.to_json()
    assert found.accuracies["square"] < found.accuracies["pgd-2"]


def test_no_warning_where_there_is_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacks.pgd(model, IMAGES, LABELS, steps=1)


def test_everything_wrong_is_fine():
    found = rvs_tf.benchmark(model, IMAGES, (LABELS + 1) % CLASSES, "natural,pgd-2,square", epsilon=1, progress=False)
    assert set(found.accuracies.values()) == {0.0}


def test_a_radius_in_other_units_is_told():
    with pytest.warns(UserWarning, match="ε = 0.031 is less than one grey level of 255.*8/255 is epsilon=8"):
        rvs_tf.benchmark(model, IMAGES, LABELS, "fgsm", epsilon=0.031, progress=False)


def test_many_copies_of_one_image():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10)]
    small = keras.Sequential([keras.Input(SHAPE), *layers])
    copies = np.repeat(IMAGES[:1], 8, axis=0)
    found = attacks.pgd(small, copies, np.zeros(8, int), epsilon=3, step_size=1, steps=2).numpy()
    assert len(np.unique(found, axis=0)) == 8  # each from a start of its own


def test_one_image():
    found = rvs_tf.benchmark(model, IMAGES[:1], LABELS[:1], "natural,pgd-2", epsilon=0, progress=False)
    assert found.accuracies == {"natural": 100.0, "pgd-2": 100.0}


def test_the_diagnosis_takes_it_too_and_says_itself_what_is_random():
    split = Split(IMAGES, LABELS[:, np.newaxis])
    random = lambda images: model(images) + tf.random.normal([10])  # noqa: E731
    (check,) = diagnose(random, split, checks=["randomness"]).checks
    assert check.verdict == "suspect"


def test_two_classes():
    both = lambda images: model(images)[:, :2]  # noqa: E731
    labels = np.argmax(both(IMAGES.astype(np.float32)), axis=1)
    assert set(
        rvs_tf.benchmark(both, IMAGES, labels, "pgd-9", epsilon=200, step_size=60, progress=False).accuracies.values()
    ) == {0.0}
    with pytest.raises(ValueError, match="--attacks=apgd-t: compares the logits of 4 classes, and there are 2"):
        rvs_tf.attacks.apgd_t(both, IMAGES, labels)


def test_a_model_that_is_said_to_be_random_is_let_in():
    random = rvs_tf.predictor(lambda images: model(images) + tf.random.normal([10]), stochastic=True)
    assert rvs_tf.attacks.run("fgsm", random, IMAGES, LABELS).shape == IMAGES.shape
