"""What an evaluation measures: entries of a results file, each from one attack or from several."""

import dataclasses
from collections.abc import Callable, Mapping

from madry_cifar import attacks
from madry_cifar.attacks.registry import Attack
from madry_cifar.evaluation.evaluator import Outcome


class Task:
    """One attack to measure, for one entry of a results file. A subclass may fill several from several attacks.

    Attributes:
      names: of the entries.
    """

    TOLD = ("accuracy_after",)  # in the entries' protocols beside the attack's own

    def __init__(self, attack: Attack):
        self.attack, self.names = attack, (attack.name,)

    def check(self, attacked: Mapping, epsilon: float) -> None:
        """Raises UsageError if this cannot be measured at ε, on the network that `attacked` tells of."""

    def is_of(self, protocol: Mapping) -> bool:
        """Whether an entry with this protocol is what would be measured."""
        return {name: value for name, value in protocol.items() if name not in self.TOLD} == self.attack.protocol

    def outcomes(self, measure: Callable[..., Outcome]) -> dict[str, Outcome]:
        """By entry.

        `measure(attack, part="", earlier=None)` attacks all images or, with the outcome of an `earlier` attack, those
        still classified correctly there; a `part` tells apart several calls.
        """
        if not self.attack.stages:
            return {self.attack.name: measure(self.attack)}
        outcomes = [measure(attacks.attack("natural"), part="natural")]
        for stage in self.attack.stages:
            outcomes.append(measure(stage, part=stage.name, earlier=outcomes[-1]))
        names = ("natural", *(stage.name for stage in self.attack.stages))
        after = {name: outcome.accuracy for name, outcome in zip(names, outcomes, strict=True)}
        return {self.attack.name: telling(_altogether(outcomes[1:], self.attack), accuracy_after=after)}


def telling(outcome: Outcome, **protocol) -> Outcome:
    """The outcome, its attack's protocol with more in it."""
    attack = outcome.attack._replace(protocol=outcome.attack.protocol | protocol)
    return dataclasses.replace(outcome, attack=attack)


def _altogether(stages, attack):
    """The outcome of an attack whose stages had these outcomes, each starting from the one before.

    It has no images per second, as each stage attacks other numbers of images: all count as compiled.
    """
    attacked, linf = stages[0].attacked, max(stage.linf for stage in stages)
    sums = {name: sum(getattr(stage, name) for stage in stages) for name in ("seconds", "compiled_seconds")}
    return dataclasses.replace(
        stages[-1], attack=attack, attacked=attacked, compiled_images=attacked, linf=linf, **sums
    )
