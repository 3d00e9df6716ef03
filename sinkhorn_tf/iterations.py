"""The Sinkhorn iterations in the log domain, and their gradient by the same recursion in reverse.

Both are loops whose body costs a few passes over [n, m]; what they keep of an iteration are its potentials, n + m
numbers. `scores` are −C/ε [n, m], potentials are f [n, 1] and g [1, m].
"""

import tensorflow as tf


def iterate(scores: tf.Tensor, iterations: int, threshold: float = 0.0) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The potentials of each iteration, f [iterations, n, 1] and g [iterations + 1, 1, m] (from zeros); the last index.

    An iteration that leaves g unchanged bit for bit would only be repeated from there on, so the loop ends: the
    result is exactly that of all the iterations. With a `threshold`, an iteration that changes f by less, summed over
    its entries, is the last. What would follow the last index is not filled in.
    """
    f, g = -tf.math.log(tf.cast(tf.size(scores), scores.dtype)) * tf.ones_like(scores[:, :1]), tf.zeros_like(scores[:1])
    fs = tf.TensorArray(scores.dtype, iterations, element_shape=scores[:, :1].shape)
    gs = tf.TensorArray(scores.dtype, iterations + 1, element_shape=g.shape).write(0, g)

    def iteration(t, _, f, g, fs, gs):
        new_f = _log_mean_exp(scores - g, axis=1)
        new_g = _log_mean_exp(scores - new_f, axis=0)
        goes_on = tf.reduce_sum(tf.abs(new_f - f)) >= threshold if threshold else tf.reduce_any(new_g != g)
        return t + 1, goes_on, new_f, new_g, fs.write(t, new_f), gs.write(t + 1, new_g)

    done, *_, fs, gs = tf.while_loop(
        lambda t, goes_on, *_: goes_on, iteration, (0, True, f, g, fs, gs), maximum_iterations=iterations
    )
    return fs.stack(), gs.stack(), done - 1


def _log_mean_exp(scores, axis):
    peak = tf.reduce_max(scores, axis, keepdims=True)
    return peak + tf.math.log(tf.reduce_mean(tf.exp(scores - peak), axis, keepdims=True))


def spread(amounts: tf.Tensor, scores: tf.Tensor, axis: int) -> tf.Tensor:
    """[n, m]: the `amounts`, of each column for axis 0 or of each row for axis 1, in proportion to exp(scores)."""
    weights = tf.exp(scores - tf.reduce_max(scores, axis, keepdims=True))
    return weights * (amounts / tf.reduce_sum(weights, axis, keepdims=True))


def reverse(
    scores: tf.Tensor,
    fs: tf.Tensor,
    gs: tf.Tensor,
    last: tf.Tensor,
    f_bar: tf.Tensor,
    g_bar: tf.Tensor,
    iterations: int | tf.Tensor,
) -> tf.Tensor:
    """The gradient [n, m] for the scores, through that many iterations, of what has the gradients f_bar, g_bar for the
    last potentials.

    With A = softmax_j(S_ij − g_j) and B = softmax_i(S_ij − f_i), an iteration has df/dg = −A, df/dS = A, dg/df = −B
    and dg/dS = B. Iterations after `last` repeat it. Once the gradient for g vanishes, so does all that is to come.
    """

    def step_back(t, _, f_bar, g_bar, scores_bar):
        now = tf.minimum(t, last)
        by_g = spread(g_bar, scores - fs[now], axis=0)  # B ∘ ḡ
        minus_f_bar = tf.reduce_sum(by_g, axis=1, keepdims=True) - f_bar
        minus_by_f = spread(minus_f_bar, scores - gs[now], axis=1)  # −A ∘ f̄; gs starts with the zeros
        g_bar = tf.reduce_sum(minus_by_f, axis=0, keepdims=True)
        # No sum of three terms: in a graph that takes much memory TensorFlow keeps such a one in a temporary variable,
        # which within a loop within another loop is not made anew (tensorflow/tensorflow#23780).
        return t - 1, tf.reduce_any(g_bar != 0), tf.zeros_like(f_bar), g_bar, scores_bar + by_g - minus_by_f

    state = (tf.convert_to_tensor(iterations) - 1, True, f_bar, g_bar, tf.zeros_like(scores))
    *_, scores_bar = tf.while_loop(lambda t, alive, *_: alive, step_back, state, maximum_iterations=iterations)
    return scores_bar
