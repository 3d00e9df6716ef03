"""The tables of docs/results/ say what the files beside them say."""

import csv
import pathlib
import re
import shlex
import statistics
from decimal import ROUND_HALF_UP, Decimal

import pytest

from experiments.parts import PARTS

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "results"
MAIN = {  # rows of the page's table of Table II, and of the files
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
    "ADT-EXP": "adt_exp",
    "ADT-EXP-AM": "adt_expam",
    "ADT-IMP-AM": "adt_impam",
    "GAT": "gat",
}
ABLATIONS = {
    "noReg + OT": "noreg_ot",
    "OT-Reg + Xent": "otreg_xent",
    "OT-Reg + OT (RvS)": "rvs",
    "OT-Reg + paired distance": "paired",
}


GPU = {"at": "AT, on a CPU", "rvs": "RvS, on a CPU"}  # their lines on the page


TRANSFER = {"natural training": "transfer from natural", "AT": "transfer from at"}


def read(name, key="row", rows=None):
    """Every cell of a file, of these rows alone if any are given, by row, or another column, and attack."""
    with (RESULTS / name).open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if not rows or line["row"] in rows]
    cells = {(line[key], line["attack"]): line for line in lines}
    assert len(cells) == len(lines)
    return cells


@pytest.fixture(scope="module")
def table2():
    """Rows that the latest version has not measured are those of the earlier one."""
    latest = read("table2.csv")
    rows = {row for (row, _), cell in latest.items() if cell["measured"]}
    earlier = {place: cell for place, cell in read("table2_earlier.csv").items() if place[0] not in rows}
    return latest | earlier


@pytest.fixture(scope="module")
def table3():
    return read("table3.csv", key="setting", rows=["rvs"])


@pytest.fixture(scope="module")
def table4():
    return read("table4.csv")


