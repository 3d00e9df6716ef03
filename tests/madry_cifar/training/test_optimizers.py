"""The optimizers against their formulas in NumPy, PyTorch, optax and Keras; the schedule against TensorFlow 1's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from madry_cifar.training.optimizers import Adam, Momentum, PiecewiseConstant, PyTorchAdam, clip_by_global_norm

RATES, BOUNDARIES, STEPS = (0.5, 0.0625), (2,), 6  # numbers that float32 holds
BETAS = {"beta1": 0.75, "beta2": 0.875}
SUBJECTS = {
    "momentum": (Momentum, {"momentum": 0.9}),
    "momentum with decay": (Momentum, {"momentum": 0.9, "weight_decay": 0.125}),
    "nesterov": (Momentum, {"momentum": 0.9, "nesterov": True}),
    "nesterov with decay": (Momentum, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.125}),
    "plain descent": (Momentum, {"momentum": 0.0}),
    "adam": (Adam, BETAS | {"epsilon": 0.01}),
    "adam with decay": (Adam, BETAS | {"epsilon": 0.01, "weight_decay": 0.125}),
    "pytorch's adam": (PyTorchAdam, BETAS | {"epsilon": 0.01}),
    "pytorch's adam with decay": (PyTorchAdam, BETAS | {"epsilon": 0.01, "weight_decay": 0.125}),
    "pytorch's adam by default": (PyTorchAdam, {}),
}


def start():
    """Two weights."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3)), rng.normal(size=4)]


def gradients(count=STEPS):
    """For each step those of the weights: at first of 1, then much smaller."""
    rng = np.random.default_rng(1)
    return [[0.1**step * rng.normal(size=weight.shape) for weight in start()] for step in range(count)]


def rate(step):
    return RATES[step > BOUNDARIES[0]]


def updated(kind, options, dtype="float64", step_of=lambda step: step):
    """The "weights" and what the optimizer keeps of each, by name, after each of the steps."""
    variables = [tf.Variable(weight, dtype=dtype) for weight in start()]
    optimizer = kind(variables, PiecewiseConstant(RATES, BOUNDARIES), **options)
    for step, given_gradients in enumerate(gradients()):
        optimizer.apply([tf.constant(gradient, dtype) for gradient in given_gradients], step_of(step))
        state = {"weights": variables} | optimizer.state
        yield {name: [variable.numpy() for variable in kept] for name, kept in state.items()}


def momentum_formula(momentum, nesterov=False, weight_decay=0.0):
    """a = m·a + g; w −= rate·a, with Nesterov w −= rate·(g + m·a); g has λ·w in it."""
    weights = start()
    accumulated = [np.zeros_like(weight) for weight in weights]
    for step, given_gradients in enumerate(gradients()):
        for i, gradient in enumerate(given_gradients):
            gradient = gradient + weight_decay * weights[i]
            accumulated[i] = momentum * accumulated[i] + gradient
            direction = gradient + momentum * accumulated[i] if nesterov else accumulated[i]
            weights[i] = weights[i] - rate(step) * direction
        yield {"weights": weights, "momentum": accumulated}


def adam_formula(tensorflow, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0):
    """w −= rate·m̂/(√v̂ + ε̂), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ); ε̂ is ε, in TensorFlow's form ε/√(1 − β₂ᵗ)."""
    weights = start()
    means, squares = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for step, given_gradients in enumerate(gradients()):
        corrections = [1 - beta ** (step + 1) for beta in (beta1, beta2)]
        for i, gradient in enumerate(given_gradients):
            gradient = gradient + weight_decay * weights[i]
            means[i] = beta1 * means[i] + (1 - beta1) * gradient
            squares[i] = beta2 * squares[i] + (1 - beta2) * gradient**2
            root = np.sqrt(squares[i] / corrections[1]) + epsilon / (np.sqrt(corrections[1]) if tensorflow else 1)
            weights[i] = weights[i] - rate(step) * means[i] / corrections[0] / root
        yield {"weights": weights, "m": means, "v": squares}


def assert_close(values, expected, bound=1e-12):
    for one, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound)


@pytest.mark.parametrize("steps_are", ["integers", "tensors"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-13), ("float32", 2e-5)])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_step_is_the_formula(subject, dtype, bound, steps_are):
    kind, options = SUBJECTS[subject]
    step_of = int if steps_are == "integers" else lambda step: tf.constant(step, tf.int64)
    formula = momentum_formula(**options) if kind is Momentum else adam_formula(kind is Adam, **options)
    for state, expected in zip(updated(kind, options, dtype, step_of), formula, strict=True):
        assert state.keys() == expected.keys()
        for name, values in state.items():
            assert_close(values, expected[name], bound)


