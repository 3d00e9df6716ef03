import json
import sys
import time

import numpy as np
import pytest

from benchmarks import attacks, machine, report

SIZES = {"epsilon": 6.0, "step_size": 1.5, "steps": 5}
QUICK = ("--steps=2", "--images=8", "--batch_size=4", "--repeats=2", "--train_steps=0")


@pytest.fixture
def alone(monkeypatch):
    """No peer is installed."""
    for module in ("foolbox", "art", "art.attacks", "art.attacks.evasion", "torchattacks"):
        monkeypatch.setitem(sys.modules, module, None)


def test_all_do_the_same(trained, digits, monkeypatch):
    pytest.importorskip("foolbox")
    pytest.importorskip("art")
    monkeypatch.setattr(machine, "threads", lambda: 1)  # PyTorch's wait for each other where others work
    split = digits.test.take(slice(60))
    found = attacks.attackers(trained, SIZES, batch_size=30)
    del found[attacks.PASSES]
    found.pop("PyTorch: not installed", None)
    assert list(found)[:5] == ["ours", "Foolbox", "Foolbox, network compiled", "ART", "ART, network compiled"]
    images = split.images.astype(np.float32)
    wrong = {}
    for name, attack in found.items():
        adversarial = attack(images, split.labels)
        assert adversarial.shape == images.shape
        changes = np.abs(adversarial - images)
        assert 5.99 < changes.max() < 6.001
        assert (adversarial.min(), adversarial.max()) == (0, 255)
        # From the image itself, and not from a random start, all changes would be multiples of 1.5.
        assert np.mean(np.abs(changes / 1.5 - np.round(changes / 1.5)) > 0.01) > 0.05
        wrong[name] = np.mean(np.argmax(trained(adversarial).logits, axis=1) != split.labels)
    assert max(wrong.values()) - min(wrong.values()) <= 0.07
    assert wrong["ours"] > 0.1


def test_passes_alone_are_as_many_as_the_steps(trained, digits):
    """And the compiler leaves none out, though all are alike: the images stay as they are."""
    images, labels = digits.test.images[:16].astype(np.float32), digits.test.labels[:16]
    seconds = []
    for steps in (2, 20):
        run = attacks.passes(lambda batch: trained(batch).logits, steps, batch_size=8)
        assert np.array_equal(run(images, labels), images)
        started = time.process_time()
        run(images, labels)
        seconds.append(time.process_time() - started)
    assert 4 < seconds[1] / seconds[0] < 25


def test_what_is_measured(invoke, monkeypatch, alone):
    """Beside ours, "another" that leaves every image as it is: faster, and seen to be weaker."""
    found = attacks.attackers

    def with_another(classifier, sizes, batch_size):
        return found(classifier, sizes, batch_size) | {"another": lambda images, labels: images}

    monkeypatch.setattr(attacks, "attackers", with_another)
    status, out, err = invoke(attacks.command, *QUICK, "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    rows = {row["attack"]: row for row in result["attacks"]}
    absent = [f"{peer}: not installed" for peer in ("Foolbox", "ART", "PyTorch")]
    assert list(rows) == ["ours", "passes alone", *absent, "another"]
    assert (rows["ours"]["times_ours"], rows["ours"]["linf"]) == (1, 8)
    assert rows["another"]["times_ours"] < 1
    assert rows["another"]["images_per_second"] > rows["ours"]["images_per_second"] > 0
    assert rows["another"]["cross_entropy"] < rows["ours"]["cross_entropy"]
    assert (rows["another"]["linf"], rows["another"]["robust_accuracy"] % 12.5) == (0, 0)
    assert set(rows["ART: not installed"]) == set(rows["ours"])
    assert [value for value in rows["ART: not installed"].values() if value is not None] == ["ART: not installed"]
    floor = rows["passes alone"]
    assert (floor["percent_of_passes"], floor["linf"], floor["robust_accuracy"]) == (100, None, None)
    assert rows["ours"]["percent_of_passes"] == pytest.approx(100 * floor["times_ours"])
    assert result["settings"]["trained"] == "0 steps"
    assert result["settings"]["tensorflow_threads"] >= 1
    assert result["note"] in out
    assert report.markdown(result) in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--images=6",), "--images=6: must be a multiple of --batch_size=4"),
        (("--images=360",), "--images=360: digits has 359 test images"),
        (("--depth=11",), "--depth=11: must be 6n + 4"),
        (("--train_dir=/nowhere",), "--train_dir=/nowhere"),
    ],
)
def test_what_cannot_be_measured(invoke, flags, message):
    status, out, err = invoke(attacks.command, *QUICK, *flags)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_a_run_of_ones_own(invoke, rvs_run, alone):
    status, out, err = invoke(attacks.command, *QUICK, f"--train_dir={rvs_run}", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["settings"]["trained"] == f"run {rvs_run.name}"
    assert "note" not in result
