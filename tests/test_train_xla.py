"""A training that leaves TensorFlow and comes home: exported, run by train_xla.py in JAX, imported."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import madry_cifar.import_xla
import rvs_tf.evaluate
import rvs_tf.export
import rvs_tf.train
from madry_cifar import load_classifier, load_predictor
from madry_cifar.attacks import attack
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.export.training import RUNNER, Training
from madry_cifar.runs import checkpoints
from madry_cifar.runs.files import write_json
from madry_cifar.training.construction import build
from madry_cifar.training.trainer import Schedule, Trainer

pytest.importorskip("jax", reason="what runs the exported programs")
pytestmark = pytest.mark.skipif(
    tuple(map(int, tf.__version__.split(".")[:2])) < (2, 21), reason="an old TensorFlow, which cannot write StableHLO"
)

# In float32 rounding grows at the released rates. At these it does not, for natural training, and the accumulated
# gradients tell what the weights would hide.
TRAINING = (
    *("--defense=natural", "--depth=10", "--width=1", "--batch_size=8", "--max_train_images=300", "--steps=20"),
    *("--learning_rates=1e-5,1e-5,1e-5", "--eval_every=0", "--image_every=0", "--log_every=10"),
    *("--checkpoint_every=10", "--keep=0"),
)
# In float64 it stays small at the released rates, and attacks and generator take part.
RELEASED = {"batch_size": 4, "learning_rates": (0.1, 0.01, 0.001), "steps": 20}
DEFENSES = {"natural": {}, "at": {"attack_steps": 2}, "rvs": {}, "trades": {"attack_steps": 2}}


@pytest.fixture(scope="module")
def runner():
    """The runner as a module, which compiles each program once for all tests."""
    spec = importlib.util.spec_from_file_location("train_xla", RUNNER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.compiles, known = module.load_program, {}

    def load_program(folder, name, about):
        code = (folder / f"{name}.stablehlo").read_bytes()
        if code not in known:
            known[code] = module.compiles(folder, name, about)
        return known[code]

    module.load_program = load_program
    return module


@pytest.fixture(scope="module")
def made():
    """The folders that were made, to be used by several tests and written to by none."""
    return {}


@pytest.fixture
def called(invoke):
    """called(command, *arguments) calls a command, which must succeed."""

    def called(command, *arguments):
        status, out, err = invoke(command, *map(str, arguments))
        assert status == 0, err
        return out

    return called


@pytest.fixture
def exported(called, made, tmp_path_factory):
    """The folder of an exported training, of an untrained run."""
    if "exported" not in made:
        folder = tmp_path_factory.mktemp("exported")
        called(rvs_tf.train.command, *TRAINING, "--steps=0", f"--train_dir={folder}/run")
        export(called, folder / "run", folder / "training")
        made["exported"] = folder / "training"
    return made["exported"]


def export(called, train_dir, output, *more):
    evaluation = ("--eval_images=9", "--eval_attacks=natural,fgsm", "--nocheck")
    return called(
        rvs_tf.export.command, "--what=training", f"--train_dir={train_dir}", f"--output={output}", *evaluation, *more
    )


@pytest.fixture
def by_tensorflow(called, made, tmp_path_factory):
    """The folder of the same training by TensorFlow's compiled step."""
    if "here" not in made:
        made["here"] = tmp_path_factory.mktemp("here") / "run"
        called(rvs_tf.train.command, *TRAINING, "--jit_compile=true", f"--train_dir={made['here']}")
    return made["here"]


@pytest.fixture
def elsewhere(runner, exported, made, tmp_path_factory):
    """The folder of the same training by the runner."""
    if "elsewhere" not in made:
        made["elsewhere"] = tmp_path_factory.mktemp("elsewhere") / "out"
        runner.main([str(exported), f"--output={made['elsewhere']}", "--steps=20", "--snapshots=2", "--keep=9"])
    return made["elsewhere"]


def state(folder, step):
    return checkpoints.read(f"{folder}/checkpoints/ckpt-{step}")


