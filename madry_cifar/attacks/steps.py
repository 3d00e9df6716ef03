"""The loop of attacks that follow a gradient: where they start, how they step, and how they stay in the ball."""

from collections.abc import Callable

import tensorflow as tf

from madry_cifar import replicas
from madry_cifar.randomness import uniform

PIXEL_RANGE = (0.0, 255.0)


def project(adversarial: tf.Tensor, images: tf.Tensor, epsilon) -> tf.Tensor:
    """The nearest point to `adversarial` in the ε-ball around `images`, then in the range of pixels."""
    return tf.clip_by_value(tf.clip_by_value(adversarial, images - epsilon, images + epsilon), *PIXEL_RANGE)


def _draws(shape, seed, *args):
    """Uniform draws [B, H, W, C] from a seed [2] or, from a seed [B, 3], rows of several such draws; see `pgd`."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return uniform(shape, seed, *args)
    batches, rows = seed[:, :2], seed[:, 2]

    def fill(found, batch):
        is_from = tf.reduce_all(batches == batch, axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.where(is_from, tf.gather(uniform(shape, batch, *args), rows), found)

    distinct, _ = tf.raw_ops.UniqueV2(x=batches, axis=[0])
    return tf.foldl(fill, tf.reshape(distinct, [-1, 2]), initializer=tf.zeros(shape, args[-1]))


def noisy(images: tf.Tensor, epsilon, seed) -> tf.Tensor:
    """A point drawn uniformly from the ε-ball around `images`, which may be outside the range of pixels."""
    noise = replicas.draw(_draws, tf.shape(images), seed, -1, 1, images.dtype)
    return images + number(epsilon, images.dtype) * noise


def random_start(images: tf.Tensor, epsilon, seed) -> tf.Tensor:
    """The same, clipped to the range of pixels."""
    return tf.clip_by_value(noisy(images, epsilon, seed), *PIXEL_RANGE)


def number(value, dtype):
    """A number or scalar tensor as a tensor of a type (`tf.cast` would take a float through float32)."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def sign_steps(
    loss: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, start: tf.Tensor, *, epsilon, step_size, steps
) -> tf.Tensor:
    """From `start`, goes `steps` times by `step_size` along the sign of the gradient of `loss`, projecting each time.

    `loss` maps images [B, H, W, C] to a loss per image [B], or to one of the batch [], to be maximised.
    """
    epsilon, step_size = number(epsilon, images.dtype), number(step_size, images.dtype)

    def step(adversarial):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(adversarial)
            total = tf.reduce_sum(loss(adversarial))
        return [project(adversarial + step_size * tf.sign(tape.gradient(total, adversarial)), images, epsilon)]

    if replicas.count() > 1:  # inside a loop of the graph they could not exchange batch norm's statistics
        for _ in range(int(tf.get_static_value(steps))):
            (start,) = step(start)
        return start
    return tf.while_loop(
        lambda _: True, step, [start], maximum_iterations=number(steps, tf.int32), parallel_iterations=1
    )[0]
