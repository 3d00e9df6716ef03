"""The Sinkhorn iterations in the log domain, and their gradient by the same recursion in reverse.

Both are loops whose body costs a few passes over [n, m]; what they keep of an iteration are its potentials, n + m
numbers. `scores` are −C/ε [n, m], potentials are f [n, 1] and g [1, m].
"""

import tensorflow as tf


def iterate(
    scores: tf.Tensor, iterations: int, threshold: float = 0.0, floor: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The potentials of each iteration, f [iterations, n, 1] and g [iterations + 1, 1, m] (from zeros); the last index.

    An iteration that leaves g unchanged bit for bit would only be repeated from there on, so the loop ends: the
    result is exactly that of all the iterations. With a `threshold`, an iteration that changes f by less, summed over
    its entries, is the last. What would follow the last index is not filled in. A `floor` is added to the sum of each
    row and column of exp(S − f − g)/nm before its logarithm is taken, so that f and g depend on the earlier ones, too.
    """
    f, g = -tf.math.log(tf.cast(tf.size(scores), scores.dtype)) * tf.ones_like(scores[:, :1]), tf.zeros_like(scores[:1])
    fs = tf.TensorArray(scores.dtype, iterations, element_shape=scores[:, :1].shape)
    gs = tf.TensorArray(scores.dtype, iterations + 1, element_shape=g.shape).write(0, g)

    def iteration(t, _, f, g, fs, gs):
        new_f = _with_floor(_log_mean_exp(scores - g, axis=1), f, floor, scores, axis=0)
        new_g = _with_floor(_log_mean_exp(scores - new_f, axis=0), g, floor, scores, axis=1)
        if threshold:
            goes_on = tf.reduce_sum(tf.abs(new_f - f)) >= threshold
        else:
            goes_on = tf.reduce_any(new_g != g) | (floor > 0 and tf.reduce_any(new_f != f))
        return t + 1, goes_on, new_f, new_g, fs.write(t, new_f), gs.write(t + 1, new_g)

    done, *_, fs, gs = tf.while_loop(
        lambda t, goes_on, *_: goes_on, iteration, (0, True, f, g, fs, gs), maximum_iterations=iterations
    )
    return fs.stack(), gs.stack(), done - 1


def _log_mean_exp(scores, axis):
    peak = tf.reduce_max(scores, axis, keepdims=True)
    return peak + tf.math.log(tf.reduce_mean(tf.exp(scores - peak), axis, keepdims=True))


def _with_floor(new, old, floor, scores, axis):
    """log(eⁿᵉʷ + floor · count · eᵒˡᵈ), the count being the scores' along the axis."""
    if not floor:
        return new
    least = old + tf.math.log(floor * tf.cast(tf.shape(scores)[axis], scores.dtype))
    higher = tf.maximum(new, least)
    return higher + tf.math.log(tf.exp(new - higher) + tf.exp(least - higher))


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
    floor: float = 0.0,
) -> tf.Tensor:
    """The gradient [n, m] for the scores, through that many iterations, of what has the gradients f_bar, g_bar for the
    last potentials.

    With A = softmax_j(S_ij − g_j) and B = softmax_i(S_ij − f_i), an iteration has df/dg = −A, df/dS = A, dg/df = −B
    and dg/dS = B. Iterations after `last` repeat it. Once the gradient for g vanishes, so does all that is to come.

    With a `floor` the rows of A and the columns of B sum to less than 1; the rest goes back to the f and g of before.
    """

    def step_back(t, _, f_bar, g_bar, scores_bar):
        now = tf.minimum(t, last)
        own_g = _share(scores - fs[now], gs[now + 1], floor, axis=0)
        by_g = spread(own_g * g_bar, scores - fs[now], axis=0)  # B ∘ ḡ
        minus_f_bar = tf.reduce_sum(by_g, axis=1, keepdims=True) - f_bar
        own_f = _share(scores - gs[now], fs[now], floor, axis=1)
        minus_by_f = spread(own_f * minus_f_bar, scores - gs[now], axis=1)  # −A ∘ f̄; gs starts with the zeros
        g_bar = tf.reduce_sum(minus_by_f, axis=0, keepdims=True) + (1 - own_g) * g_bar
        f_bar = (own_f - 1) * minus_f_bar
        # No sum of three terms: in a graph that takes much memory TensorFlow keeps such a one in a temporary variable,
        # which within a loop within another loop is not made anew (tensorflow/tensorflow#23780).
        alive = tf.reduce_any(g_bar != 0) | (floor > 0 and tf.reduce_any(f_bar != 0))
        return t - 1, alive, f_bar, g_bar, scores_bar + by_g - minus_by_f

    state = (tf.convert_to_tensor(iterations) - 1, True, f_bar, g_bar, tf.zeros_like(scores))
    *_, scores_bar = tf.while_loop(lambda t, alive, *_: alive, step_back, state, maximum_iterations=iterations)
    return scores_bar


def _share(scores, potential, floor, axis):
    """The part of exp(potential) that is no floor: a potential is log(mean exp(scores) + floor)."""
    return tf.exp(_log_mean_exp(scores, axis) - potential) if floor else tf.ones_like(potential)
