"""Tables II to IV: which cells they have, and the numbers in them."""

import math

import numpy as np
import pytest
from work_folder import PROVENANCE, WorkFolder, build, cell, lines, records

from experiments import latex, published, writers
from experiments.parts import PARTS
from experiments.rows import COLUMNS, column_of
from experiments.tables import ALSO


@pytest.fixture
def grid(tmp_path):
    return WorkFolder(tmp_path / "work")


def test_a_measured_number_beside_the_published_one(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0})
    table, work = build(grid)
    found = cell(table, "rvs", "pgd-20")
    assert (found.mean, found.deviation, found.published.printed) == (50.0, None, "57.50")
    assert found.uncertainty == pytest.approx(100 * math.sqrt(0.5 * 0.5 / 1000))
    assert found.difference == pytest.approx(50.0 - 57.5)
    shown = {kind: entries["PGD-20"] for row, kind, entries in lines(table) if row == "RvS"}
    assert shown == {"measured": "50.00 ± 1.58", "published": "57.50", "difference": "−7.50"}
    assert work.problems == []


def test_seeds_become_mean_and_standard_deviation(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=3)
    accuracies = [48.0, 50.5, 54.0]
    for seed, accuracy in enumerate(accuracies):
        grid.white_box("rvs", {"pgd-20": accuracy}, seed=seed)
    table, _ = build(grid)
    found = cell(table, "rvs", "pgd-20")
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.uncertainty == found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert found.difference == pytest.approx(np.mean(accuracies) - 57.5)
    assert [m.run.seed for m in found.measured] == [0, 1, 2]
    assert ("RvS", "measured, 3 seeds") in [line[:2] for line in lines(table)]


def test_missing_seeds_are_told(tmp_path):
    grid = WorkFolder(tmp_path / "work", seeds=3)
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 48.0}, seed=0)
    grid.white_box("rvs", {"natural": 81.0}, seed=2)
    kinds = {row: kind for row, kind, _ in lines(build(grid)[0]) if kind.startswith("measured")}
    assert kinds == {"Natural": "measured: not yet", "AT": "measured: not yet", "RvS": "measured, 1–2 of 3 seeds"}


def test_missing_is_a_dash_and_never_a_zero(grid):
    grid.white_box("natural", {"pgd-20": 0.0})
    table, _ = build(grid)
    shown = {(row, kind): entries for row, kind, entries in lines(table)}
    assert shown["Natural", "measured"]["PGD-20"] == "0.00 ± 0.00"
    assert shown["Natural", "measured"]["PGD-7"] == "–"
    assert shown["Natural", "difference"]["PGD-7"] == "–"
    assert shown["Bilateral", "published"]["PGD-10"] == "–"
    (record,) = (r for r in records(table) if (r["row"], r["attack"]) == ("natural", "pgd-7"))
    assert (record["measured"], record["published"], record["difference"]) == ("", "0", "")
    (record,) = (r for r in records(table) if (r["row"], r["attack"]) == ("bilateral", "pgd-10"))
    assert (record["measured"], record["published"]) == ("", "")


def test_all_of_the_papers_rows_and_those_of_ours(tmp_path):
    grid = WorkFolder(tmp_path / "work", rows={"table2": ["natural", "rvs", "trades"]})
    grid.white_box("trades", {"natural": 79.0, "autoattack": 40.0})
    table, _ = build(grid)
    (group,) = table.groups
    assert [row.name for row in group.rows] == [*published.rows("II", "cifar10", "white-box"), "trades"]
    assert group.attacks[-1] == "autoattack"
    assert list(group.rows[-1].kinds()) == ["measured"]
    at = next(row for row in group.rows if row.name == "at")  # published, and not trained here
    assert list(at.kinds()) == ["published"]


