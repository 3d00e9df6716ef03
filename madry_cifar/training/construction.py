"""The one construction: a defence, its networks and its predictor, from the settings of a run (`flags.json`)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from madry_cifar.cli.errors import UsageError
from madry_cifar.networks.architectures import PRECISIONS, SETTINGS, network_of
from madry_cifar.predictor import Predictor
from madry_cifar.runs import checkpoints
from madry_cifar.runs.run_folder import ADDED, CLASSIFIER, kind_of, read_flags
from madry_cifar.training.method import Defense
from madry_cifar.training.registry import find


def build(settings: Mapping[str, Any], seed: int | None = None, dtype: str | None = None) -> Defense:
    """The defence that the settings of a run describe, its networks with their first weights.

    Args:
      settings: "defense", of the network what `networks.architectures.network_of` takes, "seed", "precision", and
        options of the defence; what is left out is as by default.
      seed: of the weights and of every draw [that of the settings, else 0].
      dtype: of the networks, as `WideResNet` takes it [that of the settings' precision].

    Raises:
      UsageError: for a defence or network that there is not, or an option that it does not take.
    """
    kind = find(settings["defense"])
    seed = settings.get("seed", 0) if seed is None else seed
    names = {field.name for field in dataclasses.fields(kind.Options)} & settings.keys()
    given = {name: tuple(v) if isinstance(v := settings[name], list) else v for name in names}
    classifier = network_of(settings, seed=seed, dtype=dtype or PRECISIONS[settings.get("precision", "float32")])
    return kind(classifier, kind.Options(**given), seed)


def flags_of_a_classifier(train_dir: str | os.PathLike) -> dict[str, Any]:
    """The settings of the run in a folder. Raises UsageError where it holds an attack or a GAN, or no run."""
    settings = read_flags(train_dir)
    if (trained := kind_of(settings)) != CLASSIFIER:
        raise UsageError("train_dir", train_dir, f"holds {trained} that was trained, and no classifier")
    return settings


def load_defense(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> Defense:
    """The defence of a run as it was after a checkpoint (step or path; the latest by default), to be trained on.

    Raises:
      UsageError: when the folder holds no run or no such checkpoint.
      RunError: when the checkpoint is damaged, or of another defence.
    """
    defense = build(flags_of_a_classifier(train_dir))
    checkpoints.load(checkpoints.flat_state(defense.networks, defense.optimizers), train_dir, checkpoint)
    return defense


def load_predictor(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> Predictor:
    """What is evaluated of a run, with the weights of a checkpoint (step or path; the latest by default), in float32.

    Raises:
      UsageError, RunError: as `load_defense`.
    """
    predictor = build(flags_of_a_classifier(train_dir), dtype="float32").predictor()
    checkpoints.load(predictor.variables(), train_dir, checkpoint)
    return predictor


def start_from(defense: Defense, folders: Sequence[str]) -> None:
    """Gives the networks of a defence the weights that those of the same names have in other runs.

    Raises:
      UsageError: when it needs runs (`Defense.starts_from`) and there are none, or others; or for a folder whose
        networks are others.
      RunError: when a checkpoint is damaged.
    """
    needed = " or ".join(defense.starts_from)
    if needed and not folders:
        raise UsageError(
            "starts_from", "", f"--defense={defense.name} needs the weights of a run of {needed}: its folder"
        )
    for folder in folders:
        try:
            settings, (_, path) = read_flags(folder), checkpoints.find(folder)
        except UsageError as error:
            raise error.renamed(train_dir="starts_from") from None
        method = settings.get("defense") or kind_of(settings)
        if needed and method not in defense.starts_from:
            raise UsageError("starts_from", folder, f"holds a run of {method}; --defense={defense.name} needs {needed}")
        theirs = {name: value for name, value in (ADDED | settings).items() if name in SETTINGS}
        ours = {name: getattr(defense.classifier, name) for name in theirs}
        if theirs != ours:  # which names and shapes of variables need not tell: a deeper network has all of this one's
            other = ", ".join(f"--{name}={value}" for name, value in theirs.items() if value != ours[name])
            raise UsageError("starts_from", folder, f"its network is another one ({other})")
        stored = checkpoints.read(path)
        names = [name for name in defense.networks if any(flat.startswith(f"{name}.") for flat in stored)]
        variables = checkpoints.flat_state({name: defense.networks[name] for name in names}, {})
        others = [flat for flat, variable in variables.items() if variable.shape != stored.get(flat, np.empty(0)).shape]
        if others or not names:
            raise UsageError("starts_from", folder, f"its network is another one ({', '.join(others[:2]) or method})")
        for flat, variable in variables.items():
            variable.assign(stored[flat])


def load_classifier(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> keras.Model:
    """The classifier of a run, a `keras.Model`, with the weights of its latest or the given checkpoint (step or path).

    Raises:
      UsageError, RunError: as `load_defense`.
    """
    return checkpoints.load_network(network_of(flags_of_a_classifier(train_dir)), "classifier", train_dir, checkpoint)
