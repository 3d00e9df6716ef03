"""A run's folder: `flags.json` (settings and versions), `checkpoints/`, TensorBoard's events, `results/`."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.runs import machine
from madry_cifar.runs.files import alone, write_json

SCHEMA_VERSION = 1
NEEDED = ("depth", "width", "num_classes")  # without which no network can be built
# Settings that may differ when a run is continued: how long, from where, and what is written on the way.
MAY_CHANGE = frozenset(
    [
        "steps",
        "epochs",
        "iterations",
        "target_dir",  # of an AdvGAN, whose target is known by its fingerprint
        "data_dir",
        "download",
        "jit_compile",
        "steps_per_call",
        "strategy",
        "profile_steps",
        "checkpoint_every",
        "keep",
        "log_every",
        "image_every",
        "eval_every",
        "eval_images",
        "eval_attacks",
    ]
)
WHERE = ("data_dir", "download")  # the data are now
# Settings that came after the first runs were made, and what those runs had instead.
ADDED = {
    "max_train_images": 0,
    "starts_from": [],
    "ot_weight": 1.0,
    "precision": "float32",
    "sync_bn": False,
    "architecture": "madry",
    "input_scaling": "standardize",
    "batch_norm_epsilon": 1e-3,
    "crop_padding": 2,
    "crop_fill": 0,
    "epochs": 0,
    "learning_rate_epochs": [],
    "weight_decay_on": "kernels",
    "sinkhorn_floor": 0.0,  # of FeatScatter
    "statistics_every": 0,
    "statistics_epoch": 0,
}


@contextlib.contextmanager
def trained_alone(train_dir: str) -> Iterator[None]:
    """Keeps other trainings out of a folder; it may be evaluated meanwhile. A process that is dead keeps out none.

    Raises:
      UsageError: when another process trains there, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(pathlib.Path(train_dir), ".training.lock", wait=False))
        except BlockingIOError:
            raise UsageError("train_dir", train_dir, "another process trains here; wait for it, or stop it") from None
        except OSError as error:
            raise UsageError("train_dir", train_dir, f"cannot be written ({error.strerror})") from None
        yield


def create(
    train_dir: str,
    flags: dict[str, Any],
    provenance: str | None = None,
    elsewhere: dict[str, Any] | None = None,
    done: int | None = None,
) -> pathlib.Path:
    """The folder for a run with these settings, on data of this provenance: a new one, or the same run's, to go on.

    `elsewhere` says where and how it was trained if not by this package: see `import_xla`. `done` is the last step of
    a run of which nothing is left to train: who trained it, when and where, and how, stays as it is written.

    Raises:
      UsageError: when it cannot be written; as `check`.
    """
    folder, now = pathlib.Path(train_dir), environment()
    content = {"schema_version": SCHEMA_VERSION, "flags": flags, "provenance": provenance, **now}
    if before := check(train_dir, flags, provenance):
        content["provenance"] = provenance or before.get("provenance")
        elsewhere = elsewhere or before.get("elsewhere")
        earlier = {name: before.get(name) for name in now}
        content["earlier"] = before.get("earlier", []) + ([] if earlier == now else [earlier])
        if done is not None:
            steps = {"steps": done} if before["flags"].get("steps", 0) > done else {}  # it was ended before
            where = {name: flags[name] for name in WHERE if name in flags}
            content = before | {"flags": before["flags"] | where | steps, "provenance": content["provenance"]}
    content |= {"elsewhere": elsewhere} if elsewhere else {}
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json(folder / "flags.json", content)
    except OSError as error:
        raise UsageError("train_dir", train_dir, f"cannot be written ({error.strerror})") from None
    return folder


def check(train_dir: str, flags: dict[str, Any], provenance: str | None = None) -> dict[str, Any] | None:
    """What `flags.json` says of the run in a folder, if one was trained there: this one, or it is refused.

    Raises:
      UsageError: when it has other settings (all are named), or other data.
    """
    folder = pathlib.Path(train_dir)
    if not (folder / "flags.json").exists() or not any(folder.glob("checkpoints/ckpt-*.index")):
        return None  # nothing was trained
    before = read(folder)
    _check_same(folder, flags, before["flags"])
    if None not in (provenance, before.get("provenance")) and provenance != before["provenance"]:
        raise UsageError(
            "train_dir", folder, f"was trained on other data: there {before['provenance']}, now {provenance}"
        )
    return before


def _check_same(folder, flags, before):
    kinds = [kind_of(each) for each in (flags, before)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            "train_dir", folder, f"holds the training of {kinds[1]}, not of {kinds[0]}; use another folder"
        )
    before = {name: value for name, value in ADDED.items() if name in flags} | before
    differing = sorted(name for name in {*flags, *before} - MAY_CHANGE if flags.get(name) != before.get(name))
    if differing:
        changes = ", ".join(f"--{name} (there {before.get(name)}, now {flags.get(name)})" for name in differing[:8])
        changes += f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise UsageError("train_dir", folder, f"holds a run with other settings: {changes}; use another folder")


CLASSIFIER = "a classifier"


def kind_of(flags: dict[str, Any]) -> str:
    """What a run with these settings trains, in words."""
    return "an attack" if "attack" in flags else "a GAN" if "gan" in flags else CLASSIFIER


def read_flags(train_dir: str | os.PathLike) -> dict[str, Any]:
    """All settings of the run in a folder.

    Raises:
      UsageError: when the folder is missing or holds no run.
      RunError: when its `flags.json` cannot be understood.
    """
    return read(train_dir)["flags"]


def read_provenance(train_dir: str | os.PathLike) -> str | None:
    """The provenance of the data that the run in a folder was trained on; None where nothing is known of it.

    Raises:
      UsageError, RunError: as `read_flags`.
    """
    return read(train_dir).get("provenance")


def read(train_dir: str | os.PathLike) -> dict[str, Any]:
    """All that `flags.json` of the run in a folder says. Raises UsageError, RunError: as `read_flags`."""
    folder = pathlib.Path(train_dir)
    if not folder.is_dir():
        raise UsageError("train_dir", train_dir, "no such folder")
    try:
        content = json.loads((folder / "flags.json").read_text())
        version = content["schema_version"]
        for name in () if "gan" in content["flags"] else NEEDED:
            content["flags"][name]
    except FileNotFoundError:
        raise UsageError("train_dir", train_dir, "holds no run (no flags.json)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'flags.json'}: damaged ({error})") from None
    if version != SCHEMA_VERSION:
        raise RunError(f"{folder / 'flags.json'}: schema version {version}, this program knows {SCHEMA_VERSION}")
    return content


def trained(content: dict[str, Any]) -> dict[str, str | None]:
    """By which revision, on what and when a run was trained, by the `content` of its flags.json; of one imported from
    elsewhere the machine is that there, and the date that of the import."""
    device = (content.get("elsewhere") or {}).get("device")
    told = {name: content.get(name) for name in ("git_revision", "machine", "date")}
    return told | ({"machine": device} if device else {})


def environment() -> dict[str, Any]:
    """Versions of what the numbers depend on, the git revision of a source that is a checkout, machine and date."""
    versions = {"python": platform.python_version()}
    for package in ("robustness-via-synthesis", "tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    here_and_now = {"machine": machine.describe(), "date": datetime.date.today().isoformat()}
    return {"versions": versions, "git_revision": _git_revision(), **here_and_now}


def _git_revision():
    source = pathlib.Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
