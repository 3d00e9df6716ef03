"""The defences by name: what `--defense` may be, in every command.

Those of another package are known without importing it: it offers them as entry points of the group
"madry_cifar.defenses" (see setup.py).
"""

import dataclasses
from importlib import metadata

from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.training.method import Defense
from madry_cifar.training.settings import TrainSettings

REGISTRY: dict[str, type[Defense]] = {}
GROUP = "madry_cifar.defenses"


def register(defense: type[Defense]) -> type[Defense]:
    """Class decorator: makes a defence available under its name."""
    REGISTRY[defense.name] = defense
    return defense


def find(name: str) -> type[Defense]:
    """The defence called `name`. Raises UsageError, naming the nearest, when there is none."""
    if name not in REGISTRY:
        offered = metadata.entry_points(group=GROUP)  # which looks at all that is installed
        if name not in offered.names:
            raise unknown("defense", name, {*REGISTRY, *offered.names})
        _load(offered[name])
    return REGISTRY[name]


def installed() -> dict[str, type[Defense]]:
    """All defences, those that installed packages offer too."""
    offered = metadata.entry_points(group=GROUP)
    return REGISTRY | {entry.name: REGISTRY.get(entry.name) or _load(entry) for entry in offered}


def _load(entry):
    """The defence that a package offers. Raises UsageError unless it is called as it is offered."""
    defense = register(entry.load())
    if defense.name != entry.name:
        reason = f"{entry.value}, which is offered as the defence {entry.name}, calls itself {defense.name}"
        raise UsageError(None, None, reason)
    return defense


def setting_names() -> list[str]:
    """Of the settings that the run of some installed defence has."""
    classes = (TrainSettings, *(defense.Options for defense in installed().values()))
    return list(dict.fromkeys(field.name for settings in classes for field in dataclasses.fields(settings)))
