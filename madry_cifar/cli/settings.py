"""What a command or a training can be told: frozen dataclasses that check themselves. `flags` makes flags of them."""

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Self, get_args, get_origin

from absl.flags import ArgumentParser, BooleanParser, FloatParser, IntegerParser

from madry_cifar.cli.errors import UsageError, unknown


def option(
    default: Any,
    help: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: tuple | None = None,
    required: bool = False,
) -> Any:
    """A field of `Settings`: its default, the help of its flag, and what values it takes.

    Its type is str, int, float, bool, one of these or None, or a tuple of them, which are typed with commas.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "required": required}
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, **limits: Any) -> Any:
    """A field without a default, which must be given; `limits` are those of `option`."""
    return option(None, help, required=True, **limits)


def like(other: type["Settings"], name: str, **changes: Any) -> Any:
    """The field called `name` of another class, but for these changes of its `default`, `help`, `minimum`, …"""
    field = other.__dataclass_fields__[name]
    return option(**{"default": field.default, **field.metadata, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of all settings; a subclass, a dataclass too, adds fields that are `option`s.

    Raises:
      UsageError: naming the field, for a value that it does not take.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> Self:
        """The settings from texts by name, as they stand on a command line; what is not there has its default.

        Raises:
          UsageError: naming the field, for a text that is no value of it.
        """
        values = {}
        for name, text in texts.items():
            try:
                values[name] = parser(cls.__dataclass_fields__[name]).parse(text)
            except ValueError as error:
                raise UsageError(name, text, str(error)) from None
        return cls(**values)

    def pick(self, *names: str) -> dict[str, Any]:
        """Some of the settings, by name."""
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def _check(field, value):
    choices, minimum, maximum = (field.metadata[name] for name in ("choices", "minimum", "maximum"))
    if field.metadata["required"] and not value:
        raise UsageError(field.name, "", f"required: {field.metadata['help']}")
    if choices is not None and value not in choices:
        raise unknown(field.name, value, choices)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise UsageError(field.name, number, "must be a finite number")
        if isinstance(number, (int, float)) and not minimum <= number <= maximum:
            bound = f"at least {minimum}" if number < minimum else f"at most {maximum}"
            raise UsageError(field.name, number, f"must be {bound}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDir(Settings):
    """A command that reads a run."""

    train_dir: str = required("folder of the run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint(TrainDir):
    """… at one of its checkpoints."""

    checkpoint: str | None = option(None, "step or path of its checkpoint [the latest]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataDir(Settings):
    """A command that reads the data set that a run was trained on."""

    data_dir: str | None = option(None, "where the data set is now [as the run was trained]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download(DataDir):
    """… and prepares it where it is missing."""

    download: bool = option(False, "prepare the data set there if it is missing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seed(Settings):
    """What draws random numbers."""

    seed: int = option(0, "of every random draw", minimum=0, maximum=2**31 - 1)


class _Several(ArgumentParser):
    """Of values with commas between them."""

    def __init__(self, element: type):
        self.element = element

    def parse(self, argument):
        if isinstance(argument, tuple):  # a default
            return argument
        try:
            return tuple(self.element(part) for part in argument.split(",") if part)
        except ValueError:
            raise ValueError(f"must be numbers ({self.element.__name__}) with commas") from None


_PARSERS = {str: ArgumentParser, int: IntegerParser, float: FloatParser, bool: BooleanParser}


def parser(field: dataclasses.Field) -> ArgumentParser:
    """What makes a value of a field from its text."""
    kind = field.type
    if get_origin(kind) is tuple:
        return _Several(get_args(kind)[0])
    if isinstance(kind, UnionType):  # or None
        kind = next(each for each in get_args(kind) if each is not type(None))
    return _PARSERS[kind]()