def torch_steps(torch, kind, options):
    """The weights by `torch.optim` after each of the steps."""
    weights = [torch.tensor(weight, requires_grad=True) for weight in start()]
    decay = {"weight_decay": options.get("weight_decay", 0.0)}
    if kind is Momentum:
        rest = {"momentum": options["momentum"], "nesterov": options.get("nesterov", False)}
        optimizer = torch.optim.SGD(weights, lr=RATES[0], **rest, **decay)
    else:
        betas = options.get("beta1", 0.9), options.get("beta2", 0.999)
        optimizer = torch.optim.Adam(weights, lr=RATES[0], betas=betas, eps=options.get("epsilon", 1e-8), **decay)
    for step, given_gradients in enumerate(gradients()):
        optimizer.param_groups[0]["lr"] = rate(step)
        for weight, gradient in zip(weights, given_gradients, strict=True):
            weight.grad = torch.tensor(gradient)
        optimizer.step()
        yield [weight.detach().numpy().copy() for weight in weights]


@pytest.mark.parametrize("subject", [name for name, (kind, _) in SUBJECTS.items() if kind is not Adam])
def test_every_step_is_that_of_pytorch(subject):
    torch, (kind, options) = pytest.importorskip("torch"), SUBJECTS[subject]
    for state, expected in zip(updated(kind, options), torch_steps(torch, kind, options), strict=True):
        assert_close(state["weights"], expected)


@pytest.fixture
def optax():
    """The library, computing in float64."""
    jax, library = pytest.importorskip("jax"), pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield library
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("subject", [name for name, (kind, _) in SUBJECTS.items() if kind is not Adam])
def test_every_step_is_that_of_optax(optax, subject):
    (kind, options), weights = SUBJECTS[subject], start()
    rates = optax.piecewise_constant_schedule(RATES[0], {boundary + 1: RATES[1] / RATES[0] for boundary in BOUNDARIES})
    if kind is Momentum:
        theirs = optax.sgd(rates, options["momentum"], options.get("nesterov", False))
    else:
        theirs = optax.adam(rates, options.get("beta1", 0.9), options.get("beta2", 0.999), options.get("epsilon", 1e-8))
    theirs = optax.chain(optax.add_decayed_weights(options.get("weight_decay", 0.0)), theirs)
    state = theirs.init(weights)
    for ours, given_gradients in zip(updated(kind, options), gradients(), strict=True):
        changes, state = theirs.update(given_gradients, state, weights)
        weights = [np.asarray(weight) for weight in optax.apply_updates(weights, changes)]
        assert_close(ours["weights"], weights)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-7), ("float32", 1e-5)])
def test_adam_is_that_of_keras(dtype, bound):
    """In float64 too Keras has its numbers in float32."""
    start, rng = np.random.default_rng(0).normal(size=(3, 4)), np.random.default_rng(1)
    ours, theirs = tf.Variable(start, dtype=dtype), keras.Variable(start, dtype=dtype)
    optimizer, keras_optimizer = Adam([ours], PiecewiseConstant([1e-3])), keras.optimizers.Adam(1e-3, epsilon=1e-8)
    for step in range(20):
        gradient = tf.constant(rng.normal(size=start.shape) * 10.0 ** rng.integers(-4, 2), dtype)
        optimizer.apply([gradient], step)
        keras_optimizer.apply([gradient], [theirs])
        np.testing.assert_allclose(ours - start, theirs - start, rtol=1e-4, atol=bound)
    assert np.abs(ours - start).max() > 1e-3


def test_the_two_forms_of_adam_differ_in_the_first_steps():
    """By how much, where g is constant: the first step is g/(|g| + ε) of the rate, or g/(|g| + ε/√(1 − β₂))."""
    steps = []
    for kind in (PyTorchAdam, Adam):
        variable = tf.Variable(0.0, dtype=tf.float64)
        kind([variable], PiecewiseConstant([1.0]), epsilon=1e-3).apply([tf.constant(0.1, tf.float64)], 0)
        steps.append(-variable.numpy())
    np.testing.assert_allclose(steps, [0.1 / 0.101, 0.1 / (0.1 + 1e-3 / np.sqrt(0.001))], rtol=1e-12)


@pytest.mark.parametrize("kind", [Adam, PyTorchAdam])
@pytest.mark.parametrize("way", ["eager", "function", "xla", "loop", "loop in xla"])
def test_adam_counts_its_updates_and_not_the_steps(kind, way):
    """Two in each of three steps, whose number stays 7: as six updates one after another."""
    variable, expected = tf.Variable([1.0, 2.0], dtype=tf.float64), tf.Variable([1.0, 2.0], dtype=tf.float64)
    optimizer, plain = (kind([v], PiecewiseConstant([0.1]), **BETAS) for v in (variable, expected))

    def step(number):
        for factor in (1.0, -3.0):
            optimizer.apply([factor * tf.cast(number, tf.float64) * variable], number)

    def three_steps():
        def following(done):
            step(seven)
            return [done + 1]

        tf.while_loop(lambda done: done < 3, following, [0])

    seven = tf.constant(7, tf.int64)
    if way.startswith("loop"):
        tf.function(three_steps, jit_compile=way.endswith("xla"), autograph=False)()
    else:
        repeated = step if way == "eager" else tf.function(step, jit_compile=way == "xla", autograph=False)
        for _ in range(3):
            repeated(seven)
    for _ in range(3):
        for factor in (1.0, -3.0):
            plain.apply([factor * 7.0 * expected], int(plain.count))
    assert int(optimizer.count) == int(plain.count) == 6
    np.testing.assert_allclose(variable, expected, rtol=1e-12)


