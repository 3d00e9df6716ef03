"""The command that trains AdvGAN, from end to end: as processes of their own, or, where many are tried, in this one."""

import json
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tiers import slow

import rvs_tf.evaluate
import rvs_tf.train
from madry_cifar import load_classifier
from madry_cifar.predictor import as_predictor
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints, saved_steps
from rvs_tf import train_advgan
from rvs_tf.advgan.advgan import TrainedAdvGAN

FLAGS = (
    "--epochs=3",
    "--batch_size=16",
    "--max_train_images=100",
    "--eval_images=50",
    "--epsilon=12",
    "--log_every=4",
    "--image_every=6",
)


@pytest.fixture(scope="module")
def target(trained, tmp_path_factory):
    """A run's folder with the classifier of `trained`, at steps 50 and 100. Not to be written to."""
    folder = tmp_path_factory.mktemp("target")
    settings = {"defense": "natural", "dataset": "digits", "validation_size": 0, "depth": 10, "width": 1}
    run_folder.create(folder, settings | {"num_classes": 10})
    for step in (50, 100):
        Checkpoints(folder, {"classifier": trained}, {}).save(step)
    return folder


@pytest.fixture(scope="module")
def finished(run, target, tmp_path_factory):
    """Folder and output of an AdvGAN of three epochs of six steps, made by the command. Not to be written to."""
    folder = tmp_path_factory.mktemp("advgan") / "x1"
    status, out, err = run("rvs_tf.train_advgan", f"--target_dir={target}", f"--train_dir={folder}", *FLAGS)
    assert status == 0, err
    return folder, out


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copied")


@pytest.fixture
def again(invoke, target):
    """again(folder, *arguments) gives the same command, with some more flags, in this process."""

    def again(folder, *arguments):
        flags = (f"--target_dir={target}", f"--train_dir={folder}", *FLAGS, *arguments)
        return invoke(train_advgan.command, *flags)

    return again


def accuracies_of(folder):
    return json.loads((folder / "results" / "accuracy_test-50.json").read_text())["accuracy"]


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def error_line(err):
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_a_checkpoint_of_each_epoch_holds_the_networks_but_not_the_target(finished):
    folder, out = finished
    assert "AdvGAN against natural, WRN-10-1, step 100, on scikit-learn's" in out
    assert "100 training images, 3 epochs of 6 steps of 16" in out
    assert list(saved_steps(folder)) == [6, 12, 18]
    stored = checkpoints.read(saved_steps(folder)[18])
    assert {name.split(".")[0] for name in stored} == {"step", "generator", "discriminator"}
    for name in ("generator.block1.conv1.kernel", "discriminator.dense.kernel"):
        assert {name, f"{name}.m", f"{name}.v"} <= set(stored)


def test_settings_name_the_target_and_its_weights(finished, target, trained):
    settings = run_folder.read_flags(finished[0])
    expected = {
        "attack": "advgan",
        "target_dir": str(target),
        "target_checkpoint": 100,
        "target_sha256": as_predictor(trained).fingerprint(),
        "steps_per_epoch": 6,
        "dataset": "digits",
        **{"epochs": 3, "epsilon": 12.0, "batch_size": 16, "generator_width": 1, "adversarial_loss": "probabilities"},
        **{"gan_weight": 1.0, "perturbation_weight": 5.0, "perturbation_bound": 1.5, "seed": 0},
        **{"generator_learning_rate": 1e-3, "discriminator_learning_rate": 1e-3, "max_train_images": 100},
    }
    assert expected.items() <= settings.items()


def test_accuracies_are_those_of_the_checkpoints(finished, curves, trained, digits):
    """In the results, on the curves and in what is printed, for the last and for the strongest epoch."""
    folder, out = finished
    attack, expected = TrainedAdvGAN(folder), {}
    images, labels = digits.test.images[:50].astype(np.float32), digits.test.labels[:50]
    for step in attack.steps:
        attack.restore(step)
        adversarial = attack.attack.run(trained, images, labels, (0, 0))
        assert np.abs(adversarial - images).max() <= 12 + 1e-4
        expected[step] = 100 * np.mean(np.argmax(trained(adversarial).logits, axis=1) == labels)
    assert accuracies_of(folder) == {str(step): pytest.approx(value) for step, value in expected.items()}
    seen = curves(folder)
    assert seen["evaluation/advgan"] == [(step, pytest.approx(value)) for step, value in expected.items()]
    lowest = np.minimum.accumulate(list(expected.values()))
    assert [value for _, value in seen["evaluation/advgan-minimum"]] == pytest.approx(list(lowest))
    best = 1 + int(np.argmin(list(expected.values())))
    last = f"accuracy under AdvGAN on 50 test images: {expected[18]:.2f} % after epoch 3, the last; "
    strongest = f"{lowest[-1]:.2f} % after epoch {best}, the minimum of 3 "
    assert out.splitlines()[-1] == f"{last}{strongest}(an oracle choice: made on these images, as in the paper)"


