"""Tables II, III and IV: which cells they have, each with what was measured and what the paper prints, never mixed."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from experiments import checks, published
from experiments.measured import Measurement, Work
from experiments.parts import PARTS
from experiments.published import Published
from experiments.rows import SURROGATES, WHITE_BOX, column_of, dataset_of, row_of, setting_label, transfer_from
from experiments.statement import Statement, about

MISSING = "–"
ALSO = "Also, with nothing published here:"
RESTARTS = "×10: ten random starts, of which the worst for each image counts."


@dataclass(frozen=True)
class Cell:
    """What is known of one row under one attack.

    Attributes:
      measured: by us, one for each run (seed).
      published: by the paper, or None.
    """

    row: str
    attack: str
    measured: tuple[Measurement, ...]
    published: Published | None

    @property
    def mean(self) -> float | None:
        """Measured accuracy in percent, over the seeds; None where nothing was measured."""
        return statistics.mean(m.accuracy for m in self.measured) if self.measured else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n − 1), in points; None for fewer than two."""
        return statistics.stdev(m.accuracy for m in self.measured) if len(self.measured) > 1 else None

    @property
    def uncertainty(self) -> float | None:
        """What stands behind ±: `deviation`, or, of a single run, the standard error from the number of images."""
        return self.measured[0].standard_error if len(self.measured) == 1 else self.deviation

    @property
    def difference(self) -> float | None:
        """Measured − published, in points."""
        return None if None in (self.mean, self.published) else self.mean - self.published.accuracy

    def text(self, kind: str) -> str:
        """The cell's entry in a line of this kind; a dash where there is none."""
        if kind == "measured":
            return MISSING if self.mean is None else f"{self.mean:.2f} ± {self.uncertainty:.2f}"
        if kind == "published":
            return MISSING if self.published is None else self.published.text
        return MISSING if self.difference is None else f"{self.difference:+.2f}".replace("-", "−")


@dataclass(frozen=True)
class TableRow:
    """What is known of one row.

    Attributes:
      planned: how many runs (seeds) of it the grid has.
      cells: by attack.
      heading: what stands above it, if it is the first of those that the paper's table does not have, or "".
    """

    name: str
    label: str
    planned: int
    cells: dict[str, Cell]
    heading: str = ""

    def kinds(self) -> Iterator[str]:
        """The lines that it takes: measured, published, difference."""
        if self.planned:
            yield "measured"
        if any(cell.published for cell in self.cells.values()):
            yield "published"
        if any(cell.difference is not None for cell in self.cells.values()):
            yield "difference"

    def kind_label(self, kind: str) -> str:
        """How its line of this kind is called; with the number of seeds where there are several, or should be."""
        counts = {len(cell.measured) for cell in self.cells.values()} - {0}
        if kind != "measured" or max(counts, default=0) == self.planned == 1:
            return kind
        if not counts:
            return f"{kind}: not yet"
        seen = "–".join(map(str, dict.fromkeys([min(counts), max(counts)])))
        return f"{kind}, {seen} seeds" if counts == {self.planned} else f"{kind}, {seen} of {self.planned} seeds"


