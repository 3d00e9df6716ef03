"""The tables of docs/results/README.md say what the files beside it say."""

import csv
import pathlib
import re

import pytest

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "results"
ROWS = {  # of the page, and of the files
    "natural training": "natural",
    "AT": "at",
    "Bilateral": "bilateral",
    "FeatScatter": "featscatter",
    "Adv-interp": "adv_interp",
    "Adv-vertex": "adv_vertex",
    "RvS": "rvs",
    "TRADES": "trades",
    "L2L": "l2l",
    "L2L-DA": "l2l_da",
    "Direct": "direct",
    "Direct with its batch statistics": "direct_batch",
    "Learn2Perturb": "learn2perturb",
    "noReg + OT": "noreg_ot",
    "OT-Reg + Xent": "otreg_xent",
}


@pytest.fixture(scope="module")
def cells():
    """Every cell of the CSV files, by row and attack."""
    found = {}
    for path in sorted(RESULTS.glob("table*.csv")):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                known = found.get((line["row"], line["attack"]))
                if line["measured"] or not known:
                    assert not known or known["measured"] in ("", line["measured"]), f"{path}: {line}"
                    found[line["row"], line["attack"]] = line
    return found


@pytest.fixture(scope="module")
def lines():
    """The lines of the page's main table: row, measured or published, and the numbers by attack."""
    text = (RESULTS / "README.md").read_text()
    (table,) = re.findall(r"^\| \| natural \|.*?(?=^$)", text, re.M | re.S)
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    attacks = [name.lower() for name in head[1:]]
    found = []
    for first, *values in body:
        label, published = re.fullmatch(r"(?:(.*), measured.*|(— published))", first).groups()
        row = found[-1][0] if published else ROWS[label]
        found.append((row, "published" if published else "measured", dict(zip(attacks, values, strict=True))))
    return found


def test_the_main_table(cells, lines):
    assert len(lines) >= 20
    for row, kind, values in lines:
        for attack, shown in values.items():
            cell = cells.get((row, attack), {}).get(kind, "")
            if kind == "published":
                cell = cell or ("–" if shown else "")
            wanted = f"{float(cell):.1f}" if cell and kind == "measured" else cell
            assert shown == wanted, f"{row}, {kind}, {attack}: {shown} on the page, {cell or 'nothing'} in the files"


def test_every_number_has_its_origin(cells):
    measured = [cell for cell in cells.values() if cell["measured"]]
    assert len(measured) > 100
    for cell in measured:
        for name in ("measured_seeds", "measured_runs", "measured_images", "measured_git_revision"):
            assert cell[name] != "", f"{cell['row']}, {cell['attack']}: no {name}"