def assert_same_state(found, expected):
    assert found.keys() - {"update"} == expected.keys()
    for name, value in expected.items():
        if name.endswith(".momentum"):  # accumulated gradients: rounding moves some by a percent
            assert np.linalg.norm(found[name] - value) <= 0.03 * np.linalg.norm(value) + 1e-6, name
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def losses(log):
    entries = map(json.loads, log.read_text().splitlines())
    return {(entry["update"], name): value for entry in entries for name, value in entry.items() if "loss/" in name}


@pytest.mark.parametrize("defense", DEFENSES)
def test_in_float64_at_the_released_rates(runner, digits, curves, tmp_path, defense):
    """20 steps of TensorFlow's own compiled step, and 20 of the runner: the same losses and variables."""
    options = RELEASED | DEFENSES[defense]
    about = {"defense": defense, "depth": 10, "width": 1, "num_classes": 10, "seed": 3, **options}
    every = {"checkpoint_every": 20, "log_every": 1}
    exported = Training(build(about, dtype="float64"), digits, digits.test.take(slice(4)), [attack("natural")], 1)
    exported.write(
        tmp_path / "x",
        {"what": "training", "schema_version": 1, "defense": defense, "network": "", "checkpoint": 0}
        | {"steps": 20, "provenance": digits.provenance, "flags": {"batch_size": 4, "seed": 3} | every},
    )
    runner.main([str(tmp_path / "x"), "--snapshots=1"])
    method, schedule = build(about, dtype="float64"), Schedule(**every, image_every=0, eval_every=0)
    (tmp_path / "here").mkdir()
    Trainer(method, digits, tmp_path / "here", schedule, jit_compile=True).train()
    with np.load(tmp_path / "x" / "run" / "checkpoint-20.npz") as found:
        for name, variable in checkpoints.flat_state(method.networks, method.optimizers).items():
            np.testing.assert_allclose(found[name], variable, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_same_losses(tmp_path / "x" / "run", curves(tmp_path / "here"), range(1, 21))


def assert_same_losses(folder, curves, steps):
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    found = {(entry["step"], tag): entry[tag] for entry in entries for tag in entry if tag.startswith("loss/")}
    expected = {
        (step, tag): value for tag, points in curves.items() for step, value in points if tag.startswith("loss/")
    }
    assert {step for step, _ in found} == set(steps)
    for place, loss in found.items():
        np.testing.assert_allclose(loss, expected[place], rtol=1e-5, atol=1e-5, err_msg=str(place))


def test_in_float32(elsewhere, by_tensorflow, curves):
    with np.load(elsewhere / "checkpoint-20.npz") as stored:
        assert_same_state(dict(stored), state(by_tensorflow, 20))
    assert_same_losses(elsewhere, curves(by_tensorflow), (1, 10, 20))


def test_ten_steps_there_and_ten_here(called, elsewhere, by_tensorflow, tmp_path):
    half = shutil.copytree(elsewhere, tmp_path / "half", ignore=shutil.ignore_patterns("*-20.npz"))
    (half / "weights-10.npz").unlink()
    shown = called(madry_cifar.import_xla.command, f"--folder={half}", f"--train_dir={tmp_path}/home")
    assert "now steps 10 of a run in" in shown
    shown = called(rvs_tf.train.command, *TRAINING, "--jit_compile=true", f"--train_dir={tmp_path}/home")
    assert "going on after step 10" in shown
    assert_same_state(state(tmp_path / "home", 20), state(by_tensorflow, 20))
    assert json.loads((tmp_path / "home" / "flags.json").read_text())["elsewhere"]["platform"] == "cpu"


def test_ten_steps_here_and_ten_there(called, runner, by_tensorflow, tmp_path):
    export(called, by_tensorflow, tmp_path / "x", "--checkpoint=10")
    runner.main([str(tmp_path / "x"), "--snapshots=1", "--steps=20"])
    with np.load(tmp_path / "x" / "run" / "checkpoint-20.npz") as stored:
        assert_same_state(dict(stored), state(by_tensorflow, 20))


def test_a_run_that_came_home(called, elsewhere, digits, curves, tmp_path):
    """Weights, evaluation and curves are those of the runner; the command again is content."""
    given = (f"--folder={elsewhere}", f"--train_dir={tmp_path}/home")
    shown = called(madry_cifar.import_xla.command, *given)
    assert shown.startswith("natural, WRN-10-1, 20 updates on cpu: now steps 10, 20 of a run in")
    for step, file, tolerance in ((10, "weights-10", 1e-3), (20, "checkpoint-20", 0)):
        with np.load(elsewhere / f"{file}.npz") as stored:
            for name, value in state(tmp_path / "home", step).items():
                if name in stored:
                    np.testing.assert_allclose(value, stored[name], rtol=tolerance, err_msg=name)
    entries = map(json.loads, (elsewhere / "log.jsonl").read_text().splitlines())
    [there] = [entry for entry in entries if entry["update"] == 20 and "evaluation/fgsm" in entry]
    chosen = [attack("natural"), attack("fgsm")]
    evaluator = Evaluator(load_predictor(tmp_path / "home"), chosen, batch_size=9)
    for name, outcome in evaluator(digits.test.take(slice(9)), seed=0).items():
        assert there[f"evaluation/{name}"] == pytest.approx(outcome.accuracy, abs=1e-4)
    assert [step for step, _ in curves(tmp_path / "home")["loss/total"]] == [1, 10, 20]
    assert called(madry_cifar.import_xla.command, *given) == shown
    (elsewhere / "checkpoint-20.npz").rename(tmp_path / "kept.npz")  # what is there takes the place of nothing better
    before = state(tmp_path / "home", 20)
    called(madry_cifar.import_xla.command, *given)
    (tmp_path / "kept.npz").rename(elsewhere / "checkpoint-20.npz")
    np.testing.assert_equal(state(tmp_path / "home", 20), before)


def test_the_best_checkpoint_of_a_run_that_came_home(called, runner, tmp_path):
    """By what the runner measured on images that were held out, under other attacks than the run's own flags name."""
    called(rvs_tf.train.command, *TRAINING, "--validation_size=40", "--steps=0", f"--train_dir={tmp_path}/run")
    export(called, tmp_path / "run", tmp_path / "training")
    runner.main([f"{tmp_path}/training", f"--output={tmp_path}/there", "--steps=4", "--snapshots=2"])
    called(madry_cifar.import_xla.command, f"--folder={tmp_path}/there", f"--train_dir={tmp_path}/home")
    shown = called(rvs_tf.evaluate.command, f"--train_dir={tmp_path}/home", "--checkpoint=best", "--max_images=5")
    assert "under fgsm on held-out images" in " ".join(shown.split())


def test_the_last_weights_alone(called, elsewhere, tmp_path):
    some = shutil.copytree(elsewhere, tmp_path / "some", ignore=shutil.ignore_patterns("checkpoint-*"))
    shown = called(madry_cifar.import_xla.command, f"--folder={some}", f"--train_dir={tmp_path}/home")
    assert "the last one has weights in half precision and no momentum" in shown
    assert not state(tmp_path / "home", 20)["classifier.logits.kernel.momentum"].any()


# As a process that has no TensorFlow and no TensorBoard, far from this package.
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys(("tensorflow", "tensorboard", "madry_cifar"))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_and_stopped_it_goes_on_to_the_same_numbers(runner, exported, tmp_path, monkeypatch, capsys):
    """SIGKILL, then SIGTERM, then to the end: bit for bit what an undisturbed training gives."""
    given, out = (str(exported), "--steps=60", "--snapshots=0"), tmp_path / "out"
    runner.main([*given, f"--output={tmp_path}/undisturbed"])
    with subprocess.Popen(
        [sys.executable, "-c", BARE, exported / "train_xla.py", *given, f"--output={out}"]
    ) as process:
        while not list(out.glob("checkpoint-*.npz")):
            assert process.poll() is None
        process.kill()
    (out / "checkpoint-60.npz").unlink(missing_ok=True)  # if it was faster than the signal
    advance, calls = runner.Training.advance, []

    def signalling(training, *arguments):
        calls.append(training.update)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(training, *arguments)

    monkeypatch.setattr(runner.Training, "advance", signalling)
    assert ended(runner, *given, f"--output={out}") == 128 + signal.SIGTERM
    assert "error: stopped by SIGTERM, saved; the same command goes on" in capsys.readouterr().err
    assert (out / f"checkpoint-{calls[-1] + 1}.npz").exists()
    for number, damaged in ((97, b""), (98, b"PK"), (99, (out / f"checkpoint-{calls[-1] + 1}.npz").read_bytes()[:999])):
        (out / f"checkpoint-{number}.npz").write_bytes(damaged)  # what a crash of the machine may leave
    runner.main([*given, f"--output={out}"])
    shown = capsys.readouterr()
    assert f"going on after update {calls[4] + 1}" in shown.out
    assert shown.err.count(".npz cannot be read") == 3
    with np.load(out / "checkpoint-60.npz") as found, np.load(tmp_path / "undisturbed" / "checkpoint-60.npz") as same:
        for name, value in same.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    logs = [(place / "log.jsonl").read_text().splitlines() for place in (out, tmp_path / "undisturbed")]
    ours, theirs = ({entry["update"]: entry for entry in map(json.loads, log) if "loss/total" in entry} for log in logs)
    for update, entry in theirs.items():
        assert ours[update]["loss/total"] == entry["loss/total"]


def test_killed_while_it_evaluates(runner, exported, elsewhere, tmp_path):
    """What is due at an update that is saved already is done by the next process."""
    out = shutil.copytree(elsewhere, tmp_path / "out", ignore=shutil.ignore_patterns("weights-20.npz"))
    runner.main([str(exported), f"--output={out}", "--steps=20", "--snapshots=2"])
    with np.load(out / "weights-20.npz") as found, np.load(elsewhere / "weights-20.npz") as expected:
        np.testing.assert_equal(dict(found), dict(expected))
    assert (out / "log.jsonl").read_text().count('"update": 20, "step": 20, "evaluation/natural"') == 2


def test_several_steps_in_a_call(called, runner, exported, elsewhere, tmp_path):
    """The same numbers, also where fewer steps are due than a call takes."""
    export(called, exported.parent / "run", tmp_path / "x", "--steps_per_call=4")
    runner.main([str(tmp_path / "x"), "--steps=10", "--snapshots=0"])
    with (
        np.load(tmp_path / "x" / "run" / "checkpoint-10.npz") as found,
        np.load(elsewhere / "checkpoint-10.npz") as one,
    ):
        assert_same_state(dict(found), {name: value for name, value in one.items() if name != "update"})


def ended(runner, *arguments):
    """The exit status of the runner."""
    with pytest.raises(SystemExit) as end:
        runner.main([str(argument) for argument in arguments])
    return end.value.code


def test_a_loss_that_is_not_finite(runner, exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "x")
    about = json.loads((folder / "about.json").read_text())
    about["variables"]["classifier.logits.bias"]["start"] = float("inf")
    write_json(folder / "about.json", about)
    assert ended(runner, folder, "--steps=20") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: update 0 (step 0): loss/cross_entropy nan, loss/total nan; lower --learning_rates of")
    assert err.endswith("The last good checkpoint: none\n")
    assert not list(folder.glob("run/*.npz"))


def test_how_long_a_step_takes(runner, exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "x", ignore=shutil.ignore_patterns("data.npz"))
    runner.main([str(folder), "--time=2"])
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 2
    assert found["ms_per_step"] * found["images_per_second"] == pytest.approx(8000)
    assert not (folder / "run").exists()


@pytest.fixture
def clock(runner, monkeypatch):
    """clock(seconds) makes each update take seconds(update), of the runner's time alone; returns [the time]."""
    advance = runner.Training.advance

    def clock(seconds):
        now = [0.0]

        def ticking(training, *arguments):
            now[0] += seconds(training.update)
            return advance(training, *arguments)

        monkeypatch.setattr(runner.Training, "advance", ticking)
        monkeypatch.setattr(runner, "time", types.SimpleNamespace(monotonic=lambda: now[0], time=time.time))
        monkeypatch.setattr(runner, "TIMED", 5)
        return now

    return clock


def test_a_schedule_in_a_given_time(runner, exported, tmp_path, clock):
    """All of a long schedule, its steps left out evenly; a second process goes on with what was decided."""
    now, out = clock(lambda update: 1), tmp_path / "out"
    runner.main([str(exported), f"--output={out}", "--seconds=30", "--steps=100000", "--snapshots=1"])
    assert 20 < now[0] < 27
    plan = json.loads((out / "plan.json").read_text())
    assert plan["end"] == 100_000
    assert plan["parts"][-1][2] > 1
    last = list(map(json.loads, (out / "log.jsonl").read_text().splitlines()))[-1]
    assert (last["update"], last["step"]) == (plan["updates"], 100_000)
    assert len(list(out.glob("weights-*.npz"))) == 1
    with np.load(out / f"checkpoint-{plan['updates']}.npz") as stored:
        assert stored["step"] == 100_000
    assert runner.Plan(out / "plan.json", 7).updates == plan["updates"]


def test_a_schedule_whose_updates_get_slower(runner, exported, tmp_path, clock):
    """It ends in the time all the same; one that is killed on the way goes on by what was decided."""
    now, out = clock(lambda update: min(1 + update / 20, 3)), tmp_path / "out"
    runner.main([str(exported), f"--output={out}", "--seconds=100", "--steps=100000", "--snapshots=4"])
    assert 70 < now[0] < 97
    plan, kept = (out / "plan.json").read_text(), runner.Plan(out / "plan.json", 0)
    assert len(kept.parts) > 3
    assert [part[2] for part in kept.parts] == sorted(part[2] for part in kept.parts)
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = {entry["update"]: entry["step"] for entry in entries if "step" in entry}
    assert steps == {update: kept.done(update) for update in steps}
    assert steps[kept.updates] == 100_000
    snapshots = sorted(int(path.stem.partition("-")[2]) for path in out.glob("weights-*.npz"))
    np.testing.assert_allclose([steps[update] for update in snapshots], [25e3, 50e3, 75e3, 100e3], atol=kept.stride)
    for path in (out / f"checkpoint-{kept.updates}.npz", out / f"weights-{kept.updates}.npz"):
        path.unlink()
    now[0] = 0
    runner.main([str(exported), f"--output={out}", "--seconds=100", "--snapshots=4"])
    assert (out / "plan.json").read_text() == plan
    assert sorted(int(path.stem.partition("-")[2]) for path in out.glob("weights-*.npz")) == snapshots


@given(
    end=st.integers(2, 10**6),
    decisions=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**4)), min_size=1, max_size=4),
)
def test_a_plan_leaves_out_steps_evenly(runner, end, decisions):
    with tempfile.TemporaryDirectory() as folder:
        plan = runner.Plan(pathlib.Path(folder, "plan.json"), end)
        for share, more in decisions:
            update = plan.latest + int(share * (plan.updates - 1 - plan.latest))
            before = [plan.step(k) for k in (0, update // 2, update)]
            left = end - plan.done(update)
            plan.decide(update, more)
            assert [plan.step(k) for k in (0, update // 2, update)] == before  # what was done already
            assert plan.updates == update + min(more, left)
            updates = np.unique(np.linspace(update, plan.updates - 1, 50).astype(int))
            steps = [plan.step(int(k)) for k in updates]
            np.testing.assert_allclose(steps, plan.done(update) + (updates - update) * plan.stride, atol=1)
            assert end - plan.stride - 1 <= steps[-1] < end
            assert plan.done(plan.updates) == end
        for step in np.unique(np.linspace(0, end, 20).astype(int)):
            update = plan.reached(int(step))
            assert plan.done(update) >= step
            assert update == 0 or plan.done(update - 1) < step


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("{tmp}",), 2, "{tmp}/about.json cannot be read"),
        (("{x}", "--data={tmp}/none.npz"), 2, "{tmp}/none.npz: no data"),
        (("{x}", "--output={tmp}/other"), 2, "{tmp}/other holds the training of another export"),
        (("{x}", "--output=/proc/x"), 1, "/proc/x"),
        (("{x}", "--data={tmp}/other.npz"), 2, "{tmp}/other.npz: 2 images of others; this training takes 300 of"),
        (("{x}", "--output={elsewhere}", "--steps=15"), 2, "--steps=15: 20 updates were made of a longer schedule"),
    ],
)
def test_what_is_typed_wrong(runner, exported, elsewhere, tmp_path, capsys, arguments, status, named):
    write_json(tmp_path / "other" / "about.json", {"what": "training"})
    np.savez(tmp_path / "other.npz", train=np.zeros([2, 32, 32, 3]), train_labels=np.zeros(2), provenance="others")
    places, before = {"x": exported, "tmp": tmp_path, "elsewhere": elsewhere}, sorted(elsewhere.iterdir())
    capsys.readouterr()
    assert ended(runner, *(argument.format(**places) for argument in arguments)) == status
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert named.format(**places) in err[0]
    assert sorted(elsewhere.iterdir()) == before


def test_two_at_once(runner, exported, tmp_path, capsys):
    with runner.alone(tmp_path):
        assert ended(runner, exported, f"--output={tmp_path}") == 2
    assert "another process trains into" in capsys.readouterr().err


def test_no_way_to_run_a_program(runner, exported, monkeypatch, capsys):
    for way in ("_as_exported", "_by_the_backend"):
        monkeypatch.setattr(runner, way, lambda *arguments: 1 / 0)
    monkeypatch.setattr(runner, "load_program", runner.compiles)
    assert ended(runner, exported, "--time=1") == 1
    assert "runs train.stablehlo in none of the ways known" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["_as_exported", "_by_the_backend"])
