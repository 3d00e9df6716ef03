"""The training step as a compiled function: batch and augmentation on the device, replicas, several steps a call."""

import numpy as np
import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Dataset
from madry_cifar.training.method import Method
from madry_cifar.training.pictures import Seen, Shown
from madry_cifar.training.summaries import OWN


class Steps:
    """Repeats the `train_step` of a method on a data set's training images, which lie on each device.

    Args:
      method: its networks and optimizers were made in the scope of `strategy`.
      strategy: whose replicas share each batch equally.
      jit_compile: compile with XLA.
      steps_per_call: how many steps `train` takes at most.

    Raises:
      UsageError: for a batch that the replicas cannot share.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        *,
        strategy: tf.distribute.Strategy,
        jit_compile: bool = False,
        steps_per_call: int = 1,
    ):
        self.method, self.augment, self.strategy = method, dataset.augment, strategy
        self.steps_per_call, self.jit_compile = steps_per_call, jit_compile
        self.replicas, batch_size = strategy.num_replicas_in_sync, method.options.batch_size
        if batch_size % self.replicas:
            raise UsageError("batch_size", batch_size, f"{self.replicas} replicas cannot share it equally")
        self._arrays = [self._on_each_device(array) for array in (dataset.train.images, dataset.train.labels)]
        self._one = self._compile(self._one)
        self._several = self._compile(self._several)
        self._inspected = self._compile(self._inspected)
        self._histograms = self._compile(self._histograms)
        self._any = tf.function(self._any, autograph=False)

    def train(self, rows: np.ndarray, first: int):
        """Updates the networks with the batches of `rows` [k, B], one after another: the steps from `first` on.

        k is at most `steps_per_call`. A loss that is not finite ends it early.

        Returns:
          How many steps were taken; of the last one the losses by name, means over the replicas; and whether they are
          finite.
        """
        first = tf.constant(first, tf.int64)
        if self.steps_per_call == 1:
            return 1, *self._one(rows[0], first)
        missing = self.steps_per_call - len(rows)  # one shape, so that it is compiled once
        padded = np.pad(rows, [(0, missing), (0, 0)], mode="edge")
        taken, losses, finite = self._several(padded, first, tf.constant(len(rows)))
        return int(taken), losses, finite

    def inspect(self, rows: np.ndarray, step: int):
        """`inspect` for one replica's part of the batch of `rows` [B], on one device alone."""
        return self._inspected(rows[: len(rows) // self.replicas], tf.constant(step, tf.int64))

    def histograms(self, rows: np.ndarray, step: int):
        """The method's `histograms` of the same part of a batch."""
        return self._histograms(rows[: len(rows) // self.replicas], tf.constant(step, tf.int64))

    def any(self, condition: bool) -> bool:
        """Whether the condition holds for any worker. All workers must ask."""
        return bool(self._any(tf.constant(float(condition))))

    def _compile(self, function):
        return tf.function(function, jit_compile=self.jit_compile, autograph=False)

    def _on_each_device(self, array):
        if self.replicas == 1:
            return tf.constant(array)
        devices = self.strategy.extended.worker_devices  # of this process

        def copy(context):
            with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
                return tf.constant(array)

        return self.strategy.experimental_distribute_values_from_function(copy)

    def _batch(self, rows, step, images, labels):
        images = self.augment(tf.gather(images, rows), self.method.seed, step)
        return tf.cast(images, self.method.dtype), tf.gather(labels, rows)

    def _one(self, rows, step):
        losses = self.strategy.run(self._replica_step, args=(rows, step, *self._arrays))
        losses = {name: self._local(loss) for name, loss in losses.items()}
        return losses, tf.reduce_all([tf.math.is_finite(loss) for loss in losses.values()])

    def _replica_step(self, rows, step, images, labels):
        losses = dict(self.method.train_step(*self._batch(replicas.own(rows), step, images, labels), step))
        if replicas.count() > 1:
            self._average_statistics()
        return replicas.mean(losses)

    def _average_statistics(self):
        """Batch norm's running statistics become their mean over the replicas.

        They move towards each batch's by a fixed share, so this is as if each move had been towards the mean.
        """
        statistics = [v.value for network in self.method.networks.values() for v in network.non_trainable_variables]
        for variable, value in zip(statistics, replicas.mean([tf.identity(v) for v in statistics]), strict=True):
            replicas.assign(variable, value)

    def _local(self, value):
        return self.strategy.experimental_local_results(value)[0]

    def _several(self, rows, first, count):
        specs = tf.TensorSpec(rows.shape[1:], rows.dtype), tf.TensorSpec([], first.dtype)
        one = self._one.get_concrete_function(*specs)  # traced once, for its outputs and for the loop

        def next_step(taken, losses, finite):
            return taken + 1, *one(rows[taken], first + tf.cast(taken, first.dtype))

        losses, _ = one.structured_outputs
        start = 0, {name: tf.zeros(loss.shape, loss.dtype) for name, loss in losses.items()}, True
        return tf.while_loop(
            lambda taken, losses, finite: finite & (taken < count), next_step, start, parallel_iterations=1
        )

    def _inspected(self, rows, step):
        return inspect(self.method, *self._local_batch(rows, step), step)

    def _histograms(self, rows, step):
        return dict(self.method.histograms(*self._local_batch(rows, step), step))

    def _local_batch(self, rows, step):
        return self._batch(rows, step, *map(self._local, self._arrays))

    def _any(self, condition):
        def share():
            return replicas.mean(tf.identity(condition))  # on the replica's device

        return self._local(self.strategy.run(share)) > 0


def inspect(method: Method, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor):
    """The batch of a step: accuracies in percent and size of the perturbation; the images as they are `Shown`.

    Of a method that shows `samples` instead, no accuracies and these. Nothing is updated.
    """
    if (samples := method.samples()) is not None:
        return {}, samples

    def seen(batch):
        logits = method.watched_logits(batch, step)
        return Seen(batch, tf.argmax(logits, axis=1, output_type=labels.dtype))

    def accuracy(seen):
        return 100 * tf.reduce_mean(tf.cast(seen.predicted == labels, tf.float32))

    natural = seen(images)
    scalars = {"batch/natural_accuracy": accuracy(natural)}
    adversarial = method.adversarial_images(images, labels, step)
    if adversarial is None:
        return scalars, Shown(labels, natural)
    size = tf.abs(adversarial - images)
    perturbed = seen(adversarial)
    scalars |= {OWN: accuracy(perturbed), "perturbation/mean_absolute": tf.reduce_mean(size)}
    if method.perturbation_bound is not None:
        at_bound = tf.cast(size >= method.perturbation_bound * (1 - 1e-4), tf.float32)
        scalars["perturbation/percent_at_epsilon"] = 100 * tf.reduce_mean(at_bound)
    return scalars, Shown(labels, natural, perturbed)
