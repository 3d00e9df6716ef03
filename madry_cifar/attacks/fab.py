"""FAB: steps toward the linearised decision boundary and back toward the image, to the nearest adversarial image.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020: L∞,
targeted (FAB-T), with the published constants: 100 steps toward each of nine classes, from the image itself.
"""

import functools

import tensorflow as tf

from madry_cifar.attacks import restarts as attempts
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.steps import PIXEL_RANGE

STEPS = 100
TARGETS = 9  # classes aimed at, those ranked next to the true one
ALPHA_MAX = 0.1  # largest share of the image's own projection in a step
ETA = 1.05  # goes beyond the boundary
BETA = 0.9  # share of the way from the image that is kept once the boundary is crossed
TINY = 1e-6  # grey levels


def to_hyperplane(points: tf.Tensor, normal: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The move [B, D] of smallest L∞ norm that takes `points` to where a linear function is zero, within the pixels.

    All pixels move by the same δ in the direction that counts, or as far as they can: Σ|w| min(δ, room) = |value|.
    The left side is concave and piecewise linear in δ, so that Newton's method from zero is exact after a few steps.

    Args:
      points: [B, D] pixels in [0, 255].
      normal: [B, D] the function's gradient w.
      value: [B] its value at `points`. Where zero cannot be reached, the move is to the nearest corner.
    """
    direction = -tf.sign(value)[:, tf.newaxis] * tf.sign(normal)
    low, high = PIXEL_RANGE
    room = tf.where(direction > 0, high - points, tf.where(direction < 0, points - low, tf.zeros_like(points)))
    weight = tf.abs(normal)

    def newton(delta, _):
        is_free = room > delta[:, tf.newaxis]
        missing = tf.abs(value) - tf.reduce_sum(tf.where(is_free, tf.zeros_like(room), weight * room), axis=1)
        further = tf.math.divide_no_nan(missing, tf.reduce_sum(tf.where(is_free, weight, tf.zeros_like(room)), axis=1))
        return tf.maximum(delta, further), further > delta

    zero = tf.zeros_like(value)
    delta, _ = tf.while_loop(lambda _, moves: tf.reduce_any(moves), newton, (zero, zero >= 0), parallel_iterations=1)
    is_reachable = tf.reduce_sum(weight * room, axis=1) > tf.abs(value)
    delta = tf.where(is_reachable, delta, high - low)
    return direction * tf.minimum(delta[:, tf.newaxis], room)


def fab_toward(model, images: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, *, epsilon=0.0, steps: int = STEPS):
    """Looks for the nearest image that the model gets wrong, along the boundary to one other class.

    Args:
      model: called as `model(images, batch_norm="eval")`, returns `.logits` [B, K].
      images: [B, H, W, C] pixels in [0, 255], which the model gets right.
      labels, targets: [B] true classes, and those to go to.
      epsilon: an image is left alone once a wrong one is found within this distance.
      steps: number of steps.

    Returns:
      The nearest wrong images found [B, H, W, C] and their L∞ distances [B] (infinite where there is none).
    """
    epsilon = tf.cast(epsilon, images.dtype)

    def step(point, nearest, distance):
        rows = attempts.packed(distance > epsilon)
        part = [tf.gather(values, rows) for values in (images, labels, targets, point, nearest, distance)]
        new = _step(model, *part)
        return [
            attempts.put(values, rows, of_rows) for values, of_rows in zip((point, nearest, distance), new, strict=True)
        ]

    infinite = tf.fill(tf.shape(labels), tf.constant(float("inf"), images.dtype))
    _, nearest, distance = tf.while_loop(
        lambda point, nearest, distance: tf.reduce_any(distance > epsilon),
        step,
        [images, images, infinite],
        maximum_iterations=steps,
        parallel_iterations=1,
    )
    return nearest, distance


def _step(model, images, labels, targets, point, nearest, distance):
    def flat(values):
        return tf.reshape(values, [-1, images.shape[1] * images.shape[2] * images.shape[3]])

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = model(point, batch_norm="eval").logits
        gap = tf.gather(logits, targets, batch_dims=1) - tf.gather(logits, labels, batch_dims=1)
    normal = flat(tape.gradient(gap, point))
    here, start = flat(point), flat(images)
    from_here = to_hyperplane(here, normal, gap)
    from_start = to_hyperplane(start, normal, gap + tf.reduce_sum(normal * (start - here), axis=1))
    near, far = (tf.maximum(tf.reduce_max(tf.abs(move), axis=1), TINY) for move in (from_here, from_start))
    alpha = tf.minimum(near / (near + far), ALPHA_MAX)[:, tf.newaxis]
    moved = (1 - alpha) * (here + ETA * from_here) + alpha * (start + ETA * from_start)
    point = tf.reshape(tf.clip_by_value(moved, *PIXEL_RANGE), tf.shape(images))

    is_wrong = attempts.is_wrong(model, point, labels)
    reached = tf.reduce_max(tf.abs(flat(point - images)), axis=1)
    is_nearer = is_wrong & (reached < distance)
    nearest = tf.where(_by_image(is_nearer), point, nearest)
    back = images + BETA * (point - images)
    return tf.where(_by_image(is_wrong), back, point), nearest, tf.where(is_nearer, reached, distance)


def _by_image(values):
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def fab(model, images, labels, seed, *, epsilon):
    """FAB-T: toward each of the nine classes that are ranked next; [B, H, W, C], an image of its own where no wrong one
    was found within ε. `seed` does not matter: it starts at the image."""
    classes = attempts.ranked(model, images, labels, TARGETS)

    def attempt(number, rows):
        around, true, target = (tf.gather(values, rows) for values in (images, labels, classes[:, number]))
        nearest, distance = fab_toward(model, around, true, target, epsilon=epsilon)
        return tf.where(_by_image(distance <= tf.cast(epsilon, distance.dtype)), nearest, around)

    return attempts.first_error(model, images, labels, attempt, classes.shape[1])


@register("fab-t", "fab-t")
def _named(match, sizes):
    protocol = linf(epsilon=sizes.epsilon, steps=STEPS, targets=TARGETS, random_start=False, stops_at_error=True)
    return Attack("fab-t", functools.partial(fab, epsilon=sizes.epsilon), protocol)
