"""The Keras layer around the Sinkhorn distance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sinkhorn_tf import SinkhornDistance, sinkhorn_distance

SETTINGS = {"regularization": 0.7, "iterations": 3, "gradient": "envelope"}


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 6)]


@pytest.mark.parametrize("settings", [{}, SETTINGS])
def test_value_is_that_of_the_function(points, settings):
    distance = SinkhornDistance(**settings)(points)
    assert distance.shape == ()
    assert float(distance) == float(sinkhorn_distance(*points, **settings))


def test_float64_layer_computes_in_float64(points):
    x, y = (p.astype(np.float64) for p in points)
    assert SinkhornDistance(dtype="float64")([x, y]).numpy() == sinkhorn_distance(x, y).numpy()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_under_a_policy_of_half_precision_it_computes_in_float32(points, policy):
    """Costs over ε leave float16's range from a cost of 655 on; a perturbation is lost in rounding to either type."""
    near = [points[0], points[0] + 1e-4]
    far = [30 * batch for batch in points]
    layer = SinkhornDistance(dtype=policy)
    inputs = [keras.Input((3,)), keras.Input((3,))]
    outputs = layer(inputs)
    assert outputs.dtype == "float32"
    for batches in (near, far):
        expected = float(sinkhorn_distance(*batches))
        assert np.isfinite(expected)
        assert float(layer(batches)) == float(keras.Model(inputs, outputs)(batches)) == expected


@pytest.mark.parametrize("cost", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_points_in_half_precision(points, dtype, cost):
    """As the same numbers in float32; what goes back to the points is of their own type."""
    narrow = [tf.cast(30 * batch, dtype) for batch in points]
    expected = sinkhorn_distance(*(tf.cast(batch, tf.float32) for batch in narrow), cost=cost)
    with tf.GradientTape() as tape:
        tape.watch(narrow)
        distance = sinkhorn_distance(*narrow, cost=cost)
    assert distance.dtype == tf.float32
    assert float(distance) == float(expected)
    for gradient in tape.gradient(distance, narrow):
        assert gradient.dtype == dtype
        assert np.isfinite(tf.cast(gradient, tf.float32)).all()


def test_configuration_makes_the_same_layer(points):
    layer = SinkhornDistance(**SETTINGS, name="transport")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(copy, SinkhornDistance)
    assert copy.get_config() == layer.get_config()
    assert SETTINGS.items() <= copy.get_config().items()
    assert copy.name == "transport"
    assert float(copy(points)) == float(layer(points)) != float(SinkhornDistance()(points))


def test_layer_works_in_a_functional_model(points):
    inputs = [keras.Input((3,)), keras.Input((3,))]
    model = keras.Model(inputs, SinkhornDistance(**SETTINGS)(inputs))
    np.testing.assert_allclose(model(points), sinkhorn_distance(*points, **SETTINGS), rtol=1e-6)
    assert model.weights == []


@pytest.mark.parametrize("inputs", [np.zeros((4, 3)), [np.zeros((4, 3))], [np.zeros((4, 3))] * 3])
def test_anything_but_two_batches_is_refused(inputs):
    with pytest.raises(ValueError, match=r"expects a list \[x, y\] of two batches"):
        SinkhornDistance()(inputs)
