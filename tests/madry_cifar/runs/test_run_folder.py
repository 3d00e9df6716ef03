import json
import pathlib
import subprocess
from importlib import metadata

import pytest

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.runs import run_folder
from madry_cifar.runs.files import alone

SETTINGS = {"defense": "rvs", "depth": 10, "width": 1, "num_classes": 10, "steps": 100, "learning_rates": [0.1, 0.01]}


def create(folder, *about):
    """A run in which something was trained."""
    run_folder.create(folder, *about)
    (folder / "checkpoints" / "ckpt-1.index").touch()


def test_a_new_folder_holds_all_settings_and_versions(tmp_path):
    folder = run_folder.create(str(tmp_path / "runs" / "a"), SETTINGS)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "flags.json"]  # nothing temporary
    content = json.loads((folder / "flags.json").read_text())
    assert content["schema_version"] == 1
    assert content["flags"] == run_folder.read_flags(folder) == SETTINGS
    for package in ("tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn"):
        assert content["versions"][package] == metadata.version(package)


def test_other_data_are_refused(tmp_path):
    create(tmp_path, SETTINGS)
    run_folder.create(tmp_path, SETTINGS, "cifar10, original files")  # nothing was known of the data before
    run_folder.create(tmp_path, SETTINGS, "cifar10, original files")
    with pytest.raises(UsageError, match="other data: there cifar10, original files, now cifar10, JPEG"):
        run_folder.create(tmp_path, SETTINGS, "cifar10, JPEG")
    assert run_folder.read_provenance(tmp_path) == "cifar10, original files"


def test_earlier_versions_are_not_forgotten(tmp_path, monkeypatch):
    create(tmp_path, SETTINGS)
    first = run_folder.environment()
    for revision in ("abc", "abc", "def"):
        monkeypatch.setattr(run_folder, "_git_revision", lambda revision=revision: revision)
        run_folder.create(tmp_path, SETTINGS)
    content = json.loads((tmp_path / "flags.json").read_text())
    assert content["git_revision"] == "def"
    assert content["earlier"] == [first, first | {"git_revision": "abc"}]


def test_what_a_finished_run_says_of_its_training_stays(tmp_path, monkeypatch):
    create(tmp_path, SETTINGS | {"data_dir": "here"})
    before = run_folder.read(tmp_path)
    monkeypatch.setattr(run_folder.machine, "describe", lambda: "another machine")
    fewer = SETTINGS | {"steps": 50, "data_dir": "there"}
    run_folder.create(tmp_path, fewer, "digits", done=100)  # the data are elsewhere, and it is known which
    now = {"flags": SETTINGS | {"data_dir": "there"}, "provenance": "digits"}
    assert run_folder.read(tmp_path) == before | now
    run_folder.create(tmp_path, fewer, "digits", done=60)  # it was stopped there
    assert run_folder.read_flags(tmp_path)["steps"] == 60
    run_folder.create(tmp_path, fewer | {"steps": 200}, "digits")
    content = run_folder.read(tmp_path)
    assert (content["machine"], content["flags"]["steps"]) == ("another machine", 200)
    assert content["earlier"] == [{name: before[name] for name in run_folder.environment()}]


def test_the_revision_is_gits():
    def git(*arguments):
        root = pathlib.Path(__file__).resolve().parents[2]
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout

    try:
        head = git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert git("rev-parse", run_folder.environment()["git_revision"].removesuffix("-dirty")) == head


def test_a_run_made_before_a_setting_was_there_goes_on_with_its_default(tmp_path):
    create(tmp_path, SETTINGS)
    now = SETTINGS | {"precision": "float32", "sync_bn": False, "strategy": "mirrored", "steps_per_call": 10}
    with pytest.raises(UsageError, match=r"--precision \(there float32, now bfloat16\)"):
        run_folder.create(tmp_path, now | {"precision": "bfloat16"})
    run_folder.create(tmp_path, now)
    with pytest.raises(UsageError, match=r"--sync_bn \(there False, now True\)"):
        run_folder.create(tmp_path, now | {"sync_bn": True})


def test_the_same_run_goes_on(tmp_path):
    create(tmp_path, SETTINGS)
    assert run_folder.create(tmp_path, dict(SETTINGS)) == tmp_path


