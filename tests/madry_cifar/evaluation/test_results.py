import json
import random

import numpy as np
import pytest

from madry_cifar.attacks.registry import attack
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import skipping
from madry_cifar.evaluation.outcome import Outcome

SURROGATE = {"defense": "at", "classifier_sha256": "0123456789abcdef"}
ABOUT = {"classifier_sha256": "abc", "dataset": "digits"}
LABELS = np.array([3, 1, 2, 2], np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), np.uint8)


def outcome(name, predictions=(3, 1, 0, 2), adversarial=None):
    numbers = {"linf": 7.5, "attacked": 3, "seconds": 1.25, "compiled_images": 1, "compiled_seconds": 0.25}
    return Outcome(attack(name), np.array(predictions, np.int16), LABELS, **numbers, adversarial=adversarial)


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
    assert content | {"versions": 0, "git_revision": 0, "machine": 0, "date": 0} == {
        "schema_version": 1,
        "numbers": "measured",
        "classifier_sha256": "abc",
        "dataset": "digits",
        "versions": 0,
        "git_revision": 0,
        "machine": 0,
        "date": 0,
        "predictions": "a.npz",
        "attacks": {
            name: {
                "accuracy": 75.0,
                "images": 4,
                "attacked": 3,
                "linf": 7.5,
                "seconds": 1.25,
                "compiled_seconds": 0.25,
                "images_per_second": 2.0,
                "protocol": protocol,
            }
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


def test_each_attack_keeps_the_environment_that_it_was_measured_in(path, monkeypatch):
    environments = {
        number: {"versions": {"numpy": "1"}, "git_revision": revision, "machine": machine, "date": f"2026-01-0{number}"}
        for number, (revision, machine) in enumerate([("abc", "here"), ("abc", "there"), ("def", "there")], start=1)
    }
    for number, name in enumerate(("natural", "pgd-7", "cw-20"), start=1):
        monkeypatch.setattr(results, "environment", lambda number=number: environments[number])
        content = results.write(path, outcomes(name), ABOUT)
    assert {name: content[name] for name in environments[3]} == environments[3]
    assert {name: entry.get("environment") for name, entry in content["attacks"].items()} == {
        "natural": {"git_revision": "abc", "machine": "here", "date": "2026-01-01"},
        "pgd-7": {"git_revision": "abc", "date": "2026-01-02"},
        "cw-20": None,
    }
    monkeypatch.setattr(results, "environment", lambda: environments[2])
    content = results.write(path, outcomes("natural"), ABOUT)
    assert {name: entry.get("environment") for name, entry in content["attacks"].items()} == {
        "natural": None,
        "pgd-7": None,
        "cw-20": {"git_revision": "def", "date": "2026-01-03"},
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


def test_read(path, capsys):
    assert results.read(path, ABOUT) == {}
    content = results.write(path, outcomes("natural"), ABOUT)
    assert results.read(path, ABOUT) == content
    for name in ("classifier_sha256", "provenance", "batch_size", "seed", "split", "images"):
        assert results.read(path, ABOUT | {name: "other"}) == {}
    assert results.read(path, ABOUT | {"surrogate": SURROGATE}) == {}
    path.write_text(json.dumps(content | {"schema_version": 2}))
    assert results.read(path, ABOUT) == {}
    assert capsys.readouterr() == ("", "")  # another's results are no damage


def test_a_file_without_what_is_new_in_it_is_read(path):
    """Such as an earlier version wrote: without ε at the top, a word on a surrogate, or a rate."""
    content = results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    for entry in content["attacks"].values():
        for name in ("attacked", "compiled_seconds", "images_per_second"):
            del entry[name]
    path.write_text(json.dumps(content))
    assert not {"epsilon", "step_size", "surrogate"} & set(content)
    assert set(results.read(path, ABOUT | {"epsilon": 8.0, "step_size": 2.0})["attacks"]) == {"natural", "pgd-7"}


def lose(entry, name):
    del entry[name]


@pytest.mark.parametrize(
    ("damage", "left", "reason"),
    [
        (lambda path, _: path.write_text("{"), set(), "double quotes"),
        (lambda path, _: path.write_text("[]"), set(), "list"),
        (lambda path, _: path.with_suffix(".npz").unlink(), set(), "predictions are missing"),
        (lambda path, _: path.with_suffix(".npz").write_bytes(b"PK"), set(), ""),
        (lambda path, entries: lose(entries["pgd-7"], "protocol"), {"natural"}, "pgd-7 is incomplete"),
        (lambda path, entries: entries["natural"].update(accuracy=70.0), {"pgd-7"}, "the accuracy of natural is not"),
        (lambda path, entries: entries["pgd-7"].update(environment="abc"), {"natural"}, "the environment of pgd-7"),
        (lambda path, entries: entries.update({"cw-2": entries["natural"]}), {"natural", "pgd-7"}, "cw-2"),
    ],
)
def test_what_is_damaged_is_left_out_and_named(path, capsys, damage, left, reason):
    content = results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    before = path.read_bytes()
    damage(path, content["attacks"])
    if path.read_bytes() == before:
        path.write_text(json.dumps(content))
    assert set(results.read(path, ABOUT).get("attacks", ())) == left
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"warning: {path}: damaged (")
    assert reason in err
    results.write(path, outcomes("fgsm"), ABOUT)
    assert set(results.read(path, ABOUT)["attacks"]) == left | {"fgsm"}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_no_flipped_byte_makes_other_numbers(path, capsys, ending):
    content = results.write(path, outcomes("natural", "pgd-7"), ABOUT)
    file = path.with_suffix(ending)
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= random.Random(place).randrange(1, 256)
        file.write_bytes(flipped)
        read = results.read(path, ABOUT).get("attacks", {})
        assert all(
            read[name]["accuracy"] == entry["accuracy"] for name, entry in content["attacks"].items() if name in read
        )
    assert capsys.readouterr().err.count(f"warning: {path}: damaged") > len(whole) / 4


def same(first, second):
    for name in ("name", "protocol"):
        assert getattr(first.attack, name) == getattr(second.attack, name)
    for name in ("linf", "attacked", "seconds", "compiled_images", "compiled_seconds"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("predictions", "labels", "adversarial"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    return True


@pytest.mark.parametrize("images", [False, True])
def test_what_an_evaluation_in_progress_has_measured(path, images):
    split = Split(IMAGES, LABELS)
    whole = outcome("pgd-7", adversarial=IMAGES + np.float32(0.5) if images else None)

    def partial():
        return results.Partial(path, ABOUT, whole.attack, "pgd-7", images=images)

    assert partial().read(split) is None
    first = partial()
    for size in (1, 2):
        first.write(whole.first(size))
    second = partial()
    assert same(second.read(split), whole.first(2))
    if images:  # as if killed between the images of a batch and its predictions
        with second.images_path.open("ab") as file:
            file.write(b"half a batch")
    third = partial()
    assert same(third.read(split), whole.first(2))
    third.write(whole)
    assert same(partial().read(split), whole)
    assert not list(path.parent.glob("*.json"))
    results.remove_partial(path, whole.attack)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        {"about": ABOUT | {"classifier_sha256": "def"}},
        {"about": ABOUT | {"batch_size": 2}},
        {"about": ABOUT | {"surrogate": SURROGATE}},
        {"attack": attack("pgd-7", step_size=1.0)},
        {"attack": skipping(attack("pgd-7"))},
        {"images": True},
    ],
)
def test_a_partial_outcome_of_something_else(path, capsys, other):
    given = {"about": ABOUT, "attack": attack("pgd-7"), "name": "pgd-7", "images": False}
    results.Partial(path, **given).write(outcome("pgd-7").first(2))
    partial = results.Partial(path, **given | other)
    assert partial.read(Split(IMAGES, LABELS)) is None
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {partial.path}: cannot be gone on from (of other weights, data or settings)")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("images", [False, True])
def test_a_damaged_partial_outcome(path, capsys, images):
    split, adversarial = Split(IMAGES, LABELS), IMAGES.astype(np.float32) if images else None
    partial = results.Partial(path, ABOUT, attack("pgd-7"), "pgd-7", images=images)
    partial.write(outcome("pgd-7", adversarial=adversarial).first(2))
    file = partial.images_path or partial.path
    whole = file.read_bytes()
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        assert results.Partial(path, ABOUT, attack("pgd-7"), "pgd-7", images=images).read(split) is None
        assert capsys.readouterr().err.startswith(f"warning: {partial.path}: cannot be gone on from (")
    partial = results.Partial(path, ABOUT, attack("pgd-7"), "pgd-7", images=images)
    assert partial.read(split) is None
    partial.write(outcome("pgd-7", adversarial=adversarial))  # begun anew
    assert same(partial.read(split), outcome("pgd-7", adversarial=adversarial))


def test_parts_and_attacks_have_partial_files_of_their_own(path):
    advgan, wide = (attack("natural")._replace(name=name) for name in ("advgan", "advgan-x8"))
    other, transfer = path.with_name("b.json"), path.with_name("a_from-at-01234567.json")
    given = [
        (path, advgan, "advgan_ckpt-1"),
        (path, advgan, "advgan_ckpt-2"),
        (path, advgan, "advgan"),
        (path, wide, "advgan-x8_ckpt-1"),
        (path, attack("fgsm"), "fgsm"),
        (path, attack("fgsm-rs"), "fgsm-rs"),
        (other, advgan, "advgan_ckpt-1"),
        (transfer, advgan, "advgan_ckpt-1"),
    ]
    partials = [results.Partial(file, ABOUT, attack, name) for file, attack, name in given]
    for partial in partials:
        partial.write(outcome("natural"))
    results.write(path, outcomes("natural"), ABOUT)
    assert len(list(path.parent.iterdir())) == len(given) + 2
    results.remove_partial(path, advgan)
    assert [partial.path.exists() for partial in partials] == [False] * 3 + [True] * 5
    results.remove_partial(path, attack("fgsm"))
    assert [partial.path.exists() for partial in partials] == [False] * 3 + [True, False, True, True, True]


def test_adversarial_images_that_were_kept(path):
    images = np.linspace(0, 255, 48, dtype=np.float32).reshape(4, 2, 2, 3)
    results.write_adversarial(path, outcomes("pgd-7", adversarial=images) | outcomes("natural"))
    assert [file.name for file in path.parent.iterdir()] == ["a_pgd-7.npy"]
    assert np.array_equal(np.load(path.with_name("a_pgd-7.npy"), allow_pickle=False), images)


def test_nothing_that_was_measured_is_replaced_by_something_else(tmp_path):
    base = ABOUT | {"epsilon": 8.0, "step_size": 2.0, "checkpoint": 10, "split": "test", "images": 3, "seed": 0}
    names = ("classifier_sha256", "provenance", "batch_size", "seed")
    others = [base, *(base | {name: 7} for name in names), base | {"surrogate": SURROGATE}]
    for about in [*others, *others]:  # found again where they were
        results.write(results.path_of(tmp_path, about), outcomes("natural"), about)
    assert len(list(tmp_path.glob("*.json"))) == len(others)
    for about in others:
        path = results.path_of(tmp_path, about)
        assert set(results.read(path, about)["attacks"]) == set(arrays(path)) - {"labels"} == {"natural"}
    plain = results.path_of(tmp_path, base)
    assert plain.name == f"{results.file_name(base)}.json"
    plain.write_text("damaged")
    assert results.path_of(tmp_path, base) == plain


def test_another_protocol_has_another_file():
    protocol = {"checkpoint": 10, "split": "test", "images": 359, "epsilon": 8.0, "step_size": 2.0, "seed": 0}
    other_surrogate = SURROGATE | {"classifier_sha256": "f" * 64}
    others = [
        {"checkpoint": 20},
        {"split": "validation"},
        {"images": 50},
        {"epsilon": 8.5},
        {"step_size": 1.0},
        {"seed": 1},
        {"surrogate": SURROGATE},
        {"surrogate": other_surrogate},
    ]
    names = [results.file_name(protocol | other) for other in ({}, *others)]
    assert names[0] == "ckpt-10_test-359_eps-8_step-2_seed-0"
    assert names[7] == "ckpt-10_test-359_eps-8_step-2_seed-0_from-at-01234567"
    assert len(set(names)) == 9
