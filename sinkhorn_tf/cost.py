"""Cost matrices between two batches of points."""

import tensorflow as tf


def squared_euclidean_cost(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """C_ij = ‖x_i − y_j‖² (Eq. 8 of the RvS paper), in O(nm + (n + m)d) memory, also of the gradient.

    ‖a‖² + ‖b‖² − 2ab loses, by cancellation, the small distances that matter here. So float32 points are taken from
    their mean and multiplied in float64: what is lost is 10⁻¹⁵ of their squared distance from it, far less than the
    points' own rounding changes. Float64 points have no wider type, and their differences are taken, row by row.

    Args:
      x: [n, d] points.
      y: [m, d] points of the same floating type.

    Returns:
      [n, m] costs, of the points' type; float32 for points in half precision, whose largest number is soon passed.

    Raises:
      ValueError: when the shapes are not [n, d] and [m, d].
    """
    return _squared_euclidean_cost(*_checked(x, y))


def _checked(x, y):
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    if x.shape.rank != 2 or y.shape.rank != 2 or not x.shape[1:].is_compatible_with(y.shape[1:]):
        raise ValueError(f"x and y must be [n, d] and [m, d]. Received: x.shape={x.shape}, y.shape={y.shape}")
    return _wide(x), _wide(y)


def _wide(values):
    """The values in float32 at least: costs over ε leave the range of float16 and the precision of bfloat16."""
    return tf.cast(values, tf.float32) if values.dtype in (tf.float16, tf.bfloat16) else values


@tf.custom_gradient
def _squared_euclidean_cost(x, y):
    a, b = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
    mean = tf.reduce_mean(a, axis=0)
    a, b = a - mean, b - mean
    cost = _by_differences(x, y) if x.dtype == tf.float64 else tf.cast(_by_products(a, b), x.dtype)

    def gradient(upstream):
        # Of Σ U_ij ‖x_i − y_j‖²: 2 Σ_j U_ij (x_i − y_j). In float64, as these parts nearly cancel, too; on a GPU a
        # float32 product would be rounded to TF32.
        weights = 2 * tf.cast(upstream, tf.float64)
        of_a = tf.reduce_sum(weights, axis=1, keepdims=True) * a - tf.matmul(weights, b)
        of_b = tf.reduce_sum(weights, axis=0)[:, tf.newaxis] * b - tf.matmul(weights, a, transpose_a=True)
        return tf.cast(of_a, x.dtype), tf.cast(of_b, y.dtype)

    return cost, gradient


def cosine_cost(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """C_ij = max(0, 1 − cos(x_i, y_j)), the cost of Feature Scattering.

    Arguments, result and errors as of `squared_euclidean_cost`, and computed in float64 for the same reason. A product
    of lengths below 1e-6 counts as that much, as in the PyTorch code.
    """
    x, y = _checked(x, y)
    a, b = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
    lengths_of_a, lengths_of_b = (tf.sqrt(tf.maximum(tf.reduce_sum(points**2, axis=1), 1e-24)) for points in (a, b))
    lengths = tf.maximum(lengths_of_a[:, tf.newaxis] * lengths_of_b, 1e-6)
    return tf.cast(tf.maximum(1 - tf.matmul(a, b, transpose_b=True) / lengths, 0), x.dtype)


COSTS = {"squared_euclidean": squared_euclidean_cost, "cosine": cosine_cost}


def _by_products(a, b):
    squares_of_a, squares_of_b = (tf.reduce_sum(tf.square(points), axis=1) for points in (a, b))
    cost = squares_of_a[:, tf.newaxis] + squares_of_b - 2 * tf.matmul(a, b, transpose_b=True)
    return tf.maximum(cost, 0)  # which rounding may have passed


def _by_differences(x, y):
    return tf.map_fn(lambda point: tf.reduce_sum(tf.math.squared_difference(point, y), axis=1), x)
