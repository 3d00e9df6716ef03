"""Models from elsewhere, under `rvs_tf.evaluate`, `rvs_tf.diagnose` and `rvs_tf.benchmark`."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import rvs_tf
from experiments.run_report import RunReport
from madry_cifar.cli.errors import UsageError
from madry_cifar.evaluation.run_evaluation import Evaluation
from madry_cifar.predictor import Outputs
from rvs_tf.evaluate import EvaluateSettings

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network for images in [0, 1] that is right on most of those beside it."""
    keras.utils.set_random_seed(0)
    place = tmp_path_factory.mktemp("own")
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE)).astype(np.uint8)
    network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(5, "softmax")])
    labels = np.argmax(network(images / np.float32(255)), axis=1)
    labels[::10] = (labels[::10] + 1) % 5
    network.save(place / "own.keras")
    np.savez(place / "images.npz", images=images, labels=labels[:, np.newaxis])
    (place / "ready_made.py").write_text(
        "import keras, rvs_tf\nready = rvs_tf.predictor(keras.saving.load_model('own.keras'))\n"
    )
    return place


@pytest.fixture
def mine(folder):
    """The same as a `Predictor`, with its images and labels."""
    with np.load(folder / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    network = keras.saving.load_model(folder / "own.keras")
    return rvs_tf.predictor(network, pixel_range=(0, 1), outputs="probabilities"), images, labels


OWN = ["--pixel_range=0,1", "--outputs=probabilities", "--data=images.npz"]


def run(folder, module, *arguments):
    command = [sys.executable, "-m", module, "--model=own.keras", *arguments]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_tells_what_the_function_does(folder, mine):
    done = run(folder, "rvs_tf.evaluate", *OWN, "--attacks=natural,pgd-3", "--epsilon=4", "--output=out.json")
    assert done.returncode == 0, done.stderr
    (content,) = json.loads((folder / "out.json").read_text())
    found = rvs_tf.benchmark(*mine, "natural,pgd-3", epsilon=4, progress=False)
    assert {name: entry["accuracy"] for name, entry in content["attacks"].items()} == found.accuracies
    assert found.accuracies["pgd-3"] < found.accuracies["natural"] == 90
    assert "own.keras: 40 test images of images.npz, 40 images of 8×8×1" in " ".join(done.stdout.split())
    (file,) = (folder / "own.keras.results").glob("*.json")
    assert json.loads(file.read_text())["model"] == "own.keras"


def test_its_results_are_a_row_of_a_report(folder, mine, tmp_path):
    benchmarked = tmp_path / "benchmarked"
    rvs_tf.benchmark(*mine, "natural,pgd-3", epsilon=4, name="mine", folder=benchmarked, progress=False)
    report = RunReport([str(benchmarked)])
    (row,) = report.tables[0].rows
    assert (row.label, row.entries["natural"]["accuracy"]) == ("mine", 90)
    page, lines = report.write(tmp_path)
    assert "mine" in page.read_text()
    assert lines.read_text().count("mine,") == 2


def test_diagnosed_by_command(folder):
    done = run(folder, "rvs_tf.diagnose", *OWN, "--max_images=2", "--epsilon=200", "--batch_size=8")
    assert done.returncode == 0, done.stderr
    assert "Diagnosis" in done.stdout or "zero-gradients" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "--train_dir=: name a run, or in its place a model by --model"),
        ({"model": "own.keras", "train_dir": "x"}, "--train_dir=x: name a run, or in its place a model"),
        ({"model": "own.keras"}, "--model needs images: either --dataset=NAME or --data=FILE"),
        ({"train_dir": "x", "data": "images.npz"}, "--data=images.npz: is for --model; a run knows it"),
        ({"model": "own.keras", "data": "images.npz", "checkpoint": "3"}, "--checkpoint=3: is for --train_dir"),
        (
            {"model": "own.keras", "data": "images.npz"},
            "are probabilities .*by command --outputs=probabilities",
        ),
        ({"model": "own.keras", "dataset": "digits", "outputs": "probabilities"}, r"takes images \[8, 8, 1\]"),
        ({"model": "own.keras", "data": "nothing.npz"}, "--data=nothing.npz: no such file or folder"),
        ({"model": "own.keras", "data": "images.npz", "image_size": (8, 8)}, "--image_size=8,8: is for pictures"),
        (
            {"model": "ready_made:ready", "data": "images.npz", "mean": (0.5,)},
            "--mean=0.5: .* is a Predictor",
        ),
        ({"model": "other.keras", "data": "images.npz"}, "--model=other.keras: no such file"),
        ({"model": "own.keras", "data": "images.npz", "pixel_range": (1.0,)}, "pixel_range must be two numbers"),
        ({"model": "own.keras", "data": "images.npz", "split": "train"}, "--split=train: must be test"),
        ({"model": "own.keras", "data": "images.npz", "mean": (0.5, 0.5)}, "images have 1 channels"),
        ({"model": "own.keras", "data": "images.npz", "image_size": (3,)}, "--image_size=3: must be height and width"),
        ({"model": "own.keras", "dataset": "no_such_set"}, "--dataset=no_such_set: tensorflow-datasets knows no set"),
    ],
)
def test_what_is_asked_wrongly(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=message):
        Evaluation(EvaluateSettings(attacks=("natural",), **arguments)).of(None)
    assert not (folder / "other.keras.results").exists()


