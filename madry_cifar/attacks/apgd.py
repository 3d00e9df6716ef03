"""Auto-PGD: steps along the sign of the gradient, with momentum and a step size that is halved where it stalls.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020, Algorithm 1, with the published constants. Where their text and their code differ, as their code: a step size
is also halved when exactly 75 % of the steps raised the loss, and the momentum keeps the point before a step back.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from madry_cifar.attacks.losses import cross_entropy, lead, logit_gap
from madry_cifar.attacks.pgd import EOT
from madry_cifar.attacks.registry import Attack, Sizes, linf, register
from madry_cifar.attacks.restarts import first_error, is_settled, nearest_classes, put, rows_of, take
from madry_cifar.attacks.steps import averaged, gradient_of, per_image, project, random_start, where
from madry_cifar.predictor import Predictor
from madry_cifar.randomness import Draws

STEPS = 100
MOMENTUM = 0.75  # share of the new step; the rest is the last move
RISING = 0.75  # share of steps that must raise the loss between two checkpoints
TARGETS = 9  # classes aimed at, those ranked next to the true one


def difference_of_logits_ratio(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """DLR, −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3) [B] for logits [B, K ≥ 3]: unlike cross-entropy, it does not
    vanish where the network is sure, and does not change with the scale of its logits."""
    first, _, third = tf.unstack(tf.math.top_k(logits, 3).values, axis=1)
    return -lead(logits, labels) / (first - third + 1e-12)


def targeted_difference_of_logits_ratio(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Targeted DLR, −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2) [B] for logits [B, K ≥ 4]."""
    first, _, third, fourth = tf.unstack(tf.math.top_k(logits, 4).values, axis=1)
    return logit_gap(logits, labels, targets) / (first - (third + fourth) / 2 + 1e-12)


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved: after 22 % of them, then at intervals 3 % shorter each, at
    least 6 %. (22, 41, 57, 70, 80, 87, 93, 99 of 100.)"""
    interval, least, shorter = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, end = [], interval
    while end <= steps:
        found.append(end)
        interval = max(interval - shorter, least)
        end += interval
    return found


class _State(NamedTuple):
    """Of each image: where it is, and what the next checkpoint needs to know. Tensors with the batch first."""

    point: tf.Tensor
    last_point: tf.Tensor
    gradient: tf.Tensor
    loss: tf.Tensor
    wrong: tf.Tensor
    best: tf.Tensor  # the point of the largest loss or, once there is one, the first that the model gets wrong
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    step_size: tf.Tensor
    rises: tf.Tensor  # steps since the last checkpoint that raised the loss
    was_best_loss: tf.Tensor  # at the last checkpoint
    was_halved: tf.Tensor  # there


def apgd(
    predictor: Predictor,
    images: tf.Tensor,
    labels: tf.Tensor,
    start: tf.Tensor,
    loss: Callable,
    draws: Draws,
    *,
    epsilon,
    steps: int = STEPS,
    eot: int = 1,
    others: tuple = (),
) -> tf.Tensor:
    """Maximises `loss` in the ε-ball around each image, until the predictor is wrong.

    Args:
      predictor: what is attacked.
      images: [B, H, W, C] pixels in [0, 255].
      labels: [B] true classes.
      start: [B, H, W, C], in the ball.
      loss: maps logits [R, K], labels [R] and rows of `others` to a loss per image [R].
      draws: of the images, for a stochastic predictor.
      epsilon: radius of the ball, in grey levels.
      steps: number of steps.
      eot: gradients averaged at each point, each of another draw.
      others: further tensors [B] for `loss`.

    Returns:
      [B, H, W, C]: of each image the first point that the predictor got wrong, or else that of the largest loss; of a
      stochastic predictor always the latter, and all steps are taken.
    """
    epsilon = tf.cast(epsilon, images.dtype)
    ends = [0, *checkpoints(steps)]
    ends += [steps] * (ends[-1] < steps)
    starts = tf.constant(ends[:-1])
    lengths = tf.constant([end - start for start, end in itertools.pairwise(ends)])

    def interval(number, state):
        rows = rows_of(~state.wrong)
        evaluate = _evaluator(predictor, loss, eot, draws.take(rows), *take(rows, (labels, *others)))
        around, part = take(rows, (images, state))
        _, part = tf.while_loop(
            lambda _, part: ~tf.reduce_all(part.wrong),
            lambda step, part: (step + 1, _step(part, around, epsilon, evaluate, step)),
            (starts[number], part),
            maximum_iterations=lengths[number],
            parallel_iterations=1,
        )
        part = _check(part, tf.cast(lengths[number], images.dtype))
        return number + 1, put(rows, part, state)

    _, state = tf.while_loop(
        lambda number, state: (number < tf.size(lengths)) & ~tf.reduce_all(state.wrong),
        interval,
        (0, _begin(start, epsilon, _evaluator(predictor, loss, eot, draws, labels, *others))),
        parallel_iterations=1,
    )
    return state.best


def _evaluator(predictor, loss, eot, draws, labels, *others):
    """Maps points and the number of the query to the loss there, its gradient, and whether the image is settled."""
    predict = predictor.differentiable()

    def losses(points, number):
        logits = predict(points, draws.query(number)).logits
        judged = logits if predict is predictor else predictor(points, draws.query(number)).logits
        return loss(logits, labels, *others), is_settled(predictor, judged, labels)

    return averaged(gradient_of(losses), eot)


def _begin(start, epsilon, evaluate):
    loss, gradient, wrong = evaluate(start, 0)
    return _State(
        point=start,
        last_point=start,
        gradient=gradient,
        loss=loss,
        wrong=wrong,
        best=start,
        best_gradient=gradient,
        best_loss=loss,
        step_size=tf.zeros_like(loss) + 2 * epsilon,
        rises=tf.zeros_like(loss),
        was_best_loss=loss,
        was_halved=tf.ones_like(wrong),
    )


def _step(state, images, epsilon, evaluate, number):
    size, share = per_image(state.step_size), tf.cast(tf.where(number == 0, 1.0, MOMENTUM), images.dtype)
    ahead = project(state.point + size * tf.sign(state.gradient), images, epsilon)
    move = share * (ahead - state.point) + (1 - share) * (state.point - state.last_point)
    point = project(state.point + move, images, epsilon)
    loss, gradient, is_wrong = evaluate(point, number + 1)
    is_better = loss > state.best_loss
    return state._replace(
        point=point,
        last_point=state.point,
        gradient=gradient,
        loss=loss,
        wrong=state.wrong | is_wrong,
        best=where(~state.wrong & (is_better | is_wrong), point, state.best),
        best_gradient=where(is_better, gradient, state.best_gradient),
        best_loss=tf.where(is_better, loss, state.best_loss),
        rises=state.rises + tf.cast(loss > state.loss, loss.dtype),
    )


def _check(state, length):
    """At a checkpoint: halves the step size and goes back to the best point, where the loss has stalled."""
    oscillates = state.rises <= RISING * length
    has_stopped = ~state.was_halved & (state.best_loss <= state.was_best_loss)
    halve = oscillates | has_stopped
    return state._replace(
        point=where(halve, state.best, state.point),
        gradient=where(halve, state.best_gradient, state.gradient),
        step_size=tf.where(halve, state.step_size / 2, state.step_size),
        rises=tf.zeros_like(state.rises),
        was_best_loss=state.best_loss,
        was_halved=halve,
    )


LOSSES = {"ce": cross_entropy, "dlr": difference_of_logits_ratio}


def run_untargeted(predictor, images, labels, draws, *, loss, epsilon, restarts, randomized):
    """APGD-CE or APGD-DLR: from `restarts` random starts, until the predictor is wrong."""

    def attempt(number, rows, draws):
        around, true = take(rows, (images, labels))
        start, eot = random_start(around, epsilon, draws), EOT if randomized else 1
        return apgd(predictor, around, true, start, LOSSES[loss], draws, epsilon=epsilon, eot=eot)

    return first_error(predictor, images, labels, draws, attempt, restarts)


def run_targeted(predictor, images, labels, draws, *, epsilon, restarts):
    """APGD-T: toward each of the nine classes that are ranked next, from `restarts` random starts each."""
    classes, loss = nearest_classes(predictor, images, labels, draws, TARGETS), targeted_difference_of_logits_ratio

    def attempt(number, rows, draws):
        around, true, target = take(rows, (images, labels, classes[:, number // restarts]))
        start = random_start(around, epsilon, draws)
        return apgd(predictor, around, true, start, loss, draws, epsilon=epsilon, others=(target,))

    return first_error(predictor, images, labels, draws, attempt, classes.shape[1] * restarts)


def protocol(sizes: Sizes, loss: str, **more) -> dict:
    """What results files say of an APGD attack."""
    return linf(
        epsilon=sizes.epsilon,
        loss=loss,
        steps=STEPS,
        random_start=True,
        restarts=sizes.restarts,
        stops_at_error=True,
        **more,
    )


@register("apgd-(ce|dlr)", "apgd-ce", "apgd-dlr", restarts=True)
def _untargeted(match, sizes):
    return untargeted(match[1], sizes)


def untargeted(loss: str, sizes: Sizes, randomized: bool = False) -> Attack:
    """APGD-CE or APGD-DLR; for stochastic predictors, with gradients averaged over 20 passes."""
    settings = {"loss": loss, "epsilon": sizes.epsilon, "restarts": sizes.restarts, "randomized": randomized}
    more = {"eot": EOT} if randomized else {}
    name, least = f"apgd-{loss}", 3 if loss == "dlr" else 2
    return Attack(name, run_untargeted, protocol(sizes, loss, **more), settings, least_classes=least)


@register("apgd-t", "apgd-t", restarts=True)
def targeted(match, sizes) -> Attack:
    """APGD-T."""
    settings = {"epsilon": sizes.epsilon, "restarts": sizes.restarts}
    return Attack("apgd-t", run_targeted, protocol(sizes, "dlr-targeted", targets=TARGETS), settings, least_classes=4)
