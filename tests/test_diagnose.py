"""rvs_tf.diagnose from end to end: files, table and plot, what it says of a trained network, and what is mistyped."""

import functools
import json
import shutil
import signal
import sys
from collections import Counter

import few_checks
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from tiers import slow

import rvs_tf.diagnose
from madry_cifar import WideResNet
from madry_cifar.evaluation import diagnosis
from madry_cifar.evaluation.diagnosis import plot
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints

IMAGES = 16
FILE = f"diagnosis_ckpt-7_test-{IMAGES}_eps-8_step-2_seed-0"


DEFENSES = {"target": "natural", "other": "at"}  # what the runs say that they are


@pytest.fixture(scope="module")
def saved(trained, digits, tmp_path_factory):
    """The folders of two runs: a trained network, and the same one with other weights. Not to be written to."""
    other, draws = WideResNet(10, 1, 10), np.random.default_rng(0)
    for variable, source in zip(other.variables, trained.variables, strict=True):
        variable.assign(source * (1 + 0.1 * draws.normal(size=source.shape)))
    folder = tmp_path_factory.mktemp("saved")
    for name, network in (("target", trained), ("other", other)):
        sizes = {"depth": 10, "width": 1, "num_classes": 10, "dataset": "digits", "defense": DEFENSES[name], "seed": 0}
        run_folder.create(folder / name, sizes, digits.provenance)
        Checkpoints(folder / name, {"classifier": network}, {}).save(7)
    return folder


@pytest.fixture
def runs(saved, tmp_path):
    """The same, to be written to."""
    return shutil.copytree(saved, tmp_path / "runs")


@pytest.fixture
def diagnose(invoke, runs, monkeypatch):
    """diagnose(*arguments) calls the command for the target, with two checks; returns its status, stdout and stderr."""
    two = functools.partial(diagnosis.diagnose, checks=["zero-gradients", "loss-surface"])
    monkeypatch.setattr(diagnosis, "diagnose", two)

    def diagnose(*arguments):
        return invoke(rvs_tf.diagnose.command, f"--train_dir={runs}/target", f"--max_images={IMAGES}", *arguments)

    return diagnose


def size_of(picture):
    """Height and width of a PNG with more than one colour."""
    pixels = tf.io.decode_png(picture.read_bytes()).numpy()
    assert pixels.std() > 10
    return pixels.shape[:2]


def error_line(err):
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_everything(run, runs, digits, tmp_path):
    output = tmp_path / "deep" / "diagnosis.json"
    sizes = (f"--max_images={IMAGES}", "--batch_size=16", "--epsilon=32")
    status, out, err = run(
        "rvs_tf.diagnose", f"--train_dir={runs}/target", f"--surrogate_dir={runs}/other", *sizes, f"--output={output}"
    )
    assert status == 0, err
    content = json.loads(output.read_text())
    [own] = (runs / "target" / "results").glob(f"{FILE.replace('eps-8_step-2', 'eps-32_step-8')}_from-at-*.json")
    assert json.loads(own.read_text()) == content | {"surface": own.with_suffix(".png").name}
    assert content["surface"] == "diagnosis.png"
    assert out.splitlines()[-4:] == [str(path) for file in (own, output) for path in (file, file.with_suffix(".png"))]
    for picture in (own.with_suffix(".png"), output.with_suffix(".png")):
        assert size_of(picture) == (900, 1650)

    settings = {
        "schema_version": 1,
        "numbers": "measured",
        "checkpoint": 7,
        "split": "test",
        "images": IMAGES,
        "provenance": digits.provenance,
        "epsilon": 32,
        "step_size": 8,
        "seed": 0,
    }
    assert content | settings == content
    assert content["surrogate"]["defense"] == "at"
    assert [check["name"] for check in content["checks"]] == list(diagnosis.CHECKS)
    for check in content["checks"]:
        assert set(check) == {"name", "question", "verdict", "evidence", "numbers"}
        assert check["verdict"] in ("ok", "note", "suspect")
        assert check["numbers"]
        assert check["name"] in out
    verdicts = {check["name"]: check["verdict"] for check in content["checks"]}
    for name in ("randomness", "batch-dependence", "zero-gradients", "loss-surface", "epsilon", "steps"):
        assert verdicts[name] == "ok", content["checks"]
    assert content["verdict"] in out
    assert "square" in err  # the bar tells what is being done


@slow
def test_a_diagnosis_that_was_killed_goes_on(signalled, invoke, runs, saved, tmp_path, monkeypatch):
    flags = (f"--max_images={IMAGES}", "--batch_size=8", "--epsilon=32")
    killed, whole = runs / "target", shutil.copytree(saved / "target", tmp_path / "whole")
    batch = "madry_cifar.evaluation.evaluator:Evaluator._run_batch"
    signalled(signal.SIGKILL, batch, 8, "tests.few_checks", f"--train_dir={killed}", *flags)
    kept = sum(int(np.load(path)["attacked"]) for path in (killed / "results").glob(".*.npz"))

    attacked, run_batch = Counter(), Evaluator._run_batch

    def counting(evaluator, attack, split, rows, *settings):
        attacked[where] += len(rows)
        return run_batch(evaluator, attack, split, rows, *settings)

    monkeypatch.setattr(Evaluator, "_run_batch", counting)
    monkeypatch.setattr(diagnosis, "diagnose", functools.partial(diagnosis.diagnose, checks=few_checks.CHECKS))
    found = {}
    for where in (killed, whole):
        status, out, err = invoke(rvs_tf.diagnose.command, f"--train_dir={where}", *flags)
        assert status == 0, err
        assert ("going on where this diagnosis was ended" in out) == (where == killed)
        [file] = (where / "results").glob("*.json")
        assert not list((where / "results").glob(".*"))
        content = json.loads(file.read_text())
        found[where] = content["checks"], content["curves"]
    assert attacked[killed] + kept == attacked[whole]
    assert kept > IMAGES
    assert found[killed] == found[whole]


