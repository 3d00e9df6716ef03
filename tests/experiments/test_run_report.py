"""The report on runs by their folders, from folders that the package's own writers made."""

import csv
import io
import json

import matplotlib.image
import numpy as np
import pytest
from parsed_page import Page
from work_folder import png

from experiments import report, run_plot
from experiments.run_report import RunReport
from madry_cifar.attacks.registry import attack
from madry_cifar.evaluation import results
from madry_cifar.evaluation.outcome import Outcome
from madry_cifar.runs import run_folder

LABELS = np.arange(20, dtype=np.int32) % 10


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, {attack: images right of 20}, …) makes a run's folder, with a results file if any."""

    def make_run(name, right=(), **changes):
        folder = tmp_path / name
        run_folder.create(folder, {"defense": name, "depth": 10, "width": 1, "num_classes": 10}, "digits <of> a test")
        about = {
            "train_dir": str(folder),
            "defense": name,
            "network": "WRN-10-1",
            "checkpoint": 1200,
            "classifier_sha256": f"sha-of-{name}",
            "training_flags": {},
            "provenance": "digits <of> a test",
            "split": "test",
            "images": 20,
            "epsilon": 8.0,
            "step_size": 2.0,
            "seed": 0,
            "batch_size": 20,
        } | changes
        outcomes = {}
        for attack_name, number in dict(right).items():
            predictions = np.where(np.arange(20) < number, LABELS, (LABELS + 1) % 10).astype(np.int16)
            outcomes[attack_name] = Outcome(attack(attack_name), predictions, LABELS)
        if outcomes:
            results.write(results.path_of(folder / "results", about), outcomes, about)
        return folder

    return make_run


@pytest.fixture
def reported(invoke, tmp_path):
    """reported(*folders) makes a report; returns its output, warnings, page and the lines of its CSV."""

    def reported(*folders):
        out = tmp_path / "out"
        status, said, err = invoke(report.command, f"--runs={','.join(map(str, folders))}", f"--output={out}")
        assert status == 0, err
        with (out / "runs.csv").open(newline="") as file:
            return said, err, Page((out / "runs.html").read_text()), list(csv.DictReader(file))

    return reported


def test_results_of_other_weights_are_rows_of_their_own(make_run, reported):
    """Those of a checkpoint that was trained anew lie beside the earlier ones."""
    run = make_run("rvs", {"natural": 18, "pgd-20": 7})
    about = {**json.loads(next((run / "results").glob("*.json")).read_text()), "classifier_sha256": "another"}
    predictions = np.where(np.arange(20) < 16, LABELS, (LABELS + 1) % 10).astype(np.int16)
    outcomes = {"natural": Outcome(attack("natural"), predictions, LABELS)}
    results.write(results.path_of(run / "results", about), outcomes, about)
    found = {(line["classifier_sha256"], line["attack"]): float(line["accuracy"]) for line in reported(run)[3]}
    assert found == {("sha-of-rvs", "natural"): 90, ("sha-of-rvs", "pgd-20"): 35, ("another", "natural"): 80}
    assert len(RunReport([str(run)]).tables[0].rows) == 2


def test_the_csv_says_where_a_run_was_trained(make_run, reported):
    """Which may be elsewhere than where it was measured; a file of another program may not say it."""
    here = {"git_revision": "abc", "machine": "a GPU", "date": "2026-11-28"}
    told = make_run("rvs", {"natural": 18}, trained=here, training_flags={"seed": 3}, git_revision="def", machine="b")
    lines = {line["defense"]: line for line in reported(told, make_run("at", {"natural": 15}, trained=None))[3]}
    names = ("trained_seed", "trained_git_revision", "trained_machine", "trained_date", "seed")
    assert [lines["rvs"][name] for name in names] == ["3", "abc", "a GPU", "2026-11-28", "0"]
    assert [lines["at"][name] for name in names] == ["", "", "", "", "0"]


