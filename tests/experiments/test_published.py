"""The paper's numbers as the reports read them."""

import csv

import pytest

from experiments import published
from experiments.parts import PARTS
from experiments.rows import ROWS


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (("II", "cifar10", "white-box", "natural", "natural"), "94.42*"),
        (("II", "cifar10", "white-box", "rvs", "cw-100"), "27.54"),
        (("II", "cifar10", "white-box", "at", "advgan"), "84.98*"),
        (("II", "cifar100", "white-box", "adv_interp", "pgd-20"), "41"),
        (("II", "cifar100", "white-box", "learn2perturb", "fgsm"), "30.00†"),
        (("II", "svhn_cropped", "white-box", "natural", "pgd-10"), "0.18*"),
        (("III", "svhn_cropped", "transfer from natural", "rvs", "advgan"), "95.72"),
        (("III", "cifar100", "transfer from at", "rvs", "cw-20"), "55.01"),
        (("IV", "svhn_cropped", "white-box", "noreg_ot", "pgd-20"), "6.66"),
    ],
)
def test_numbers_are_as_the_paper_prints_them(key, text):
    number = published.find(*key[:3], *key[3:])
    assert number.text == text
    assert number.accuracy == float(text.rstrip("*†"))
    assert number.source == f"Table {key[0]} of the paper"


def test_a_dash_of_the_paper_is_none():
    assert published.find("II", "cifar10", "white-box", "bilateral", "pgd-10") is None
    assert published.find("II", "digits", "white-box", "rvs", "pgd-10") is None
    assert published.find("IV", "cifar10", "white-box", "paired", "pgd-20") is None


def test_every_line_is_read_once():
    lines = list(csv.DictReader(published.FILE.open(newline="", encoding="utf-8")))
    numbers = published.read()
    assert len(numbers) == len(lines)
    assert sum(key[0] == "III" for key in numbers) == 2 * 5 * 3  # surrogates × attacks × data sets
    assert sum(key[0] == "IV" for key in numbers) == 3 * 3 * 3  # variants × attacks × data sets
    assert all(0 <= number.accuracy <= 100 for number in numbers.values())


def test_rows_stand_as_in_the_paper():
    rows = published.rows("II", "cifar10", "white-box")
    assert rows == [name for name in ROWS if name in rows]
    assert published.rows("IV", "cifar100", "white-box") == [row for row in PARTS["table4"].rows if row != "paired"]
    assert published.rows("II", "digits", "white-box") == []


def test_every_mark_has_a_sign_and_a_meaning():
    used = {number.mark for number in published.read().values()}
    assert used == {"", *published.MARKS} == set(published.MEANINGS)


def test_the_last_row_of_table_four_is_that_of_table_two():
    for key, number in published.read().items():
        if key[0] == "IV" and key[3] == "rvs":
            assert number.printed == published.find("II", *key[1:]).printed
