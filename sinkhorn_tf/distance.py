"""The Sinkhorn distance in the log domain, with the gradient of every iteration.

For costs C [n, m], uniform marginals μ = 1/n and ν = 1/m and regularisation ε, an iteration is

    u_i = ε log μ_i − ε log Σ_j exp((v_j − C_ij)/ε)
    v_j = ε log ν_j − ε log Σ_i exp((u_i − C_ij)/ε)

starting from v = 0; then P_ij = exp((u_i + v_j − C_ij)/ε) and the distance is ⟨P, C⟩, without the entropy.
This is the algorithm that the RvS paper names (reg 0.01, 100 iterations; TensorFlowSinkhorn).

The gradient is that of the iterations themselves, as if they were unrolled in the graph, without storing them: the
backward pass needs only the potentials, O(iterations · (n + m)), and runs the recursion in reverse.
"""

import tensorflow as tf

from sinkhorn_tf.cost import squared_euclidean_cost

GRADIENTS = ("unrolled", "envelope")


def sinkhorn_distance(x, y, *, regularization: float = 0.01, iterations: int = 100,
                      gradient: str = "unrolled") -> tf.Tensor:  # fmt: skip
    """⟨P, C⟩ between two batches of points with squared Euclidean costs and uniform weights (Eq. 7 of the paper).

    Args:
      x: [n, d] points; in RvS the features of natural images.
      y: [m, d] points of the same type; in RvS the features of perturbed images.
      regularization: ε > 0, in units of the costs.
      iterations: number of iterations, at least 1; there is no stopping rule.
      gradient: "unrolled", through all iterations (the released code), or "envelope", with the plan taken as constant:
        cheaper, and equal only where the plan does not react to the costs, as at a permutation.

    Returns:
      A scalar of the points' type.

    Raises:
      ValueError: for shapes that do not fit, a regularisation that is not positive, less than one iteration, or an
        unknown gradient.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {GRADIENTS}. Received: gradient={gradient!r}")
    _check(regularization, iterations)
    cost = squared_euclidean_cost(x, y)
    if gradient == "envelope":
        return tf.reduce_sum(tf.stop_gradient(_plan(cost, regularization, iterations)) * cost)
    return _transport_cost(cost, regularization, iterations)


def transport_plan(x, y, *, regularization: float = 0.01, iterations: int = 100) -> tf.Tensor:
    """The plan P [n, m] of `sinkhorn_distance`, not differentiable. Its columns sum to 1/m; its rows tend to 1/n."""
    _check(regularization, iterations)
    return tf.stop_gradient(_plan(squared_euclidean_cost(x, y), regularization, iterations))


def _check(regularization, iterations):
    if not regularization > 0:
        raise ValueError(f"regularization must be positive. Received: regularization={regularization}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1. Received: iterations={iterations}")


def _transport_cost(cost, regularization, iterations):
    """⟨P, C⟩ as a function of the costs [n, m], with the gradient through the iterations."""

    @tf.custom_gradient
    def function(cost):
        us, vs, last = _potentials(cost, regularization, iterations)
        us, vs = us.stack(), vs.stack()
        plan = _columns(cost, us[last], regularization) / tf.cast(tf.shape(cost)[1], cost.dtype)

        def gradient(upstream):
            return upstream * _reverse(cost, plan, us, vs, last, regularization, iterations)

        return tf.reduce_sum(plan * cost), gradient

    return function(cost)


def _plan(cost, regularization, iterations):
    """The plan P [n, m] for the costs [n, m]."""
    us, _, last = _potentials(cost, regularization, iterations)
    return _columns(cost, us.read(last), regularization) / tf.cast(tf.shape(cost)[1], cost.dtype)


def _potentials(cost, regularization, iterations):
    """Runs the iterations; returns TensorArrays of each u, of each v after the initial zeros, and the last index.

    An iteration that leaves v unchanged bit for bit would only be repeated from there on, so the loop ends: the
    result is exactly that of all the iterations.
    """
    n, m = tf.unstack(tf.cast(tf.shape(cost), cost.dtype))
    u, v = tf.zeros_like(cost[:, 0]), tf.zeros_like(cost[0])
    us = tf.TensorArray(cost.dtype, iterations, element_shape=u.shape, clear_after_read=False)
    vs = tf.TensorArray(cost.dtype, iterations + 1, element_shape=v.shape, clear_after_read=False).write(0, v)

    def iterate(t, _, v, us, vs):
        u = -regularization * (tf.math.log(n) + tf.reduce_logsumexp((v - cost) / regularization, axis=1))
        exponents = (u[:, tf.newaxis] - cost) / regularization
        new = -regularization * (tf.math.log(m) + tf.reduce_logsumexp(exponents, axis=0))
        return t + 1, tf.reduce_any(new != v), new, us.write(t, u), vs.write(t + 1, new)

    done, _, _, us, vs = tf.while_loop(
        lambda t, changed, *_: changed, iterate, (0, True, v, us, vs), maximum_iterations=iterations
    )
    return us, vs, done - 1


def _columns(cost, u, regularization):
    """softmax_i((u_i − C_ij)/ε): m · P after an update of v, which makes the columns sum to 1/m whatever u is."""
    return tf.nn.softmax((u[:, tf.newaxis] - cost) / regularization, axis=0)


def _reverse(cost, plan, us, vs, last, regularization, iterations):
    """d⟨P, C⟩/dC: the adjoints of u and v through the iterations in reverse.

    With A = softmax_j((v_j − C_ij)/ε) and B = softmax_i((u_i − C_ij)/ε), an iteration has du/dv = −A, du/dC = A,
    dv/du = −B and dv/dC = B. Iterations after `last` repeat it. Once the adjoint of v vanishes, so do all the
    contributions before.
    """
    # The columns of P sum to 1/m whatever the costs, so a constant may be taken off each column of the costs. Taking
    # off the cost where the plan is heaviest leaves nothing of its size to cancel.
    heaviest = tf.gather(tf.transpose(cost), tf.argmax(plan, axis=0), axis=1, batch_dims=1)
    pull = plan * (cost - heaviest) / regularization
    state = (
        tf.constant(iterations - 1),
        True,
        tf.reduce_sum(pull, axis=1),
        tf.reduce_sum(pull, axis=0),
        plan - pull,
    )

    def step_back(t, _, u_bar, v_bar, cost_bar):
        now = tf.minimum(t, last)
        u, v_before = us[now], vs[now]  # vs starts with the zeros
        toward_u = _columns(cost, u, regularization) * v_bar  # B ∘ v̄
        u_bar -= tf.reduce_sum(toward_u, axis=1)
        toward_v = tf.nn.softmax((v_before - cost) / regularization, axis=1) * u_bar[:, tf.newaxis]  # A ∘ ū
        v_bar = -tf.reduce_sum(toward_v, axis=0)
        return t - 1, tf.reduce_any(v_bar != 0), tf.zeros_like(u_bar), v_bar, cost_bar + toward_u + toward_v

    *_, cost_bar = tf.while_loop(lambda t, alive, *_: alive, step_back, state, maximum_iterations=iterations)
    return cost_bar