def test_the_csv_says_what_trainings_of_a_defence_differ_in(make_run, reported):
    """By the flags that would make the difference; what an earlier version did not know yet is as it was then."""

    def run(name, defense, **flags):
        return make_run(name, {"natural": 18}, defense=defense, training_flags=flags)

    short = run("a", "at", batch_size=64, learning_rate_boundaries=[3, 4], checkpoint_every=1, seed=0, crop_fill=0)
    long = run("b", "at", batch_size=128, learning_rate_boundaries=[30, 40], checkpoint_every=2, seed=1)
    other = run("c", "rvs", batch_size=32, learning_rate_boundaries=[5])
    lines = reported(short, long, other)[3]
    assert [line["trained_with"] for line in lines] == [
        "--batch_size=64 --learning_rate_boundaries=3,4",
        "--batch_size=128 --learning_rate_boundaries=30,40",
        "",
    ]


@pytest.mark.parametrize("changes", [{"batch_size": 4}, {"skip_misclassified": True}])
def test_what_was_measured_otherwise_is_in_no_row_of_another(make_run, reported, changes):
    run = make_run("rvs", {"natural": 18, "pgd-20": 7})
    make_run("rvs", {"natural": 16}, **changes)
    _, _, _, lines = reported(run)
    found = {(line["batch_size"], line["attack"], float(line["accuracy"])) for line in lines}
    assert found == {("20", "natural", 90), ("20", "pgd-20", 35), (str(changes.get("batch_size", 20)), "natural", 80)}
    tables = RunReport([str(run)]).tables
    titles = [(table.title, row.label) for table in tables for row in table.rows]
    assert len(titles) == len(set(titles)) == 2


def test_attacks_that_skip_images_in_a_file_of_an_earlier_version(make_run):
    run = make_run("rvs", {"natural": 18, "fgsm": 9, "pgd-20": 7})
    path = next((run / "results").glob("*.json"))
    content = json.loads(path.read_text())
    content["attacks"]["pgd-20"]["protocol"]["skip_misclassified"] = True
    path.write_text(json.dumps(content))
    tables = {table.title: [sorted(row.entries) for row in table.rows] for table in RunReport([str(run)]).tables}
    assert {("misclassified" in title, *rows) for title, (rows,) in tables.items()} == {
        (False, "fgsm", "natural"),
        (True, "natural", "pgd-20"),
    }


def test_each_run_is_a_row_of_one_table(make_run, reported):
    rvs, at = make_run("rvs", {"natural": 18, "pgd-20": 7}), make_run("at", {"natural": 15, "fgsm": 12})
    said, err, page, lines = reported(rvs, at)
    assert err == ""
    assert said.splitlines()[-2:] == [str(rvs.parent / "out" / name) for name in ("runs.html", "runs.csv")]
    rows = [[entry.strip() for entry in entries] for part, _, entries in page.rows if part == "table-1" and entries]
    assert rows == [["90.00 ± 6.71", "–", "35.00 ± 10.67"], ["75.00 ± 9.68", "60.00 ± 10.95", "–"]]
    assert "table-2" not in page.sections
    measured = {(line["run"], line["attack"]): float(line["accuracy"]) for line in lines}
    assert measured == {
        (str(rvs), "natural"): 90.0,
        (str(rvs), "pgd-20"): 35.0,
        (str(at), "natural"): 75.0,
        (str(at), "fgsm"): 60.0,
    }
    assert {line["date"] for line in lines} == {run_folder.environment()["date"]}
    assert "digits <of> a test" in page.sections["runs"]


def test_each_line_tells_when_and_where_it_was_measured(make_run, reported):
    """Also where a results file was written again, later and elsewhere, for another attack."""
    folder = make_run("rvs", {"natural": 18, "pgd-20": 7})
    path = next((folder / "results").glob("*.json"))
    content = json.loads(path.read_text()) | {"date": "2026-02-01", "machine": "there", "git_revision": "later"}
    content["attacks"]["natural"]["environment"] = {"date": "2026-01-01", "git_revision": "earlier"}
    path.write_text(json.dumps(content))
    told = {line["attack"]: (line["date"], line["machine"], line["git_revision"]) for line in reported(folder)[3]}
    assert told == {"natural": ("2026-01-01", "there", "earlier"), "pgd-20": ("2026-02-01", "there", "later")}


