"""Checks that compare attacks with each other, image by image: one that ought to be weaker must not do better.

Differences are in points of accuracy on the same images; see `verdicts.Difference`. What is tolerated is what networks
show whose robustness has stood up to every attack (adversarial training, TRADES).
"""

import itertools

import numpy as np

from madry_cifar import attacks
from madry_cifar.evaluation.diagnosis.trials import RESCALED, SURROGATE, Case, Trial
from madry_cifar.evaluation.diagnosis.verdicts import NOT_MEASURED, OK, Difference, Finding, worst

STEPS = (1, 5, 10, 20, 50, 100)
EPSILONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 255.0)


def named(*names: str):
    """Trials of attacks by name, at the radius of the diagnosis."""

    def trials(case: Case) -> dict[str, Trial]:
        return {name: Trial(_attack(name, case.epsilon)) for name in names}

    return trials


def step_size(epsilon: float) -> float:
    """Of PGD and CW at a radius: a quarter of it, so that 20 steps can cross the ball (the paper's 2 of 8)."""
    return epsilon / 4


def _attack(name, epsilon):
    return attacks.attack(name, epsilon=epsilon, step_size=step_size(epsilon))


def difference(case: Case, stronger: str, weaker: str) -> Difference:
    """How many images a trial breaks that another one leaves, and the other way round."""
    breaks, leaves = ~case.right[stronger], case.right[weaker]
    return Difference(int((breaks & leaves).sum()), int((~breaks & ~leaves).sum()), len(leaves))


def _accuracies(case, *names):
    return {name: case.accuracy(name) for name in names}


def _in_words(case, *names):
    return ", ".join(f"{_title(name)} {case.accuracy(name):.1f} %" for name in names)


def _title(name):
    return name.upper().replace("X", "x")


# --- black-box

TRANSFER = "pgd-20 from the surrogate"


def transfer_trials(case: Case) -> dict[str, Trial]:
    """PGD-20 on the network and, if there is one, on the surrogate."""
    trial = Trial(_attack("pgd-20", case.epsilon))
    return {"pgd-20": trial} | ({TRANSFER: trial._replace(on=SURROGATE)} if case.has_surrogate else {})


def transfer(case: Case) -> Finding:
    """Nothing is tolerated: an attack that does not see the network's gradients must not break more images."""
    if not case.has_surrogate:
        return Finding(NOT_MEASURED, "needs another run of the same data (--surrogate_dir)", {})
    gain = difference(case, TRANSFER, "pgd-20")
    numbers = {"transfer": case.accuracy(TRANSFER), "white_box": case.accuracy("pgd-20")} | gain.numbers(0)
    evidence = (
        f"PGD-20 leaves {numbers['white_box']:.1f} %, made on the surrogate {numbers['transfer']:.1f} %: the "
        f"surrogate's images break {gain} more"
    )
    return Finding(gain.verdict(0), evidence, numbers)


# --- Square

GRADIENT = ("pgd-100", "apgd-ce")
SQUARE_TOLERANCE = 1.0


def square_trials(case: Case) -> dict[str, Trial]:
    """Square on what PGD-100 and APGD-CE leave."""
    square = Trial(_attack("square", case.epsilon), after=GRADIENT)
    return named(*GRADIENT)(case) | {"square": square}


def square(case: Case) -> Finding:
    """Images that a search without gradients breaks, and attacks along the gradient do not."""
    left = np.logical_and.reduce([case.right[name] for name in GRADIENT])
    broken = int((left & ~case.right["square"]).sum())
    gain = Difference(broken, 0, len(left))
    evidence = (
        f"of {left.sum()} images that PGD-100 and APGD-CE leave, Square breaks {broken}: {gain} of all"
        if left.any()
        else "PGD-100 and APGD-CE leave no image"
    )
    numbers = {"left": int(left.sum()), "broken": broken, "left_accuracy": 100 * float(left.mean())}
    return Finding(gain.verdict(SQUARE_TOLERANCE), evidence, numbers | gain.numbers(SQUARE_TOLERANCE))


# --- number of steps

STEPS_TOLERANCE = 2.0
FEW, MANY = "pgd-20", f"pgd-{STEPS[-1]}"
steps_trials = named("fgsm", *(f"pgd-{steps}" for steps in STEPS))


def steps(case: Case) -> Finding:
    """Between 20 and 100 steps accuracy must have come to rest; and one step of ε must not do better than 20."""
    fall, one = difference(case, MANY, FEW), difference(case, "fgsm", FEW)
    verdict = worst([fall.verdict(STEPS_TOLERANCE), one.verdict(0)])
    evidence = f"{_in_words(case, FEW, MANY)}: {fall} less"
    if one.verdict(0) != OK:
        evidence += f"; FGSM, one step, breaks {one} more than PGD-20"
    curve = _accuracies(case, *(f"pgd-{steps}" for steps in STEPS))
    numbers = {
        "accuracy": _accuracies(case, "natural", "fgsm") | curve,
        **fall.numbers(STEPS_TOLERANCE),
        "fgsm_against_pgd_20": one.numbers(0),
    }
    return Finding(verdict, evidence, numbers, {"steps": list(STEPS), "accuracy": list(curve.values())})


# --- radius

EPSILON_TOLERANCE = 1.0


