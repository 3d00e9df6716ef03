"""Momentum, Adam, clipping of gradients, and the learning rate schedule."""

import abc
import bisect
from collections.abc import Sequence

import tensorflow as tf

from madry_cifar import replicas


class PiecewiseConstant:
    """`rates[i]` between the boundaries i-1 and i; at a boundary itself still the old rate, as in TensorFlow 1.

    Raises:
      ValueError: unless the boundaries rise and there is one rate more than boundaries.
    """

    def __init__(self, rates: Sequence[float], boundaries: Sequence[int] = ()):
        if len(rates) != len(boundaries) + 1:
            raise ValueError(f"{len(rates)} learning rates need {len(rates) - 1} boundaries, not {len(boundaries)}")
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"the boundaries of the learning rates must rise: {list(boundaries)}")
        self.rates, self.boundaries = tuple(rates), tuple(boundaries)

    def __call__(self, step):
        """The rate at `step` (counted from 0): a float for an int, a scalar float64 tensor for a tensor."""
        if isinstance(step, int):
            return self.rates[bisect.bisect_left(self.boundaries, step)]
        passed = tf.reduce_sum(tf.cast(step > tf.constant(self.boundaries, step.dtype), tf.int32))
        return tf.gather(tf.constant(self.rates, tf.float64), passed)


def clip_by_global_norm(gradients: Sequence[tf.Tensor], bound: float) -> list[tf.Tensor]:
    """All gradients times min(1, bound/(‖g‖ + 1e-6)), where ‖g‖ is the l2 norm of all of them together.

    That is PyTorch's `clip_grad_norm_`; `tf.clip_by_global_norm` does without the 1e-6.
    """
    scale = tf.minimum(bound / (tf.linalg.global_norm(gradients) + 1e-6), 1)
    return [scale * gradient for gradient in gradients]


class Optimizer(abc.ABC):
    """Updates its variables, and no others.

    Args:
      variables: any number, of any floating point type.
      schedule: the learning rate by step.
      weight_decay: λ of coupled weight decay, for all of `variables`: λ·w is added to the gradient before anything
        else is done with it, as by PyTorch's optimizers.

    Attributes:
      state: what it keeps, by the names in `KEEPS`: for each a list with a variable for each of `variables`, in order.
      count: the number of its updates so far, scalar int64, where they depend on it; else None.
    """

    KEEPS: tuple[str, ...]
    count: tf.Variable | None = None

    def __init__(self, variables: Sequence[tf.Variable], schedule: PiecewiseConstant, *, weight_decay: float = 0.0):
        self.variables, self.schedule, self.weight_decay = list(variables), schedule, weight_decay
        self.state = {
            name: [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables] for name in self.KEEPS
        }

    def apply(self, gradients: Sequence[tf.Tensor], step) -> None:
        """One update with the gradients of `variables`, in order, at the rate of `step` (counted from 0)."""
        numbers = {"lr": self.schedule(step)} | self._numbers()
        numbers = {name: tf.convert_to_tensor(number, tf.float64) for name, number in numbers.items()}
        for variable, *slots, gradient in zip(self.variables, *self.state.values(), gradients, strict=True):
            if self.weight_decay:
                gradient += self.weight_decay * variable
            handles = [slot.handle for slot in slots]
            scalars = {name: tf.cast(number, variable.dtype) for name, number in numbers.items()}
            self._update(variable.handle, *handles, grad=gradient, **scalars)

    @abc.abstractmethod
    def _numbers(self) -> dict[str, float | tf.Tensor]:
        """Counts the update, where that matters, and gives its scalars, besides the rate, for `_update`."""

    @abc.abstractmethod
    def _update(self, variable, *slots, **arguments):
        """Updates one variable and what is kept of it, all given as resource handles."""


class Momentum(Optimizer):
    """Momentum in the form of TensorFlow 1 and PyTorch: a = m·a + g; w -= rate·a, or rate·(g + m·a) with `nesterov`.

    Keras's SGD keeps rate·a instead, so that after each drop of the rate the old steps go on at the old rate.
    """

    KEEPS = ("momentum",)  # the accumulated gradients a

    def __init__(
        self, variables, schedule, momentum: float = 0.9, *, nesterov: bool = False, weight_decay: float = 0.0
    ):
        super().__init__(variables, schedule, weight_decay=weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def _numbers(self):
        return {"momentum": self.momentum}

    def _update(self, variable, accumulated, **arguments):
        tf.raw_ops.ResourceApplyMomentum(var=variable, accum=accumulated, use_nesterov=self.nesterov, **arguments)


class Adam(Optimizer):
    """Adam (Kingma and Ba) in the form of TensorFlow and Keras: w -= rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε).

    m and v are running means of the gradient and of its square, t the number of this optimizer's updates. `epsilon` is
    TensorFlow 1's and PyTorch's default; Keras's is 1e-7.
    """

    KEEPS = ("m", "v")

    def __init__(
        self,
        variables,
        schedule,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ):
        super().__init__(variables, schedule, weight_decay=weight_decay)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.count = tf.Variable(0, dtype=tf.int64, trainable=False)

    def _numbers(self):
        count = self.count + 1
        replicas.assign(self.count, count)
        updates = tf.cast(count, tf.float64)
        powers = {"beta1_power": self.beta1**updates, "beta2_power": self.beta2**updates}
        return {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon} | powers

    def _update(self, variable, m, v, **arguments):
        tf.raw_ops.ResourceApplyAdam(var=variable, m=m, v=v, **arguments)


class PyTorchAdam(Adam):
    """Adam in the form of its paper's Algorithm 1 and of PyTorch: w -= rate · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε).

    It is TensorFlow's with ε·√(1 − β₂ᵗ) for ε.
    """

    def _numbers(self):
        numbers = super()._numbers()
        return numbers | {"epsilon": self.epsilon * tf.sqrt(1 - numbers["beta2_power"])}