def test_what_the_plot_is_made_of(diagnose, runs, tmp_path):
    status, out, err = diagnose(f"--output={tmp_path}/d.json", "--epsilon=4", "--seed=3")
    assert status == 0, err
    content = json.loads((tmp_path / "d.json").read_text())
    assert content["curves"]["loss-surface"]["distance"] == np.linspace(0, 4, 21).tolist()
    assert "surrogate" not in content
    assert content["verdict"] == "no sign of masked gradients in 2 checks"
    assert (runs / "target" / "results" / FILE.replace("eps-8_step-2_seed-0", "eps-4_step-1_seed-3.png")).exists()
    assert "2 checks" in out


def test_the_sheet(trained, digits):
    found = diagnosis.diagnose(trained, digits.test.take(slice(16)), checks=["loss-surface"], batch_size=16)
    axes = [axes for axes in plot.draw(found, "title").axes if axes.get_title()]
    assert [each.get_title() for each in axes] == [*(f"image {n}" for n in range(1, 5)), "Loss on the way (median)"]
    line, _ = axes[-1].get_lines()
    assert line.get_ydata().tolist() == found.curves["loss-surface"]["gradient"]
    without = plot.draw(
        found._replace(planes=None, curves={"steps": {"steps": [1, 20], "accuracy": [50, 40]}}), "title"
    )
    assert [each.get_title() for each in without.axes] == ["Accuracy against steps of PGD"]


def test_without_matplotlib(diagnose, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "madry_cifar.evaluation.diagnosis.plot")
    monkeypatch.delattr(diagnosis, "plot")
    status, out, err = diagnose()
    assert status == 0, err
    assert "no plot: matplotlib is not installed" in out
    assert json.loads((runs / "target" / "results" / f"{FILE}.json").read_text())["surface"] is None
    assert not list((runs / "target" / "results").glob("*.png"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_half_written(diagnose, runs, monkeypatch, error):
    def savefig(sheet, path, **settings):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Figure, "savefig", savefig)
    status, _, err = diagnose()
    assert status == (1 if isinstance(error, OSError) else 130)
    error_line(err)
    assert list((runs / "target" / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--train_dir=",), 2, "--train_dir=: name a run, or in its place a model by --model"),
        (("--train_dir={runs}/none",), 2, "no such folder"),
        (("--checkpoint=8",), 2, "--checkpoint=8"),
        (("--epsilon=0",), 2, "--epsilon=0.0: must be above 0"),
        (("--epsilon=300",), 2, "--epsilon=300"),
        (("--max_images=-1",), 2, "max_images"),
        (("--split=train",), 2, "--split=train"),
        (("--output={runs}/diagnosis.txt",), 2, "must end in .json"),
        (("--output={runs}/target/flags.json/d.json",), 2, "cannot be written"),
        (("--surrogate_dir={runs}/none",), 2, "--surrogate_dir={runs}/none: no such folder"),
        (("--surrogate_dir={runs}/target",), 2, "--surrogate_dir={runs}/target: is the network diagnosed"),
        (("--surrogate_checkpoint=7",), 2, "needs --surrogate_dir"),
        (("images",), 2, "unexpected argument 'images'"),
    ],
)
def test_what_is_mistyped(diagnose, runs, arguments, status, told):
    found, out, err = diagnose(*(argument.format(runs=runs) for argument in arguments))
    assert found == status
    assert told.format(runs=runs) in error_line(err)
    assert out == ""
    assert not (runs / "target" / "results").exists()


def test_a_network_that_is_never_right(diagnose, saved, runs, digits):
    flags = json.loads((runs / "target" / "flags.json").read_text())
    network = WideResNet(10, 1, 10)
    shutil.rmtree(runs / "target")
    run_folder.create(runs / "target", flags["flags"], digits.provenance)
    never = next(number for number in range(10) if number not in digits.test.labels[:5])
    network.logits.bias.assign(1e6 * tf.one_hot(never, 10))
    Checkpoints(runs / "target", {"classifier": network}, {}).save(7)
    status, _, err = diagnose("--max_images=5")
    assert status == 2
    assert "--max_images=5: the network gets none of these images right" in error_line(err)


def test_help(run):
    status, out, _ = run("rvs_tf.diagnose", "--help")
    assert status == 0
    for flag in (
        "train_dir",
        "surrogate_dir",
        "checkpoint",
        "epsilon",
        "max_images",
        "split",
        "seed",
        "batch_size",
        "data_dir",
        "output",
    ):
        assert f"--{flag}: " in out
    assert "two standard errors" in " ".join(out.split()).lower()
