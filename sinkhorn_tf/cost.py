"""Cost matrices between two batches of points."""

import tensorflow as tf


def squared_euclidean_cost(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """C_ij = ‖x_i − y_j‖² (Eq. 8 of the RvS paper).

    The differences are taken before squaring: ‖x‖² + ‖y‖² − 2xy would lose, by cancellation, the small distances
    that matter here. The gradient needs no [n, m, d] tensor.

    Args:
      x: [n, d] points.
      y: [m, d] points of the same floating type.

    Returns:
      [n, m] costs, of the points' type.

    Raises:
      ValueError: when the shapes are not [n, d] and [m, d].
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    if x.shape.rank != 2 or y.shape.rank != 2 or not x.shape[1:].is_compatible_with(y.shape[1:]):
        raise ValueError(f"x and y must be [n, d] and [m, d]. Received: x.shape={x.shape}, y.shape={y.shape}")
    return _squared_euclidean_cost(x, y)


@tf.custom_gradient
def _squared_euclidean_cost(x, y):
    cost = tf.reduce_sum(tf.math.squared_difference(x[:, tf.newaxis], y[tf.newaxis]), axis=-1)

    def gradient(upstream):
        # Of Σ U_ij ‖x_i − y_j‖²: 2 Σ_j U_ij (x_i − y_j), as products of matrices. In float64, because the parts
        # nearly cancel; on a GPU a float32 product would be rounded to TF32.
        weights, a, b = (tf.cast(tensor, tf.float64) for tensor in (upstream, x, y))
        of_a = tf.reduce_sum(weights, axis=1, keepdims=True) * a - tf.matmul(weights, b)
        of_b = tf.reduce_sum(weights, axis=0)[:, tf.newaxis] * b - tf.matmul(weights, a, transpose_a=True)
        return tf.cast(2 * of_a, x.dtype), tf.cast(2 * of_b, y.dtype)

    return cost, gradient