def test_results_that_cannot_be_compared_stand_in_tables_of_their_own(make_run, reported):
    make_run("rvs", {"pgd-20": 7})
    make_run("rvs", {"pgd-20": 3}, epsilon=16.0)
    folder = make_run(
        "rvs", {"pgd-20": 9}, surrogate={"defense": "at", "classifier_sha256": "s", "train_dir": "runs/at"}
    )
    _, _, page, lines = reported(folder)
    tables = [" ".join(page.sections[f"table-{n}"].split()) for n in (1, 2, 3)]
    expected = (("ε = 8,", "35.00"), ("ε = 16,", "15.00"), ("made on runs/at", "45.00"))  # in this order
    for table, (words, accuracy) in zip(tables, expected, strict=True):
        assert words in table
        assert accuracy in table
    assert sorted(float(line["accuracy"]) for line in lines) == [15.0, 35.0, 45.0]


def test_pictures_and_damaged_files(make_run, reported):
    folder = make_run("rvs", {"natural": 18})
    (folder / "results" / "diagnosis_of_it.png").write_bytes(png(640, 4))
    (folder / "results" / "ckpt-9_x.json").write_text("{")
    _, err, page, _ = reported(folder)
    assert err.startswith(f"warning: {folder / 'results' / 'ckpt-9_x.json'}: cannot be used, taken as missing (")
    assert [name for name, link in page.links if link.startswith("data:image/png")] == ["src"]
    assert "ckpt-9_x.json" in page.sections["problems"]


def test_what_cannot_be_reported_on(make_run, invoke, tmp_path):
    good, empty = make_run("rvs", {"natural": 18}), make_run("at")
    (tmp_path / "other").mkdir()
    gan = run_folder.create(tmp_path / "gan", {"gan": "wgan-gp", "dataset": "digits"})
    for flags, words in (
        ([f"--runs={good},{tmp_path / 'nowhere'}"], f"--runs={tmp_path / 'nowhere'}: no such folder"),
        ([f"--runs={tmp_path / 'other'}"], f"--runs={tmp_path / 'other'}: holds no run"),
        ([f"--runs={good},{empty}"], f"--runs={empty}: has no results; python -m rvs_tf.evaluate --train_dir={empty}"),
        ([f"--runs={gan}"], f"--runs={gan}: holds a GAN; name the run of the classifier"),
        ([f"--runs={good}", "--work_dir=work"], "--work_dir=work: is of a grid; leave it out with --runs"),
        ([f"--runs={good}", "--parts=table2"], "--parts=table2: is of a grid; leave it out with --runs"),
        ([], "--work_dir=: required: work folder of the grid; or --runs: folders of runs"),
    ):
        status, out, err = invoke(report.command, *flags, f"--output={tmp_path / 'out'}")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert words in err
        assert not (tmp_path / "out").exists()


def sized(make_run, name, step, right, **changes):
    """A run of this length, by the name of its folder, with a results file."""
    flags = {"epsilon": 8.0, "steps": step, "seed": 0, "keep": 3} | changes.pop("training_flags", {})
    return make_run(name, right, checkpoint=step, training_flags=flags, classifier_sha256=name, **changes)


def test_the_legend_fits_into_the_plot(make_run):
    """Though runs of one network differ in many settings."""
    settings = [{f"setting_{number}": other for number in range(30)} for other in ("released", "corrected")]
    folders = [
        sized(make_run, f"run-{step}-{number}", step, {"natural": 18}, defense="rvs", training_flags=flags)
        for number, flags in enumerate(settings)
        for step in (500, 1500)
    ]
    (table,) = RunReport(map(str, folders)).tables
    assert len(run_plot.curves(table)) == 2
    pixels = matplotlib.image.imread(io.BytesIO(run_plot.png(table)))[..., :3]
    for edge in (pixels[:, 0], pixels[:, -1], pixels[0], pixels[-1]):
        assert (edge == 1).all()  # white


