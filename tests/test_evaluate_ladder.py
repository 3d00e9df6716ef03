"""rvs_tf.evaluate with attacks that stop at the first error: restarts, AutoAttack's stages, going on, worst case."""

import collections
import json

import numpy as np
import pytest
from tiers import mostly_slow

import rvs_tf.evaluate
from madry_cifar.attacks import apgd, square
from madry_cifar.attacks import autoattack as versions
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints

IMAGES = 40
STAGES = ("apgd-ce", "square")


@pytest.fixture
def folder(trained, digits, tmp_path):
    """A run's folder with the trained classifier after seven steps."""
    sizes = {"depth": 10, "width": 1, "num_classes": 10}
    settings = {"dataset": "digits", "defense": "natural", "seed": 0, "steps": 7} | sizes
    run_folder.create(tmp_path / "run", settings, digits.provenance)
    Checkpoints(tmp_path / "run", {"classifier": trained}, {}).save(7)
    return tmp_path / "run"


@pytest.fixture
def evaluate(invoke, folder, monkeypatch):
    """evaluate(*arguments) calls the command, where AutoAttack has two stages, of 20 steps and 50 queries."""
    monkeypatch.setattr(versions, "STAGES", {"standard": STAGES})
    monkeypatch.setitem(apgd.apgd.__kwdefaults__, "steps", 20)
    monkeypatch.setattr(square.square, "__kwdefaults__", {"queries": 50})

    def evaluate(*arguments):
        sizes = (f"--max_images={IMAGES}", "--batch_size=16", "--epsilon=4")
        return invoke(rvs_tf.evaluate.command, f"--train_dir={folder}", *sizes, *arguments)

    return evaluate


@pytest.fixture
def attacked(monkeypatch):
    """How many batches were attacked, by attack; interrupted before the one that `attacked.stop` counts."""
    original = Evaluator._run_batch

    def run_batch(evaluator, attack, *args):
        if attacked.total() == attacked.stop:
            raise KeyboardInterrupt
        attacked[attack.name] += 1
        return original(evaluator, attack, *args)

    attacked = collections.Counter()
    attacked.stop = None
    monkeypatch.setattr(Evaluator, "_run_batch", run_batch)
    return attacked


def results(folder, epsilon=4):
    file = folder / "results" / f"ckpt-7_test-{IMAGES}_eps-{epsilon}_step-2_seed-0.json"
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        return json.loads(file.read_text()), dict(stored)


