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

    def gradient(upstream):  # of sum_ij U_ij ‖x_i − y_j‖²
        rows = tf.reduce_sum(upstream, axis=1, keepdims=True)
        columns = tf.reduce_sum(upstream, axis=0)[:, tf.newaxis]
        return (
            2 * (rows * x - tf.matmul(upstream, y)),
            2 * (columns * y - tf.matmul(upstream, x, transpose_a=True)),
        )

    return cost, gradient
