"""Command-line flags: made of `Settings`, parsed, shown by --help; and how a command ends.

Flags are absl's, so `--flagfile` works everywhere. They are read in `main` alone, by `read`: nothing below it, and no
other module, knows of absl's FLAGS.
"""

import dataclasses
import difflib
import gc
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import tensorflow as tf
from absl import app, flags, logging

from madry_cifar.cli.errors import RunError, UsageError, in_words, text
from madry_cifar.cli.quiet import HELP
from madry_cifar.cli.settings import Settings, parser

SettingsT = TypeVar("SettingsT", bound=Settings)
_sections: dict[str, list[str]] = {}
SMALL = "below_one_grey_level"


def define(section: str, settings: type[Settings], **changes: Mapping[str, Any]) -> None:
    """A flag for each field of `settings`, listed by --help under `section`.

    `changes`, by the name of a field, are the command's own `default` and `help` for it.
    """
    for field in dataclasses.fields(settings):
        own = {"default": field.default, **field.metadata, **changes.get(field.name, {})}
        _define(section, field, own["default"], own["help"] + " (required)" * own["required"])


def define_for(owner: str, fields: Iterable[dataclasses.Field]) -> None:
    """A flag --OWNER.NAME for each field: its value for one owner alone. --help does not list them."""
    for field in fields:
        _add(f"{owner}.{field.name}", field, None, field.metadata["help"])


def _define(section, field, default, help):
    _sections.setdefault(section, []).append(field.name)
    _add(field.name, field, default, help)
    if field.metadata["kind"] in ("radius", "step") and SMALL not in flags.FLAGS:
        _sections[section].append(SMALL)
        flags.DEFINE_boolean(SMALL, False, "an ε or a step between 0 and 1 is meant: a part of one grey level of 255")


def _add(name, field, default, help):
    parses = parser(field)
    boolean = isinstance(parses, flags.BooleanParser)
    flags.DEFINE(parses, name, default, help, serializer=_Serializer(), module_name=__name__, boolean=boolean)


class _Serializer(flags.ArgumentSerializer):
    def serialize(self, value):
        return text(value)


def read(settings: type[SettingsT], **values: Any) -> SettingsT:
    """The settings that the flags say, but for these `values`.

    Raises:
      UsageError: naming the flag, for a value that it does not take; for an ε or a step of less than one grey level,
        which is 8/255 in the units of other code, unless --below_one_grey_level says that it is meant; for no step.
    """
    names = {field.name for field in dataclasses.fields(settings)} - values.keys()
    return _with_sane_sizes(settings(**{name: flags.FLAGS[name].value for name in names}, **values))


def _with_sane_sizes(settings):
    for field in dataclasses.fields(settings):
        _check_size(field.name, field, getattr(settings, field.name))
    return settings


def _check_size(name, field, value):
    kind = field.metadata["kind"]
    for size in value if isinstance(value, tuple) else (value,):
        if kind == "step" and size == 0:
            raise UsageError(name, f"{size:g}", "an attack that takes no step changes nothing")
        if kind in ("radius", "step") and 0 < size < 1 and not flags.FLAGS[SMALL].value:
            reason = f"less than one grey level of 255: 8/255 is --{name}=8 (if it is meant, add --{SMALL})"
            raise UsageError(name, f"{size:g}", reason)


def given(settings: type[Settings]) -> dict[str, Any]:
    """The values of those fields whose flags were given, on the command line or in a --flagfile.

    Raises:
      UsageError: for a size, as `read`.
    """
    return _given({field.name: field for field in dataclasses.fields(settings)})


def given_for(owner: str, fields: Iterable[dataclasses.Field]) -> dict[str, Any]:
    """The same of the flags that `define_for` made, by the names OWNER.NAME."""
    return _given({f"{owner}.{field.name}": field for field in fields})


def _given(fields):
    values = {name: flags.FLAGS[name].value for name in fields if flags.FLAGS[name].present}
    for name, value in values.items():
        _check_size(name, fields[name], value)
    return values


def give(values: Mapping[str, str]) -> None:
    """Gives texts by name to those flags that were not given."""
    for name, value in values.items():
        if not flags.FLAGS[name].present:
            flags.FLAGS[name].parse(value)


def read_flagfile(path: str | os.PathLike) -> dict[str, str]:
    """The flags in a file by name, as text; --noNAME is NAME with "false"."""
    values = {}
    for argument in flags.FLAGS.read_flags_from_files([f"--flagfile={path}"]):
        name, given, value = argument.lstrip("-").partition("=")
        if not given:
            name, value = (name, "true") if name in flags.FLAGS else (name.removeprefix("no"), "false")
        values[name] = value
    return values


def define_option_flags(trainings: Mapping[str, type], section: str = "Defence") -> None:
    """A flag for each option of each training; its help tells which ones have it, and their defaults."""
    fields: dict[str, tuple[dataclasses.Field, dict[str, Any]]] = {}
    for name, training in trainings.items():
        for field in dataclasses.fields(training.Options):
            fields.setdefault(field.name, (field, {}))[1][name] = field.default
    for field, defaults in fields.values():
        shown = _defaults(defaults, everyone=len(defaults) == len(trainings))
        _define(section, field, None, f"{field.metadata['help']} [{shown}]")


def _defaults(defaults, everyone):
    """Which trainings have which default; if everyone has one, the commonest stands first, without names."""
    names: dict[str, list[str]] = {}
    for name, value in defaults.items():
        names.setdefault(text(value) or "none", []).append(name)
    commonest, *others = sorted(names, key=lambda value: -len(names[value]))
    parts = [commonest if everyone else f"{', '.join(names[commonest])}: {commonest}"]
    return "; ".join(parts + [f"{', '.join(names[value])}: {value}" for value in others])


