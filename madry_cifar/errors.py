"""The two errors that a command turns into one line on stderr (see `flags.run`)."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """What the user asked for cannot be done as asked: a flag, a path, a file or a value. Exit status 2."""


class RunError(RuntimeError):
    """A run that was asked for correctly could not go on. Exit status 1."""


def unknown(flag: str, value: str, known: Iterable[str]) -> UsageError:
    """The error for a `value` that is not among the `known` names: names the nearest one and all of them."""
    known = sorted(known)
    nearest = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UsageError(f"--{flag}={value}: unknown; {suggestion}Known: {', '.join(known)}")
