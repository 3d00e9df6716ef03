import json

import numpy as np
import pytest

from madry_cifar import results
from madry_cifar.attacks import attack
from madry_cifar.evaluation import Outcome

ABOUT = {"classifier_sha256": "abc", "dataset": "digits"}
LABELS = np.array([3, 1, 2, 2], np.int32)


def outcome(name, predictions=(3, 1, 0, 2), adversarial=None):
    return Outcome(attack(name), np.array(predictions, np.int16), LABELS, 7.5, 1.25, adversarial)


def outcomes(*names, **kwargs):
    return {name: outcome(name, **kwargs) for name in names}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "a.json"


def arrays(path):
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        return {name: stored[name].tolist() for name in stored}


def test_what_the_files_hold(path):
    content = results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    assert json.loads(path.read_text()) == content
    assert content | {"versions": 0, "git_revision": 0} == {
        "schema_version": 1,
        "numbers": "measured",
        "classifier_sha256": "abc",
        "dataset": "digits",
        "versions": 0,
        "git_revision": 0,
        "predictions": "a.npz",
        "attacks": {
            name: {"accuracy": 75.0, "images": 4, "linf": 7.5, "seconds": 1.25, "protocol": protocol}
            for name, protocol in (("natural", {}), ("pgd-7", attack("pgd-7").protocol))
        },
    }
    assert content["versions"]["numpy"] == np.__version__
    assert arrays(path) == {"labels": [3, 1, 2, 2], "natural": [3, 1, 0, 2], "pgd-7": [3, 1, 0, 2]}
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.json", "a.npz"]  # nothing temporary


def test_earlier_attacks_on_the_same_weights_stay(path):
    results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    content = results.write(path, outcomes("pgd-7", "cw-20", predictions=(0, 0, 0, 0)), ABOUT)
    accuracies = {name: entry["accuracy"] for name, entry in content["attacks"].items()}
    assert accuracies == {"natural": 75, "pgd-7": 0, "cw-20": 0}
    assert arrays(path) == {
        "labels": [3, 1, 2, 2],
        "natural": [3, 1, 0, 2],
        "pgd-7": [0, 0, 0, 0],
        "cw-20": [0, 0, 0, 0],
    }


def test_results_of_other_weights_go(path):
    results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    content = results.write(path, outcomes("cw-20"), ABOUT | {"classifier_sha256": "def"})
    assert set(content["attacks"]) == {"cw-20"}
    assert set(arrays(path)) == {"labels", "cw-20"}


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"classifier_sha256": "abc"}', b"\xff\xfe"])
def test_a_damaged_json_file_is_replaced(path, damaged):
    results.write(path, outcomes("natural"), ABOUT)
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    results.write(path, outcomes("pgd-7"), ABOUT)
    assert set(json.loads(path.read_text())["attacks"]) == {"pgd-7"}
    assert set(arrays(path)) == {"labels", "pgd-7"}


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"", lambda content: b"not a zip"])
def test_a_damaged_npz_file_is_replaced(path, damage):
    results.write(path, outcomes("natural"), ABOUT)
    arrays_path = path.with_suffix(".npz")
    arrays_path.write_bytes(damage(arrays_path.read_bytes()))
    results.write(path, outcomes("pgd-7"), ABOUT)
    assert set(json.loads(path.read_text())["attacks"]) == {"pgd-7"}  # none without its outcomes
    assert set(arrays(path)) == {"labels", "pgd-7"}


def test_attacks_without_their_outcomes_go(path):
    results.write(path, outcomes("natural"), ABOUT)
    path.with_suffix(".npz").unlink()
    assert set(results.write(path, outcomes("pgd-7"), ABOUT)["attacks"]) == {"pgd-7"}


def test_read(path):
    assert results.read(path, ABOUT) == {}
    content = results.write(path, outcomes("natural"), ABOUT)
    assert results.read(path, ABOUT) == content
    for name in ("classifier_sha256", "provenance", "batch_size"):
        assert results.read(path, ABOUT | {name: "other"}) == {}
    path.write_text(json.dumps(content | {"schema_version": 2}))
    assert results.read(path, ABOUT) == {}


def test_adversarial_images_that_were_kept(path):
    images = np.linspace(0, 255, 48, dtype=np.float32).reshape(4, 2, 2, 3)
    results.write_adversarial(path, outcomes("pgd-7", adversarial=images) | outcomes("natural"))
    assert [file.name for file in path.parent.iterdir()] == ["a_pgd-7.npy"]
    assert np.array_equal(np.load(path.with_name("a_pgd-7.npy"), allow_pickle=False), images)


def test_another_protocol_has_another_file():
    protocol = {"step": 10, "split": "test", "images": 359, "epsilon": 8.0, "step_size": 2.0, "seed": 0}
    others = [{"step": 20}, {"split": "validation"}, {"images": 50}, {"epsilon": 8.5}, {"step_size": 1.0}, {"seed": 1}]
    names = [results.file_name(**protocol | other) for other in ({}, *others)]
    assert names[0] == "ckpt-10_test-359_eps-8_step-2_seed-0"
    assert len(set(names)) == 7
