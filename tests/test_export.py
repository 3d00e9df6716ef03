"""rvs_tf.export from end to end: each format, the compiled iteration, what is typed wrong, and what went wrong."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tiers import slow

import rvs_tf.export
import rvs_tf.train
from madry_cifar import load_classifier, load_predictor
from madry_cifar.export import formats
from madry_cifar.export.formats import FORMATS
from madry_cifar.runs.checkpoints import Checkpoints

NEW = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 21)
needs_stablehlo = pytest.mark.skipif(not NEW, reason="an old TensorFlow, which cannot write StableHLO")

# Loads what the command wrote for Keras and TensorFlow, far from this package.
ELSEWHERE = """
import sys, keras, numpy as np, tensorflow as tf
images = np.load("images.npy")
signature = tf.saved_model.load("m.savedmodel").signatures["serving_default"]
np.savez("logits.npz", keras=keras.models.load_model("m.keras")(images), savedmodel=signature(images=images)["logits"])
assert not {"madry_cifar", "rvs_tf"} & set(sys.modules)
"""


@pytest.fixture
def copied_run(rvs_run, tmp_path):
    return shutil.copytree(rvs_run, tmp_path / "copied")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out [1]"  # to TensorFlow, a pattern


@pytest.fixture
def export(invoke, rvs_run):
    """export(*arguments) calls the command; returns its status, stdout and stderr."""
    return lambda *arguments: invoke(rvs_tf.export.command, f"--train_dir={rvs_run}", *arguments)


def exported(name, out):
    return f"--format={name}", f"--output={out}/m{FORMATS[name].ending or '.savedmodel'}"


@pytest.mark.parametrize("name", [pytest.param(f, marks=needs_stablehlo) if f == "stablehlo" else f for f in FORMATS])
def test_a_classifier(export, rvs_run, digits, out, name):
    size = () if FORMATS[name].any_batch else ("--batch_size=9",)
    status, shown, err = export(*exported(name, out), *size, "--checkpoint=35")
    assert (status, err, len(shown.splitlines())) == (0, "", 1)
    assert re.match(rf"classifier of rvs as {name} in {re.escape(str(out))}/m\S*: WRN-10-1, step 35, 0\.\d+ MB", shown)
    assert "test images of scikit-learn's 1,797 handwritten digits" in shown
    assert float(re.search(r"logits differ by at most (\S+) ", shown)[1]) < 1e-3
    count, same = re.search(r"on (\d+) test images .*the same class for (\d+)$", shown).groups()
    assert count == same == ("64" if FORMATS[name].any_batch else "72")
    [path] = out.iterdir()
    images = digits.test.images[-9:].astype(np.float32)
    expected = load_classifier(rvs_run, 35)(images).logits
    np.testing.assert_allclose(FORMATS[name].load(path)(images), expected, atol=1e-3)


def test_files_work_without_this_package(export, rvs_run, digits, out):
    for name in ("keras", "savedmodel"):
        assert export(*exported(name, out), "--nocheck")[0] == 0
    images = digits.test.images[:20].astype(np.float32)
    np.save(out / "images.npy", images)
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=out, check=True, stderr=subprocess.DEVNULL)
    expected = load_classifier(rvs_run)(images).logits
    with np.load(out / "logits.npz") as logits:
        for found in logits.values():
            np.testing.assert_allclose(found, expected, atol=1e-3)


@needs_stablehlo
def test_a_training_iteration(run, rvs_run, out, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles in half the time
    flags = ("--what=train_step", "--format=stablehlo", f"--output={out}/step.stablehlo", "--batch_size=2")
    status, shown, err = run("rvs_tf.export", f"--train_dir={rvs_run}", *flags)
    assert (status, err, len(shown.splitlines())) == (0, "", 1)
    assert f"train_step of rvs as stablehlo in {out}/step.stablehlo: WRN-10-1, step 40, 2 training images" in shown
    of_losses, of_updates = re.search(r"are at most (\S+) \(losses\) and (\S+) \(updates", shown).groups()
    assert (float(of_losses) < 1e-4, float(of_updates) < 1e-2) == (True, True)
    assert sorted(path.name for path in out.iterdir()) == ["step.json", "step.npz", "step.stablehlo"]
    content = json.loads((out / "step.json").read_text())
    about = {"what": "train_step", "defense": "rvs", "network": "WRN-10-1", "checkpoint": 40, "schema_version": 1}
    assert content | about == content
    assert content["training_flags"]["label_smoothing"] == 0.5
    assert content["inputs"][0] == {"name": "images", "shape": [2, 32, 32, 3], "dtype": "float32"}
    with np.load(out / "step.npz", allow_pickle=False) as stored:
        assert stored["step"] == 40
        np.testing.assert_array_equal(stored["classifier.logits.bias"], load_classifier(rvs_run).logits.bias)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--train_dir=", "--train_dir=: required"),
        ("--format=", "--format=: required"),
        ("--output=", "--output=: required"),
        ("--train_dir=/none", "--train_dir=/none: no such folder"),
        ("--train_dir={tmp}", "--train_dir={tmp}: holds no run"),
        ("--checkpoint=7", "--checkpoint=7: not among those of {run}: 25, 30, 35, 40"),
        ("--format=savemodel", "--format=savemodel: unknown; did you mean 'savedmodel'? Known: keras, savedmodel"),
        ("--what=training_step", "--what=training_step: unknown; did you mean 'train_step'?"),
        ("--what=train_step", "--format=keras: a training is written as --format=stablehlo alone"),
        ("--batch_size=8", "--batch_size=8: --format=keras takes batches of any size"),
        ("--format=stablehlo --batch_size=0 --output={tmp}/m.stablehlo", "--batch_size=0"),
        ("--output={tmp}/m.h5", "--output={tmp}/m.h5: must end in .keras for --format=keras"),
        ("--output={tmp}/there.keras", "--output={tmp}/there.keras: {tmp}/there.keras exists already"),
        ("--output={tmp}/there.keras/m.keras", "--output={tmp}/there.keras/m.keras: cannot be written"),
        ("--output=/proc/m.keras", "--output=/proc/m.keras: cannot be written"),
        ("--format=savedmodel --output={tmp}", "--output={tmp}: {tmp} exists already"),
        ("--data_dir=/none --dataset=cifar10", "dataset"),
        ("more", "'more'"),
    ],
)
def test_what_is_typed_wrong(export, rvs_run, tmp_path, arguments, named):
    (tmp_path / "there.keras").write_text("mine")
    places = {"run": rvs_run, "tmp": tmp_path}
    given = (*exported("keras", tmp_path), *arguments.format(**places).split())
    status, shown, err = export(*given)
    assert (status, shown, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: ")
    assert named.format(**places) in err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.keras", "mine")]


@pytest.mark.parametrize("there", ["s.stablehlo", "s.npz", "s.json"])
def test_no_file_of_an_iteration_is_overwritten(export, tmp_path, there):
    (tmp_path / there).write_text("mine")
    flags = ("--what=train_step", "--format=stablehlo", f"--output={tmp_path}/s.stablehlo", "--nocheck")
    status, _, err = export(*flags)
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"{tmp_path}/{there} exists already; choose another name, or remove it" in err
    assert (tmp_path / there).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("what", ["classifier", "train_step"])
def test_a_damaged_checkpoint(export, copied_run, out, what):
    path = copied_run / "checkpoints" / "ckpt-40.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1000])
    given = (f"--train_dir={copied_run}", f"--what={what}", *exported("stablehlo", out))
    status, shown, err = export(*given)
    assert (status, shown, len(err.splitlines())) == (1, "", 1)
    assert f"{copied_run}/checkpoints/ckpt-40: damaged" in err
    assert not list(out.iterdir())


def test_a_network_that_has_diverged(export, copied_run, out):
    classifier = load_classifier(copied_run)
    classifier.logits.bias.assign([np.nan] * 10)
    Checkpoints(copied_run, {"classifier": classifier}, {}).save(41)
    status, _, err = export(f"--train_dir={copied_run}", *exported("keras", out))
    assert (status, err) == (1, "error: checkpoint 41: logits that are not finite: the network has diverged\n")
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["keras", "savedmodel"])  # a file, and a folder
def test_what_differs_when_loaded_again_is_removed(export, out, monkeypatch, name):
    original = formats.plain if name == "keras" else formats._inference

    def altered(given, *rest):
        gamma = getattr(given, "network", given).norm_last.gamma  # the predictor, or its network
        gamma.assign(1.01 * gamma)
        return original(given, *rest)

    monkeypatch.setattr(formats, original.__name__, altered)
    status, shown, err = export(*exported(name, out))
    assert (status, shown, len(err.splitlines())) == (1, "", 1)
    assert re.match(rf"error: --format={name}: loaded again, its logits differ by up to .*; removed$", err)
    assert not list(out.iterdir())


@needs_stablehlo
def test_an_iteration_that_differs_when_loaded_again_is_removed(export, out, monkeypatch):
    monkeypatch.setattr(rvs_tf.export.TrainStep, "difference", lambda step, path: (0.0, float("nan")))
    status, shown, err = export("--what=train_step", *exported("stablehlo", out))
    assert (status, shown, len(err.splitlines())) == (1, "", 1)
    assert "error: --what=train_step: loaded again, a loss differs by 0 and an update by nan" in err
    assert not list(out.iterdir())


def test_an_interrupted_export_leaves_nothing(export, out, monkeypatch):
    def interrupted(path):
        assert path.exists()
        raise KeyboardInterrupt

    monkeypatch.setitem(FORMATS, "keras", formats.Format(formats._write_keras, interrupted, ".keras"))
    status, _, err = export(*exported("keras", out))
    assert (status, err) == (130, "error: interrupted\n")
    assert not list(out.iterdir())


def elsewhere(folder, tmp_path):
    """Makes the run in `folder` one whose data set is not at hand."""
    file = folder / "flags.json"
    content = json.loads(file.read_text())
    content["flags"] |= {"dataset": "cifar10", "data_dir": str(tmp_path / "none")}
    file.write_text(json.dumps(content))


def test_random_images_where_the_data_set_is_not_at_hand(export, copied_run, tmp_path, out):
    elsewhere(copied_run, tmp_path)
    given = (f"--train_dir={copied_run}", *exported("keras", out))
    status, shown, err = export(*given)
    assert (status, err) == (0, "")
    assert "on 64 random images (the data set is not at hand)" in shown
    shutil.rmtree(out)
    status, _, err = export(*given, f"--data_dir={tmp_path}")  # but where a place is given, it must be there
    assert status == 2
    assert "--dataset=cifar10: not prepared" in err
    assert not list(out.iterdir())


@needs_stablehlo
def test_a_random_batch_where_the_data_set_is_not_at_hand(export, copied_run, tmp_path, out):
    elsewhere(copied_run, tmp_path)
    flags = ("--what=train_step", "--nocheck", *exported("stablehlo", out))
    status, shown, err = export(f"--train_dir={copied_run}", *flags)
    assert (status, err) == (0, "")
    assert "8 random images (the data set is not at hand)" in shown
    with np.load(out / "m.npz") as stored:
        assert set(stored["labels"]) <= set(range(10))


@pytest.mark.parametrize("name", FORMATS)
def test_a_classifier_by_the_statistics_of_each_batch(invoke, tiny, tmp_path, out, name):
    """As Direct's authors evaluate it: an image's logits are those of its batch, which a file does not have."""
    given = ("--defense=direct", "--test_batch_norm=frozen", "--generator_width=1", "--steps=0", "--eval_every=0")
    assert invoke(rvs_tf.train.command, *tiny, *given, f"--train_dir={tmp_path}/run")[0] == 0
    status, _, err = invoke(rvs_tf.export.command, f"--train_dir={tmp_path}/run", *exported(name, out))
    assert (status, "a run of direct that is evaluated by the statistics of each batch" in err) == (2, True), err
    assert not list(out.glob("*"))


@pytest.fixture
def noisy_run(invoke, tiny, tmp_path):
    """The folder of a Learn2Perturb run of one step, its noise on."""
    flags = (*tiny, "--defense=learn2perturb", "--steps=1", "--noise_epoch=0", "--eval_every=0", "--image_every=0")
    assert invoke(rvs_tf.train.command, *flags, f"--train_dir={tmp_path}/noisy")[0] == 0
    return tmp_path / "noisy"


@pytest.mark.parametrize(
    "name", [pytest.param("savedmodel", marks=slow), pytest.param("stablehlo", marks=needs_stablehlo)]
)
def test_a_classifier_with_noise(invoke, noisy_run, digits, out, name):
    """Without its noise, or with the number of the draw as an input: the numbers of the predictor."""
    predictor, images = load_predictor(noisy_run), digits.test.images[:1].astype(np.float32)
    files = [out / f"{which}{FORMATS[name].ending}" for which in ("quiet", "drawn")]
    for file, more in zip(files, ([], ["--noise=draw"]), strict=True):
        given = (f"--train_dir={noisy_run}", f"--format={name}", *more, f"--output={file}")
        status, _, err = invoke(rvs_tf.export.command, *given)
        assert status == 0, err
    quiet = FORMATS[name].load(files[0])(images)
    np.testing.assert_allclose(quiet, predictor.noiseless()(images).logits, rtol=0, atol=1e-4)
    for draw in (0, 3):
        expected = predictor(images, draw).logits
        np.testing.assert_allclose(FORMATS[name].load(files[1], draw)(images), expected, rtol=0, atol=1e-4)
        assert np.abs(expected - quiet).max() > 1e-3


def test_noise_that_cannot_be_written(invoke, noisy_run, rvs_run, out):
    for folder, name, named in (
        (noisy_run, "tflite", "cannot be written as tflite; --format=savedmodel, stablehlo can"),
        (rvs_run, "savedmodel", "a classifier of rvs has no random outputs"),
    ):
        given = (f"--train_dir={folder}", f"--format={name}", "--noise=draw", f"--output={out}/m{FORMATS[name].ending}")
        status, _, err = invoke(rvs_tf.export.command, *given)
        assert (status, named in err.splitlines()[-1]) == (2, True), err
        assert not list(out.glob("*"))