@dataclass(frozen=True)
class Group:
    """The rows of a table for one data set and one setting. `attacks` are the columns."""

    dataset: str
    setting: str
    attacks: list[str]
    rows: list[TableRow]

    @property
    def title(self) -> str:
        """Data set and, for a transfer, the surrogate."""
        return self.name if self.setting == WHITE_BOX else f"{self.name}, {setting_label(self.setting)}"

    @property
    def name(self) -> str:
        """Of the data set."""
        return dataset_of(self.dataset).label

    def cells(self) -> Iterator[Cell]:
        """All its cells."""
        return (cell for row in self.rows for cell in row.cells.values())

    def lines(self) -> Iterator[list[str]]:
        """What is printed: defence (on its first line only), kind of number, one entry for each attack; headings."""
        for row in self.rows:
            if row.heading:
                yield [row.heading, "", *("" for _ in self.attacks)]
            for place, kind in enumerate(row.kinds()):
                entries = [row.cells[attack].text(kind) for attack in self.attacks]
                yield ["" if place else row.label, row.kind_label(kind), *entries]

    @property
    def about(self) -> str:
        """Images, data and networks of what was measured, in words."""
        return about((m for cell in self.cells() for m in cell.measured), {row.name: row.label for row in self.rows})


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, with what was measured of it."""

    part: str
    statement: Statement
    groups: list[Group]
    remarks: list[checks.Remark] = field(default_factory=list)

    @property
    def number(self) -> str:
        """The paper's: II, III or IV."""
        return PARTS[self.part].number

    @property
    def subject(self) -> str:
        """What it is of."""
        return PARTS[self.part].subject

    @property
    def title(self) -> str:
        """Number and subject."""
        return PARTS[self.part].title

    @property
    def caption(self) -> str:
        """How to read it."""
        columns = [column_of(attack) for group in self.groups for attack in group.attacks]
        others = [column for column in dict.fromkeys(columns) if not column.in_paper]
        l2 = [column for column in others if not column.family.linf]
        notes = [PARTS[self.part].note]
        if others:
            notes.append(f"Not in the paper, and so with nothing published beside them: {_labels(others)}.")
        if stopping := [column for column in others if column.stops]:
            which = "These leave" if stopping == others else f"{_labels(stopping)}: leave"
            notes.append(f"{which} alone what is misclassified already.")
        notes += [column.family.note for column in others if column not in l2]
        notes += [RESTARTS for column in others if column.times > 1]
        notes += [column.family.note for column in l2]
        return (
            f"Accuracy in percent, L∞ attacks with ε = 8/255{' (but C&W L2)' if l2 else ''}, PGD and CW in steps of "
            "2/255. Lines called measured are ours; ±: standard error from the number of images, or, over several "
            "seeds, the standard deviation between them. Lines called published are the paper's numbers. Difference: "
            f"measured − published, in points. {MISSING}: not there. {' '.join(filter(None, dict.fromkeys(notes)))}"
        )

    def cells(self) -> Iterator[tuple[Group, Cell]]:
        """All its cells, with their groups."""
        return ((group, cell) for group in self.groups for cell in group.cells())

    def marks(self) -> list[tuple[str, str]]:
        """The marks that its published numbers bear ("no mark" included), and what they mean."""
        used = {cell.published.mark for _, cell in self.cells() if cell.published}
        return [(published.MARKS.get(mark, "no mark"), published.MEANINGS[mark]) for mark in sorted(used)]


def _labels(columns):
    return ", ".join(column.label for column in columns)


def build(work: Work, part: str, statement: Statement) -> Table:
    """The table called `part` (table2, table3 or table4) of a work folder."""
    surrogates = work.config.get("surrogates", SURROGATES) if part == "table3" else [None]
    groups = [_group(work, part, dataset, surrogate) for dataset in work.datasets for surrogate in surrogates]
    return Table(part, statement, groups, checks.check_table(work, part, groups))


def _group(work, part, dataset, surrogate):
    setting = transfer_from(surrogate) if surrogate else WHITE_BOX
    number = PARTS[part].number
    seeds = {row: work.runs_of(dataset, row) for row in work.rows(part) if row != surrogate}
    seeds = {row: runs for row, runs in seeds.items() if runs}
    measured = {
        row: [m for run in runs for m in work.at_epsilon(run, surrogate, part).values()] for row, runs in seeds.items()
    }
    attacks = _attacks(work, part, measured)
    rows, of_paper = [], published.rows(number, dataset, setting)
    others = [name for name in seeds if of_paper and name not in of_paper]
    for name in dict.fromkeys([*of_paper, *seeds]):
        cells = {
            attack: Cell(
                name,
                attack,
                tuple(m for m in measured.get(name, ()) if m.attack == attack),
                published.find(number, dataset, setting, name, attack),
            )
            for attack in attacks
        }
        notes = dict.fromkeys(cell.published.note for cell in cells.values() if cell.published and cell.published.note)
        row = row_of(name)
        label = (part == "table4" and row.ablation) or row.label
        label += f" ({', '.join(notes)})".replace("eps", "ε") if notes else ""
        rows.append(TableRow(name, label, len(seeds.get(name, ())), cells, ALSO if name in others[:1] else ""))
    return Group(dataset, setting, attacks, rows)


def _attacks(work, part, measured):
    """The columns: the paper's, those asked for, and, but in Table IV, whatever else was measured."""
    attacks = {*PARTS[part].attacks, *work.config.get("attacks", {}).get(part, ())}
    if part != "table4":
        attacks.add("advgan")
        for width in work.config.get("advgan_widths", ()):
            name = "advgan" if width == 1 else f"advgan-x{width}"
            attacks |= {name, f"{name}-final"}
        attacks |= {m.attack for ms in measured.values() for m in ms}
    return sorted(attacks, key=lambda attack: column_of(attack).order)
