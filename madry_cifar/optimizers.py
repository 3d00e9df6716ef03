"""The optimizer and the learning rate schedule of the released code."""

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


class Momentum:
    """Momentum in the form of TensorFlow 1 and PyTorch: a = m·a + g; w -= rate·a.

    Keras's SGD keeps rate·a instead, so that after each drop of the rate the old steps go on at the old rate.

    Attributes:
      slots: the accumulated gradients a, one variable for each of `variables`, in order.
    """

    def __init__(self, variables: Sequence[tf.Variable], schedule: PiecewiseConstant, momentum: float = 0.9):
        self.variables, self.schedule, self.momentum = list(variables), schedule, momentum
        self.slots = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]

    def apply(self, gradients: Sequence[tf.Tensor], step) -> None:
        """One update with the gradients of `variables`, in order, at the rate of `step`."""
        rate = tf.convert_to_tensor(self.schedule(step), tf.float64)
        for variable, slot, gradient in zip(self.variables, self.slots, gradients, strict=True):
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=slot.handle,
                lr=tf.cast(rate, variable.dtype),
                grad=gradient,
                momentum=tf.constant(self.momentum, variable.dtype),
            )
