"""rvs_tf.evaluate from end to end: after a kill, at several ε, transfer, AdvGAN, --output, and what is typed wrong."""

import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal

import numpy as np
import pytest
from linear import run_attack
from tiers import mostly_slow

import rvs_tf.evaluate
import rvs_tf.train_advgan
from madry_cifar import WideResNet, attacks
from madry_cifar import eval as follow
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.evaluation.run_evaluation import accuracies
from madry_cifar.predictor import as_predictor
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from rvs_tf.advgan.advgan import AdvGANOptions
from rvs_tf.advgan.networks import AdvGANGenerator

IMAGES = 60
SPEED = {"seconds": 0, "compiled_seconds": 0, "images_per_second": 0}
SIZES = (f"--max_images={IMAGES}", "--batch_size=25")
FILE = f"ckpt-7_test-{IMAGES}_eps-{{}}_step-2_seed-0"


def save_run(folder, classifier, provenance, **settings):
    """A run's folder with a classifier after seven steps."""
    sizes = {"depth": 10, "width": 1, "num_classes": 10}
    run_folder.create(
        folder, {"dataset": "digits", "defense": "natural", "seed": 0, "steps": 7, **sizes} | settings, provenance
    )
    Checkpoints(folder, {"classifier": classifier}, {}).save(7)
    return folder


@pytest.fixture(scope="module")
def other(trained):
    """A network that is like the trained one, but not the same."""
    other, draws = WideResNet(10, 1, 10), np.random.default_rng(0)
    for variable, source in zip(other.variables, trained.variables, strict=True):
        variable.assign(source * (1 + 0.15 * draws.normal(size=source.shape)))
    return other


@pytest.fixture(scope="module")
def saved(trained, other, digits, tmp_path_factory):
    """The folders of their runs. Not to be written to."""
    folder = tmp_path_factory.mktemp("saved")
    for name, network in (("target", trained), ("surrogate", other)):
        save_run(folder / name, network, digits.provenance)
    return folder


@pytest.fixture
def runs(saved, tmp_path):
    """The same, to be written to."""
    return shutil.copytree(saved, tmp_path / "runs")


@pytest.fixture
def evaluate(invoke, runs):
    """evaluate(*arguments) calls the command for the target; returns its status, stdout and stderr."""

    def evaluate(*arguments):
        return invoke(rvs_tf.evaluate.command, f"--train_dir={runs}/target", *SIZES, *arguments)

    return evaluate


@pytest.fixture
def attacked(monkeypatch):
    """How many batches were attacked, by attack and ε; interrupted before the one that `attacked.stop` counts."""
    original = Evaluator._run_batch

    def run_batch(evaluator, attack, *args):
        if attacked.total() == attacked.stop:
            raise KeyboardInterrupt
        attacked[attack.name, attack.protocol.get("epsilon")] += 1
        return original(evaluator, attack, *args)

    attacked = collections.Counter()
    attacked.stop = None
    monkeypatch.setattr(Evaluator, "_run_batch", run_batch)
    return attacked


def results(run, epsilon=8, suffix=""):
    """The content of a results file and its predictions."""
    file = run / "results" / f"{FILE.format(epsilon)}{suffix}.json"
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        return json.loads(file.read_text()), dict(stored)


def hidden(run):
    """What lies in a run's results/ beside results, but for the lock."""
    return [path.name for path in (run / "results").glob(".*") if path.name != ".lock"]


def error_line(err):
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def accuracy_of(network, adversarial, labels):
    predictions = np.argmax(network(adversarial).logits, axis=1)
    return predictions, 100 * np.mean(predictions == labels)


def by_batch(digits, function, size=25):
    """What `function(images, labels, first)` returns for the batches of the evaluation, the last of them padded."""
    images, labels = digits.test.images[:IMAGES].astype(np.float32), digits.test.labels[:IMAGES]
    made = []
    for first in range(0, IMAGES, size):
        rows = np.minimum(np.arange(first, first + size), IMAGES - 1)
        made.append(np.array(function(images[rows], labels[rows], first))[: IMAGES - first])
    return np.concatenate(made), labels


# --- Going on