def test_runs_of_several_sizes_are_curves_over_steps(make_run, reported, tmp_path):
    rvs = {"defense": "rvs"}
    folders = [
        sized(make_run, "long", 400, {"natural": 18, "pgd-20": 8}, **rvs, training_flags={"keep": 1}),
        sized(make_run, "short", 100, {"natural": 12, "pgd-20": 3}, **rvs),
        sized(make_run, "again", 400, {"natural": 16}, **rvs, training_flags={"seed": 1}),
        sized(make_run, "wide", 400, {"pgd-20": 9}, **rvs, network="WRN-10-2"),
        sized(make_run, "once", 400, {"pgd-20": 5}, defense="at"),
    ]
    shown = run_plot.curves(RunReport(map(str, folders)).tables[0])
    assert {label: list(curve.points("natural")) for label, curve in shown.items() if "WRN-10-1" in label} == {
        "RvS, WRN-10-1": [
            (100, 60.0, pytest.approx(100 * (0.6 * 0.4 / 20) ** 0.5)),
            (400, 85.0, pytest.approx(50**0.5)),
        ],
        "AT, WRN-10-1": [],
    }
    assert [step for step, *_ in shown["RvS, WRN-10-1"].points("pgd-20")] == [100, 400]
    assert [accuracy for _, accuracy, _ in shown["RvS, WRN-10-2"].points("pgd-20")] == [45.0]
    _, err, page, _ = reported(*folders)
    assert not err
    assert "Accuracy over the steps of training" in page.sections["table-1"]
    assert (tmp_path / "out" / "steps-1.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_of_the_grid_are_one_curve(make_run):
    """Whose attacks have the seed of the training."""
    folders = [
        sized(make_run, f"seed-{seed}", 400, {"pgd-20": right}, defense="rvs", seed=seed, training_flags={"seed": seed})
        for seed, right in enumerate((4, 6))
    ]
    (table,) = RunReport(map(str, folders)).tables
    (curve,) = run_plot.curves(table).values()
    assert list(curve.points("pgd-20")) == [(400, 25.0, pytest.approx(50**0.5))]


def test_other_starts_on_one_run_are_rows_of_their_own(make_run, reported):
    make_run("rvs", {"pgd-20": 4})
    said, _, _, lines = reported(make_run("rvs", {"pgd-20": 6}, seed=3))
    assert {line["seed"]: line["accuracy"] for line in lines} == {"0": "20.0000", "3": "30.0000"}
    assert "attacks' seed 3" in " ".join(said.split())


def test_runs_with_other_settings_are_no_point_of_the_same_curve(make_run):
    """Their mean would be a number of neither."""
    folders = [
        sized(make_run, "short", 100, {"pgd-20": 3}, defense="rvs"),
        sized(make_run, "ot", 400, {"pgd-20": 8}, defense="rvs", training_flags={"generator_loss": "ot"}),
        sized(make_run, "xent", 400, {"pgd-20": 2}, defense="rvs", training_flags={"generator_loss": "xent"}),
        sized(make_run, "larger", 400, {"pgd-20": 2}, defense="rvs", training_flags={"epsilon": 16.0}),
    ]
    shown = run_plot.curves(RunReport(map(str, folders)).tables[0])
    assert {label: [accuracy for _, accuracy, _ in curve.points("pgd-20")] for label, curve in shown.items()} == {
        "RvS, WRN-10-1, epsilon=8.0": [15.0],
        "RvS, WRN-10-1, epsilon=8.0, generator_loss=ot": [40.0],
        "RvS, WRN-10-1, epsilon=8.0, generator_loss=xent": [10.0],
        "RvS, WRN-10-1, epsilon=16.0": [10.0],
    }


def test_what_differs_between_the_networks_of_a_defence_is_told_of_each(make_run):
    """A curve of one network alone does not hide that its batches were others; what its name tells is not repeated."""

    def run(name, defense, network, batch_size):
        flags = {"batch_size": batch_size, "depth": 10, "width": int(network[7:])}
        return sized(make_run, name, 100, {"pgd-20": 3}, defense=defense, network=network, training_flags=flags)

    folders = [
        run("d", "rvs", "WRN-10-1", 64),
        run("c", "at", "WRN-10-10", 128),
        run("b", "at", "WRN-10-2", 64),
        run("a", "at", "WRN-10-2", 128),
    ]
    assert list(run_plot.curves(RunReport(map(str, folders)).tables[0])) == [
        "RvS, WRN-10-1",
        "AT, WRN-10-2, batch_size=64",
        "AT, WRN-10-2, batch_size=128",
        "AT, WRN-10-10, batch_size=128",
    ]


def test_checkpoints_on_the_way_are_no_end_of_a_training(make_run):
    """Their rate has not dropped yet: a point at the same step of another run is something else."""
    short, long = sized(make_run, "short", 100, {"pgd-20": 3}), sized(make_run, "long", 400, {"pgd-20": 8})
    flags = {"epsilon": 8.0, "steps": 400, "seed": 0}
    make_run("long", {"pgd-20": 5}, checkpoint=100, training_flags=flags, classifier_sha256="early")
    for folder in short, long:
        for path in folder.glob("results/*.json"):
            path.write_text(path.read_text().replace('"short"', '"rvs"').replace('"long"', '"rvs"'))
    shown = run_plot.curves(RunReport([str(short), str(long)]).tables[0])
    assert {label: [point[:2] for point in curve.points("pgd-20")] for label, curve in shown.items()} == {
        "RvS, WRN-10-1": [(100, 15.0), (400, 40.0)],
        f"RvS, WRN-10-1, run={long}": [(100, 25.0)],
    }


def test_results_of_one_run_that_was_trained_anew_are_not_averaged(make_run):
    for name, right in (("first", 3), ("again", 8)):
        folder = make_run("rvs", {"pgd-20": right}, training_flags={"seed": 0, "steps": 1200}, classifier_sha256=name)
    (curve,) = run_plot.curves(RunReport([str(folder)]).tables[0]).values()
    assert sorted(accuracy for _, accuracy, _ in curve.points("pgd-20")) == [15.0, 40.0]


def test_sizes_under_different_attacks_are_no_plot(make_run, reported, tmp_path):
    """No attack was measured at two of them. What lies there of a report before goes."""
    short, long = sized(make_run, "rvs", 100, {"pgd-20": 3}), sized(make_run, "rvs2", 400, {"pgd-20": 8}, defense="rvs")
    reported(short, long)
    assert (tmp_path / "out" / "steps-1.png").exists()
    other = sized(make_run, "rvs3", 900, {"apgd-ce": 8}, defense="rvs")
    assert "steps of training" not in reported(short, other)[2].sections["table-1"]
    assert not (tmp_path / "out" / "steps-1.png").exists()


def test_an_untrained_network_and_settings_that_came_later(make_run):
    folders = [
        sized(make_run, "rvs", 0, {"pgd-20": 1}),
        sized(make_run, "rvs2", 400, {"pgd-20": 8}, defense="rvs", training_flags={"precision": "float32"}),
    ]
    (table,) = RunReport(map(str, folders)).tables
    assert list(run_plot.curves(table)) == ["RvS, WRN-10-1"]
    assert run_plot.png(table).startswith(b"\x89PNG")


def test_runs_of_one_size_have_no_plot(make_run, reported, tmp_path):
    page = reported(make_run("rvs", {"pgd-20": 7}), make_run("at", {"pgd-20": 7}))[2]
    assert "steps of training" not in page.sections["table-1"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["runs.csv", "runs.html"]


def test_what_a_run_from_elsewhere_was_trained_on(make_run, reported):
    """Not on the machine that imported it."""
    folder = make_run("rvs", {"natural": 18})
    path = folder / "flags.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"elsewhere": {"device": "a graphics card"}}))
    assert f"{run_folder.environment()['date']}, a graphics card" in reported(folder)[2].sections["runs"]
    assert run_folder.trained(run_folder.read(folder))["machine"] == "a graphics card"
