"""The paper's numbers: Tables II to IV as printed, with their marks (`published.csv`). Nothing here is measured."""

import csv
import functools
import pathlib
from dataclasses import dataclass

FILE = pathlib.Path(__file__).with_name("published.csv")
PAPER = "İ. M. Baytaş and D. Deb, Robustness-via-Synthesis, Neurocomputing 516, 2023 (arXiv 2108.09713)"
MARKS = {"star": "*", "dagger": "†"}
MEANINGS = {
    "star": "the authors of the paper trained this network from scratch themselves (their note to Table II)",
    "dagger": "read off Figures 5 and 6 in the supplementary material of Learn2Perturb, not off a table",
    "": "in the row RvS, and in Tables III and IV: the paper's own experiment. In other rows of Table II: the best "
    "number that the defence's own authors report (so the paper; the zeros of its row Natural have no mark either)",
}


@dataclass(frozen=True)
class Published:
    """A number that the paper prints.

    Attributes:
      printed: accuracy in percent, with the digits that the paper gives it.
      mark: "star", "dagger" or "" (see `MEANINGS`).
      note: what else the paper says of it, or "".
      table: "II", "III" or "IV".
    """

    printed: str
    mark: str
    note: str
    table: str

    @property
    def accuracy(self) -> float:
        """In percent."""
        return float(self.printed)

    @property
    def text(self) -> str:
        """As printed, with its mark."""
        return self.printed + MARKS.get(self.mark, "")

    @property
    def source(self) -> str:
        """Where it stands."""
        return f"Table {self.table} of the paper"


@functools.cache
def read() -> dict[tuple[str, str, str, str, str], Published]:
    """Every published number by (table, dataset, setting, row, attack), in the paper's order."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return {
            (row["table"], row["dataset"], row["setting"], row["defense"], row["attack"]): Published(
                row["accuracy"], row["mark"], row["note"], row["table"]
            )
            for row in csv.DictReader(file)
        }


def find(table: str, dataset: str, setting: str, row: str, attack: str) -> Published | None:
    """The published number of a cell; None where the paper has a dash or no such cell."""
    return read().get((table, dataset, setting, row, attack))


def rows(table: str, dataset: str, setting: str) -> list[str]:
    """The rows of a table, top to bottom as the paper prints them; none for a data set that it does not have."""
    return list(dict.fromkeys(key[3] for key in read() if key[:3] == (table, dataset, setting)))
