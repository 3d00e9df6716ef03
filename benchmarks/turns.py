"""Programs that are timed side by side: each in a process of its own, one after another taking a turn.

So each one's memory and start are its own, while the state of the machine is the same for all of them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from benchmarks import machine
from madry_cifar.cli.errors import RunError
from madry_cifar.cli.progress import progress_bar


class Contender:
    """A program, as the process that times it sees it: `python -m module SETTINGS`, which repeats `turns()`.

    Attributes:
      name: as given.
      seconds: of each turn so far; the first one includes what the program builds.
    """

    def __init__(self, name: str, module: str, settings: dict):
        self.name, self.seconds = name, []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as this object)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
        command = [sys.executable, "-m", module, json.dumps(settings)]
        self._process = subprocess.Popen(command, **pipes)
        self._before = self._hear()

    def turn(self) -> None:
        """Lets it take a turn.

        Raises:
          RunError: when it fails, with the last line that it wrote to stderr.
        """
        print("go", file=self._process.stdin, flush=True)
        self.seconds.append(self._hear()["seconds"])

    def end(self) -> dict[str, float]:
        """Ends it; returns what its memory grew by at most, in GiB, since its imports: `memory_gib` and, on a GPU,
        `gpu_memory_gib`."""
        self._process.stdin.close()
        after = self._hear()
        self._process.wait()
        grown = {"memory_gib": after["peak"] - self._before["resident"]}
        return grown | ({"gpu_memory_gib": after["gpu"]} if "gpu" in after else {})

    def __enter__(self):
        return self

    def __exit__(self, *_):  # whatever happened, it does not outlive the block
        self._process.kill()
        self._process.wait()

    def _hear(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or [f"status {self._process.returncode}"])[-1]
        raise RunError(f"{self.name}: {last}")


def take_turns(contenders: list[Contender], rounds: int, after_each: Callable[[], Any]) -> None:
    """So many rounds in which each takes a turn; `after_each` round something else may be measured."""
    with progress_bar(rounds * len(contenders), "turn") as bar:
        for _ in range(rounds):
            for contender in contenders:
                contender.turn()
                bar.update()
            after_each()


def turns() -> Iterator[int]:
    """In such a program: the numbers of its turns, each from 0 on when it may take it, until it is to end.

    A turn lasts until the next number is asked for; seconds that are sent to the generator (`send`) are taken off. What
    the program prints goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**values):
        print(json.dumps(values), file=answers, flush=True)

    say(resident=machine.resident())
    number = 0
    while sys.stdin.readline() == "go\n":
        started = time.perf_counter()
        off = yield number
        say(seconds=time.perf_counter() - started - (off or 0.0))
        number += 1
    gpu = {"gpu": tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30} if _has_gpu() else {}
    say(peak=machine.peak(), **gpu)


def _has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))