def test_curves_and_images(finished, curves):
    seen = curves(finished[0])
    assert set(seen) == {
        *(f"loss/{name}" for name in ("total", "adversarial", "gan", "perturbation", "discriminator")),
        *("batch/natural_accuracy", "batch/own_perturbation_accuracy"),
        *("perturbation/mean_absolute", "perturbation/percent_at_epsilon"),
        *("learning_rate/generator", "learning_rate/discriminator", "speed/images_per_second"),
        *("evaluation/advgan", "evaluation/advgan-minimum"),
    }
    assert [step for step, _ in seen["loss/total"]] == [1, 4, 8, 12, 16]
    for name in ("generator", "discriminator"):
        assert [value for _, value in seen[f"learning_rate/{name}"]] == pytest.approx([1e-3] * 5)
    values = {tag: np.array(points)[:, 1] for tag, points in seen.items()}
    total = values["loss/adversarial"] + values["loss/gan"] + 5 * values["loss/perturbation"]
    np.testing.assert_allclose(values["loss/total"], total, rtol=1e-5)
    assert np.all((values["perturbation/mean_absolute"] > 0) & (values["perturbation/mean_absolute"] <= 12))
    assert np.mean(values["batch/natural_accuracy"]) > 80
    shown = []
    for file in finished[0].glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            shown += [event.step for value in event.summary.value if value.tag.startswith("images/")]
    assert shown == [6, 12, 18]


@slow
def test_a_training_stopped_and_continued_ends_as_one_never_stopped(signalled, again, finished, target, tmp_path):
    folder = tmp_path / "stopped"
    folders, stopped_at = (f"--target_dir={target}", f"--train_dir={folder}"), 8
    step = "madry_cifar.training.steps:Steps.train"
    err = signalled(signal.SIGTERM, step, stopped_at, "rvs_tf.train_advgan", *folders, *FLAGS)
    assert list(saved_steps(folder)) == [6, stopped_at]
    assert f"stopped by SIGTERM after step {stopped_at}, saved" in error_line(err)
    status, out, err = again(folder)
    assert (status, f"going on after step {stopped_at}\n" in out) == (0, True), err
    assert out.splitlines()[-1] == finished[1].splitlines()[-1]
    assert accuracies_of(folder) == accuracies_of(finished[0])
    assert TrainedAdvGAN(folder).steps == [6, 12, 18]  # no epoch ended where it was stopped
    ours, expected = (checkpoints.read(saved_steps(place)[18]) for place in (folder, finished[0]))
    assert set(ours) == set(expected)
    assert [name for name in expected if not np.array_equal(ours[name], expected[name])] == []


def test_a_finished_training_is_left_as_it_is(again, copied, finished):
    before = modified(copied / "checkpoints")
    status, out, _ = again(copied)
    assert (status, "already trained for 18 steps" in out) == (0, True)
    assert out.splitlines()[-1] == finished[1].splitlines()[-1]
    assert modified(copied / "checkpoints") == before


@pytest.mark.parametrize("damage", [None, "{", '{"accuracy": [1]}'])
def test_lost_accuracies_are_measured_again(again, copied, finished, damage):
    file = copied / "results" / "accuracy_test-50.json"
    file.unlink() if damage is None else file.write_text(damage)
    status, out, _ = again(copied)
    assert (status, out.splitlines()[-1]) == (0, finished[1].splitlines()[-1])
    assert accuracies_of(copied) == accuracies_of(finished[0])


def test_another_number_of_test_images_is_another_measurement(again, copied, finished):
    status, out, _ = again(copied, "--eval_images=20")
    assert (status, "on 20 test images" in out) == (0, True)
    assert set(json.loads((copied / "results" / "accuracy_test-20.json").read_text())["accuracy"]) == {"6", "12", "18"}
    assert accuracies_of(copied) == accuracies_of(finished[0])


