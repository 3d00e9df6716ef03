"""Checkpoints of the TensorFlow 1 code, written here in its format and under its names by the rule of `tests/data`."""

import importlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from released import RELEASED, weight
from tiers import slow

from madry_cifar import load_classifier
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.runs import checkpoints, run_folder, tf1
from rvs_tf import load_generator

STATISTICS = ("beta", "gamma", "moving_mean", "moving_variance")


def released_shapes(kind, units=1, width=1, classes=10):
    """Names and shapes of the variables of the released networks, from the architecture."""
    shapes = {"input/init_conv/DW" if kind == "madry" else "init_conv/DW": (3, 3, 3, 16)}

    def norm(place, channels):
        shapes.update({f"{place}/BatchNorm/{name}": (channels,) for name in STATISTICS})

    channels = 16
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for unit in range(units):
            place = f"unit_{stage}_{unit}"
            norm(f"{place}/{'shared' if (stage, unit) == (1, 0) else 'residual_only'}_activation", channels)
            shapes[f"{place}/sub1/conv1/DW"] = (3, 3, channels, filters)
            norm(f"{place}/sub2", filters)
            shapes[f"{place}/sub2/conv2/DW"] = (3, 3, filters, filters)
            channels = filters
    norm("unit_last", channels)
    if kind == "madry":
        return shapes | {"logit/DW": (channels, classes), "logit/biases": (classes,)}
    norm("attack_module", 32)
    shapes |= {f"attack_module/BatchNorm_1/{name}": (16,) for name in STATISTICS}
    return shapes | {
        "pre_softmax/DW": (channels, classes),
        "pre_softmax/pre_softmaxbiases": (classes,),
        "attack_module/attack/DW": (640, 4096),
        "attack_module/attack/attackbiases": (4096,),
        "attack_module/init_deconv/DW": (4, 4, 32, 64),
        "attack_module/deconv2/DW": (4, 4, 16, 32),
        "attack_module/deconv3/DW": (4, 4, 16, 3),
    }


def released_values(kind, momentum=True, **size):
    shapes = released_shapes(kind, **size)
    if momentum:
        trained = [name for name in shapes if "moving_" not in name]
        shapes |= {f"{name}/Momentum": shapes[name] for name in trained}
    return {name: weight(name, shape) for name, shape in shapes.items()} | {"global_step": np.int64(70_000)}


def write(path, values):
    prefix = str(path / "checkpoint-70000")
    tensors = [tf.constant(value) for value in values.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=tensors)
    return prefix


@pytest.fixture
def command(invoke):
    """command(module, *arguments) runs it in this process; returns its status, stdout and stderr."""
    return lambda module, *arguments: invoke(importlib.import_module(module).command, *arguments)


def test_the_architecture_has_the_released_names():
    listed = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in RELEASED["variables"]}
    assert released_shapes("rvs", units=5, width=10) == listed


@pytest.mark.parametrize("kind", ["madry", "rvs"])
@pytest.mark.parametrize(("units", "width", "classes"), [(1, 1, 10), (2, 3, 100)])
def test_read_and_write_are_inverse(tmp_path, kind, units, width, classes):
    values = released_values(kind, units=units, width=width, classes=classes)
    found, classifier, ours = tf1.read(write(tmp_path, values))
    assert (found, classifier.depth, classifier.width, classifier.num_classes) == (kind, 6 * units + 4, width, classes)
    tf1.write(str(tmp_path / "back"), kind, ours)
    reader = tf.train.load_checkpoint(str(tmp_path / "back"))
    assert set(reader.get_variable_to_shape_map()) == set(values)
    for name, value in values.items():
        assert np.array_equal(reader.get_tensor(name), value), name


@slow
def test_an_import_at_full_size_gives_the_released_logits(command, tmp_path):
    prefix = write(tmp_path, released_values("rvs", momentum=False, units=5, width=10))
    status, stdout, stderr = command(
        "madry_cifar.import_tf1", f"--checkpoint={prefix}", f"--train_dir={tmp_path / 'run'}"
    )
    assert status == 0, stderr
    assert "no momentum: starts at zero" in stdout
    features, logits = load_classifier(tmp_path / "run", 70_000)(RELEASED["x"])
    for value, expected in ((features, RELEASED["features"]), (logits, RELEASED["logits"])):
        assert np.linalg.norm(value - expected) <= 1e-5 * np.linalg.norm(expected)
    perturbation = load_generator(tmp_path / "run")(RELEASED["z0"])
    delta = RELEASED["delta"]
    assert np.linalg.norm(np.clip(perturbation, -8, 8) - delta) <= 1e-5 * np.linalg.norm(delta)