def test_the_command_as_it_is_published(run, folder):
    """With all stages and queries, on few images that fall early."""
    output = folder.parent / "out.json"
    status, out, err = run(
        "rvs_tf.evaluate",
        f"--train_dir={folder}",
        "--max_images=12",
        "--batch_size=8",
        "--epsilon=24",
        "--attacks=natural,pgd-20x3,autoattack",
        f"--output={output}",
    )
    assert status == 0, err
    (content,) = json.loads(output.read_text())
    entry = content["attacks"]["autoattack"]
    after = entry["protocol"]["accuracy_after"]
    assert list(after) == ["natural", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert list(after.values()) == sorted(after.values(), reverse=True)
    assert entry["accuracy"] == after["square"] < after["natural"]
    assert 0 < entry["linf"] <= 24
    assert entry["protocol"]["version"] == "standard"
    assert content["worst_case"]["accuracy"] <= entry["accuracy"]
    assert "after apgd-t" in out
    assert "worst of these" in out


@pytest.mark.parametrize("stop", mostly_slow([2, 8], 8))
def test_autoattack_that_was_interrupted_goes_on(evaluate, folder, attacked, stop):
    assert evaluate("--attacks=autoattack")[0] == 0
    whole, count = results(folder), dict(attacked)
    assert set(count) == {"natural", *STAGES}
    (folder / "results" / "ckpt-7_test-40_eps-4_step-2_seed-0.json").unlink()
    attacked.clear()
    attacked.stop = min(stop, sum(count.values()) - 1)
    assert evaluate("--attacks=autoattack")[0] == 130
    attacked.stop = None
    status, out, _ = evaluate("--attacks=autoattack")
    assert (status, "going on after" in out) == (0, True)
    assert dict(attacked) == count  # no batch twice
    np.testing.assert_array_equal(results(folder)[1]["autoattack"], whole[1]["autoattack"])
    entries = [content["attacks"]["autoattack"] for content in (whole[0], results(folder)[0])]
    for name in ("accuracy", "protocol", "linf", "attacked"):
        assert entries[0][name] == entries[1][name]
    assert 0 < entries[0]["accuracy"] < entries[0]["protocol"]["accuracy_after"]["natural"]


@pytest.mark.parametrize("batch_size", mostly_slow([16, 40], 16))  # more batches than one, and one
def test_a_stage_that_was_measured_is_taken(evaluate, folder, attacked, batch_size):
    size = f"--batch_size={batch_size}"
    assert evaluate("--attacks=autoattack", size)[0] == 0
    alone = results(folder)
    attacked.clear()
    assert evaluate("--attacks=natural,apgd-ce,square,autoattack", size)[0] == 0
    together = results(folder)
    assert attacked["natural"] == -(-IMAGES // batch_size)
    assert attacked["apgd-ce"] == attacked["natural"]  # once, though it is both an attack and a stage
    np.testing.assert_array_equal(alone[1]["autoattack"], together[1]["autoattack"])
    entries = [content["attacks"]["autoattack"] for content, _ in (alone, together)]
    assert entries[0]["protocol"] == entries[1]["protocol"]
    assert [entry["images_per_second"] for entry in entries] == [None, None]
    wrong = np.stack([together[1][name] != together[1]["labels"] for name in STAGES])
    np.testing.assert_array_equal(together[1]["autoattack"] != together[1]["labels"], wrong.any(axis=0))


def test_the_worst_case(evaluate, folder):
    output = folder.parent / "out.json"
    names = ("natural", "fgsm", "pgd-3", "cw-3")
    out = evaluate(f"--attacks={','.join(names)}", f"--output={output}")[1]
    arrays = results(folder)[1]
    right = np.all([arrays[name] == arrays["labels"] for name in names], axis=0)
    (content,) = json.loads(output.read_text())
    assert content["worst_case"] == {"accuracy": 100 * right.mean(), "attacks": list(names)}
    (line,) = [line for line in out.splitlines() if "worst of these" in line]
    assert f"{100 * right.mean():.2f}" in line
    assert "worst of these" not in evaluate("--attacks=natural,pgd-3")[1]


def test_restarts(evaluate, folder):
    assert evaluate("--attacks=pgd-2,pgd-2x2,fgsm", "--restarts=4")[0] == 0
    entries, arrays = results(folder)[0]["attacks"], results(folder)[1]
    assert {name: entry["protocol"]["restarts"] for name, entry in entries.items()} == {
        "pgd-2x4": 4,
        "pgd-2x2": 2,
        "fgsm": 1,
    }
    right = {name: arrays[name] == arrays["labels"] for name in entries}
    assert not (right["pgd-2x4"] & ~right["pgd-2x2"]).any()  # the first two starts are the same


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--attacks=natural,fgsm --restarts=2", "--restarts=2: none of --attacks=natural,fgsm has random starts"),
        ("--attacks=pgd-20x2 --restarts=2", "--restarts=2: none of --attacks=pgd-20x2"),
        ("--attacks=pgd-20 --restarts=0", "--restarts"),
        ("--attacks=squarex2", "--attacks=squarex2: square cannot be repeated from other starts"),
        ("--attacks=autoatack", "--attacks=autoatack: unknown; did you mean 'autoattack'?"),
        ("--attacks=apgd-c", "--attacks=apgd-c: unknown; did you mean 'apgd-ce'?"),
        (
            "--attacks=autoattack --surrogate_dir=elsewhere",
            "--attacks=autoattack: stops at the first error of the network",
        ),
        ("--attacks=pgd-20x5 --surrogate_dir=elsewhere", "--attacks=pgd-20x5: stops at the first error of the network"),
    ],
)
def test_wrong_flags(evaluate, folder, arguments, named):
    status, out, err = evaluate(*arguments.split())
    assert (status, out) == (2, "")
    assert named in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in err
    assert not (folder / "results").exists()
