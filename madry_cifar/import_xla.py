"""Brings home what train_xla.py has trained elsewhere: a run as if it had been trained here.

  python -m madry_cifar.import_xla --folder=rvs.training/run --train_dir=runs/rvs_gpu

--folder is the runner's --output. Its checkpoint, the weights that it kept on the way and its curves become those of a
run, to be evaluated, diagnosed, exported, and trained on by the same command as any other. Kept weights are in half
precision and without momentum. The same command again takes what has come since.
"""

import json
import pathlib
import shutil
import zipfile
from collections.abc import Mapping

import numpy as np

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Settings, required
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from madry_cifar.training import registry
from madry_cifar.training.construction import build


class ImportSettings(Settings):
    """What is brought where."""

    folder: str = required("what train_xla.py wrote: its --output", kind="path")
    train_dir: str = required("folder of the run that it becomes", kind="path")


def main() -> None:
    """Imports as the flags say."""
    settings = flags.read(ImportSettings)
    source = pathlib.Path(settings.folder)
    about, files, elsewhere = _read_about(source), _files(source), _read_log(source)
    elsewhere["decoded_difference"] = about["decoded_difference"]
    run_flags = about["flags"] | {"steps": elsewhere["steps"] or about["steps"]}
    method = build(run_flags)
    state = checkpoints.flat_state(method.networks, method.optimizers)
    first = {name: variable.numpy() for name, variable in state.items()}
    steps = {}
    with run_folder.trained_alone(settings.train_dir):
        folder = run_folder.create(settings.train_dir, run_flags, about["provenance"], elsewhere)
        for path in files:
            stored = _read_arrays(path, first)
            whole = path.name.startswith("checkpoint-")
            checkpoints.assign(state, stored if whole else first | stored, str(path))
            step = int(stored["step"])
            Checkpoints(folder, method.networks, method.optimizers, keep=0).save(step)
            steps[step] = whole  # a checkpoint comes last, and takes the place of the weights of its step
        for path in source.glob("events.*"):
            shutil.copy(path, folder)
    notes = "" if steps[max(steps)] else "; the last one has weights in half precision and no momentum"
    print(
        f"{about['defense']}, {name_of(run_flags)}, {elsewhere['updates']} updates on {elsewhere['device']}: now steps "
        f"{', '.join(map(str, sorted(steps)))} of a run in {folder}{notes}"
    )


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weights on the way, then the latest checkpoint. Raises UsageError if there is neither."""
    numbered = {
        kind: {int(path.stem.partition("-")[2]): path for path in folder.glob(f"{kind}-*.npz")}
        for kind in ("weights", "checkpoint")
    }
    files = [path for _, path in sorted(numbered["weights"].items())]
    files += [path for _, path in sorted(numbered["checkpoint"].items())[-1:]]
    if not files:
        raise UsageError("folder", folder, "holds no checkpoint-N.npz or weights-N.npz of train_xla.py")
    return files


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
    told = {"device": None, "platform": None, "jax": None, "ms_per_update": None, "stride": 1.0, "steps": None}
    told["updates"] = 0
    try:
        lines = (folder / "log.jsonl").read_text().splitlines()
        for entry in map(json.loads, lines):
            told |= {name: value for name, value in entry.items() if name in told}
            told["updates"] = max(told["updates"], entry["update"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'log.jsonl'}: damaged ({error})") from None
    return told


def _read_arrays(path: pathlib.Path, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a file holds, in the types that it is to have. Raises RunError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        step = {name: arrays.pop(name) for name in ("step", "update")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: damaged ({error})") from None
    if foreign := sorted(arrays.keys() - like.keys()):
        raise RunError(f"{path}: of another network (it also has {foreign[0]})")
    if wrong := [name for name, array in arrays.items() if not np.all(np.isfinite(array))]:
        raise RunError(f"{path}: {wrong[0]} is not finite")
    return {name: array.astype(like[name].dtype) for name, array in arrays.items()} | step


def command() -> None:
    """Entry point."""
    registry.installed()
    flags.define("Import", ImportSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
