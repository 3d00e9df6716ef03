"""The commands for tables and figures: what is refused, in one line, before anything runs."""

import json
import os
import socket
import sys

import pytest
from work_folder import WorkFolder

from experiments import all as everything
from experiments import command, statement, table2, table4, tables
from experiments.measured import Work
from madry_cifar.runs import files

EMPTY = {"schema_version": 1, "profile": "full", "datasets": [], "runs": []}  # a configuration that asks for nothing
SMALL = ("--depth=10", "--width=1", "--steps=4", "--learning_rate_boundaries=2,3")


def refused(result, message):
    status, out, err = result
    return status in (1, 2) and message in err and err.count("\n") == 1 and not out


def test_a_folder_is_needed(invoke):
    assert refused(invoke(table2.command, *SMALL), "--work_dir=: required: folder of runs")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--profile=smok", "--profile=smok: unknown; did you mean 'smoke'"),
        ("--dataset=cifar", "--dataset=cifar: unknown; did you mean 'cifar10'"),
        ("--attack_steps=-1", "--attack_steps=-1: must be at least 0"),
        ("--seeds=0", "--seeds=0: must be at least 1"),
        ("--epsilons=0,x", "--epsilons=0,x: must be a whole number, or several with commas"),
    ],
)
def test_bad_flags_leave_nothing_behind(invoke, tmp_path, flag, message):
    work = tmp_path / "work"
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={work}", flag), message)
    assert not work.exists()


def test_a_folder_with_other_files(invoke, tmp_path):
    (tmp_path / "thesis.tex").touch()
    message = f"--work_dir={tmp_path}: holds other files and no config.json"
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path}"), message)


def test_a_folder_whose_configuration_was_deleted_keeps_its_runs(invoke, tmp_path, monkeypatch):
    """As the message on a damaged one says."""
    (tmp_path / "runs").mkdir()
    (tmp_path / ".owner.json").touch()
    monkeypatch.setattr(command, "_snakemake", lambda *_: None)
    status, _, err = invoke(table2.command, "--defenses=natural", *SMALL, f"--work_dir={tmp_path}")
    assert status == 0, err


def test_a_file_in_place_of_the_folder(invoke, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={file}"), f"--work_dir={file}: is not a folder")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"runs": 3}',
        json.dumps(EMPTY | {"runs": [{}]}),
        json.dumps(EMPTY | {"parts": ["table2"], "rows": None}),
        json.dumps(EMPTY | {"parts": ["table2"], "rows": {"table2": 3}}),
        json.dumps(EMPTY | {"schema_version": 99}),
    ],
)
def test_a_damaged_configuration(invoke, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    result = invoke(table2.command, *SMALL, f"--work_dir={tmp_path}")
    assert refused(result, "config.json: damaged")
    assert "delete it, the runs are kept" in result[2]


def test_the_results_of_another_profile(invoke, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(EMPTY | {"profile": "smoke"}))
    message = f"--work_dir={tmp_path}: holds the results of --profile=smoke, which are not mixed with those of "
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path}"), message)


@pytest.mark.parametrize("missing", ["snakemake", "matplotlib", "jinja2"])
def test_what_to_install(invoke, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    message = f'{missing} is not installed, which the tables and figures need: pip install -e ".[experiments]"'
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path / 'work'}"), message)
    assert not (tmp_path / "work").exists()


def test_a_second_command_while_the_first_has_not_locked_the_folder_yet(invoke, tmp_path):
    """It would change what the first one measures."""
    before = json.dumps(EMPTY)
    (tmp_path / "config.json").write_text(before)
    with files.alone(tmp_path, ".grid.lock"):
        message = f"--work_dir={tmp_path}: another command works there"
        assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path}"), message)
    assert (tmp_path / "config.json").read_text() == before


def lock(work, **owner):
    (work / ".snakemake" / "locks").mkdir(parents=True)
    (work / ".snakemake" / "locks" / "0.input.lock").touch()
    (work / "config.json").write_text(json.dumps(EMPTY))
    if owner:
        (work / ".owner.json").write_text(json.dumps(owner))


def test_two_commands_in_one_folder(invoke, tmp_path):
    lock(tmp_path, process=os.getppid(), host=socket.gethostname())
    message = f"--work_dir={tmp_path}: in use by process {os.getppid()}; wait for it"
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path}"), message)