def test_an_evaluation_that_was_killed_goes_on(signalled, invoke, runs, saved, tmp_path):
    flags = ("--attacks=natural,pgd-7,cw-7", "--batch_size=3", "--max_images=120")
    killed, whole = runs / "target", shutil.copytree(saved / "target", tmp_path / "whole")
    batch, number = "madry_cifar.evaluation.evaluator:Evaluator._run_batch", random.randrange(2, 3 * 40)
    signalled(signal.SIGKILL, batch, number, "rvs_tf.evaluate", f"--train_dir={killed}", *flags)
    partial = {path.name.split("_")[-1].split(".")[0]: np.load(path) for path in (killed / "results").glob(".*.npz")}
    seconds = {name: float(content["seconds"]) for name, content in partial.items()}
    done = sum(len(content["predictions"]) for content in partial.values())
    status, out, err = invoke(rvs_tf.evaluate.command, f"--train_dir={killed}", *flags)
    assert status == 0, err
    assert [line for line in out.splitlines() if line.startswith(f"going on after {done} attacked images: ")]
    assert invoke(rvs_tf.evaluate.command, f"--train_dir={whole}", *flags)[0] == 0
    name = "ckpt-7_test-120_eps-8_step-2_seed-0"
    assert sorted(path.name for path in (killed / "results").glob("[!.]*")) == [f"{name}.json", f"{name}.npz"]
    assert hidden(killed) == []
    ours, expected = (np.load(run / "results" / f"{name}.npz") for run in (killed, whole))
    assert set(ours) == {"labels", "natural", "pgd-7", "cw-7"}
    assert all(np.array_equal(ours[key], expected[key]) for key in expected)
    ours, expected = (json.loads((run / "results" / f"{name}.json").read_text()) for run in (killed, whole))
    for attack, entry in expected["attacks"].items():
        assert ours["attacks"][attack]["seconds"] >= round(seconds.get(attack, 0), 3)
        assert ours["attacks"][attack] | SPEED == entry | SPEED