@pytest.mark.parametrize(("kind", "classes"), [("madry", 10), ("rvs", 10), ("madry", 100)])
def test_an_imported_run_goes_on(command, tmp_path, kind, classes):
    values = released_values(kind, classes=classes)
    flags = [f"--train_dir={tmp_path / 'run'}"] + (["--dataset=digits"] if classes == 10 else [])
    status, _, stderr = command("madry_cifar.import_tf1", f"--checkpoint={write(tmp_path, values)}", *flags)
    assert status == 0, stderr
    settings = json.loads((tmp_path / "run" / "flags.json").read_text())["flags"]
    assert settings["defense"] == {"madry": "at", "rvs": "rvs"}[kind]
    assert settings["dataset"] == ("digits" if classes == 10 else "cifar100")
    if classes == 100:
        return  # its data set is not at hand to train on
    flags += [f"--defense={settings['defense']}", "--depth=10", "--width=1", "--steps=70001", "--eval_every=0"]
    flags += ["--learning_rates=0.1,0.01,0.001"]
    status, stdout, stderr = command("rvs_tf.train", *flags)
    assert status == 0, stderr
    assert "going on after step 70000" in stdout
    before, after = (checkpoints.read(checkpoints.find(tmp_path / "run", step)[1]) for step in (70_000, 70_001))
    name = "classifier.logits.kernel"
    assert np.array_equal(before[f"{name}.momentum"], values[f"{tf1.name_of(name, kind)}/Momentum"])
    # one step of momentum is w' = w − rate · a', whatever the gradient was
    rate = {"madry": 0.001, "rvs": 0.01}[kind]  # after 40,000 and 60,000 steps, or of 60,000 and 90,000 the first
    np.testing.assert_allclose(after[name], before[name] - rate * after[f"{name}.momentum"], atol=1e-6)
    status, stdout, _ = command(
        "madry_cifar.export_tf1", f"--train_dir={tmp_path / 'run'}", "--checkpoint=70000", f"--output={tmp_path}/back"
    )
    assert status == 0
    reader = tf.train.load_checkpoint(f"{tmp_path}/back")
    assert {name for name in reader.get_variable_to_shape_map()} == set(values)
    assert all(np.array_equal(reader.get_tensor(name), value) for name, value in values.items())
    assert tf.train.latest_checkpoint(tmp_path) == str(tmp_path / "back")  # by which the old code finds it


def changed(values, **changes):
    values = dict(values)
    for name, value in changes.items():
        values.pop(name) if value is None else values.update({name: value})
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit_2_0/sub2/BatchNorm/gamma": None}, "missing: unit_2_0/sub2/BatchNorm/gamma"),
        ({"unit_2_0/sub1/conv1/DW/Momentum": None}, "missing: unit_2_0/sub1/conv1/DW/Momentum"),
        ({"unit_2_0/extra": np.ones(3)}, "unmatched: unit_2_0/extra"),
        ({"input/init_conv/DW": np.ones([5, 5, 3, 16])}, r"another shape: input/init_conv/DW \[5, 5, 3, 16\] instead"),
        ({"unit_last/BatchNorm/beta": None, "extra": np.ones(3)}, "1 missing: .*beta.*; 1 unmatched: extra"),
        ({"logit/DW": None, "logit/biases": None}, "neither MadryLab's"),
        ({"logit/DW": np.ones([32, 10])}, "not a wide residual network"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        tf1.read(write(tmp_path, changed(released_values("madry"), **changes)))


def test_forks_with_the_first_layer_outside_its_scope_are_read_too(tmp_path):
    values = released_values("madry", momentum=False)
    values["init_conv/DW"] = values.pop("input/init_conv/DW")
    _, _, ours = tf1.read(write(tmp_path, values))
    assert np.array_equal(ours["classifier.init_conv.kernel"], values["init_conv/DW"])


def test_damaged_and_missing_checkpoints(tmp_path):
    with pytest.raises(UsageError, match="no TensorFlow checkpoint"):
        tf1.read(str(tmp_path / "nothing"))
    prefix = write(tmp_path, released_values("madry"))
    for ending in (".data-00000-of-00001", ".index"):
        path = pathlib.Path(prefix + ending)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(RunError, match="damaged"):
            tf1.read(prefix)


def test_import_commands_refuse_in_one_line(command, tmp_path):
    prefix = write(tmp_path, released_values("madry"))
    target = f"--train_dir={tmp_path / 'run'}"
    for arguments, message in (
        ([f"--checkpoint={tmp_path}/none", target], "no TensorFlow checkpoint"),
        ([f"--checkpoint={prefix}", target, "--dataset=cifar100"], "not one with the checkpoint's 10 classes"),
        ([f"--checkpoint={prefix}", target, "--depth=34"], "--depth=34: the checkpoint's is 10"),
        ([f"--checkpoint={prefix}", target, "--defense=rvs"], "the madry code trains by at or natural"),
        ([f"--checkpoint={prefix}", target, "--jit_compile=banana"], "--jit_compile=banana"),
        ([f"--checkpoint={prefix}", target, "--architecture=standard"], "--architecture=standard: the checkpoint's is"),
        ([f"--checkpoint={prefix}", target, "--input_scaling=unit"], "--input_scaling=unit: that code's networks"),
        ([f"--checkpoint={prefix}", target, "--epochs=3"], "--epochs=3: not for an imported run"),
    ):
        status, _, stderr = command("madry_cifar.import_tf1", *arguments)
        assert status == 2
        assert message in stderr
        assert len(stderr.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_a_network_that_the_old_code_does_not_have_is_not_exported(command, tmp_path):
    settings = {"defense": "at", "depth": 10, "width": 1, "num_classes": 10, "input_scaling": "signed"}
    run_folder.create(str(tmp_path / "run"), settings)
    folders = (f"--train_dir={tmp_path}/run", f"--output={tmp_path}/back")
    status, _, stderr = command("madry_cifar.export_tf1", *folders)
    assert (status, len(stderr.splitlines())) == (2, 1)
    assert "has --input_scaling=signed, which that code does not" in stderr
