"""Tables and sentences made of what a benchmark measured."""

import pytest

from benchmarks import report

RESULT = {
    "note": "Only an example.",
    "machine": {
        "cpu": "Fast",
        "cores": 2,
        "gpus": ["H1"],
        "versions": {"python": "3.11", "peer": None},
        "date": "2030-01-02",
    },
    "settings": {"depth": 10, "jit_compile": False, "sizes": [1, 2], "reference": None},
    "curves": {"a": "no table"},
    "empty": [],
    "some_rows": [{"name": "ours", "seconds": 0.1234}, {"name": "peer", "seconds": None, "works": True}],
}


def test_markdown():
    assert (
        report.markdown(RESULT)
        == """Only an example.

depth 10, sizes 1, 2; measured on 2030-01-02 with 2 cores of Fast, H1, python 3.11

**Some rows**

| name | seconds | works |
| --- | --: | --- |
| ours | 0.123 | – |
| peer | – | yes |"""
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00012345, "0.000123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (123456.7, "123,457"),
        (5, "5"),
        (False, "no"),
        ("a", "a"),
        (None, "–"),
        ([1.5, None], "1.5, –"),
    ],
)
def test_cells(value, text):
    assert report.cell(value) == text
