"""Brings home what train_xla.py has trained elsewhere: a run as if it had been trained here.

  python -m madry_cifar.import_xla --folder=rvs.training/run --train_dir=runs/rvs_gpu

--folder is the runner's --output. Its checkpoint, the weights that it kept on the way and its curves become those of a
run, to be evaluated, diagnosed, exported, and trained on by the same command as any other. Kept weights are in half
precision and without momentum. The same command again takes what has come since.
"""

import contextlib
import json
import pathlib
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Checkpoint, Settings, like, required
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from madry_cifar.training import registry
from madry_cifar.training.construction import build


class ImportSettings(Settings):
    """What is brought where."""

    folder: str = required("what train_xla.py wrote: its --output", kind="path")
    train_dir: str = like(Checkpoint, "train_dir", help="folder of the run that it becomes")


def main() -> None:
    """Imports as the flags say."""
    settings = flags.read(ImportSettings)
    source = pathlib.Path(settings.folder)
    about, elsewhere = _read_about(source), _read_log(source)
    run_flags = about["flags"] | {"steps": elsewhere.pop("end") or about["steps"]}
    method = build(run_flags)
    state = checkpoints.flat_state(method.networks, method.optimizers)
    first = {name: variable.numpy() for name, variable in state.items()}
    found = list(_stored(source, first))
    if not found:
        raise UsageError("folder", source, "holds no checkpoint-N.npz or weights-N.npz of train_xla.py")
    last = max(found, key=lambda stored: stored["step"])
    elsewhere["updates"] = updates = int(last["update"]) - about["checkpoint"]
    elsewhere["steps_per_update"] = round((int(last["step"]) - about["checkpoint"]) / max(updates, 1), 4)
    with run_folder.trained_alone(settings.train_dir):
        there = checkpoints.saved_steps(settings.train_dir)
        folder = run_folder.create(settings.train_dir, run_flags, about["provenance"], elsewhere)
        for stored in found:
            step, whole = int(stored.pop("step")), stored.keys() >= state.keys()
            del stored["update"]
            if whole or step not in there:  # weights alone take the place of nothing
                checkpoints.assign(state, first | stored, str(source))
                Checkpoints(folder, method.networks, method.optimizers, keep=0).save(step)
        for path in source.glob("events.*"):
            shutil.copy(path, folder)
    steps = checkpoints.saved_steps(folder)
    notes = "" if whole else "; the last one has weights in half precision and no momentum"
    print(
        f"{about['defense']}, {name_of(run_flags)}, {elsewhere['updates']} updates on {elsewhere['device']}: now steps "
        f"{', '.join(map(str, steps))} of a run in {folder}{notes}"
    )


def _stored(folder: pathlib.Path, like: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """What the files hold: the weights on the way, then the latest checkpoint; those that cannot be read are told of.

    Raises:
      RunError: for what belongs to another network.
    """
    for path in _numbered(folder, "weights"):
        if (arrays := _read_arrays(path, like)) is not None:
            yield arrays
    for path in reversed(_numbered(folder, "checkpoint")):
        if (arrays := _read_arrays(path, like)) is not None:
            yield arrays
            return


def _numbered(folder, kind):
    numbers = {path: path.stem.partition("-")[2] for path in folder.glob(f"{kind}-*.npz")}
    return sorted((path for path, number in numbers.items() if number.isdecimal()), key=lambda path: int(numbers[path]))


def _read_about(folder):
    """What the training is."""
    path = folder / "about.json"
    try:
        content = json.loads(path.read_text())
        if content["what"] != "training" or content["schema_version"] != run_folder.SCHEMA_VERSION:
            raise ValueError(f"it describes {content['what']!r} of schema version {content['schema_version']}")
        return content
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError("folder", folder, "has no about.json; it must be what train_xla.py trained into") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error})") from None


def _read_log(folder):
    """Where and how it was trained: the last of each entry that tells of it."""
    told = dict.fromkeys(("device", "platform", "jax", "ms_per_update", "end", "decoded_difference"))
    try:
        lines = (folder / "log.jsonl").read_text().splitlines()
    except OSError as error:
        raise UsageError("folder", folder, f"its log.jsonl cannot be read ({error.strerror})") from None
    for line in lines:
        with contextlib.suppress(ValueError):  # half a line, of a process that was killed
            told |= {name: value for name, value in json.loads(line).items() if name in told}
    return told


def _read_arrays(path: pathlib.Path, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """What a file holds, in the types that it is to have; None, with a warning, for one that is damaged.

    Raises:
      RunError: for a file of another network.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        step = {name: arrays.pop(name) for name in ("step", "update")}
        if wrong := [name for name, array in arrays.items() if not np.all(np.isfinite(array))]:
            raise ValueError(f"{wrong[0]} is not finite")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"warning: {path} is left out, as it cannot be read ({error})", file=sys.stderr)
        return None
    if foreign := sorted(arrays.keys() - like.keys()):
        raise RunError(f"{path}: of another network (it also has {foreign[0]})")
    return {name: array.astype(like[name].dtype) for name, array in arrays.items()} | step


def command() -> None:
    """Entry point."""
    registry.installed()
    flags.define("Import", ImportSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