def given_options(defense: type, section: str = "Defence") -> Settings:
    """The options of a defence (or another training), with the flags that were given.

    Raises:
      UsageError: for a value that an option does not take, or a flag that this defence does not have.
    """
    values = {name: flags.FLAGS[name].value for name in _sections[section] if name != SMALL}
    given = {name: value for name, value in values.items() if value is not None}
    foreign = sorted(set(given) - {field.name for field in dataclasses.fields(defense.Options)})
    if foreign:
        raise UsageError(foreign[0], given[foreign[0]], f"does not apply to --defense={defense.name}")
    for one, other in (("epochs", "steps"), ("learning_rate_epochs", "learning_rate_boundaries")):
        if given.get(one) and other in given:
            raise UsageError(one, given[one], f"in place of --{other}, which is given too; leave one of them out")
    return _with_sane_sizes(defense.Options(**given))


def run(main: Callable[[], None], doc: str, *, resumes: bool = False) -> None:
    """Runs a command: parses the flags, calls `main`, turns an expected error into one line and a status.

    With `resumes`, who interrupts it is told that the same command goes on after its last batch.

    Status 2 is for what was asked wrongly, 1 for a run that failed, 128 + n for one that signal n ended.
    """
    gc.freeze()  # what the imports made is no garbage, and is not looked through again: not even when the process ends
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without ε is no reason to end
    app.run(lambda argv: _guarded(main, argv, resumes), flags_parser=lambda argv: _parse(argv, doc))


def _parse(argv, doc):
    if set(HELP) & set(argv[1:]):
        try:
            print(_wrapped(_help(doc)), flush=True)
        except BrokenPipeError:
            _reader_gone()
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        _fail(f"--{error.flagname}: unknown; {_nearest(error.flagname)}", 2)
    except flags.Error as error:
        if isinstance(cause := error.__context__, OSError):
            _fail(f"--flagfile={cause.filename}: {cause.strerror}", 2)
        _fail(" ".join(str(error).removeprefix("flag ").split()), 2)
    except UnicodeDecodeError:
        _fail("a --flagfile is not a text file", 2)


def _nearest(name):
    """What is said to who types a flag that there is not."""
    if name == "steps" and "attacks" in flags.FLAGS:
        return "the number of steps is a part of an attack's name: --attacks=pgd-20"
    if "." in name:
        return _nearest_for(*name.split(".", 1))
    known = sorted({each for names in _sections.values() for each in names})
    meant = [each for each in known if "".join(word[0] for word in each.split("_")).startswith(name)]
    meant += [each for each in known if name in each.split("_") or each.startswith(f"{name}_")]
    meant = meant or difflib.get_close_matches(name, known, n=1)
    return f"did you mean --{', --'.join(dict.fromkeys(meant[:3]))}?" if meant else "--help lists the flags"


def _nearest_for(owner, setting):
    """The same for --OWNER.SETTING."""
    owners = {each.partition(".")[0] for each in flags.FLAGS if "." in each}
    if owner not in owners:
        near = difflib.get_close_matches(owner, owners, n=1)
        if near and f"{near[0]}.{setting}" in flags.FLAGS:
            return f"did you mean --{near[0]}.{setting}?"
        return f"there is no {owner} with settings of its own; there are {', '.join(sorted(owners))}"
    its = [each.partition(".")[2] for each in flags.FLAGS if each.startswith(f"{owner}.")]
    if setting in flags.FLAGS:
        return f"{owner} has no {setting} of its own"
    near = difflib.get_close_matches(setting, its, n=1)
    return f"did you mean --{owner}.{near[0]}?" if near else f"{owner} has no such setting"


def _guarded(main, argv, resumes):
    logging.set_verbosity(logging.ERROR)  # TensorFlow's and Keras's notes are not for the user of a command
    tf.get_logger().setLevel("ERROR")
    try:
        if len(argv) > 1:
            reason = "flags are written --name=value, a value with spaces in quotes (see --help)"
            raise UsageError(None, None, f"unexpected argument {argv[1]!r}: {reason}")
        main()
    except UsageError as error:
        _fail(error, 2)
    except RunError as error:
        number = getattr(error, "number", None)
        _fail(error, 128 + number if number else 1)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on after the last batch" if resumes else "interrupted", 130)
    except BrokenPipeError:
        _reader_gone()
    except tf.errors.ResourceExhaustedError as error:
        remedy = "" if "No space left" in str(error) else "; a smaller --batch_size needs less memory"
        _fail(f"out of {'memory' if remedy else 'disk space'}: {in_words(error)}{remedy}", 1)
    except tf.errors.OpError as error:  # files that TensorFlow reads or writes
        _fail(in_words(error), 1)
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
            default = "" if flag.default in (None, "", ()) else f" [{text(flag.default)}]"
            prefix = "--[no]" if flag.boolean else "--"
            lines.append(f"  {prefix}{name}: {flag.help}{default}")
    lines += ["", "--flagfile=FILE reads flags from a file, one a line."]
    return "\n".join(lines)


def _wrapped(text):
    """For the width of the terminal, if it is shown in one: what continues a flag's help is indented."""
    if not sys.stdout.isatty():
        return text
    width, lines = shutil.get_terminal_size().columns, []
    for line in text.splitlines():
        start = line[: len(line) - len(line.lstrip())] + "    " * line.lstrip().startswith("--")
        style = {"subsequent_indent": start, "break_on_hyphens": False, "break_long_words": False}
        lines += textwrap.wrap(line, width, drop_whitespace=True, **style) or [""]
    return "\n".join(lines)
