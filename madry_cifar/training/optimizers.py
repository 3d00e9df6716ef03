"""Momentum, Adam and the learning rate schedule, in TensorFlow 1's form."""

import abc
import bisect
from collections.abc import Sequence

import tensorflow as tf


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


class Optimizer(abc.ABC):
    """Updates its variables, and no others.

    Attributes:
      variables: as given.
      schedule: the learning rate by step.
      state: what it keeps, by the names in `KEEPS`: for each a list with a variable for each of `variables`, in order.
    """

    KEEPS: tuple[str, ...]

    def __init__(self, variables: Sequence[tf.Variable], schedule: PiecewiseConstant):
        self.variables, self.schedule = list(variables), schedule
        self.state = {
            name: [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables] for name in self.KEEPS
        }

    @property
    def slots(self) -> list[tf.Variable]:
        """All that it keeps, in the order of `KEEPS` and then of `variables`."""
        return [slot for slots in self.state.values() for slot in slots]

    @abc.abstractmethod
    def apply(self, gradients: Sequence[tf.Tensor], step) -> None:
        """One update with the gradients of `variables`, in order, at the rate of `step` (counted from 0)."""


class Momentum(Optimizer):
    """Momentum in the form of TensorFlow 1 and PyTorch: a = m·a + g; w -= rate·a.

    Keras's SGD keeps rate·a instead, so that after each drop of the rate the old steps go on at the old rate.
    """

    KEEPS = ("momentum",)  # the accumulated gradients a

    def __init__(self, variables: Sequence[tf.Variable], schedule: PiecewiseConstant, momentum: float = 0.9):
        super().__init__(variables, schedule)
        self.momentum = momentum

    def apply(self, gradients, step):
        rate = tf.convert_to_tensor(self.schedule(step), tf.float64)
        for variable, slot, gradient in zip(self.variables, self.state["momentum"], gradients, strict=True):
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=slot.handle,
                lr=tf.cast(rate, variable.dtype),
                grad=gradient,
                momentum=tf.constant(self.momentum, variable.dtype),
            )


class Adam(Optimizer):
    """Adam (Kingma and Ba) in the form of TensorFlow and Keras: w -= rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε).

    m and v are running means of the gradient and of its square. The number t of updates is step + 1, so the correction
    of their start at zero needs no state of its own. `epsilon` is TensorFlow 1's default; Keras's is 1e-7.
    """

    KEEPS = ("m", "v")

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        schedule: PiecewiseConstant,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ):
        super().__init__(variables, schedule)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def apply(self, gradients, step):
        updates = tf.cast(step, tf.float64) + 1
        numbers = {
            "lr": self.schedule(step),
            "beta1": self.beta1,
            "beta2": self.beta2,
            "beta1_power": self.beta1**updates,
            "beta2_power": self.beta2**updates,
            "epsilon": self.epsilon,
        }
        numbers = {name: tf.convert_to_tensor(number, tf.float64) for name, number in numbers.items()}
        for variable, m, v, gradient in zip(self.variables, *self.state.values(), gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                grad=gradient,
                **{name: tf.cast(number, variable.dtype) for name, number in numbers.items()},
            )
