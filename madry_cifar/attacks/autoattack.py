"""AutoAttack: its attacks one after another, each on the images that have withstood those before.

Croce and Hein, ICML 2020, and their code's three versions (L∞):

    standard   APGD-CE, APGD-T, FAB-T, Square: the one that is reported, and what `autoattack` means
    plus       APGD-CE and APGD-DLR from five starts each, FAB-T, Square, APGD-T
    rand       APGD-CE and APGD-DLR with gradients averaged over 20 passes, for networks whose outputs are random
"""

from madry_cifar.attacks import apgd
from madry_cifar.attacks.registry import Attack, Sizes, attack, linf, register

STAGES = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-cex5", "apgd-dlrx5", "fab-t", "square", "apgd-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}


@register("autoattack(?:-(standard|plus|rand))?", "autoattack", "autoattack-plus", "autoattack-rand")
def version(match, sizes: Sizes) -> Attack:
    """The attack called autoattack (standard), autoattack-plus or autoattack-rand."""
    name = match[1] or "standard"
    if name == "rand":
        stages = tuple(apgd.untargeted(loss, sizes._replace(restarts=1), randomized=True) for loss in ("ce", "dlr"))
    else:
        stages = tuple(attack(stage, epsilon=sizes.epsilon) for stage in STAGES[name])
    protocol = linf(epsilon=sizes.epsilon, version=name, stages=list(STAGES[name]), stops_at_error=True)
    return Attack(match[0], None, protocol, stages=stages, least_classes=max(each.least_classes for each in stages))
