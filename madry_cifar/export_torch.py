"""Writes a run's network as a state_dict of PyTorch, by the names that the code of its authors has.

python -m madry_cifar.export_torch --train_dir=runs/trades --output=trades.pt
"""

from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Checkpoint, required
from madry_cifar.import_torch import EPSILON
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import checkpoints, pytorch, run_folder, torch_files

# the defences whose code has `pytorch.UNUSED`, and misses it in a state_dict
UNUSED_OF = ("trades", "l2l", "adt_exp", "adt_expam", "adt_impam")


class ExportTorchSettings(Checkpoint):
    """What is written where."""

    output: str = required("file to write", kind="path")


def main() -> None:
    """Exports as the flags say."""
    settings = flags.read(ExportTorchSettings)
    run_flags = run_folder.ADDED | run_folder.read_flags(settings.train_dir)
    architecture, epsilon = run_flags["architecture"], run_flags["batch_norm_epsilon"]
    if architecture not in pytorch.LAYOUTS:
        known = ", ".join(pytorch.LAYOUTS)
        reason = f"has --architecture={architecture}, which is of no PyTorch code that is known; {known} are"
        raise UsageError("train_dir", settings.train_dir, reason)
    if epsilon != EPSILON:
        reason = f"has --batch_norm_epsilon={epsilon}, where that code has {EPSILON}"
        raise UsageError("train_dir", settings.train_dir, reason)
    step, path = checkpoints.find(settings.train_dir, settings.checkpoint)
    unused = architecture == "standard" and run_flags["defense"] in UNUSED_OF
    arrays = pytorch.state_dict(checkpoints.read(path), architecture, run_flags["depth"], unused)
    torch_files.save(settings.output, arrays)
    print(
        f"step {step}: {len(arrays)} tensors of {name_of(run_flags)} in {settings.output}; "
        f"it takes pixels scaled by {run_flags['input_scaling']}"
    )


def command() -> None:
    """Entry point."""
    flags.define("Export", ExportTorchSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
