"""Programs that take turns, each in a process of its own."""

import contextlib

import pytest

from benchmarks.turns import Contender, take_turns
from madry_cifar.cli.errors import RunError

PROGRAM = """
import json, sys
import numpy as np
from benchmarks.turns import turns

settings, kept = json.loads(sys.argv[1]), []
steps = turns()
step = next(steps)
while True:
    print("this is no answer")
    kept.append(np.ones(settings["mib"] * 2**17))
    if step == settings.get("fails_at"):
        raise ValueError(f"no step {step}")
    try:
        step = steps.send(settings["seconds_off"])
    except StopIteration:
        break
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda **settings: Contender("peer", "program", {"mib": 1, "seconds_off": 0} | settings)


def test_turns_and_memory(start):
    rounds = []
    with start(mib=100, seconds_off=1000) as contender:
        take_turns([contender], 3, lambda: rounds.append(len(contender.seconds)))
        assert rounds == [1, 2, 3]
        assert all(-1000 <= seconds < -900 for seconds in contender.seconds)  # what is taken off does not count
        # Linux counts a process's pages on each core and adds them up now and then: some dozens may be missing
        assert 299 / 1024 < contender.end()["memory_gib"] < 400 / 1024


def test_a_failure_ends_in_the_last_line_that_the_program_wrote(start):
    with start(fails_at=1) as contender:
        contender.turn()
        with pytest.raises(RunError, match=r"^peer: ValueError: no step 1$"):
            contender.turn()


def test_nothing_is_left_behind(start):
    with contextlib.suppress(KeyboardInterrupt), start() as contender:
        contender.turn()
        raise KeyboardInterrupt
    assert contender._process.poll() is not None