@pytest.mark.parametrize(("stop", "reuse"), mostly_slow([(2, False), (9, False), (14, False), (14, True)], (14, True)))
def test_no_batch_is_attacked_twice(evaluate, runs, attacked, stop, reuse):
    flags = ("--attacks=natural,pgd-2,cw-2", "--epsilon=8,4", f"--reuse={reuse}")  # 3 batches each
    attacked.stop = stop
    assert evaluate(*flags)[0] == 130
    assert attacked.total() == stop
    assert len(hidden(runs / "target")) == -(-stop // 3)
    finished = {epsilon: 0 for epsilon in (8, 4)}
    for epsilon in finished:
        file = runs / "target" / "results" / f"{FILE.format(epsilon)}.json"
        finished[epsilon] = len(json.loads(file.read_text())["attacks"]) if file.exists() else 0
    assert finished == {8: min(stop // 3, 3), 4: max(stop // 3 - 3, 0)}  # at hand already
    attacked.stop = None
    status, out, _ = evaluate(*flags)
    assert status == 0
    assert attacked == {
        (name, epsilon): 3 * (2 if name == "natural" else 1)
        for name, epsilon in [("natural", None), *((n, e) for n in ("pgd-2", "cw-2") for e in (8, 4))]
    }
    assert out.count("going on after") == 1
    assert hidden(runs / "target") == []
    attacked.clear()
    assert "going on" not in evaluate(*flags)[1]
    assert attacked.total() == (0 if reuse else 18)  # when nothing was interrupted, all is measured anew


def test_adversarial_images_of_an_evaluation_that_goes_on(evaluate, runs, attacked):
    flags = ("--attacks=fgsm,pgd-2", "--save_adversarial")
    status, out, _ = evaluate(*flags)
    assert status == 0
    files = [runs / "target" / "results" / f"{FILE.format(8)}_{name}.npy" for name in ("fgsm", "pgd-2")]
    assert [line for line in out.splitlines() if line.endswith(".npy")] == list(map(str, files))
    whole = [np.load(file) for file in files]
    for file in files:
        file.unlink()
    attacked.stop = attacked.total() + 5
    assert evaluate(*flags)[0] == 130
    attacked.stop = None
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 12
    assert all(np.array_equal(np.load(file), images) for file, images in zip(files, whole, strict=True))
    assert hidden(runs / "target") == []


def test_what_other_weights_left_behind_is_not_gone_on_from(evaluate, runs, attacked, other):
    attacked.stop = 2
    assert evaluate("--attacks=pgd-2")[0] == 130
    shutil.rmtree(runs / "target" / "checkpoints")
    Checkpoints(runs / "target", {"classifier": other}, {}).save(7)
    attacked.stop = None
    status, out, err = evaluate("--attacks=pgd-2")
    assert (status, "going on" in out) == (0, False)
    assert attacked.total() == 2 + 3
    [warning] = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert f"{FILE.format(8)}_pgd-2.partial.npz: cannot be gone on from (of other weights" in warning
    assert hidden(runs / "target") == []


def test_reuse_measures_what_is_missing(evaluate, runs, attacked):
    assert evaluate("--attacks=natural,pgd-2")[0] == 0
    attacked.clear()
    status, out, _ = evaluate("--attacks=cw-2,natural,pgd-2", "--reuse")
    assert (status, attacked) == (0, {("cw-2", 8): 3})
    assert re.findall(r"^ *(natural|pgd-2|cw-2) ", out, re.MULTILINE) == ["cw-2", "natural", "pgd-2"]
    content, arrays = results(runs / "target")
    assert set(content["attacks"]) == {"natural", "pgd-2", "cw-2"} == set(arrays) - {"labels"}
    attacked.clear()
    assert evaluate("--attacks=natural,pgd-2")[0] == 0
    assert attacked.total() == 6  # without --reuse, what was asked for is measured
    attacked.clear()
    assert evaluate("--attacks=natural,pgd-2", "--reuse", "--batch_size=20")[0] == 0
    assert attacked.total() == 6  # other random starts


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_a_damaged_results_file_is_measured_again(evaluate, runs, attacked, ending):
    flags = ("--attacks=natural,pgd-2", "--epsilon=8,4", "--reuse")
    assert evaluate(*flags)[0] == 0
    before = results(runs / "target")[1], results(runs / "target", 4)[1]
    file = runs / "target" / "results" / f"{FILE.format(8)}{ending}"
    file.write_bytes(file.read_bytes()[:-60])
    attacked.clear()
    status, _, err = evaluate(*flags)
    assert (status, attacked) == (0, {("natural", None): 3, ("pgd-2", 8): 3})  # nothing of ε = 4
    [warning] = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {file.with_suffix('.json')}: damaged (")
    for ours, expected in zip((results(runs / "target")[1], results(runs / "target", 4)[1]), before, strict=True):
        assert set(ours) == set(expected)
        assert all(np.array_equal(ours[name], expected[name]) for name in expected)


def test_a_run_is_followed_after_a_kill(invoke, runs, attacked, curves):
    arguments = (f"--train_dir={runs}/target", *SIZES, "--attacks=natural,pgd-2", "--epsilon=8,0", "--timeout=1")
    attacked.stop = 5
    assert invoke(follow.command, *arguments)[0] == 130
    attacked.stop = None
    assert invoke(follow.command, *arguments)[0] == 0
    assert attacked.total() == 12
    natural, pgd = (results(runs / "target")[0]["attacks"][name]["accuracy"] for name in ("natural", "pgd-2"))
    assert {tag: value for tag, [(_, value)] in curves(runs / "target" / "evaluation").items()} == {
        "evaluation/natural": pytest.approx(natural),
        "evaluation/pgd-2": pytest.approx(pgd),
        "evaluation/pgd-2_eps-0": pytest.approx(natural),
    }


# --- Images per second, and skipping what is misclassified


def rows_of(out):
    """The table's rows, by attack: accuracy, standard error, what is told of the attack, seconds, images per second."""
    return {
        row[0]: row[1:] for line in out.splitlines() if (row := line.split()) and re.match(r"[a-z]+(-\d+)?$", row[0])
    }


def test_images_per_second(evaluate, runs):
    flags = ("--attacks=natural,pgd-2,pgd-3", "--reuse")
    status, out, _ = evaluate(*flags)
    assert status == 0
    assert "seconds: with compilation; images/s: those attacked, without the batches that compiled" in " ".join(
        out.split()
    )
    entries, rows = results(runs / "target")[0]["attacks"], rows_of(out)
    for name, entry in entries.items():
        compiled = 0 if name == "pgd-3" else 25  # the first batch, but for what pgd-2 has compiled already
        assert (entry["compiled_seconds"] == 0) == (not compiled)
        warm = entry["seconds"] - entry["compiled_seconds"]
        assert (IMAGES - compiled) / entry["images_per_second"] == pytest.approx(warm, abs=2e-3, rel=1e-3)  # as rounded
        assert float(rows[name][-2]) == pytest.approx(entry["seconds"], abs=0.051)
        assert float(rows[name][-1]) == pytest.approx(entry["images_per_second"], rel=0.06)
    file = runs / "target" / "results" / f"{FILE.format(8)}.json"
    content = json.loads(file.read_text())
    del content["attacks"]["pgd-2"]["images_per_second"]  # as an earlier version wrote it
    file.write_text(json.dumps(content))
    assert rows_of(evaluate(*flags)[1])["pgd-2"][-1] == "–"


@pytest.fixture
def half_wrong(runs, trained, digits):
    """The classes without an attack, once the weights in the run are such that many are wrong; the true ones."""
    bias, before = trained.logits.bias, trained.logits.bias.numpy()
    bias.assign(before + 6 * (np.arange(10) == 3))
    shutil.rmtree(runs / "target" / "checkpoints")
    Checkpoints(runs / "target", {"classifier": trained}, {}).save(7)
    predictions, labels = by_batch(digits, lambda images, *_: np.argmax(trained(images).logits, axis=1))
    bias.assign(before)
    assert 26 <= np.sum(predictions == labels) <= 48  # fewer batches than with all 60, and more than one
    return predictions, labels


def adversarial(run, suffix=""):
    """The images that were kept beside a results file, under PGD and CW."""
    return [np.load(run / "results" / f"{FILE.format(8)}{suffix}_{name}.npy") for name in ("pgd-2", "cw-2")]


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_misclassified_images_are_skipped(evaluate, runs, attacked, half_wrong, stop):
    natural, labels = half_wrong
    right = natural == labels
    flags = ("--attacks=natural,pgd-2,cw-2", "--save_adversarial", "--batch_size=16")
    assert evaluate(*flags)[0] == 0
    whole, whole_images = results(runs / "target")[1], adversarial(runs / "target")
    attacked.clear()
    attacked.stop = stop
    assert evaluate(*flags, "--skip_misclassified")[0] == 130
    attacked.stop = None
    status, out, err = evaluate(*flags, "--skip_misclassified")
    assert status == 0, err
    assert "those misclassified without an attack are not attacked" in " ".join(out.split())
    batches = -(-right.sum() // 16)
    assert attacked == {("natural", None): 4, ("pgd-2", 8): batches, ("cw-2", 8): batches}
    content, arrays = results(runs / "target", suffix="_skip")
    images = adversarial(runs / "target", "_skip")
    assert arrays["natural"].tolist() == whole["natural"].tolist() == natural.tolist()
    for name, found, expected in zip(("pgd-2", "cw-2"), images, whole_images, strict=True):
        entry = content["attacks"][name]
        assert np.array_equal(arrays[name], np.where(right, whole[name], natural))
        assert np.array_equal(found[right], expected[right])
        assert entry["accuracy"] == pytest.approx(100 * np.mean(right & (whole[name] == labels)))
        assert entry["attacked"] == right.sum()
        assert entry["protocol"] == attacks.attack(name).protocol | {"skip_misclassified": True}
    assert content["attacks"]["natural"]["protocol"] == {}
    assert hidden(runs / "target") == []


@pytest.mark.usefixtures("half_wrong")
def test_outcomes_with_and_without_skipping_are_not_mixed(evaluate, runs, attacked):
    flags = ("--attacks=natural,pgd-2", "--reuse")
    assert evaluate(*flags)[0] == 0
    for given, suffix, expected in (
        ("--skip_misclassified", "_skip", 3 + 2),
        ("--skip_misclassified", "_skip", 0),
        ("--noskip_misclassified", "", 0),
    ):
        attacked.clear()
        assert evaluate(*flags, given)[0] == 0
        assert attacked.total() == expected
        protocol = results(runs / "target", suffix=suffix)[0]["attacks"]["pgd-2"]["protocol"]
        assert ("skip_misclassified" in protocol) == bool(suffix)


# --- Several ε


def test_accuracies_are_curves_too(evaluate, runs, curves):
    """In the folder in which HParams looks for them; those of another ε under a name of their own."""
    assert evaluate("--attacks=natural,pgd-2", "--epsilon=8,0")[0] == 0
    natural, pgd = (results(runs / "target")[0]["attacks"][name]["accuracy"] for name in ("natural", "pgd-2"))
    expected = {"natural": natural, "pgd-2": pgd, "pgd-2_eps-0": natural}
    expected = {f"evaluation/{name}": [(7, pytest.approx(value))] for name, value in expected.items()}
    assert curves(runs / "target" / "evaluation") == expected


def test_curves_of_other_images_or_protocols_have_names_of_their_own():
    content = {"epsilon": 8.0, "split": "test", "attacks": {"natural": {"accuracy": 90.0, "protocol": {}}}}
    content["attacks"]["pgd-2"] = {"accuracy": 40.0, "protocol": {"epsilon": 8.0}}
    assert accuracies([content]) == {"natural": 90.0, "pgd-2": 40.0}
    assert accuracies([content | {"split": "validation"}]) == {"natural_validation": 90.0, "pgd-2_validation": 40.0}
    assert accuracies([content | {"skip_misclassified": True}]) == {"natural": 90.0, "pgd-2_skip": 40.0}


def test_accuracies_that_cannot_be_curves_are_told_all_the_same(evaluate, runs):
    (runs / "target" / "evaluation").write_text("no folder")
    status, out, err = evaluate("--attacks=natural")
    assert status == 0
    assert "natural" in out
    assert f"warning: {runs / 'target' / 'evaluation'}: no curves" in err


def test_several_epsilons(evaluate, runs, attacked):
    flags = ("--attacks=natural,fgsm,pgd-10", "--step_size=32", "--epsilon=0,2,8,16,255", "--output=")
    status, out, err = evaluate(*flags)
    assert status == 0, err
    name = f"ckpt-7_test-{IMAGES}_eps-{{}}_step-32_seed-0.json"
    files = [runs / "target" / "results" / name.format(epsilon) for epsilon in (0, 2, 8, 16, 255)]
    assert out.splitlines()[-5:] == list(map(str, files))
    contents = [json.loads(file.read_text()) for file in files]
    assert [(content["epsilon"], content["step_size"]) for content in contents] == [(e, 32) for e in (0, 2, 8, 16, 255)]
    rows = [line.split() for line in out.splitlines()]
    for content in contents:
        for attack in ("fgsm", "pgd-10"):
            entry = content["attacks"][attack]
            assert entry["protocol"]["epsilon"] == content["epsilon"]
            shown = [
                row
                for row in rows
                if row[:2] == [attack, f"{entry['accuracy']:.2f}"] and f"{content['epsilon']:g}" == row[3]
            ]
            assert len(shown) == 1
    natural = contents[0]["attacks"]["natural"]["accuracy"]
    assert sum(row[:1] == ["natural"] for row in rows) == 1
    for attack in ("fgsm", "pgd-10"):
        measured = [content["attacks"][attack]["accuracy"] for content in contents]
        assert measured[0] == natural > 85  # ε = 0 changes nothing
        assert max(np.diff(measured[: 4 if attack == "fgsm" else 5])) <= 2
    assert contents[-1]["attacks"]["pgd-10"]["accuracy"] <= 2


# --- Transfer


@pytest.mark.parametrize("name", ["fgsm", "pgd-3", "cw-3"])
def test_transfer(evaluate, runs, trained, other, digits, name):
    status, out, err = evaluate(f"--attacks=natural,{name}", f"--surrogate_dir={runs}/surrogate")
    assert status == 0, err
    chosen = attacks.attack(name)
    images, labels = digits.test.images[:IMAGES].astype(np.float32), digits.test.labels[:IMAGES]
    adversarial = run_attack(chosen, other, images, labels)
    predictions, accuracy = accuracy_of(trained, adversarial, labels)
    sha = as_predictor(other).fingerprint()
    content, arrays = results(runs / "target", suffix=f"_from-natural-{sha[:8]}")
    assert arrays[name].tolist() == predictions.tolist()
    assert content["attacks"][name]["accuracy"] == pytest.approx(accuracy)
    assert content["attacks"]["natural"]["accuracy"] == pytest.approx(
        accuracy_of(trained, digits.test.images[:IMAGES].astype(np.float32), labels)[1]
    )
    assert content["surrogate"] == {
        "train_dir": f"{runs}/surrogate",
        "defense": "natural",
        "network": "WRN-10-1",
        "checkpoint": 7,
        "classifier_sha256": sha,
        "seed": 0,
        "training_flags": run_folder.read_flags(runs / "surrogate"),
        "trained": {name: run_folder.read(runs / "surrogate")[name] for name in ("git_revision", "machine", "date")},
    }
    assert content["classifier_sha256"] == as_predictor(trained).fingerprint()
    assert "surrogate,step7" in "".join(out.split())


def test_transfer_and_white_box_are_not_mixed(evaluate, runs, attacked):
    assert evaluate("--attacks=pgd-3", "--reuse")[0] == 0
    transfer = ("--attacks=pgd-3", "--reuse", f"--surrogate_dir={runs}/surrogate")
    attacked.stop = attacked.total() + 2
    assert evaluate(*transfer)[0] == 130
    attacked.stop = None
    assert evaluate(*transfer)[0] == 0
    assert attacked.total() == 6
    white_box, transfer = [
        json.loads(file.read_text()) for file in sorted((runs / "target" / "results").glob("*.json"))
    ]
    assert ("surrogate" in white_box, "surrogate" in transfer) == (False, True)
    assert white_box["attacks"]["pgd-3"]["accuracy"] < transfer["attacks"]["pgd-3"]["accuracy"]


# --- AdvGAN


def save_advgan(folder, target, provenance, steps, width=1, **options):
    """The folder of an AdvGAN with a generator of random weights at each of `steps`."""
    chosen = AdvGANOptions(generator_width=width, **options)
    settings = {
        "attack": "advgan",
        "depth": 10,
        "width": 1,
        "num_classes": 10,
        "steps_per_epoch": 2,
        "target_sha256": as_predictor(target).fingerprint(),
    } | chosen.as_dict()
    run_folder.create(folder, settings, provenance)
    generators = {step: AdvGANGenerator(width, seed=step) for step in steps}
    for step, generator in generators.items():
        kernel = generator.deconv_last.kernel
        kernel.assign(kernel * 20 / (1 + abs(step - 4)))  # another strength at each
        Checkpoints(folder, {"generator": generator}, {}, keep=0).save(step)
    return generators


def advgan_accuracies(generators, network, digits, epsilon=8):
    """By step, the predictions of a network on images that a generator has changed, and its accuracy."""
    images, labels = digits.test.images[:IMAGES].astype(np.float32), digits.test.labels[:IMAGES]
    return {
        step: accuracy_of(network, np.clip(images + epsilon * generator(images), 0, 255), labels)
        for step, generator in generators.items()
    }


@pytest.mark.parametrize("transfer", [False, True])
def test_advgan(evaluate, runs, trained, other, digits, attacked, tmp_path, transfer):
    attacked_network = other if transfer else trained
    advgans = {
        "advgan": save_advgan(tmp_path / "x1", attacked_network, digits.provenance, [2, 4, 6], epsilon=64.0),
        "advgan-x2": save_advgan(tmp_path / "x2", attacked_network, digits.provenance, [4, 8], width=2, epsilon=64.0),
    }
    flags = [f"--advgan_dir={tmp_path}/x1,{tmp_path}/x2", "--attacks=", f"--output={tmp_path}/out.json"]
    flags += ["--epsilon=64"]  # of which even random perturbations take accuracy, and not all as much
    flags += [f"--surrogate_dir={runs}/surrogate"] * transfer
    attacked.stop = 8
    assert evaluate(*flags)[0] == 130
    attacked.stop = None
    status, out, err = evaluate(*flags)
    assert status == 0, err
    assert attacked.total() == 3 * 5
    assert "going on after 170 attacked images: advgan from image 50 on\n" in out  # at the last of its checkpoints
    suffix = f"_from-natural-{as_predictor(other).fingerprint()[:8]}" if transfer else ""
    content, arrays = results(runs / "target", epsilon=64, suffix=suffix)
    assert list(content["attacks"]) == ["advgan", "advgan-final", "advgan-x2", "advgan-x2-final"]
    for name, generators in advgans.items():
        expected = advgan_accuracies(generators, trained, digits, 64)
        strongest = min(expected, key=lambda step: expected[step][1])
        for entry, step in ((name, strongest), (f"{name}-final", max(generators))):
            protocol = content["attacks"][entry]["protocol"]
            assert arrays[entry].tolist() == expected[step][0].tolist()
            assert content["attacks"][entry]["accuracy"] == pytest.approx(expected[step][1])
            assert protocol["accuracy_by_checkpoint"] == {str(s): pytest.approx(a) for s, (_, a) in expected.items()}
            assert (protocol["checkpoint"], protocol["epsilon"], protocol["norm"]) == (step, 64, "linf")
            assert protocol["train_dir"] == f"{tmp_path}/{'x2' if 'x2' in name else 'x1'}"
            assert protocol["generator_width"] == (2 if "x2" in name else 1)
            assert protocol["epochs"] == len(generators)
        selections = [content["attacks"][f"{name}{end}"]["protocol"]["selection"] for end in ("", "-final")]
        assert selections[0].startswith(f"strongest of {len(generators)} checkpoints on these images, an oracle choice")
        assert selections[1] == "final"
    assert len({value for _, value in advgan_accuracies(advgans["advgan"], trained, digits, 64).values()}) > 1
    [shown] = json.loads((tmp_path / "out.json").read_text())
    assert shown["attacks"] == content["attacks"]


def test_an_advgan_that_was_trained_on(evaluate, runs, trained, digits, attacked, tmp_path):
    flags = ("--attacks=", f"--advgan_dir={tmp_path}/x1", "--reuse")
    generators = save_advgan(tmp_path / "x1", trained, digits.provenance, [2, 4])
    assert evaluate(*flags)[0] == 0
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 6  # all of it is reused
    generators |= save_advgan(tmp_path / "x1", trained, digits.provenance, [6])
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 6 + 9
    assert evaluate(*flags, "--skip_misclassified")[0] == 0
    assert attacked.total() == 6 + 9 + 3 + 9  # all anew, after a look at which ones are misclassified
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 6 + 9 + 3 + 9  # those without skipping are still there
    protocol = results(runs / "target")[0]["attacks"]["advgan-final"]["protocol"]
    assert (protocol["checkpoint"], list(protocol["accuracy_by_checkpoint"])) == (6, ["2", "4", "6"])
    attacked.clear()
    Checkpoints(tmp_path / "x1", {"generator": AdvGANGenerator(1, seed=7)}, {}, keep=0).save(6)
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 9  # the same settings, but another training
    assert evaluate(*flags)[0] == 0
    assert attacked.total() == 9


def test_an_advgan_of_the_command(invoke, evaluate, runs, tmp_path):
    sizes = ("--epochs=2", "--batch_size=32", "--max_train_images=64", f"--eval_images={IMAGES}", "--log_every=0")
    arguments = (f"--target_dir={runs}/target", f"--train_dir={tmp_path}/advgan", *sizes, "--image_every=0")
    status, _, err = invoke(rvs_tf.train_advgan.command, *arguments)
    assert status == 0, err
    status, _, err = evaluate("--attacks=natural", f"--advgan_dir={tmp_path}/advgan")
    assert status == 0, err
    [file] = (tmp_path / "advgan" / "results").glob("accuracy_*.json")
    while_training = json.loads(file.read_text())["accuracy"]
    measured = results(runs / "target")[0]["attacks"]["advgan"]
    assert measured["protocol"]["accuracy_by_checkpoint"] == pytest.approx(while_training)
    assert measured["accuracy"] == pytest.approx(min(while_training.values()))
    assert 0 < measured["linf"] <= 8.0001


# --- --output


def test_output(evaluate, runs, tmp_path):
    output = tmp_path / "new" / "folder" / "results.json"
    assert evaluate("--attacks=cw-2", "--epsilon=4")[0] == 0
    status, out, err = evaluate("--attacks=natural,pgd-2", "--epsilon=8,4", f"--output={output}")
    assert status == 0, err
    assert out.splitlines()[-1] == str(output)
    assert [path.name for path in output.parent.iterdir()] == ["results.json"]
    contents = json.loads(output.read_text())
    assert [content["epsilon"] for content in contents] == [8, 4]
    for content in contents:
        stored, _ = results(runs / "target", f"{content['epsilon']:g}")
        file = runs / "target" / "results" / f"{FILE.format(format(content['epsilon'], 'g'))}.json"
        assert content["file"] == str(file)
        assert list(content["attacks"]) == ["natural", "pgd-2"]  # and not cw-2, which was not asked for
        assert content == stored | {"attacks": content["attacks"], "worst_case": None, "file": str(file)}
        assert content["attacks"].items() <= stored["attacks"].items()
    assert set(results(runs / "target", 4)[0]["attacks"]) == {"natural", "pgd-2", "cw-2"}


def test_output_comes_at_the_very_end(evaluate, attacked, tmp_path):
    attacked.stop = 5
    assert evaluate("--attacks=natural,pgd-2", f"--output={tmp_path}/new/results.json")[0] == 130
    assert not (tmp_path / "new").exists()


# --- A full disk


@pytest.mark.parametrize(
    "name", [f"{FILE.format(8)}.npz", f"{FILE.format(8)}.json", f".{FILE.format(8)}_pgd-2.partial.npz"]
)
def test_a_full_disk(evaluate, runs, name):
    if not pathlib.Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    assert evaluate("--attacks=natural")[0] == 0
    folder = runs / "target" / "results"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / f".{os.getpid()}.{name}").symlink_to("/dev/full")
    status, out, err = evaluate("--attacks=pgd-2")
    assert (status, out) == (1, "")
    assert error_line(err) == f"error: {folder / name}: No space left on device"
    left = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".partial.npz")}
    assert left.keys() == before.keys()
    assert left.items() - before.items() == set() or name.endswith(".json")  # the arrays come before the JSON
    status, out, err = evaluate("--attacks=pgd-2")  # space was made
    assert (status, "warning" in err) == (0, False)
    assert set(results(runs / "target")[0]["attacks"]) == {"natural", "pgd-2"}
    assert hidden(runs / "target") == []


# --- What is typed wrong


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--epsilon=", "--epsilon=: must be a number"),
        ("--epsilon=8,x", "--epsilon=8,x: must be a number, or several with commas"),
        ("--epsilon=8,-1", "--epsilon=-1.0: must be from 0 to 255"),
        ("--epsilon=nan", "--epsilon=nan: must be a finite number"),
        ("--surrogate_dir=/none", "--surrogate_dir=/none: no such folder"),
        ("--surrogate_dir={tmp}", "--surrogate_dir={tmp}: holds no run"),
        ("--surrogate_dir={runs}/target", "--surrogate_dir={runs}/target: checkpoint 7 is the network evaluated"),
        ("--surrogate_dir={runs}/surrogate --surrogate_checkpoint=8", "--surrogate_checkpoint=8: not among those of"),
        ("--surrogate_checkpoint=7", "--surrogate_checkpoint=7: needs --surrogate_dir"),
        ("--surrogate_dir={tmp}/cifar", "--surrogate_dir={tmp}/cifar: was trained on other data (cifar10) than"),
        ("--surrogate_dir={tmp}/jpeg", "--surrogate_dir={tmp}/jpeg: was trained on other data (recompressed) than"),
        ("--surrogate_dir={tmp}/advgan", "--surrogate_dir={tmp}/advgan: holds an attack"),
        ("--train_dir={tmp}/advgan", "--train_dir={tmp}/advgan: holds an attack"),
        ("--advgan_dir=/none", "--advgan_dir=/none: no such folder"),
        ("--advgan_dir={runs}/surrogate", "--advgan_dir={runs}/surrogate: holds no AdvGAN"),
        ("--advgan_dir={tmp}/other", "--advgan_dir={tmp}/other: was trained against another network"),
        ("--advgan_dir={tmp}/other", "than checkpoint 7 of {runs}/target"),
        ("--advgan_dir={tmp}/advgan --surrogate_dir={runs}/surrogate", "than checkpoint 7 of {runs}/surrogate"),
        ("--advgan_dir={tmp}/advgan,{tmp}/other", "--advgan_dir={tmp}/other: as wide as that in {tmp}/advgan"),
        ("--advgan_dir={tmp}/advgan --epsilon=4", "--epsilon=4: the AdvGAN in {tmp}/advgan was trained for 8"),
        ("--advgan_dir={tmp}/advgan --epsilon=8,4", "--epsilon=4: the AdvGAN in {tmp}/advgan was trained for 8"),
        ("--advgan_dir= --attacks=", "--attacks="),
        ("--reuse --save_adversarial", "--reuse"),
        ("--output={tmp}", "--output={tmp}: cannot be a file there"),
        ("--output={runs}/target/flags.json/a.json", "--output={runs}/target/flags.json/a.json: cannot be a file"),
    ],
)
def test_wrong_flags(evaluate, runs, trained, other, digits, tmp_path, arguments, named):
    if "{tmp}/cifar" in arguments:
        save_run(tmp_path / "cifar", other, None, dataset="cifar10")
    if "{tmp}/jpeg" in arguments:
        save_run(tmp_path / "jpeg", other, "recompressed")
    for name, network in (("advgan", trained), ("other", other)):
        if f"{{tmp}}/{name}" in arguments:
            save_advgan(tmp_path / name, network, digits.provenance, [2])
    places = {"runs": runs, "tmp": tmp_path}
    status, out, err = evaluate("--attacks=natural", *arguments.format(**places).split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in error_line(err)
    assert not (runs / "target" / "results").exists()
