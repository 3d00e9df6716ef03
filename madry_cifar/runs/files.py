"""Files that are whole or not there: each is written under a temporary name, then renamed."""

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Makes an OSError of the block name `path`: Python names no file where a write fails, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name beside `path`, with its ending: renamed to `path` after the block, removed if that fails.

    The folder is made if it is missing. What a process that was killed while it wrote has left is removed.

    Raises:
      OSError: naming `path`, when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _clean(path)
            yield temporary
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _clean(path):
    """Removes temporary files for `path` of processes that are no more."""
    for left in path.parent.glob(f".*.{glob.escape(path.name)}"):
        number = left.name.split(".")[1]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, OverflowError, OSError):  # no temporary file; or the process is another user's
            continue


@contextlib.contextmanager
def no_pattern(path: str) -> Iterator[str]:
    """A path of the same file or files that TensorFlow reads as it stands: to it, "[0.1]" and the like are patterns."""
    folder, name = os.path.split(os.path.abspath(path))
    if not set(folder) & set("*?[\\"):
        yield path
        return
    with tempfile.TemporaryDirectory() as place:
        link = os.path.join(place, "folder")
        os.symlink(folder, link)
        yield os.path.join(link, name)


@contextlib.contextmanager
def alone(folder: pathlib.Path, lock: str = ".lock", *, wait: bool = True) -> Iterator[None]:
    """Waits, and says so, until no other process is in such a block for a folder, which is made if it is missing.

    Raises:
      BlockingIOError: when another one is, and it is not to `wait`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / lock).open("a") as file:
        # released with the file, even when the process is killed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(f"waiting for another command that works in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON; a reader never sees half a file. Raises OSError as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def write_array(path: pathlib.Path, save, *arrays, **named_arrays) -> None:
    """Writes arrays by NumPy's `save`. Raises OSError as `replacing`."""
    with replacing(path) as temporary:
        save(temporary, *arrays, **named_arrays)