def test_ways_to_run_a_program(runner, exported, way):
    about = json.loads((exported / "about.json").read_text())
    described, seeds = about["programs"]["initial"], np.array(about["seeds"], np.int32)
    code = (exported / "initial.stablehlo").read_bytes()
    outputs = getattr(runner, way)(code, described["inputs"], described["outputs"], [])([seeds])
    expected = load_classifier(exported.parent / "run")
    by_name = dict(zip([entry["name"] for entry in described["outputs"]], outputs, strict=True))
    kernel = by_name["classifier.init_conv.kernel"]
    np.testing.assert_allclose(kernel, expected.init_conv.kernel, rtol=1e-5, atol=1e-6)


def test_a_run_that_has_begun_goes_on_with_its_own_data(invoke, by_tensorflow, tmp_path):
    run = shutil.copytree(by_tensorflow, tmp_path / "run")
    content = json.loads((run / "flags.json").read_text())
    write_json(run / "flags.json", content | {"provenance": "others"})
    given = ("--what=training", f"--train_dir={run}", f"--output={tmp_path}/x")
    status, _, err = invoke(rvs_tf.export.command, *given)
    assert (status, "was trained on other data: there others, now scikit" in err) == (2, True)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "has no about.json"),
        (
            {"about.json": '{"what": "train_step", "schema_version": 1}'},
            "about.json: damaged (it describes 'train_step'",
        ),
        ({"about.json": None}, "its log.jsonl cannot be read"),
        ({"about.json": None, "log.jsonl": "{", "checkpoint-x.npz": ""}, "holds no checkpoint-N.npz or weights-N.npz"),
        ({"about.json": None, "log.jsonl": "", "checkpoint-1.npz": "PK"}, "checkpoint-1.npz is left out, as it cannot"),
    ],
)
def test_what_cannot_come_home(invoke, exported, tmp_path, files, named):
    (tmp_path / "out").mkdir()
    for name, text in files.items():
        content = (exported / name).read_text() if text is None else text
        (tmp_path / "out" / name).write_text(content)
    status, _, err = invoke(madry_cifar.import_xla.command, f"--folder={tmp_path}/out", f"--train_dir={tmp_path}/home")
    assert status in (1, 2)
    assert named in err
    assert not list(tmp_path.glob("home/checkpoints/*.index"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--format=keras", "--format=keras: a training is written as --format=stablehlo alone"),
        ("--batch_size=4", "--batch_size=4: a training has that of its run"),
        ("--eval_attacks=autoattack", "--eval_attacks=autoattack: is several attacks in turn"),
        ("--eval_attacks=pgd", "--eval_attacks=pgd"),
        ("--eval_attacks=bpda-pgd-2", "--eval_attacks=bpda-pgd-2: the model has a gradient of its own"),
        ("--eval_attacks=natural,apgd-ce", "--eval_attacks=natural,apgd-ce: XLA cannot compile one of these"),
        ("--images=files", "--images=files: there are none of scikit-learn's"),
        ("--what=train_step --images=files", "--images=files: has no meaning for --what=train_step"),
    ],
)
def test_what_cannot_be_exported(invoke, exported, tmp_path, arguments, named):
    given = ("--what=training", f"--train_dir={exported.parent}/run", f"--output={tmp_path}/x", *arguments.split())
    status, _, err = invoke(rvs_tf.export.command, *given)
    assert status == 2
    assert named in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