def test_a_recorded_process_that_is_this_one_holds_no_lock(tmp_path, monkeypatch):
    """In a container that was restarted the command has the number that it had before."""
    lock(tmp_path, process=os.getpid(), host=socket.gethostname())
    command._release(tmp_path, unlock=False)
    assert not list(tmp_path.glob(".snakemake/locks/*"))


@pytest.mark.parametrize("owner", [{}, {"process": 1, "host": "another-machine"}])
def test_a_lock_of_somebody_unknown_is_explained(invoke, tmp_path, owner):
    lock(tmp_path, **owner)
    message = f"--work_dir={tmp_path}: locked by Snakemake: another command works there, or one was killed; if none "
    assert refused(invoke(table2.command, *SMALL, f"--work_dir={tmp_path}"), message)


def test_the_plan_writes_nothing(invoke, tmp_path):
    work = tmp_path / "work"
    chosen = ("--profile=smoke", "--defenses=natural,at,rvs", f"--work_dir={work}", "--plan")
    status, out, err = invoke(everything.command, *chosen)
    assert status == 0
    for timed in ("training of natural, WRN-10-1", "training of rvs, WRN-10-1", "an attack, WRN-10-1"):
        assert f"timing {timed}" in err
    assert "34 jobs are due" in out
    for kind, number in {"train": 6, "train_advgan": 3, "evaluate": 10, "transfer": 4, "diversity": 1}.items():
        assert sum(line.startswith(f"  {kind}  ") for line in out.partition("Jobs:")[2].splitlines()) == number
    assert not work.exists()


@pytest.mark.parametrize("plan", [[], ["--plan"]])
def test_missing_data_are_told_before_anything_is_timed_or_trained(invoke, tmp_path, plan):
    work = tmp_path / "work"
    message = f"--dataset=cifar10: not prepared in --data_dir={tmp_path}; point --data_dir to where it is, or add "
    flags = ("--dataset=cifar10", f"--data_dir={tmp_path}", f"--work_dir={work}", "--defenses=natural")
    assert refused(invoke(table2.command, *SMALL, *flags, *plan), message)
    assert not work.exists()


@pytest.fixture
def measured(invoke, tmp_path, monkeypatch):
    """measured(command, *flags) calls a command, whose jobs only write a result for each run; the table's rows, each
    with its line of measured numbers, as the report shows them then."""
    work = tmp_path / "work"

    def jobs(folder, *_):
        results = WorkFolder(tmp_path / "elsewhere", dataset="digits")
        config = json.loads((folder / "config.json").read_text())
        results.folder, results.runs = folder, {(run["row"], run["seed"]): run for run in config["runs"]}
        for row, seed in results.runs:
            results.white_box(row, {"natural": 50 + seed}, seed, part=config["parts"][0])

    def measured(command, *flags):
        status, _, err = invoke(command, *SMALL, f"--work_dir={work}", *flags)
        assert status == 0, err
        read = Work(work)
        groups = {group.dataset: group for group in tables.build(read, "table2", statement.build(read)).groups}
        return {row.name: row.kind_label("measured") for row in groups["digits"].rows if row.planned}

    monkeypatch.setattr(command, "_snakemake", jobs)
    return measured


def test_a_table_keeps_the_rows_and_seeds_of_former_calls(measured):
    assert measured(table2.command, "--defenses=natural,at", "--seeds=2") == {
        "natural": "measured, 2 seeds",
        "at": "measured, 2 seeds",
    }
    assert measured(table2.command, "--defenses=rvs") == {
        "natural": "measured, 2 seeds",
        "at": "measured, 2 seeds",
        "rvs": "measured",
    }
    for further in (table2.command, "--defenses=natural"), (table4.command,):
        assert measured(*further) == {"natural": "measured, 2 seeds", "at": "measured, 2 seeds", "rvs": "measured"}


def test_a_row_with_other_settings_takes_the_place_of_the_former(measured):
    assert measured(table2.command, "--defenses=natural,at", "--seeds=2")["at"] == "measured, 2 seeds"
    assert measured(table2.command, "--defenses=at", "--attack_steps=3") == {
        "natural": "measured, 2 seeds",
        "at": "measured",
    }
    assert measured(table2.command, "--defenses=at") == {"natural": "measured, 2 seeds", "at": "measured, 2 seeds"}


def test_a_row_whose_other_settings_were_never_measured_is_still_shown(measured, monkeypatch):
    assert measured(table2.command, "--defenses=at") == {"at": "measured"}
    with monkeypatch.context() as killed:
        killed.setattr(command, "_snakemake", lambda *_: None)
        assert measured(table2.command, "--defenses=at", "--attack_steps=3") == {"at": "measured: not yet"}
    assert measured(table2.command, "--defenses=natural") == {"natural": "measured", "at": "measured"}