def test_rows_that_the_papers_table_does_not_have_stand_below_it(tmp_path):
    names = ["adt_expam", "gat", "natural", "rvs"]
    grid = WorkFolder(tmp_path / "work", rows={"table2": names})
    for name in names:
        grid.white_box(name, {"natural": 79.0})
    table, _ = build(grid)
    text = writers.markdown(table)
    order = ["| RvS |", f"| {ALSO} |", "| ADT-EXP-AM |", "| GAT |"]
    assert [text.count(entry) for entry in order] == [1] * 4
    assert sorted(order, key=text.index) == order
    assert latex.table_star(table).count(ALSO) == 1
    digits = WorkFolder(tmp_path / "other", dataset="digits", rows={"table2": names})
    assert ALSO not in writers.markdown(build(digits)[0])  # the paper has no digits


def test_the_order_of_the_columns(tmp_path):
    grid = WorkFolder(tmp_path / "work", advgan_widths=[8, 1])
    grid.white_box("rvs", {"pgd-50": 10.0})
    (group,) = build(grid)[0].groups
    assert group.attacks == [
        *("natural", "fgsm", "fgsm-rs", "pgd-7", "pgd-10", "pgd-20", "pgd-50", "pgd-100", "cw-20", "cw-100"),
        *("advgan", "advgan-final", "advgan-x8", "advgan-x8-final"),
    ]


def test_extended_columns(tmp_path):
    """Behind the paper's, whose numbers stand beside its own attacks alone."""
    accuracies = {name: 30.0 for name in COLUMNS["extended"]}
    wanted = [*PARTS["table2"].attacks, *COLUMNS["extended"]]
    grid = WorkFolder(tmp_path / "work", attacks={"table2": wanted}, advgan_widths=[1])
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0} | accuracies)
    table, work = build(grid)
    (group,) = table.groups
    assert group.attacks == [
        *("natural", "fgsm", "fgsm-rs", "pgd-7", "pgd-10", "pgd-20", "pgd-100", "pgd-100x10", "cw-20", "cw-100"),
        *("advgan", "advgan-final", "multitargeted", "apgd-ce", "apgd-t", "fab-t", "square", "cw-l2-100", "autoattack"),
    ]
    for row, kind, entries in lines(table):
        for attack in COLUMNS["extended"]:
            shown = entries[column_of(attack).label]
            assert shown == ("30.00 ± 1.45" if (row, kind) == ("RvS", "measured") else "–")
    assert work.problems == []
    for words in ("Not in the paper", "127.5 grey levels, 0.5 of the pixels' range", "ε = 8/255 (but C&W L2)"):
        assert words in table.caption


def test_the_papers_columns_have_the_papers_caption(grid):
    grid.white_box("rvs", {"natural": 80.0, "pgd-20": 50.0})
    caption = build(grid)[0].caption
    assert caption.startswith("Accuracy in percent, L∞ attacks with ε = 8/255, PGD and CW in steps of 2/255. Lines")
    assert caption.endswith(PARTS["table2"].note)


def test_the_caption_explains_the_columns_that_are_there_alone(grid):
    grid.white_box("rvs", {"natural": 80.0, "square": 40.0, "autoattack": 30.0})
    caption = build(grid)[0].caption
    assert "nothing published beside them: Square, AutoAttack." in caption
    assert "AutoAttack: APGD-CE, APGD-T, FAB-T and Square, one after another." in caption
    for absent in ("C&W L2", "MultiTargeted", "×10"):
        assert absent not in caption


def test_table_three_has_a_group_for_each_surrogate(grid):
    grid.transfer("rvs", "at", {"pgd-20": 60.0})
    grid.white_box("rvs", {"pgd-20": 20.0})  # not to be taken for black-box
    table, _ = build(grid, "table3")
    assert [group.title for group in table.groups] == ["CIFAR-10, transfer from Natural", "CIFAR-10, transfer from AT"]
    assert cell(table, "rvs", "pgd-20", group=0).mean is None
    assert cell(table, "rvs", "pgd-20", group=0).published.printed == "71.11"
    found = cell(table, "rvs", "pgd-20", group=1)
    assert (found.mean, found.published.printed) == (60.0, "74.53")
    assert found.measured[0].surrogate["classifier_sha256"] == "sha-of-at-0"
    assert [[row.name for row in group.rows] for group in table.groups] == [["rvs", "at"], ["rvs", "natural"]]