def test_other_settings_or_another_target_are_refused(again, copied, finished, target, trained, tmp_path):
    before = modified(copied)
    status, _, err = again(copied, "--epsilon=4", "--generator_width=2", "--seed=1")
    changed = "--epsilon (there 12.0, now 4.0), --generator_width (there 1, now 2), --seed (there 0, now 1)"
    line = f"error: --train_dir={copied}: holds a run with other settings: {changed}; use another folder\n"
    assert (status, err) == (2, line)
    other = shutil.copytree(target, tmp_path / "other")
    classifier = load_classifier(other)
    classifier.logits.bias.assign_add(np.ones(10))
    Checkpoints(other, {"classifier": classifier}, {}).save(101)
    status, _, err = again(copied, f"--target_dir={other}")
    assert (status, len(err.splitlines())) == (2, 1)
    here, now = as_predictor(trained).fingerprint(), as_predictor(classifier).fingerprint()
    assert f"--target_sha256 (there {here}, now {now})" in error_line(err)
    assert "--target_checkpoint (there 100, now 101)" in error_line(err)
    assert modified(copied) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--target_dir=", "--target_dir=: required"),
        ("--train_dir=", "--train_dir=: required"),
        ("--target_dir=/none", "--target_dir=/none: no such folder"),
        ("--target_dir={empty}", "--target_dir={empty}: holds no run"),
        ("--target_dir={advgan}", "--target_dir={advgan}: holds no run of a classifier"),
        ("--target_checkpoint=7", "--target_checkpoint=7: not among those of {target}: 50, 100"),
        ("--target_checkpoint=last", "--target_checkpoint=last: not among"),
        ("--batch_size=101", "--batch_size=101: there are 100 training images"),
        ("--batch_size=0", "--batch_size=0: must be at least 1"),
        ("--epochs=0", "--epochs=0: must be at least 1"),
        ("--epsilon=-1", "--epsilon=-1.0: must be at least 0"),
        ("--epsilon=256", "--epsilon=256.0: must be at most 255"),
        ("--epsilon=nan", "--epsilon=nan: must be a finite number"),
        ("--generator_width=0", "--generator_width=0: must be at least 1"),
        ("--adversarial_loss=xent", "--adversarial_loss=xent: unknown; Known: logits, probabilities"),
        ("--gan_weight=-1", "--gan_weight=-1.0: must be at least 0"),
        ("--perturbation_bound=inf", "--perturbation_bound=inf: must be a finite number"),
        ("--max_train_images=-5", "--max_train_images=-5"),
        ("--eval_images=many", "--eval_images=many"),
        ("--seed=-1", "--seed=-1"),
        ("--train_dir={empty}/file/run", "--train_dir={empty}/file/run: cannot be written"),
        ("--learning_rates=0.1", "learning_rates"),
        ("more", "'more'"),
    ],
)
def test_what_is_typed_wrong(again, finished, target, tmp_path, arguments, named):
    (tmp_path / "file").touch()
    places = {"empty": tmp_path, "advgan": finished[0], "target": target}
    status, out, err = again(tmp_path / "run", *arguments.format(**places).split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_damaged_files_of_the_target(again, target, tmp_path):
    damaged = shutil.copytree(target, tmp_path / "target")
    (damaged / "checkpoints" / "ckpt-100.index").write_bytes(b"")
    status, _, err = again(tmp_path / "run", f"--target_dir={damaged}")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "ckpt-100: damaged" in error_line(err)
    assert not (tmp_path / "run").exists()


def test_help(invoke):
    status, out, err = invoke(train_advgan.command, "--help")
    assert (status, err) == (0, "")
    for name in ("train_dir", "target_dir", "epochs", "generator_width", "perturbation_bound"):
        assert re.search(rf"^  --{name}: \w", out, re.MULTILINE)


@pytest.mark.parametrize(
    "defense",
    [
        pytest.param(("learn2perturb", "--noise_epoch=0"), marks=slow),
        ("direct", "--test_batch_norm=frozen", "--generator_width=1"),
    ],
)
def test_what_it_is_trained_against_is_what_is_evaluated(invoke, tiny, tmp_path, defense):
    """Of a network with noise inside, or with a batch norm of its own at test, too."""
    name, *flags = defense
    run, advgan = tmp_path / "run", tmp_path / "advgan"
    given = (*tiny, f"--defense={name}", *flags, "--steps=1", "--eval_every=0", "--image_every=0")
    assert invoke(rvs_tf.train.command, *given, f"--train_dir={run}")[0] == 0
    short = ("--epochs=1", "--batch_size=16", "--max_train_images=32", "--eval_images=20")
    status, _, err = invoke(train_advgan.command, f"--target_dir={run}", f"--train_dir={advgan}", *short)
    assert status == 0, err
    given = (f"--train_dir={run}", "--attacks=natural", f"--advgan_dir={advgan}", "--max_images=20")
    status, _, err = invoke(rvs_tf.evaluate.command, *given)
    assert status == 0, err
    (file,) = (run / "results").glob("*.json")
    assert json.loads(file.read_text())["attacks"].keys() == {"natural", "advgan", "advgan-final"}
    given = (f"--train_dir={run}", "--attacks=fgsm", "--max_images=8")
    assert invoke(rvs_tf.evaluate.command, *given)[0] == 0
    (file,) = (run / "results").glob("*test-8*.json")
    modes = {entry["protocol"]["batch_norm"] for entry in json.loads(file.read_text())["attacks"].values()}
    assert modes == {"frozen" if name == "direct" else "eval"}
