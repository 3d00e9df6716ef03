"""Command-line flags: how they are defined, parsed, shown by --help, and how a command ends.

Flags are absl's, so `--flagfile` works everywhere. They are read in `main` alone.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.training.options import Options, kind

_PARSERS = {str: flags.ArgumentParser, int: flags.IntegerParser, float: flags.FloatParser}
_sections: dict[str, list[str]] = {}


def define(
    section: str,
    name: str,
    default: Any,
    help: str,
    *,
    kind: type = str,
    minimum: float | None = None,
    maximum: float | None = None,
):
    """Defines the flag --name, listed by --help under `section`; a boolean one for `kind=bool`."""
    _sections.setdefault(section, []).append(name)
    if kind is bool:
        flags.DEFINE_bool(name, default, help)
    elif kind is str:
        flags.DEFINE_string(name, default, help)
    else:
        parser = _PARSERS[kind](lower_bound=minimum, upper_bound=maximum)
        flags.DEFINE(parser, name, default, help, serializer=flags.ArgumentSerializer())


def define_data_flags() -> None:
    """--dataset, --data_dir, --download, --validation_size, --max_train_images."""
    define("Data", "dataset", "digits", "digits (embedded), cifar10, cifar100 or svhn_cropped")
    define(
        "Data",
        "data_dir",
        None,
        "folder of prepared tensorflow-datasets data or of the original files [~/tensorflow_datasets]",
    )
    define("Data", "download", False, "prepare the data set in --data_dir if it is missing", kind=bool)
    define("Data", "validation_size", 0, "training images to hold out", kind=int, minimum=0)
    help = "train on the first so many images of the training split alone; 0 is all"
    define("Data", "max_train_images", 0, help, kind=int, minimum=0)


def define_option_flags(trainings: Mapping[str, type], section: str = "Defence") -> None:
    """A flag for each option of each training; its help tells which ones have it, and their defaults."""
    fields: dict[str, tuple[dataclasses.Field, dict[str, Any]]] = {}
    for name, training in trainings.items():
        for field in dataclasses.fields(training.Options):
            fields.setdefault(field.name, (field, {}))[1][name] = field.default
    for name, (field, defaults) in fields.items():
        help = f"{field.metadata['help']} [{_shown(defaults, everyone=len(defaults) == len(trainings))}]"
        element, several = kind(field)
        define(section, name, None, help, kind=str if several else element)


def _shown(defaults, everyone):
    """Which trainings have which default; if everyone has one, the commonest stands first, without names."""
    names: dict[Any, list[str]] = {}
    for name, value in defaults.items():
        names.setdefault(value, []).append(name)
    commonest, *others = sorted(names, key=lambda value: -len(names[value]))
    parts = [_text(commonest) if everyone else f"{', '.join(names[commonest])}: {_text(commonest)}"]
    return "; ".join(parts + [f"{', '.join(names[value])}: {_text(value)}" for value in others])


def _text(value):
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def given_options(defense: type, section: str = "Defence") -> Options:
    """The options of a defence (or another training), with the flags that were given.

    Raises:
      UsageError: for a value that an option does not take, or a flag that this defence does not have.
    """
    given = {name: flags.FLAGS[name].value for name in _sections[section] if flags.FLAGS[name].value is not None}
    foreign = sorted(set(given) - {field.name for field in dataclasses.fields(defense.Options)})
    if foreign:
        raise UsageError(foreign[0], given[foreign[0]], f"does not apply to --defense={defense.name}")
    for one, other in (("epochs", "steps"), ("learning_rate_epochs", "learning_rate_boundaries")):
        if given.get(one) and other in given:
            raise UsageError(one, given[one], f"in place of --{other}, which is given too; leave one of them out")
    return options_of(defense, given)


def options_of(defense: type, given: Mapping[str, Any]) -> Options:
    """The options of a defence from their values by name, numbers with commas where it takes several.

    Raises:
      UsageError: for a value that an option does not take.
    """
    fields = {field.name: field for field in dataclasses.fields(defense.Options)}
    values = dict(given)
    for name, value in given.items():
        element, several = kind(fields[name])
        if several:
            try:
                values[name] = tuple(element(part) for part in value.split(",") if part)
            except ValueError:
                raise UsageError(name, value, f"must be numbers ({element.__name__}) with commas") from None
    return defense.Options(**values)


def run(main: Callable[[], None], doc: str) -> None:
    """Runs a command: parses the flags, calls `main`, turns an expected error into one line and a status.

    Status 2 is for what was asked wrongly, 1 for a run that failed, 128 + n for one that signal n ended.
    """
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse(argv, doc))


def _parse(argv, doc):
    if any(argument in ("--help", "-h", "-help", "--helpfull", "--helpshort") for argument in argv[1:]):
        try:
            print(_help(doc), flush=True)
        except BrokenPipeError:
            _reader_gone()
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except (flags.Error, UnicodeDecodeError) as error:  # the latter for a --flagfile that is no text
        _fail(" ".join(str(error).split()), 2)


def _guarded(main, argv):
    logging.set_verbosity(logging.ERROR)  # TensorFlow's and Keras's notes are not for the user of a command
    tf.get_logger().setLevel("ERROR")
    try:
        if len(argv) > 1:
            raise UsageError(
                None, None, f"unexpected argument {argv[1]!r}: flags are written --name=value (see --help)"
            )
        main()
    except UsageError as error:
        _fail(error, 2)
    except RunError as error:
        number = getattr(error, "number", None)
        _fail(error, 128 + number if number else 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        _reader_gone()
    except tf.errors.ResourceExhaustedError as error:
        _fail(f"out of memory or disk space: {str(error).splitlines()[0]}; a smaller --batch_size needs less memory", 1)
    except tf.errors.OpError as error:  # files that TensorFlow reads or writes
        _fail(" ".join(str(error).split())[:300], 1)
    except OSError as error:
        _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def _reader_gone():
    """Ends the command as its reader did: `… | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(141)


def _fail(message, status):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _help(doc):
    lines = [doc.strip()]
    for section, names in _sections.items():
        lines += ["", f"{section}:"]
        for name in names:
            flag = flags.FLAGS[name]
            default = "" if flag.default in (None, "") else f" [{flag.default}]"
            prefix = "--[no]" if flag.boolean else "--"
            lines.append(f"  {prefix}{name}: {flag.help}{default}")
    lines += ["", "--flagfile=FILE reads flags from a file, one a line."]
    return "\n".join(lines)


def configuration(names: list[str]) -> dict[str, Any]:
    """The values of the flags called `names`."""
    return {name: flags.FLAGS[name].value for name in names}


def parse(name: str, text: str) -> Any:
    """The value that a flag would have, given this text."""
    return flags.FLAGS[name].parser.parse(text)


def section(name: str) -> list[str]:
    """The names of the flags under a section."""
    return list(_sections.get(name, ()))
