"""The tables of docs/results/README.md say what the files beside it say."""

import csv
import pathlib
import re
from decimal import ROUND_HALF_UP, Decimal

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


CLAIMS = {  # how each begins: the cells that it tells, in this order, as published and as measured here
    "RvS keeps the natural accuracy": (
        [("rvs", "natural"), ("at", "natural"), ("natural", "natural")],
        [("rvs", "natural"), ("at", "natural"), ("natural", "natural"), ("WRN-16-4", "natural")],
    ),
    "under PGD-20 RvS holds better": (
        [("rvs", "pgd-20"), ("at", "pgd-20")],
        [("rvs", "pgd-20"), ("at", "pgd-20"), ("WRN-16-4", "pgd-20")],
    ),
    "so it is robust": (
        [],
        [
            ("rvs", "autoattack"),
            ("WRN-16-4", "pgd-20"),
            ("WRN-16-4", "autoattack"),
            ("at", "pgd-20"),
            ("at", "autoattack"),
        ],
    ),
    "the classifier has to pay for D": ([("noreg_ot", "pgd-20")], [("noreg_ot", "pgd-20"), ("rvs", "pgd-20")]),
    "D is a better reward": 2 * ([("rvs", "pgd-20"), ("otreg_xent", "pgd-20")],),
    "AdvGAN takes more": 2 * ([("rvs", "natural", "advgan"), ("at", "natural", "advgan")],),  # differences
}


def on_gpu():
    """The last checkpoint of the network that was trained on a GPU, as lines of the other files are."""
    with (RESULTS / "gpu.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    last = max(int(line["checkpoint"]) for line in lines)
    names = {"measured": "accuracy", "measured_standard_error": "standard_error"}
    return {
        ("WRN-16-4", line["attack"]): {name: line[column] for name, column in names.items()}
        for line in lines
        if int(line["checkpoint"]) == last
    }


def rounded(value, places="0.1"):
    """As a reader rounds."""
    return str(Decimal(value).quantize(Decimal(places), ROUND_HALF_UP))


def test_the_claims(cells):
    """The numbers of the first table are these, each with the error that is told."""
    cells = cells | on_gpu()
    text = (RESULTS / "README.md").read_text()
    (table,) = re.findall(r"^\| claim of the paper.*?(?=^$)", text, re.M | re.S)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(lines) == len(CLAIMS)
    for (claim, _, evidence), (start, told) in zip(lines, CLAIMS.items(), strict=True):
        assert claim.startswith(start)
        for said, kind, places in ((claim, "published", told[0]), (evidence, "measured", told[1])):
            if places and len(places[0]) == 3:
                number = r"(\d+) and (\d+) points"
                values = ([cells[row, attack][kind] for attack in attacks] for row, *attacks in places)
                wanted = [tuple(rounded(Decimal(first) - Decimal(then), "1") for first, then in values)]
            else:
                number = r"(?<!± )\b\d+\.\d\b"
                wanted = [rounded(cells[place][kind]) for place in places]
            assert re.findall(number, said) == wanted, said
            for value, error in re.findall(r"(\d+\.\d) ± (\d+\.\d)", said):
                errors = {rounded(cells[place]["measured_standard_error"]) for place in places}
                assert error in errors, f"{value} ± {error}"


def test_the_page_of_the_gpu():
    """The line of its last checkpoint."""
    text = (RESULTS / "gpu.md").read_text()
    head, _, *lines = re.findall(r"^\|.*\|$", text, re.M)
    attacks = [name.strip().lower() for name in head.strip("|").split("|")[2:]]
    (line,) = (line for line in lines if line.startswith("| 67,399 |"))
    shown = {name: cell.strip() for name, cell in zip(attacks, line.strip("|").split("|")[2:], strict=True)}
    measured = {attack: rounded(cell["measured"]) for (_, attack), cell in on_gpu().items()}
    assert {name: value for name, value in shown.items() if value} == {n: measured[n] for n in attacks if n in measured}
