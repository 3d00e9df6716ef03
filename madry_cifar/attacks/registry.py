"""Attacks by name: "pgd-20", "cw-100x10", "fgsm", … as `--attacks` spells them, and how to add a name."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.predictor import Predictor


class Attack(NamedTuple):
    """An attack with its settings.

    Attributes:
      name: as the results call it.
      run: `run(predictor, images, labels, draws, **settings)` returns adversarial images [B, H, W, C]. What it does to
        an image depends on no other of the batch: `draws` (`randomness.Draws`) are each image's own. None for an attack
        with `stages`.
      protocol: what a results file says of it. With "norm" ("linf" or "l2") and "epsilon" or "radius" the evaluator
        holds it to that ball. If it says `stops_at_error`, an image is left alone from the first time on that the
        attacked network gets it wrong; never, if its outputs are random.
      settings: of `run`. The numbers among them may be tensors, so that a function compiled once serves all attacks
        that differ in these alone.
      stages: attacks that are run one after another, each on the images that have withstood all before.
      least_classes: that the predictor must have.
      refusal: called with the predictor, why it is none for this attack, or None.
    """

    name: str
    run: Callable[..., tf.Tensor] | None
    protocol: dict[str, Any]
    settings: Mapping[str, Any] = MappingProxyType({})
    stages: tuple["Attack", ...] = ()
    least_classes: int = 2
    refusal: Callable[[Predictor], str | None] = lambda predictor: None


class Sizes(NamedTuple):
    """What the flags say for all attacks that have such a thing: ε and step in grey levels, number of restarts."""

    epsilon: float = 8.0
    step_size: float = 2.0
    restarts: int = 1


class _Family(NamedTuple):
    pattern: str
    examples: tuple[str, ...]
    restarts: bool
    make: Callable[[re.Match, Sizes], Attack]


_FAMILIES: list[_Family] = []


def register(pattern: str, *examples: str, restarts: bool = False):
    """Adds names for `attack`: the decorated function gets the match of `pattern` with a name, and `Sizes`.

    `examples` are shown to who mistypes a name. With `restarts`, the names may end in xR, for R random starts.
    """

    def add(make):
        _FAMILIES.append(_Family(pattern, examples, restarts, make))
        return make

    return add


def attack(name: str, *, epsilon: float = 8.0, step_size: float = 2.0, restarts: int = 1) -> Attack:
    """The attack called `name`: natural, fgsm, fgsm-rs (random start), pgd-N or cw-N (N steps, random start), …

    Attacks with a random start are repeated from `restarts` of them, or from R if the name ends in xR (pgd-100x10),
    and an image counts as misclassified if it is after any of them.

    Raises:
      UsageError: for any other name, naming the nearest; for a negative ε or step.
    """
    for flag, value in (("epsilon", epsilon), ("step_size", step_size)):
        if not 0 <= value <= 255:
            raise UsageError(flag, value, "must be from 0 to 255 (grey levels; the paper's is 8 with steps of 2)")
    stem, repeats = re.fullmatch(r"(.*?)(?:x([1-9]\d*))?", name, re.DOTALL).groups()
    for family in _FAMILIES:
        match = re.fullmatch(family.pattern, stem)
        if match is None:
            continue
        if repeats and not family.restarts:
            raise UsageError("attacks", name, f"{stem} cannot be repeated from other starts, as pgd-N can")
        times = int(repeats or restarts) if family.restarts else 1
        made = family.make(match, Sizes(epsilon, step_size, times))
        return made._replace(name=f"{stem}x{times}" if times > 1 else stem)
    examples = [example for family in _FAMILIES for example in family.examples]
    numbered = next((example for example in examples if _is_numbered(name, example)), None)
    if numbered:
        start = numbered.rstrip("0123456789")
        what = f"N in {start}N is a whole number of steps"
        if re.match(r"[1-9]\d*x", name[len(start) :]):
            what = f"R in {start}NxR is a whole number of starts"
        raise UsageError("attacks", name, f"{what} from 1 on, as in {numbered}")
    raise unknown("attacks", name, examples)


def _is_numbered(name, example):
    """Whether a name that is no attack's starts as that of an example that ends in a number."""
    start = example.rstrip("0123456789")
    named = start.endswith("-") and name.lower().startswith(start)
    return named and not re.fullmatch(r"[1-9]\d*", name[len(start) :])


def takes_restarts(name: str) -> bool:
    """Whether `restarts` matters to the attack called `name`, which does not say itself how often it is repeated."""
    return any(family.restarts and re.fullmatch(family.pattern, name) for family in _FAMILIES)


def linf(**settings) -> dict[str, Any]:
    """The protocol of an L∞ attack with these settings, for `Attack`."""
    return {"norm": "linf", "pixel_range": list(PIXEL_RANGE), "batch_norm": "eval", "restarts": 1} | settings
