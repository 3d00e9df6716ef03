"""A table as LaTeX, for a document with the packages booktabs and graphicx."""

import re

from experiments.rows import column_of
from experiments.tables import Group, Table

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "ε": r"$\varepsilon$",
    "×": r"$\times$",
    "±": r"{\scriptsize$\pm$}",
    "−": "$-$",
    "–": "--",
    "†": r"\textsuperscript{\dag}",
    "L∞": r"$\ell_\infty$",
    "∞": r"$\infty$",
}


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    text = text.replace("L∞", "\0")
    return "".join(_SIGNS["L∞"] if sign == "\0" else _SIGNS.get(sign, sign) for sign in text)


def table_star(table: Table) -> str:
    """The table as a `table*`; one tabular for each of its groups, a caption of two lines, and the notes below."""
    marks = "; ".join(f"{mark}: {meaning}" for mark, meaning in table.marks())
    notes = f"{table.caption} {table.statement.caveat} {marks}."
    lines = [
        f"% {table.statement.short}",
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption[{{{escaped(table.subject)}}}]{{{_caption(table)}}}",
        rf"\label{{tab:{table.part}}}",
        *(line for group in table.groups for line in _tabular(group)),
        rf"\par\smallskip\footnotesize {escaped(_NUMBERED.sub(_OF_THE_PAPER, ' '.join(notes.split())))}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


_NUMBERED = re.compile(r"Table (II|III|IV)\b(?! of the paper)")  # LaTeX numbers this table itself
_OF_THE_PAPER = r"Table \1 of the paper"


def _caption(table):
    """What the table shows, in two lines, and what kind of run it is of."""
    shows = f"{table.subject}: accuracy in percent (ε = 8/255), measured and published"
    return rf"{escaped(shows)}; \textbf{{{escaped(table.statement.short)}}}."


def _tabular(group: Group) -> list[str]:
    wide = len(group.attacks) > 6  # then shrunk to the page
    return [
        rf"\par\medskip\footnotesize\textbf{{{escaped(group.title)}}} (measured: {escaped(group.about)})\par\smallskip",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{ll{'r' * len(group.attacks)}}}",
        r"\toprule",
        _row(["Defence", "Numbers", *(column_of(attack).label for attack in group.attacks)]),
        *(row for line in group.lines() for row in _rows(line)),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
    ]


def _rows(line):
    """A line of the table; what follows ± goes below, which keeps the columns narrow."""
    if line[0]:
        yield r"\midrule"
    halves = [entry.partition(" ± ") for entry in line]
    yield _row([value for value, _, _ in halves])
    if any(sign for _, sign, _ in halves):
        yield " & ".join(rf"\scriptsize $\pm$ {error}" if sign else "" for _, sign, error in halves) + r" \\"


def _row(entries):
    return " & ".join(map(escaped, entries)) + r" \\"