@pytest.fixture(scope="module")
def on_gpu():
    """The last checkpoints of the networks that were trained on a GPU, as lines of the other files are.

    Of an attack that was measured twice, on the most images.
    """
    with (RESULTS / "gpu.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if not line["made_on"]]
    lines.sort(key=lambda line: int(line["images"]))
    last = {defense: max(int(line["checkpoint"]) for line in lines if line["defense"] == defense) for defense in GPU}
    names = {"measured": "accuracy", "measured_standard_error": "standard_error"}
    return {
        (GPU[line["defense"]], line["attack"]): {name: line[column] for name, column in names.items()}
        for line in lines
        if int(line["checkpoint"]) == last[line["defense"]]
    }


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def table(page, start):
    """The table of a page whose head starts so: the head, and the lines below."""
    (found,) = re.findall(rf"^{re.escape(start)}.*?(?=^$|\Z)", (RESULTS / page).read_text(), re.M | re.S)
    head, _, *body = map(cells_of, found.splitlines())
    return head, body


def rounded(value, places="0.1"):
    """As a reader rounds."""
    return str(Decimal(value).quantize(Decimal(places), ROUND_HALF_UP))


def measured(cell):
    """An accuracy as the page has it: of several trainings, with the deviation between them."""
    deviation = cell.get("measured_std_over_seeds")
    return rounded(cell["measured"]) + (f" ± {rounded(deviation)}" if deviation else "")


@pytest.mark.parametrize(
    ("start", "rows", "fixture", "least"),
    [
        ("| | natural | FGSM |", MAIN, "table2", 20),
        ("| Table III |", TRANSFER, "table3", 4),
        ("| Table IV |", ABLATIONS, "table4", 7),
    ],
)
def test_measured_and_published(request, start, rows, fixture, least):
    cells = request.getfixturevalue(fixture)
    head, lines = table("README.md", start)
    attacks = [name.lower() for name in head[1:]]
    assert len(lines) >= least
    row = None
    for first, *values in lines:
        label, published = re.fullmatch(r"(?:(.*), measured.*|(— published))", first).groups()
        row, kind = (row, "published") if published else (rows[label], "measured")
        for attack, shown in zip(attacks, values, strict=True):
            cell = cells.get((row, attack), {})
            if kind == "published":
                wanted = cell.get(kind) or ("–" if shown else "")
            else:
                wanted = measured(cell) if cell.get(kind) else ""
            assert shown == wanted, f"{row}, {kind}, {attack}: {shown} on the page, {wanted or 'nothing'} in the files"


def test_every_number_has_its_origin(table2, table3, table4):
    cells = [cell for table in (table2, table3, table4) for cell in table.values() if cell["measured"]]
    assert len(cells) > 100
    for cell in cells:
        for name in ("measured_seeds", "measured_runs", "measured_images", "measured_git_revision"):
            assert cell[name] != "", f"{cell['row']}, {cell['attack']}: no {name}"


def test_the_commands_of_the_pages_make_these_runs(configure, table2, table3, table4):
    """A run's folder is named by all that decides its training; those of the earlier table were named otherwise."""
    made = set()
    for page in ("README.md", "defense_gan.md"):
        text = (RESULTS / page).read_text().replace("\\\n", " ")
        for grid in re.findall(r'^GRID="(.*)"$', text, re.M):
            text = text.replace("$GRID", grid)
        for name, given in re.findall(r"^python -m experiments\.(\w+) (.*--profile=.*)$", text, re.M):
            parts = [*PARTS] if name == "all" else [name]
            config = configure(*shlex.split(given, comments=True), parts=parts)
            made |= {run["id"] for run in config["runs"]}
    latest = [*read("table2.csv").values(), *table3.values(), *table4.values()]
    told = [cell["measured_runs"] for cell in latest]
    for name in ("figure2.csv", "figure3.csv"):
        with (RESULTS / name).open(newline="") as file:
            told += [line["runs"] for line in csv.DictReader(file)]
    with (RESULTS / "size.csv").open(newline="") as file:
        told += [line["run"].removeprefix("runs/") for line in csv.DictReader(file)]
    told = {run for runs in told for run in runs.split("; ") if run}
    assert len(told) > 20
    assert told <= made


def test_accuracies_over_the_training():
    """Each is of three trainings."""
    head, lines = table("README.md", "| step | natural |")
    with (RESULTS / "length.csv").open(newline="") as file:
        measurements = list(csv.DictReader(file))
    assert len(lines) == 4
    for step, *cells in lines:
        for attack, shown in zip(head[1:], cells, strict=True):
            place = step.replace(",", ""), attack.lower()
            of_cell = [m for m in measurements if (m["checkpoint"], m["attack"]) == place]
            assert [m["seed"] for m in of_cell] == ["0", "1", "2"]
            accuracies = [Decimal(m["accuracy"]) for m in of_cell]
            assert shown == f"{rounded(statistics.mean(accuracies))} ± {rounded(statistics.stdev(accuracies))}"


def test_accuracies_at_other_sizes():
    """Each is of one training, or of three; a cell is empty where nothing was measured."""
    head, lines = table("README.md", "| | network | batch |")
    with (RESULTS / "size.csv").open(newline="") as file:
        measurements = list(csv.DictReader(file))

    def place(m):
        batch = re.search(r"--batch_size=(\d+)|$", m["trained_with"])[1] or "64"  # RvS's are all of one size
        return m["defense"], m["network"], batch, m["checkpoint"], m["attack"]

    cells = {place(m) for m in measurements}
    told = set()
    for row, network, batch, steps, *shown in lines:
        for attack, accuracy in zip(head[4:], shown, strict=True):
            at = (MAIN[row], network, batch, steps.replace(",", ""), attack.lower())
            found = [m for m in measurements if place(m) == at]
            if not found:
                assert accuracy == "", at
                continue
            told.add(at)
            assert [m["trained_seed"] for m in found] in (["0"], ["0", "1", "2"])
            accuracies = [Decimal(m["accuracy"]) for m in found]
            deviation = f" ± {rounded(statistics.stdev(accuracies))}" if len(found) > 1 else ""
            assert accuracy == rounded(statistics.mean(accuracies)) + deviation
    assert told == cells


def test_rows_of_the_earlier_version_are_marked():
    """By ¹ those that the latest has not measured, and no others."""
    _, lines = table("README.md", "| | natural | FGSM |")
    marked = {MAIN[line[0].partition(", ")[0]] for line in lines if "measured¹" in line[0]}
    shown = {MAIN[line[0].partition(", ")[0]] for line in lines if ", measured" in line[0]}
    assert marked == shown - {row for (row, _), cell in read("table2.csv").items() if cell["measured"]}


def test_what_autoattack_takes(table2):
    """Of what PGD-20 leaves, of the networks that the table shows."""
    text = " ".join((RESULTS / "README.md").read_text().split())
    told = re.findall(r"([\d.]+) of ([\d.]+) from ([\w-]+)", text)
    assert len(told) == 5
    for taken, of, name in told:
        left, pgd = (Decimal(table2[MAIN[name], attack]["measured"]) for attack in ("autoattack", "pgd-20"))
        assert (taken, of) == (rounded(pgd - left), rounded(pgd)), name


CLAIMS = {  # how each begins: the file, and the cells that it tells, in this order, as published and as measured here
    "RvS keeps the natural accuracy": (
        "table2",
        [("rvs", "natural"), ("at", "natural"), ("natural", "natural")],
        [
            ("rvs", "natural"),
            ("at", "natural"),
            ("natural", "natural"),
            (GPU["rvs"], "natural"),
            (GPU["at"], "natural"),
        ],
    ),
    "under PGD-20 RvS holds better": (
        "table2",
        [("rvs", "pgd-20"), ("at", "pgd-20")],
        [("rvs", "pgd-20"), ("at", "pgd-20"), (GPU["rvs"], "pgd-20"), (GPU["at"], "pgd-20")],
    ),
    "so it is robust": (
        "table2",
        [],
        [
            ("rvs", "autoattack"),
            (GPU["rvs"], "pgd-20"),
            (GPU["rvs"], "autoattack"),
            ("at", "pgd-20"),
            ("at", "autoattack"),
            (GPU["at"], "pgd-20"),
            (GPU["at"], "autoattack"),
        ],
    ),
    "the classifier has to pay for D": (
        "table4",
        [("noreg_ot", "pgd-20")],
        [("noreg_ot", "pgd-20"), ("rvs", "pgd-20")],
    ),
    "D is a better reward": (
        "table4",
        [("rvs", "pgd-20"), ("otreg_xent", "pgd-20")],
        [("rvs", "pgd-20"), ("otreg_xent", "pgd-20")],
    ),
    "D is a distance of optimal transport": ("table4", [], [("rvs", "pgd-20"), ("paired", "pgd-20")]),
    "AdvGAN takes more": (  # differences
        "table2",
        *2 * ([("rvs", "natural", "advgan"), ("at", "natural", "advgan")],),
    ),
    "images made on another network": (
        "table3",
        *2 * ([("transfer from natural", "pgd-20"), ("transfer from at", "pgd-20")],),
    ),
}


def with_error(cell):
    """An accuracy with the deviation between trainings or, of one, the standard error from the number of images."""
    error = cell.get("measured_std_over_seeds") or cell["measured_standard_error"]
    return f"{rounded(cell['measured'])} ± {rounded(error)}"


def test_the_claims(request, on_gpu):
    """The numbers of the first table are these, each with an error that is theirs."""
    _, lines = table("README.md", "| claim of the paper")
    assert len(lines) == len(CLAIMS)
    for (claim, _, evidence), (start, (fixture, *told)) in zip(lines, CLAIMS.items(), strict=True):
        assert claim.startswith(start)
        cells = request.getfixturevalue(fixture) | on_gpu
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
                assert f"{value} ± {error}" in {with_error(cells[place]) for place in places}


@pytest.mark.parametrize(("defense", "attacks"), [("at", 6), ("rvs", 7)])
def test_the_page_of_the_gpu(defense, attacks, on_gpu):
    """The line of the last checkpoint, and the card of its weights."""
    head, lines = table("gpu.md", "| | step of the schedule")
    (line,) = (line for line in lines if line[0] == GPU[defense])
    shown = {name.lower(): cell for name, cell in zip(head[3:], line[3:], strict=True) if cell}
    cells = {attack: rounded(cell["measured"]) for (row, attack), cell in on_gpu.items() if row == GPU[defense]}
    assert shown == cells
    assert len(shown) == attacks
    _, cards = table("../../pretrained/README.md", "| folder |")
    (card,) = (card for card in cards if card[0] == f"`{defense}-16-4`")
    assert [cell.removesuffix(" ¹") for cell in card[-3:]] == [cells[a] for a in ("natural", "pgd-20", "autoattack")]


def test_images_made_on_the_other_network_of_the_gpu():
    with (RESULTS / "gpu.csv").open(newline="") as file:
        (line,) = (line for line in csv.DictReader(file) if line["made_on"] and line["attack"] == "pgd-20")
    assert (line["run"], line["made_on"]) == ("pretrained/rvs-16-4", "pretrained/at-16-4")
    told = re.search(r"leave RvS (.*?) %\*\* \(± (.*?),", (RESULTS / "gpu.md").read_text())
    assert told.groups() == (rounded(line["accuracy"]), rounded(line["standard_error"]))


def test_the_page_of_defense_gan(table2):
    """The line of the images that the grid attacked; what stands in brackets is in no file."""
    head, lines = table("defense_gan.md", "| test images, from the first")
    (line,) = (line for line in lines if line[0] == table2["defense_gan", "natural"]["measured_images"])
    for column, attack in (("natural", "natural"), ("latent-100", "latent-100"), ("BPDA-PGD-20", "bpda-pgd-20")):
        shown = line[head.index(f"purified, {column}")]
        assert shown.split(" (")[0] == rounded(table2["defense_gan", attack]["measured"]), column
