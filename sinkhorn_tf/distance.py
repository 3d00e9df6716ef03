"""The Sinkhorn distance in the log domain, with the gradient of every iteration.

For costs C [n, m], uniform weights 1/n and 1/m and regularisation ε, an iteration is

    f_i = log mean_j exp(−C_ij/ε − g_j)
    g_j = log mean_i exp(−C_ij/ε − f_i)

starting from g = 0; then P_ij = exp(−C_ij/ε − f_i − g_j)/nm and the distance is ⟨P, C⟩, without the entropy. This is
the algorithm that the RvS paper names (reg 0.01, 100 iterations; TensorFlowSinkhorn); its u and v are −εf and −εg but
for constants.

The gradient is that of the iterations themselves, as if they were unrolled in the graph, without storing them: the
backward pass needs only the potentials, O(iterations · (n + m)), and runs the recursion in reverse.
"""

import tensorflow as tf

from sinkhorn_tf.cost import COSTS
from sinkhorn_tf.iterations import iterate, reverse, spread

GRADIENTS = ("unrolled", "implicit", "envelope")
DAMPING = 1e-12  # of the implicit system, relative to its diagonal; singular by a constant, and at a permutation by all


def sinkhorn_distance(
    x,
    y,
    *,
    regularization: float = 0.01,
    iterations: int = 100,
    gradient: str = "unrolled",
    cost: str = "squared_euclidean",
    threshold: float = 0.0,
    floor: float = 0.0,
) -> tf.Tensor:
    """⟨P, C⟩ between two batches of points with uniform weights (Eq. 7 of the paper).

    Example, of two points that have to move by 1 each:
      >>> import tensorflow as tf
      >>> from sinkhorn_tf import sinkhorn_distance
      >>> x, y = tf.constant([[0.0, 0.0], [5.0, 0.0]]), tf.constant([[5.0, 1.0], [0.0, 1.0]])
      >>> round(float(sinkhorn_distance(x, y)), 4)
      1.0

    Args:
      x: [n, d] points; in RvS the features of natural images.
      y: [m, d] points of the same type; in RvS the features of perturbed images.
      regularization: ε > 0, in units of the costs.
      iterations: number of iterations, at least 1; the most of them, with a threshold.
      gradient: "unrolled", through all iterations (the released code), right after any number of them; "implicit", of
        the plan that the iterations tend to, by solving for it, right once they have converged (the plan's rows sum
        to 1/n); or "envelope", with the plan taken as constant, right only where it does not react to the costs, as
        at a permutation. The distance has no entropy, so no envelope theorem holds for it. docs/sinkhorn.md has their
        differences.
      cost: "squared_euclidean" (RvS) or "cosine" (Feature Scattering); see `sinkhorn_tf.cost`.
      threshold: an iteration that changes u, the potential −ε·f in units of the costs, by less than this, summed over
        x, is the last. 0, as in RvS, is without such a rule; Feature Scattering has 0.1.
      floor: added to the sum of each row and column of P before an iteration takes its logarithm. 0 is exact; Feature
        Scattering's code has 1e-6, by which far points keep less than their weight. With "unrolled" alone.

    Returns:
      A scalar of the points' type; float32 for points in half precision. Gradients are of the points' type.

    Raises:
      ValueError: for shapes that do not fit, a regularisation that is not positive, less than one iteration, a
        negative threshold or floor, a floor with another gradient, or an unknown gradient or cost.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {GRADIENTS}. Received: gradient={gradient!r}")
    _check(regularization, iterations, cost, threshold, floor)
    if floor and gradient != "unrolled":
        raise ValueError(f"with a floor gradient must be 'unrolled'. Received: floor={floor}, gradient={gradient!r}")
    return _transport_cost(COSTS[cost](x, y), regularization, iterations, gradient, threshold, floor)


def transport_plan(
    x,
    y,
    *,
    regularization: float = 0.01,
    iterations: int = 100,
    cost: str = "squared_euclidean",
    threshold: float = 0.0,
    floor: float = 0.0,
) -> tf.Tensor:
    """The plan P [n, m] of `sinkhorn_distance`, not differentiable.

    Its columns sum to 1/m, but for a floor; its rows tend to 1/n.
    """
    _check(regularization, iterations, cost, threshold, floor)
    scores = tf.stop_gradient(COSTS[cost](x, y)) / -regularization
    return _plan(scores, *iterate(scores, iterations, threshold / regularization, floor), floor)


def _check(regularization, iterations, cost, threshold, floor):
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {tuple(COSTS)}. Received: cost={cost!r}")
    if not regularization > 0:
        raise ValueError(f"regularization must be positive. Received: regularization={regularization}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1. Received: iterations={iterations}")
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0. Received: threshold={threshold}")
    if not floor >= 0:
        raise ValueError(f"floor must be at least 0. Received: floor={floor}")


def _transport_cost(cost, regularization, iterations, gradient, threshold, floor):
    """⟨P, C⟩ as a function of the costs [n, m], with the gradient of that name."""

    @tf.custom_gradient
    def function(cost):
        scores = cost / -regularization
        fs, gs, last = iterate(scores, iterations, threshold / regularization, floor)
        plan = _plan(scores, fs, gs, last, floor)

        def of_cost(upstream):
            if gradient == "envelope":
                return upstream * plan
            pull = plan * cost / regularization if floor else _pull(cost, plan, regularization)
            if gradient == "implicit":
                return upstream * (plan - pull + _reaction(plan, pull))
            by_f, by_g = (-tf.reduce_sum(pull, axis, keepdims=True) for axis in (1, 0))
            taken = last + 1 if threshold else iterations  # without a threshold, those left out would repeat the last
            return upstream * (plan - pull - reverse(scores, fs, gs, last, by_f, by_g, taken, floor))

        return tf.reduce_sum(plan * cost), of_cost

    return function(cost)


def _plan(scores, fs, gs, last, floor):
    """P: the update of g has just made each column sum to 1/m; with a floor, to less."""
    if floor:
        return tf.exp(scores - fs[last] - gs[last + 1]) / tf.cast(tf.size(scores), scores.dtype)
    return spread(1 / tf.cast(tf.shape(scores)[1], scores.dtype), scores - fs[last], axis=0)


def _pull(cost, plan, regularization):
    """P ∘ C/ε, by which ⟨P, C⟩ reacts to the logarithm of P, but for a constant of each column.

    The columns of P sum to 1/m whatever the costs, so a constant may be taken off each column of the costs. Taking
    off the cost where the plan is heaviest leaves nothing of its size to cancel.
    """
    heaviest = tf.gather(tf.transpose(cost), tf.argmax(plan, axis=0), axis=1, batch_dims=1)
    return plan * (cost - heaviest) / regularization


def _reaction(plan, pull):
    """What keeping the weights adds to the implicit gradient [n, m]: P_ij (λ_i + μ_j).

    d log P_ij = −(df_i + dg_j + dC_ij/ε) with df and dg such that the plan's rows and columns keep their sums; λ and μ
    solve the adjoint equations, whose matrix is [[diag(rows), P], [Pᵀ, diag(columns)]]. In float64, as its
    elimination cancels.
    """
    dtype = plan.dtype
    plan, pull = tf.cast(plan, tf.float64), tf.cast(pull, tf.float64)
    rows, columns = (tf.reduce_sum(plan, axis, keepdims=True) for axis in (1, 0))
    of_rows, of_columns = (tf.reduce_sum(pull, axis, keepdims=True) for axis in (1, 0))
    shares = plan / rows  # a row has at least 1/nm² of the mass: with it, f has just made its mean exponential 1
    system = tf.linalg.diag(columns[0] * (1 + DAMPING)) - tf.matmul(shares, plan, transpose_a=True)
    right = tf.transpose(of_columns) - tf.matmul(shares, of_rows, transpose_a=True)
    mu = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), right)
    lam = (of_rows - tf.matmul(plan, mu)) / rows
    return tf.cast(plan * (lam + tf.transpose(mu)), dtype)
