"""What a command or a training can be told: frozen dataclasses that check themselves. `flags` makes flags of them."""

import dataclasses
import math
import os
import re
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from absl.flags import ArgumentParser, BooleanParser, FloatParser, IntegerParser
from typing_extensions import Self, dataclass_transform  # of typing itself from Python 3.11 on

from madry_cifar.cli.errors import UsageError, unknown


def option(
    default: Any,
    help: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: Collection | None = None,
    required: bool = False,
    kind: str | None = None,
) -> Any:
    """A field of `Settings`: its default, the help of its flag, and what values it takes.

    Its type is str, int, float, bool, one of these or None, or a tuple of them, which are typed with commas.

    Args:
      kind: of what is typed: "path", in which ~ is the home folder; "radius" or "step", in grey levels, where 8/255 is
        8 and, on a command line, what is less than one grey level is probably a mistake (see `flags.read`).
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices, "required": required}
    return dataclasses.field(default=default, metadata={"help": help, "kind": kind} | limits)


def required(help: str, **limits: Any) -> Any:
    """A field without a default, which must be given; `limits` are those of `option`."""
    return option(None, help, required=True, **limits)


def like(other: type["Settings"], name: str, **changes: Any) -> Any:
    """The field called `name` of another class, but for these changes of its `default`, `help`, `minimum`, …"""
    field = other.__dataclass_fields__[name]
    return option(**{"default": field.default, **field.metadata, **changes})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option, required, like))
class Settings:
    """The base of all settings. A subclass is a frozen, keyword-only dataclass, undecorated; its fields are `option`s.

    Raises:
      UsageError: naming the field, for a value that it does not take.
    """

    def __init_subclass__(cls):
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

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
    for each in value if isinstance(value, tuple) else (value,):
        if choices is not None and each not in (None, *choices):
            raise unknown(field.name, each, choices)
        if isinstance(each, float) and not math.isfinite(each):
            raise UsageError(field.name, each, "must be a finite number")
        if isinstance(each, (int, float)) and not minimum <= each <= maximum:
            bound = f"at least {minimum}" if each < minimum else f"at most {maximum}"
            raise UsageError(field.name, each, f"must be {bound}")


class Checkpoint(Settings):
    """A checkpoint of a run."""

    train_dir: str = required("folder of the run", kind="path")
    checkpoint: str | None = option(
        None, "step or path of its checkpoint, or best (on held-out images) [the latest]", kind="path"
    )


class Download(Settings):
    """Where the data set of a run is now."""

    data_dir: str | None = option(None, "where the data set is now [as the run was trained]", kind="path")
    download: bool = option(False, "prepare the data set there if it is missing")


class Seed(Settings):
    """What every random draw depends on."""

    seed: int = option(0, "of every random draw", minimum=0, maximum=2**31 - 1)


class _Path(ArgumentParser):
    def parse(self, argument):
        return argument and os.path.expanduser(argument)


class _Int(IntegerParser):
    def convert(self, argument):
        return _convert(super().convert, argument, "a whole number")


class _Float(FloatParser):
    def convert(self, argument):
        return _convert(super().convert, argument, "a number")


class _Size(_Float):
    """In grey levels, or as a fraction of 255, as papers have it."""

    def convert(self, argument):
        return super().convert(re.sub(r"/255(\.0*)?$", "", argument) if isinstance(argument, str) else argument)


class _Bool(BooleanParser):
    def parse(self, argument):
        return _convert(super().parse, argument, "true or false")


def _convert(convert, argument, expected):
    """What `convert` makes of an argument; its errors are Python's own words, these are for people."""
    try:
        return convert(argument)
    except (ValueError, TypeError):
        raise ValueError(f"must be {expected}") from None


class _Several(ArgumentParser):
    """Of values with commas between them, and spaces after these if one likes."""

    def __init__(self, element: ArgumentParser):
        self.element = element

    def parse(self, argument):
        if isinstance(argument, tuple):  # a default
            return argument
        try:
            return tuple(self.element.parse(part.strip()) for part in argument.split(",") if part.strip())
        except ValueError as error:
            raise ValueError(f"{error}, or several with commas") from None


_PARSERS = {str: ArgumentParser, int: _Int, float: _Float, bool: _Bool}
_KINDS = {"path": _Path, "radius": _Size, "step": _Size}


def parser(field: dataclasses.Field) -> ArgumentParser:
    """What makes a value of a field from its text."""
    kind = field.type
    several = get_origin(kind) is tuple
    if several:
        kind = get_args(kind)[0]
    elif isinstance(kind, UnionType):  # or None
        kind = next(each for each in get_args(kind) if each is not type(None))
    made = _KINDS.get(field.metadata["kind"], _PARSERS[kind])()
    return _Several(made) if several else made