def test_a_model_whose_folder_is_read_only(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: "elsewhere" in str(path))
    (folder / "elsewhere").mkdir()
    asked = {"model": "own.keras", "data": "images.npz", "outputs": "probabilities", "pixel_range": (0.0, 1.0)}
    with pytest.raises(UsageError, match=r"--model=own.keras: results cannot be written to .*--results_dir=FOLDER"):
        Evaluation(EvaluateSettings(**asked))
    given = Evaluation(EvaluateSettings(**asked, results_dir="elsewhere/results", attacks=("natural",)))
    given.of(None)
    assert len(list((folder / "elsewhere" / "results").glob("*.json"))) == 1


def test_a_benchmark_goes_on_in_its_folder(mine, tmp_path, capsys):
    predictor, images, labels = mine
    first = rvs_tf.benchmark(predictor, images, labels, "natural,fgsm", folder=tmp_path, progress=False)
    passed = []

    def watched(pixels, call=predictor.model):
        passed.append(pixels)
        return call(pixels)

    watched.variables = predictor.model.variables
    again = rvs_tf.predictor(watched, pixel_range=(0, 1), outputs="probabilities")
    again.image_shape, again.num_classes = predictor.image_shape, predictor.num_classes
    assert again.fingerprint() == predictor.fingerprint()
    passed.clear()
    second = rvs_tf.benchmark(again, images, labels, "natural,fgsm", folder=tmp_path)
    assert second.accuracies == first.accuracies
    for name in first.accuracies:
        np.testing.assert_array_equal(second.per_image[name], first.per_image[name])
        np.testing.assert_array_equal(second.adversarial[name], first.adversarial[name])
        assert 100 * first.per_image[name].mean() == pytest.approx(first.accuracies[name])
    assert len(passed) <= 8  # looked at, and not attacked again
    assert "natural" in capsys.readouterr().out
    other = rvs_tf.benchmark(predictor, images, labels, "fgsm", epsilon=1, folder=tmp_path, progress=False)
    assert other.accuracies["fgsm"] > first.accuracies["fgsm"]
    assert set(json.loads(first.to_json(tmp_path / "out.json"))["attacks"]) == {"natural", "fgsm"}
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(first.to_json())


def test_what_was_kept_is_of_the_same_function(mine, tmp_path):
    """Of functions and predictors that tell no variables, too; and of random ones nothing is taken over."""
    _, images, labels = mine
    weights = tf.constant(np.random.default_rng(1).normal(size=(2, 64, 5)), tf.float32)

    def function(number):
        return lambda pixels: tf.reshape(pixels, [-1, 64]) @ weights[number] / 255

    class Own(rvs_tf.Predictor):
        def __init__(self, number):
            self.function = function(number)

        def __call__(self, pixels, draw=0):
            return Outputs(None, self.function(pixels))

    random = lambda pixels: function(0)(pixels) + tf.random.normal([5])  # noqa: E731
    for kind in (function, Own):
        first, second = (rvs_tf.benchmark(kind(n), images, labels, "natural", progress=False) for n in (0, 1))
        assert first.accuracies != second.accuracies
        for expected, number in ((first, 0), (second, 1), (first, 0)):
            found = rvs_tf.benchmark(kind(number), images, labels, "natural", folder=tmp_path, progress=False)
            assert found.accuracies == expected.accuracies
    prints = [rvs_tf.predictor(random, stochastic=True).fingerprint(SHAPE) for _ in range(2)]
    assert prints[0] != prints[1]


def test_images_that_were_not_kept_are_made_when_they_are_asked_for(mine, tmp_path):
    settings = {"folder": tmp_path, "progress": False}
    assert not rvs_tf.benchmark(*mine, "fgsm", keep_adversarial=False, **settings).adversarial
    assert rvs_tf.benchmark(*mine, "fgsm", **settings).adversarial["fgsm"].shape == (40, *SHAPE)
    with pytest.raises(UsageError, match="--attacks=: name at least one"):
        rvs_tf.benchmark(*mine, "")


def test_a_model_for_any_size_is_not_held_to_the_first():
    anything = rvs_tf.predictor(lambda pixels: tf.reduce_mean(pixels, axis=[1, 2])[:, :3])
    for size in (4, 6):
        images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3))
        assert rvs_tf.attacks.run("fgsm", anything, images, np.zeros(5, int)).shape == images.shape


def test_adversarial_images_are_in_the_ball_and_give_the_accuracy(mine):
    predictor, images, labels = mine
    found = rvs_tf.benchmark(predictor, images, labels, "pgd-3", epsilon=4, jit_compile=True, progress=False)
    adversarial = found.adversarial["pgd-3"]
    assert np.abs(adversarial - images).max() <= 4 + 1e-3
    right = np.argmax(predictor(adversarial).logits, axis=1) == labels[:, 0]
    np.testing.assert_array_equal(right, found.per_image["pgd-3"])
    plain = rvs_tf.benchmark(predictor, images, labels, "pgd-3", epsilon=4, progress=False)
    assert abs(plain.accuracies["pgd-3"] - found.accuracies["pgd-3"]) <= 5  # XLA rounds otherwise