def test_a_run_may_be_prolonged_and_computed_otherwise(tmp_path):
    create(tmp_path, SETTINGS | {"data_dir": "/a", "jit_compile": "auto", "keep": 3})
    changed = SETTINGS | {"steps": 200, "data_dir": "/b", "jit_compile": "false", "keep": 0, "eval_every": 7}
    run_folder.create(tmp_path, changed)
    assert run_folder.read_flags(tmp_path) == changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 2}, ["--width (there 1, now 2)"]),
        ({"seed": 1}, ["--seed (there None, now 1)"]),
        ({"width": 2, "depth": 16, "steps": 1}, ["--depth (there 10, now 16)", "--width (there 1, now 2)"]),
        ({"learning_rates": [0.1, 0.02]}, ["--learning_rates (there [0.1, 0.01], now [0.1, 0.02])"]),
    ],
)
def test_other_settings_are_refused_and_all_named(tmp_path, change, named):
    create(tmp_path, SETTINGS)
    before = (tmp_path / "flags.json").read_text()
    with pytest.raises(UsageError) as refused:
        run_folder.create(tmp_path, SETTINGS | change)
    assert f"--train_dir={tmp_path}: holds a run with other settings: {', '.join(named)};" in str(refused.value)
    assert (tmp_path / "flags.json").read_text() == before


def test_where_nothing_was_trained_settings_may_change(tmp_path):
    """As after a training that diverged at once."""
    run_folder.create(tmp_path, SETTINGS, "cifar10")
    run_folder.create(tmp_path, SETTINGS | {"learning_rates": [0.01, 0.001]}, "digits")
    assert run_folder.read_flags(tmp_path)["learning_rates"] == [0.01, 0.001]


def test_another_kind_of_training_is_told_in_a_line(tmp_path):
    many = {f"option_{number}": number for number in range(40)}
    create(tmp_path, SETTINGS)
    with pytest.raises(UsageError) as refused:
        run_folder.create(tmp_path, {"attack": "advgan"} | many)
    assert refused.value.reason == "holds the training of a classifier, not of an attack; use another folder"
    with pytest.raises(UsageError, match="and 32 more; use another folder"):
        run_folder.create(tmp_path, SETTINGS | many)


def test_a_setting_that_is_no_longer_given_is_another_one(tmp_path):
    create(tmp_path, SETTINGS)
    fewer = {name: value for name, value in SETTINGS.items() if name != "depth"}
    with pytest.raises(UsageError, match=r"--depth \(there 10, now None\)"):
        run_folder.create(tmp_path, fewer)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/run"):
        with pytest.raises(UsageError, match=f"--train_dir={tmp_path / name}: cannot be written"):
            run_folder.create(tmp_path / name, SETTINGS)


def test_two_trainings_in_a_folder(tmp_path):
    with run_folder.trained_alone(tmp_path / "run"):
        message = f"--train_dir={tmp_path / 'run'}: another process trains here"
        with pytest.raises(UsageError, match=message), run_folder.trained_alone(tmp_path / "run"):
            raise AssertionError
        with alone(tmp_path / "run"), run_folder.trained_alone(tmp_path / "other"):
            pass  # it may be evaluated meanwhile
    with run_folder.trained_alone(tmp_path / "run"):
        pass  # what a process has left that is no more


def test_folders_without_a_run(tmp_path):
    with pytest.raises(UsageError, match=f"--train_dir={tmp_path}/none: no such folder"):
        run_folder.read_flags(tmp_path / "none")
    with pytest.raises(UsageError, match=f"--train_dir={tmp_path}: holds no run"):
        run_folder.read_flags(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"flags": {}}', b"\xff"])
def test_damaged_settings(tmp_path, content):
    (tmp_path / "flags.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match=r"flags.json: damaged"):
        run_folder.read_flags(tmp_path)


def test_settings_of_a_later_program(tmp_path):
    create(tmp_path, SETTINGS)
    content = json.loads((tmp_path / "flags.json").read_text())
    (tmp_path / "flags.json").write_text(json.dumps(content | {"schema_version": 2}))
    with pytest.raises(RunError, match="schema version 2, this program knows 1"):
        run_folder.read_flags(tmp_path)
