"""Turns the published PyTorch weights of a defence's authors into a run, to be evaluated, diagnosed and exported.

  python -m madry_cifar.import_torch --defense=trades --checkpoint=model_cifar_wrn.pt --train_dir=runs/published_trades

--defense says whose they are: it decides what is done with pixels before the first layer. Architecture, depth, width
and number of classes are read from the file; other settings are the defence's own unless given. Nothing in it is run.
docs/published_weights.md has whose weights are read, and which numbers were published for them.
"""

from collections.abc import Mapping
from typing import Any

from madry_cifar import train
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Settings, required
from madry_cifar.import_tf1 import options_of
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import pytorch, run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from madry_cifar.runs.foreign import agreed
from madry_cifar.training import registry
from madry_cifar.training.construction import build
from madry_cifar.training.settings import TrainSettings

# What the authors' codes do with pixels, by architecture and, of wide ResNets, by defence; and whose each is.
SCALINGS = {"resnet_pad": "imagenet", "resnet_append": "cifar10", "resnet18": "cifar10"}
WIDE_SCALINGS = {
    **dict.fromkeys(("trades", "l2l", "adt_exp", "adt_expam", "adt_impam"), "unit"),
    **dict.fromkeys(("featscatter", "adv_interp"), "signed"),
}
DEFENSES = {"resnet_pad": "l2l_da", "resnet_append": "learn2perturb", "resnet18": "learn2perturb"}
EPSILON = 1e-5  # of batch norm, in all of them


class ImportSettings(Settings):
    """What is read."""

    checkpoint: str = required("file of torch.save: a state_dict, or a dictionary of it and other things", kind="path")


def main() -> None:
    """Imports as the flags say."""
    found = pytorch.read(flags.read(ImportSettings).checkpoint)
    settings = flags.read(TrainSettings, **settings_of(found, flags.given(TrainSettings)))
    run_flags = train.flags_of(settings, options_of(settings), found.num_classes)
    defense = build(run_flags)
    without = pytorch.assign(defense, found)
    folder = run_folder.create(settings.train_dir, run_flags)
    Checkpoints(folder, defense.networks, defense.optimizers).save(0)
    notes = [f"left out: {', '.join(found.left_out)}"] * bool(found.left_out)
    notes += [f"with its first weights: {', '.join(without)}"] * bool(without)
    print(
        f"{len(found.arrays)} tensors of {name_of(run_flags)}, {found.num_classes} classes, pixels scaled by "
        f"{settings.input_scaling}: now step 0 of a run of --defense={settings.defense} in {folder}"
        + "".join(f"; {note}" for note in notes)
    )


def settings_of(found: pytorch.Found, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint decides, with the defence's scaling and batch norm as its authors have them.

    Raises:
      UsageError: where others were `given`, or what a checkpoint does not tell was not.
    """
    architecture = found.architecture
    read = {"architecture": architecture, "depth": found.depth, "width": found.width}
    read = agreed(read, found.num_classes, given)
    defense = given.get("defense", DEFENSES.get(architecture))
    if not defense:
        whose = f"{', '.join(WIDE_SCALINGS)}; or at or natural, with --input_scaling"
        raise UsageError("defense", "", f"required: whose wide ResNet it is, which the file does not tell: {whose}")
    registry.find(defense)
    scaling = given.get("input_scaling", SCALINGS.get(architecture, WIDE_SCALINGS.get(defense)))
    if not scaling:
        reason = f"required with --defense={defense}, whose weights may be of anybody: unit, signed, …"
        raise UsageError("input_scaling", "", reason)
    epsilon = given.get("batch_norm_epsilon", EPSILON)
    return read | {"defense": defense, "input_scaling": scaling, "batch_norm_epsilon": epsilon}


def command() -> None:
    """Entry point."""
    registry.installed()  # whose options are flags
    flags.define("Import", ImportSettings)
    unknown = {"default": None}  # until the checkpoint is read
    read = ("dataset", "depth", "width", "architecture", "input_scaling", "batch_norm_epsilon")
    train.define_flags(None, **dict.fromkeys(read, unknown))
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
