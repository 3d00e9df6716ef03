"""The two errors that a command turns into one line on stderr (see `flags.run`)."""

import difflib
import re
from collections.abc import Iterable
from typing import Any


def text(value: Any) -> str:
    """A flag's value as it stands on a command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def in_words(error: Exception) -> str:
    """What an error of a library says, on one line, without TensorFlow's names of places in its graph."""
    return " ".join(re.sub(r"\{\{.*?\}\}|\[Op:\w*\]", "", str(error)).split())[:300]


class UsageError(ValueError):
    """What the user asked for cannot be done as asked: a flag, a path, a file or a value. Exit status 2.

    Its text is "--FLAG=VALUE: REASON", or the reason alone where it is no flag's fault (flag None). The reason says
    what would do.
    """

    def __init__(self, flag: str | None, value: Any, reason: str):
        super().__init__(reason if flag is None else f"--{flag}={text(value)}: {reason}")
        self.flag, self.value, self.reason = flag, value, reason

    def renamed(self, **flags: str) -> "UsageError":
        """The same of a flag that is called otherwise where this is raised, as in renamed(train_dir="target_dir")."""
        return UsageError(flags.get(self.flag, self.flag), self.value, self.reason)


class RunError(RuntimeError):
    """A run that was asked for correctly could not go on. Exit status 1."""


def unknown(flag: str, value: Any, known: Iterable[Any]) -> UsageError:
    """The error for a `value` that is not among the `known` names: names the nearest one and all of them."""
    known = sorted(map(str, known))
    by_letters = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(str(value).lower(), by_letters, n=1, cutoff=0.4)
    suggestion = f"did you mean {by_letters[nearest[0]]!r}? " if nearest else ""
    return UsageError(flag, value, f"unknown; {suggestion}Known: {', '.join(known)}")