def test_each_optimizer_of_a_variable_counts_its_own_updates():
    variable = tf.Variable(1.0)
    one, other = (Adam([variable], PiecewiseConstant([0.1])) for _ in range(2))
    for optimizer in (one, other, one):
        optimizer.apply([tf.constant(1.0)], 0)
    assert (int(one.count), int(other.count)) == (2, 1)


@pytest.mark.parametrize(("kind", "kept"), [(Momentum, ["momentum"]), (Adam, ["m", "v"])])
def test_what_an_optimizer_keeps(kind, kept):
    variables = [tf.Variable(np.ones((2, 3))), tf.Variable([1.0])]
    optimizer = kind(variables, PiecewiseConstant([0.1]))
    assert list(optimizer.state) == kept
    for slots in optimizer.state.values():
        assert [(slot.shape, slot.dtype) for slot in slots] == [((2, 3), tf.float64), ((1,), tf.float32)]
        assert not any(slot.trainable or np.any(slot) for slot in slots)
    assert (optimizer.count is None) == (kind is Momentum)


@pytest.mark.parametrize("kind", [Momentum, Adam])
def test_a_gradient_for_each_variable_is_needed(kind):
    optimizer = kind([tf.Variable(1.0), tf.Variable(2.0)], PiecewiseConstant([0.1]))
    with pytest.raises(ValueError, match="zip"):
        optimizer.apply([tf.constant(1.0)], 0)


# --- Clipping

values = arrays(np.float64, st.integers(1, 4), elements=st.floats(-1e6, 1e6, allow_subnormal=False))
bounds = st.floats(1e-3, 1e3)


@given(st.lists(values, min_size=1, max_size=3), bounds)
def test_clipping_shortens_what_is_longer_and_keeps_its_direction(given_gradients, bound):
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in given_gradients))
    clipped = [np.asarray(g) for g in clip_by_global_norm([tf.constant(g) for g in given_gradients], bound)]
    for actual, gradient in zip(clipped, given_gradients, strict=True):
        np.testing.assert_allclose(actual, gradient * min(1, bound / (norm + 1e-6)), rtol=1e-12, atol=1e-300)
    assert np.sqrt(sum(np.sum(gradient**2) for gradient in clipped)) <= bound * (1 + 1e-12)


@pytest.mark.parametrize("bound", [0.5, 3.0, 100.0])
def test_clipping_is_that_of_pytorch(bound):
    torch = pytest.importorskip("torch")
    weights = [torch.zeros(weight.shape, dtype=torch.float64, requires_grad=True) for weight in start()]
    for weight, gradient in zip(weights, gradients()[0], strict=True):
        weight.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(weights, bound)
    clipped = clip_by_global_norm([tf.constant(gradient) for gradient in gradients()[0]], bound)
    assert_close(clipped, [weight.grad.numpy() for weight in weights])


def test_clipping_hides_no_gradient_that_is_not_finite():
    for bad in (np.nan, np.inf):
        clipped = clip_by_global_norm([tf.constant([1.0, bad]), tf.constant([2.0])], 1.0)
        assert not np.all(np.isfinite(clipped[0]))


# --- Learning rates

schedules = st.lists(st.integers(0, 50), unique=True, max_size=4).map(sorted)


@given(schedules, st.integers(-1, 51))
def test_schedule_is_that_of_tensorflow_1(boundaries, step):
    rates = [0.5**k for k in range(len(boundaries) + 1)]
    schedule = PiecewiseConstant(rates, boundaries)
    theirs = rates[0]
    if boundaries:
        theirs = float(tf.compat.v1.train.piecewise_constant(tf.constant(step), boundaries, rates)())
    assert schedule(step) == theirs
    for dtype in (tf.int32, tf.int64):
        assert float(schedule(tf.constant(step, dtype))) == theirs


def test_old_rate_holds_at_the_boundary_itself():
    schedule = tf.function(PiecewiseConstant([0.1, 0.01, 0.001], [3, 5]))
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(8)]
    np.testing.assert_allclose(rates, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("rates", "boundaries", "message"),
    [
        ([0.1, 0.01], [], "2 learning rates need 1 boundaries, not 0"),
        ([0.1], [5], "1 learning rates need 0 boundaries, not 1"),
        ([], [], "0 learning rates need -1 boundaries"),
        ([0.1, 0.01, 0.001], [5, 3], r"must rise: \[5, 3\]"),
        ([0.1, 0.01, 0.001], [5, 5], r"must rise: \[5, 5\]"),
    ],
)
def test_schedules_without_sense_are_refused(rates, boundaries, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseConstant(rates, boundaries)
