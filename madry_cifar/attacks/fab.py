"""FAB: steps toward the linearised decision boundary and back toward the image, to the nearest adversarial image.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020: L∞,
targeted (FAB-T), with the published constants: 100 steps toward each of nine classes, from the image itself.
"""

import tensorflow as tf

from madry_cifar.attacks.losses import is_wrong, logit_gap
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.restarts import LOOK_AGAIN, first_error, nearest_classes, put, rows_of, take
from madry_cifar.attacks.steps import PIXEL_RANGE, gradient_of, where
from madry_cifar.predictor import Predictor
from madry_cifar.randomness import Draws

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


def fab_toward(
    predictor: Predictor,
    images: tf.Tensor,
    labels: tf.Tensor,
    targets: tf.Tensor,
    draws: Draws,
    *,
    epsilon=0.0,
    steps: int = STEPS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks for the nearest image that the predictor gets wrong, along the boundary to one other class.

    Args:
      predictor: what is attacked.
      images: [B, H, W, C] pixels in [0, 255], which the predictor gets right.
      labels, targets: [B] true classes, and those to go to.
      draws: of the images, for a stochastic predictor.
      epsilon: an image is left alone once a wrong one is found within this distance.
      steps: number of steps.

    Returns:
      The nearest wrong images found [B, H, W, C] and their L∞ distances [B] (infinite where there is none).
    """
    epsilon = tf.cast(epsilon, images.dtype)

    def step(number, *state):
        rows = rows_of(state[-1] > epsilon)
        new = _step(predictor, number, *take(rows, (images, labels, targets)), draws.take(rows), *take(rows, state))
        return number + 1, *put(rows, new, state)

    infinite = tf.fill(tf.shape(labels), tf.constant(float("inf"), images.dtype))
    return tf.while_loop(
        lambda number, point, nearest, distance: tf.reduce_any(distance > epsilon),
        step,
        (0, images, images, infinite),
        maximum_iterations=steps,
        parallel_iterations=1,
    )[2:]


def _step(predictor, number, images, labels, targets, draws, point, nearest, distance):
    def flat(values):
        return tf.reshape(values, [-1, images.shape[1] * images.shape[2] * images.shape[3]])

    predict = predictor.differentiable()
    gap, normal, _ = gradient_of(lambda at, query: logit_gap(predict(at, draws.query(query)).logits, labels, targets))(
        point, number
    )
    normal, here, start = flat(normal), flat(point), flat(images)
    from_here = to_hyperplane(here, normal, gap)
    from_start = to_hyperplane(start, normal, gap + tf.reduce_sum(normal * (start - here), axis=1))
    near, far = (tf.maximum(tf.reduce_max(tf.abs(move), axis=1), TINY) for move in (from_here, from_start))
    alpha = tf.minimum(near / (near + far), ALPHA_MAX)[:, tf.newaxis]
    moved = (1 - alpha) * (here + ETA * from_here) + alpha * (start + ETA * from_start)
    point = tf.reshape(tf.clip_by_value(moved, *PIXEL_RANGE), tf.shape(images))

    wrong = is_wrong(predictor(point, draws.query(LOOK_AGAIN - 1 - number)).logits, labels)
    reached = tf.reduce_max(tf.abs(flat(point - images)), axis=1)
    nearer = wrong & (reached < distance)
    back = images + BETA * (point - images)
    return where(wrong, back, point), where(nearer, point, nearest), tf.where(nearer, reached, distance)


def fab(predictor, images, labels, draws, *, epsilon):
    """FAB-T: toward each of the nine classes that are ranked next; [B, H, W, C], an image of its own where no wrong one
    was found within ε. It starts at the image."""
    classes = nearest_classes(predictor, images, labels, draws, TARGETS)

    def attempt(number, rows, draws):
        around, true, target = take(rows, (images, labels, classes[:, number]))
        nearest, distance = fab_toward(predictor, around, true, target, draws, epsilon=epsilon)
        return where(distance <= tf.cast(epsilon, distance.dtype), nearest, around)

    return first_error(predictor, images, labels, draws, attempt, classes.shape[1])


@register("fab-t", "fab-t")
def _named(match, sizes):
    protocol = linf(epsilon=sizes.epsilon, steps=STEPS, targets=TARGETS, random_start=False, stops_at_error=True)
    return Attack("fab-t", fab, protocol, {"epsilon": sizes.epsilon})
