"""The defences by name: what `--defense` may be, in every command."""

from madry_cifar.cli.errors import unknown
from madry_cifar.training.method import Defense

REGISTRY: dict[str, type[Defense]] = {}


def register(defense: type[Defense]) -> type[Defense]:
    """Class decorator: makes a defence available under its name."""
    REGISTRY[defense.name] = defense
    return defense


def find(name: str) -> type[Defense]:
    """The defence called `name`. Raises UsageError, naming the nearest, when there is none."""
    if name not in REGISTRY:
        raise unknown("defense", name, REGISTRY)
    return REGISTRY[name]