def test_table_four_has_our_row_last_with_nothing_published(grid):
    for row, accuracy in (("noreg_ot", 10.0), ("paired", 20.0), ("rvs", 21.0)):
        grid.white_box(row, {"natural": 80.0, "pgd-20": accuracy, "pgd-100": 5.0})
    table, _ = build(grid, "table4")
    (group,) = table.groups
    assert [row.name for row in group.rows] == ["noreg_ot", "otreg_xent", "rvs", "paired"]
    assert group.attacks == ["natural", "pgd-20", "cw-20"]
    assert cell(table, "paired", "pgd-20").published is None
    assert cell(table, "rvs", "pgd-20").published.printed == "57.50"
    assert cell(table, "noreg_ot", "pgd-20").difference == pytest.approx(10.0 - 24.55)


def test_a_data_set_that_the_paper_has_not(tmp_path):
    grid = WorkFolder(tmp_path / "work", dataset="digits")
    grid.white_box("rvs", {"natural": 99.0})
    table, _ = build(grid)
    assert {kind.split(":")[0] for _, kind, _ in lines(table)} == {"measured"}


def test_rows_that_were_measured_otherwise_are_named(tmp_path):
    """Over the table: what holds for most rows, then in what the others differ, a purifier too."""
    rows = ["natural", "at", "rvs", "l2l_da", "adt_exp", "defense_gan"]
    grid = WorkFolder(tmp_path / "work", rows={"table2": rows})
    gan = {"gan": "gan/a", "checkpoint": 25, "restarts": 4, "steps": 100, "rate": 10.0, "rate_drop": False}
    for row in ("natural", "at", "rvs"):
        grid.white_box(row, {"natural": 80.0})
    for row in ("l2l_da", "adt_exp"):
        grid.white_box(row, {"natural": 70.0}, checkpoint=500)
    grid.images = 50
    grid.white_box("defense_gan", {"natural": 40.0}, purification=gan)
    table, _ = build(grid)
    assert table.groups[0].about == (
        f"WRN-10-2 after 4,000 steps; 1,000 test images of {PROVENANCE} (but L2L-DA, ADT-EXP after 500 steps; "
        "Defense-GAN on 50 test images purified by a GAN, step 25, 4 × 100 steps at rate 10)"
    )
    purifiers = {record["row"]: record["measured_purified_by"] for record in records(table) if record["measured"]}
    assert purifiers == dict.fromkeys(rows, "") | {"defense_gan": "gan/a, step 25, 4 × 100 steps at rate 10"}


def test_the_images_trained_on_are_told_where_they_are_not_all(tmp_path):
    grid = WorkFolder(tmp_path / "work")
    for row, flags in (("natural", {"max_train_images": 100}), ("at", {"max_train_images": 100}), ("rvs", {})):
        grid.white_box(row, {"natural": 80.0}, training_flags=flags)
    about = build(grid)[0].groups[0].about
    assert about.startswith("WRN-10-2 after 4,000 steps on at most 100 training images; 1,000 test images of ")
    assert about.endswith("(but RvS on all training images)")


def test_rows_that_differ_are_called_as_in_the_table(tmp_path):
    grid = WorkFolder(tmp_path / "work")
    for row in ("noreg_ot", "otreg_xent", "paired"):
        grid.white_box(row, {"natural": 80.0}, part="table4")
    grid.white_box("rvs", {"natural": 70.0}, part="table4", checkpoint=9000)
    assert "(but OT-Reg + OT (RvS) after 9,000 steps)" in build(grid, "table4")[0].groups[0].about


def test_images_and_provenance_stand_over_every_group(grid):
    grid.complete()
    for part in ("table2", "table3", "table4"):
        table, _ = build(grid, part)
        for group in table.groups:
            assert "1,000 test images of cifar10 3.0.2 (tensorflow-datasets), JPEG-recompressed" in group.about
