"""The progress bar's row, at the widths that terminals have."""

import os
import re
import subprocess
import sys

import pytest

from madry_cifar.cli import progress
from madry_cifar.cli.progress import CELLS, ProgressBar

EVERYTHING = "| 12345/179000 [1:23:45<18:22:12,  2.52step/s, loss=1.23, natural=0.521, adversarial=0.304]"
VALUES = "loss=1.23, natural=0.521, adversarial=0.304"


def row(columns, postfix=VALUES, **changes):
    numbers = {"n": 12_345, "total": 179_000, "elapsed": 5025.0, "rate": 2.52, "unit": "step", "prefix": ""} | changes
    return ProgressBar.format_meter(ncols=columns, postfix=postfix, **numbers)


def test_at_80_columns_there_is_a_bar_and_no_number_is_cut():
    shown = row(80)
    assert len(shown) == 80
    assert len(re.search(r"\|(.*)\|", shown)[1]) >= 10
    assert shown.startswith("  7%|")
    assert shown.endswith(" 12345/179000 [18:22:12 left, loss=1.23, natural=0.521]")


def test_where_there_is_room_everything_is_shown():
    assert row(140).endswith(EVERYTHING)
    assert len(row(140)) == 140


@pytest.mark.parametrize("columns", range(30, 200, 7))
@pytest.mark.parametrize("prefix", ["", "  pgd-20"])
def test_no_width_cuts_a_number(columns, prefix):
    shown = row(columns, prefix=prefix)
    assert len(shown) <= columns
    assert "18:22:12 left" in shown or "18:22:12, " in shown
    assert all(value in VALUES.split(", ") for value in re.findall(r"\w+=[^,\]]*", shown))
    if "/179000" in shown:
        assert len(re.search(r"\|(.*)\|", shown)[1]) >= CELLS


def test_a_file_gets_the_whole_row():
    assert row(None).endswith(EVERYTHING)


@pytest.mark.parametrize(("switch", "rows"), [("1", 0), ("", 2)])
@pytest.mark.parametrize("disable", [True, False])
def test_bars_are_off_where_the_environment_says_so(switch, rows, disable):
    """In a process of its own: tqdm reads the environment when it is imported."""
    code = f"import runpy; make = runpy.run_path({progress.__file__!r})['progress_bar']\n"
    code += f"with make(10, 'step', disable={disable}) as bar: bar.update(3)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TQDM_DISABLE": switch}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("/10 [")) == (0, 0 if disable else rows)