def _at(case, radius):
    return "pgd-20" if radius == case.epsilon else f"pgd-20 at {radius:g}"


def epsilon_trials(case: Case) -> dict[str, Trial]:
    """PGD-20 at each radius, with steps of a quarter of it."""
    return {_at(case, radius): Trial(_attack("pgd-20", radius)) for radius in EPSILONS}


def epsilon(case: Case) -> Finding:
    """At ε = 255 any image may become any other, so nothing can be left; and a larger ball must not leave more."""
    names = [_at(case, radius) for radius in EPSILONS]
    left = Difference(int(case.right[names[-1]].sum()), 0, len(case.split))
    rises = [difference(case, smaller, larger) for smaller, larger in itertools.pairwise(names)]
    radius, rise = max(zip(EPSILONS[1:], rises, strict=True), key=lambda pair: pair[1].points)
    accuracy = [case.accuracy(name) for name in names]
    evidence = f"at ε = 255 PGD-20 leaves {left.more} of {left.images} images, {left}"
    below = [radius for radius, value in zip(EPSILONS, accuracy, strict=True) if value < 1]
    evidence += f"; less than 1 % from ε = {below[0]:g} on" if below else ""
    if rise.verdict(EPSILON_TOLERANCE) != OK:
        evidence += f"; ε = {radius:g} leaves {rise} more than half of it"
    numbers = {
        "step_size": "ε / 4",
        **left.numbers(EPSILON_TOLERANCE),
        "largest_rise": {"epsilon": radius} | rise.numbers(EPSILON_TOLERANCE),
    }
    verdict = worst([left.verdict(EPSILON_TOLERANCE), rise.verdict(EPSILON_TOLERANCE)])
    return Finding(verdict, evidence, numbers, {"epsilon": list(EPSILONS), "accuracy": accuracy})


# --- restarts

RESTARTS_TOLERANCE = 2.0
restarts_trials = named("pgd-20", "pgd-20x5")


def restarts(case: Case) -> Finding:
    """Where a start matters much, one start tells little."""
    gain = difference(case, "pgd-20x5", "pgd-20")
    evidence = f"{_in_words(case, 'pgd-20', 'pgd-20x5')}: five starts instead of one break {gain} more"
    numbers = {"accuracy": _accuracies(case, "pgd-20", "pgd-20x5")} | gain.numbers(RESTARTS_TOLERANCE)
    return Finding(gain.verdict(RESTARTS_TOLERANCE), evidence, numbers)


# --- scale of the logits

SCALE_TOLERANCE = 2.0
RESCALED_PGD = "pgd-20 on rescaled logits"


def scale_trials(case: Case) -> dict[str, Trial]:
    """PGD-20 on the network, and on its logits divided by their median margin."""
    trial = Trial(_attack("pgd-20", case.epsilon))
    return {"pgd-20": trial, RESCALED_PGD: trial._replace(on=RESCALED)}


def scale(case: Case) -> Finding:
    """Dividing the logits changes no prediction, so it must not help an attack."""
    gain, margins, rows = difference(case, RESCALED_PGD, "pgd-20"), case.margins, case.right["natural"]
    shifted = np.exp(case.logits[rows].astype(np.float64) - case.logits[rows].max(axis=1, keepdims=True))
    saturated = float((shifted.max(axis=1) / shifted.sum(axis=1) > 1 - 1e-7).mean())
    evidence = (
        f"the true class leads by {np.median(margins):.3g} (median), {saturated:.0%} of the softmax is "
        f"saturated; with logits divided by that lead PGD-20 breaks {gain} more"
    )
    numbers = {
        "median_margin": float(np.median(margins)),
        "saturated": 100 * saturated,
        "accuracy": {"pgd-20": case.accuracy("pgd-20"), "rescaled": case.accuracy(RESCALED_PGD)},
    }
    return Finding(gain.verdict(SCALE_TOLERANCE), evidence, numbers | gain.numbers(SCALE_TOLERANCE))


# --- margin losses

MARGIN_TOLERANCE = 5.0


def _pairs(case):
    """Attacks that differ in the loss alone, the margin's first. DLR needs three classes."""
    return [("cw-20", "pgd-20")] + [("apgd-dlr", "apgd-ce")] * (case.logits.shape[1] >= 3)


def margin_trials(case: Case) -> dict[str, Trial]:
    """PGD and APGD, each on cross-entropy and on a margin."""
    return named(*(name for pair in reversed(_pairs(case)) for name in reversed(pair)))(case)


def margin(case: Case) -> Finding:
    """The same steps along another loss: a margin does not vanish where the softmax saturates or was smoothed."""
    gains = {pair: difference(case, *pair) for pair in _pairs(case)}
    gains_in_words = [f"{_in_words(case, ce, margin)} ({value} less)" for (margin, ce), value in gains.items()]
    names = [name for pair in gains for name in pair]
    numbers = {"accuracy": _accuracies(case, *names)}
    for (stronger, weaker), value in gains.items():
        numbers[f"{stronger} against {weaker}"] = value.numbers(MARGIN_TOLERANCE)
    verdict = worst([value.verdict(MARGIN_TOLERANCE) for value in gains.values()])
    return Finding(verdict, "; ".join(gains_in_words), numbers)
