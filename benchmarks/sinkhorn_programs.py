"""The Sinkhorn distance and its gradients, by ours and by others, to be timed: a program for `benchmarks.turns`.

All get the same points, compute 100 (`iterations`) iterations at the same regularisation in float32, and return
⟨P, C⟩ and its gradients for both sets of points. The first turn is the first call of what was just built; a later turn
is CALLS calls.

* unrolled: every iteration written into the graph, as in the authors' released code, and differentiated by TensorFlow.
* POT: `ot.sinkhorn` in the log domain with its torch backend, differentiated by torch.
* OTT: compiled by JAX; differentiated through the iterations or, its default, implicitly.
* GeomLoss: has no ⟨P, C⟩ and no fixed regularisation. It lowers the regularisation over the iterations, returns the
  dual value (with the entropy), and differentiates with the potentials taken as constant, which is less work.
"""

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.turns import turns
from sinkhorn_tf import sinkhorn_distance

CALLS = 10  # in each turn but the first
Function = Callable[[np.ndarray, np.ndarray], tuple[Any, Any, Any]]


def points(n: int, dimensions: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """x [n, dimensions] from N(0, scale²), and y: x perturbed by N(0, (scale/10)²); float32."""
    x, noise = np.random.default_rng(0).normal(scale=scale, size=(2, n, dimensions))
    return x.astype(np.float32), (x + noise / 10).astype(np.float32)


def unrolled_distance(x: tf.Tensor, y: tf.Tensor, regularization: float, iterations: int) -> tf.Tensor:
    """⟨P, C⟩ as the released code computes it: with all differences, no loop, and a transposition each iteration."""
    cost = tf.reduce_sum(tf.abs(x[:, tf.newaxis] - y[tf.newaxis]) ** 2, axis=2)
    log_weight = -tf.math.log(tf.cast(tf.shape(x)[0], x.dtype))  # n = m
    u, v = tf.zeros_like(cost[:, 0]), tf.zeros_like(cost[0])

    def exponents():
        return (u[:, tf.newaxis] + v[tf.newaxis] - cost) / regularization

    for _ in range(iterations):
        u += regularization * (log_weight - tf.reduce_logsumexp(exponents(), axis=1))
        v += regularization * (log_weight - tf.reduce_logsumexp(tf.transpose(exponents()), axis=1))
    return tf.reduce_sum(tf.exp(exponents()) * cost)


def value_and_gradients(distance: Callable, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """distance(x, y), and its gradients for x and y."""
    with tf.GradientTape() as tape:
        tape.watch((x, y))
        value = distance(x, y)
    return value, *tape.gradient(value, (x, y))


def compiled(distance: Callable, regularization: float, iterations: int, jit_compile: bool = False) -> Function:
    """With TensorFlow."""
    distance = functools.partial(distance, regularization=regularization, iterations=iterations)
    function = functools.partial(value_and_gradients, distance)
    return tf.function(function, autograph=False, jit_compile=jit_compile)


def ours(regularization: float, iterations: int, gradient: str = "unrolled", jit_compile: bool = False) -> Function:
    """`sinkhorn_tf`."""
    return compiled(functools.partial(sinkhorn_distance, gradient=gradient), regularization, iterations, jit_compile)


def pot(regularization: float, iterations: int) -> Function:
    """POT. It updates the potential of the second marginal first, so it is given the transposed problem."""
    ot, torch = (importlib.import_module(name) for name in ("ot", "torch"))

    def function(x, y):
        x, y = (torch.tensor(points, requires_grad=True) for points in (x, y))
        cost = ot.dist(y, x)
        weights = (torch.full((len(points),), 1 / len(points)) for points in (y, x))
        plan = ot.sinkhorn(
            *weights, cost, regularization, method="sinkhorn_log", numItermax=iterations, stopThr=0, warn=False
        )
        value = torch.sum(plan * cost)
        value.backward()
        return value.detach(), x.grad, y.grad

    return function


def ott(regularization: float, iterations: int, implicit: bool = False) -> Function:
    """OTT-JAX, likewise. `inner_iterations`: how often it looks whether it has converged."""
    jax = importlib.import_module("jax")
    geometry, problem, solver = (
        importlib.import_module(f"ott.{name}")
        for name in ("geometry.pointcloud", "problems.linear.linear_problem", "solvers.linear.sinkhorn")
    )
    settings = {"min_iterations": iterations, "max_iterations": iterations, "inner_iterations": iterations}
    settings |= {"threshold": 0.0} | ({} if implicit else {"implicit_diff": None})

    def distance(x, y):
        cloud = geometry.PointCloud(y, x, epsilon=regularization)
        plan = solver.Sinkhorn(**settings)(problem.LinearProblem(cloud)).matrix
        return jax.numpy.sum(plan * cloud.cost_matrix)

    both = jax.jit(jax.value_and_grad(distance, argnums=(0, 1)))

    def function(x, y):
        value, gradients = both(x, y)
        return value, *gradients

    return function


def geomloss(regularization: float, iterations: int) -> Function:
    """GeomLoss; its cost is ‖x − y‖²/2, and its regularisation goes down from the squared diameter in equal ratios."""
    loss, torch = (importlib.import_module(name) for name in ("geomloss", "torch"))
    blur = (regularization / 2) ** 0.5

    def function(x, y):
        diameter = float(np.linalg.norm(np.ptp(np.concatenate([x, y]), axis=0)))
        ratio = (blur / diameter) ** (1 / max(iterations - 2, 1))
        x, y = (torch.tensor(points, requires_grad=True) for points in (x, y))
        settings = {"blur": blur, "diameter": diameter, "scaling": ratio, "debias": False, "backend": "tensorized"}
        value = 2 * loss.SamplesLoss("sinkhorn", p=2, **settings)(x, y)
        value.backward()
        return value.detach(), x.grad, y.grad

    return function


PROGRAMS: dict[str, Callable[[float, int], Function]] = {
    "ours": ours,
    "ours-xla": functools.partial(ours, jit_compile=True),
    "ours-implicit": functools.partial(ours, gradient="implicit"),
    "ours-envelope": functools.partial(ours, gradient="envelope"),
    "unrolled": functools.partial(compiled, unrolled_distance),
    "POT": pot,
    "OTT": ott,
    "OTT-implicit": functools.partial(ott, implicit=True),
    "GeomLoss": geomloss,
}
NEEDED = {"POT": ("ot", "torch"), "OTT": ("ott", "jax"), "GeomLoss": ("geomloss", "torch")}  # modules of each peer


def needed(program: str) -> tuple[str, ...]:
    """The modules that a program needs besides ours."""
    return NEEDED.get(program.partition("-")[0], ())


def installed(program: str) -> bool:
    """Whether what it needs can be imported here."""
    return all(importlib.util.find_spec(module) for module in needed(program))


def main(
    program: str,
    n: int,
    dimensions: int,
    scale: float,
    regularization: float,
    iterations: int,
    results: str | None = None,
) -> None:
    """Takes its turns; then writes the value and the gradients of the last call to the file `results`."""
    x, y = points(n, dimensions, scale)
    for module in needed(program):
        importlib.import_module(module)
    if not needed(program):
        x, y = tf.constant(x), tf.constant(y)  # and TensorFlow has started
    for turn in turns():
        if turn == 0:
            function = PROGRAMS[program](regularization, iterations)
        for _ in range(CALLS if turn else 1):
            last = [np.asarray(each) for each in function(x, y)]
    if results:
        np.savez(results, *last)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
