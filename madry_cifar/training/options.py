"""The hyper-parameters of a training: one dataclass, from which its command-line flags are made."""

import dataclasses
from typing import Any

from madry_cifar.cli.errors import UsageError, text
from madry_cifar.cli.settings import Settings, option
from madry_cifar.training.optimizers import PiecewiseConstant


class TrainingOptions(Settings):
    """What every training has, that of a defence and that of an attack; each adds its own fields and defaults.

    Raises:
      UsageError: naming the option, for a value that it does not take.
    """

    batch_size: int = option(128, "images per step", minimum=1)


class Options(TrainingOptions):
    """What every defence has."""

    steps: int = option(80_000, "training steps in all", minimum=0)
    epochs: int = option(0, "training epochs in all, in place of --steps; 0 for none", minimum=0)
    learning_rates: tuple[float, ...] = option((0.1, 0.01, 0.001), "of the classifier, one after another", minimum=0)
    learning_rate_boundaries: tuple[int, ...] = option(
        (40_000, 60_000), "steps after which the next one holds", minimum=0
    )
    learning_rate_epochs: tuple[int, ...] = option(
        (), "epochs after which the next one holds, in place of --learning_rate_boundaries", minimum=1
    )
    momentum: float = option(0.9, "of every optimizer", minimum=0, maximum=1)
    weight_decay: float = option(2e-4, "factor of the sum of weight²/2 in the classifier's loss", minimum=0)
    weight_decay_on: str = option(
        "kernels",
        "the weights in that sum: kernels (TensorFlow 1 code), or all, with batch norm's and biases (PyTorch code)",
        choices=("kernels", "all"),
    )

    def __post_init__(self):
        super().__post_init__()
        boundaries = "learning_rate_epochs" if self.learning_rate_epochs else "learning_rate_boundaries"
        value = getattr(self, boundaries)
        try:
            PiecewiseConstant(self.learning_rates, value)
        except ValueError as error:
            raise UsageError(
                "learning_rates", self.learning_rates, f"with --{boundaries}={text(value)}: {error}"
            ) from None

    def in_steps(self, steps_per_epoch: int) -> "Options":
        """The same with epochs counted in steps, `steps_per_epoch` of them each.

        An epoch's first step has that epoch's rate, while the step at a boundary still has the old one.
        """
        changes: dict[str, Any] = {}
        if self.epochs:
            changes |= {"steps": self.epochs * steps_per_epoch, "epochs": 0}
        if self.learning_rate_epochs:
            boundaries = tuple(epoch * steps_per_epoch - 1 for epoch in self.learning_rate_epochs)
            changes |= {"learning_rate_boundaries": boundaries, "learning_rate_epochs": ()}
        return dataclasses.replace(self, **changes)

    def schedule(self) -> PiecewiseConstant:
        """The classifier's learning rate over the steps.

        Raises:
          ValueError: while it is counted in epochs; see `in_steps`.
        """
        if self.epochs or self.learning_rate_epochs:
            raise ValueError("a schedule in epochs must first be counted in steps, by in_steps(steps_per_epoch)")
        return PiecewiseConstant(self.learning_rates, self.learning_rate_boundaries)
