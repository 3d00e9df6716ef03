"""The MultiTargeted attack: PGD toward each class in turn, on the difference of two logits.

Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019: where cross-entropy follows the
nearest class alone and may be caught in front of it, z_t − z_y is climbed for every class t. Here L∞, sign steps of
`--step_size`, 100 of them from a random start toward each of the nine classes with the next largest logits.
"""

from madry_cifar.attacks.losses import logit_gap
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.restarts import first_error, nearest_classes, take
from madry_cifar.attacks.steps import climb, gradient_of, random_start

STEPS = 100
TARGETS = 9


def multitargeted(predictor, images, labels, draws, *, epsilon, step_size, restarts):
    """[B, H, W, C]: of each image the first attempt's result that the predictor gets wrong, or else the last one's."""
    classes, predict = nearest_classes(predictor, images, labels, draws, TARGETS), predictor.differentiable()

    def attempt(number, rows, draws):
        around, true, target = take(rows, (images, labels, classes[:, number // restarts]))
        estimate = gradient_of(lambda point, query: logit_gap(predict(point, draws.query(query)).logits, true, target))
        return climb(estimate, around, random_start(around, epsilon, draws), epsilon, step_size, STEPS)

    return first_error(predictor, images, labels, draws, attempt, classes.shape[1] * restarts)


@register("multitargeted", "multitargeted", restarts=True)
def _named(match, sizes):
    settings = sizes._asdict()
    protocol = linf(
        **settings,
        loss="logit difference",
        steps=STEPS,
        targets=TARGETS,
        random_start=True,
        stops_at_error=True,
    )
    return Attack("multitargeted", multitargeted, protocol, settings)
