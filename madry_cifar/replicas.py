"""What a training step needs where it runs as several replicas, each on its rows of a batch (`tf.distribute`).

Where there is one replica, or none (outside `Strategy.run`), these functions change nothing. The loss of a step is
the mean of the replicas' losses; a distance between whole batches is computed by every replica, on what they `gather`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count() -> int:
    """Number of replicas that run the step together."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _index():
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)


def own(batch: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """This replica's part, along `axis`, of something that has one entry for each image of the whole batch."""
    if count() == 1:
        return batch
    size = tf.shape(batch)[axis] // count()
    return tf.gather(batch, _index() * size + tf.range(size), axis=axis)


def draw(function: Callable[..., tf.Tensor], shape, *args: Any, axis: int = 0) -> tf.Tensor:
    """This replica's part of a random draw for the whole batch: what an image gets does not depend on the replicas.

    Args:
      function: called as `function(shape, *args)`.
      shape: of the part.
      axis: of the images.
    """
    if count() == 1:
        return function(shape, *args)
    whole = tf.unstack(tf.convert_to_tensor(shape, tf.int32))
    whole[axis] *= count()
    return own(function(tf.stack(whole), *args), axis)


def gather(part: tf.Tensor) -> tf.Tensor:
    """The whole batch [B, …] from each replica's `part` [B / replicas, …], with its gradient."""
    if count() == 1:
        return part
    whole = tf.distribute.get_replica_context().all_gather(part, axis=0)
    return tf.ensure_shape(whole, [None, *part.shape[1:]])


def mean(values):
    """The mean over the replicas of each tensor of a structure."""
    if count() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Gives this replica's copy of a variable a value, unlike `variable.assign`; that all do so alike is up to you."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