def test_another_gan_is_told(tmp_path):
    """Its settings are in no flag of the row's training."""
    run = {"dataset": "digits", "row": "defense_gan", "flags": ["--steps=4"], "purified": True}
    before, config = (
        {"profile": "full", "checkpoints": 2, "runs": [run | {"id": f"digits/defense_gan-{width}/seed-0"}]}
        | {"gan_flags": [f"--width={width}", "--iterations=9"]}
        for width in (4, 8)
    )
    (line,) = command._changes(tmp_path, before, config)
    assert "was trained with other settings here (--gan_width)" in line


@pytest.mark.parametrize(("then", "now", "told"), [(50, 10, True), (10, 50, False), (10, 10, False), (None, 10, False)])
def test_fewer_epochs_of_a_finished_advgan_are_told(tmp_path, then, now, told):
    before, config = (
        {"profile": "full", "checkpoints": 2, "runs": []} | ({"advgan_flags": [f"--epochs={n}"]} if n else {})
        for n in (then, now)
    )
    lines = list(command._changes(tmp_path, before, config))
    assert ["keep their 50 epochs" in line for line in lines] == [True] * told


def test_a_folder_of_an_earlier_version(measured, tmp_path):
    """Which named no rows of former calls, and here shows those of its parts."""
    measured(table2.command, "--defenses=natural,at")
    path = tmp_path / "work" / "config.json"
    config = json.loads(path.read_text())
    del config["shown"]
    path.write_text(json.dumps(config))
    assert measured(table4.command) == {"natural": "measured", "at": "measured"}
    config = json.loads(path.read_text())
    assert (config["parts"], config["earlier_parts"]) == (["table4"], ["table2"])
    del config["shown"]
    path.write_text(json.dumps(config))
    assert measured(table4.command)["at"] == "measured"


def test_the_rows_of_another_data_set(measured, tmp_path):
    """Each data set has those that were measured on it."""
    measured(table2.command, "--defenses=natural,at")
    config = json.loads((tmp_path / "work" / "config.json").read_text())
    of_another = [run | {"dataset": "svhn_cropped", "id": f"svhn_cropped/{run['row']}-1/s-0"} for run in config["runs"]]
    results = tmp_path / "work" / "results" / of_another[1]["id"]
    results.mkdir(parents=True)
    (results / "white-box-table2.json").write_text("[]")
    (tmp_path / "work" / "config.json").write_text(json.dumps(config | {"earlier_runs": of_another}))
    measured(table2.command, "--defenses=rvs")
    read = Work(tmp_path / "work")
    groups = tables.build(read, "table2", statement.build(read)).groups
    assert {group.dataset: [row.name for row in group.rows if row.planned] for group in groups} == {
        "digits": ["natural", "at", "rvs"],
        "svhn_cropped": ["at"],
    }
    assert [row.name for group in groups for row in group.rows if row.heading] == []


def test_no_heading_stands_above_nothing(measured, tmp_path):
    """That of the rows that are not in the paper, for a data set on which none was measured."""
    measured(table2.command, "--defenses=trades")
    path = tmp_path / "work" / "config.json"
    config = json.loads(path.read_text())
    config["runs"][0] |= {"dataset": "cifar10", "row": "natural", "id": "cifar10/natural-1/seed-0"}
    path.write_text(json.dumps(config))
    read = Work(tmp_path / "work")
    groups = {group.dataset: group for group in tables.build(read, "table2", statement.build(read)).groups}
    assert "natural" in {row.name for row in groups["cifar10"].rows}
    assert not [line for line in groups["cifar10"].lines() if line[0] == tables.ALSO]


def test_a_row_that_nothing_was_measured_of_is_not_kept(measured, monkeypatch):
    def folders(work, _):
        """As Snakemake makes them when a job begins."""
        for run in json.loads((work / "config.json").read_text())["runs"]:
            (work / "results" / run["id"]).mkdir(parents=True)

    with monkeypatch.context() as nothing:
        nothing.setattr(command, "_snakemake", folders)
        assert measured(table2.command, "--defenses=natural,at") == {
            "natural": "measured: not yet",
            "at": "measured: not yet",
        }
    assert measured(table2.command, "--defenses=rvs") == {"rvs": "measured"}
