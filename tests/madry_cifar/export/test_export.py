"""The formats of an export: what is in the files, and that they compute what the network and the iteration compute."""

import dataclasses
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import WideResNet, data
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.export import train_step as step_module
from madry_cifar.export.formats import FORMATS
from madry_cifar.export.plain_keras import plain
from madry_cifar.export.train_step import TrainStep, batch
from madry_cifar.networks.scaling import SCALINGS
from madry_cifar.predictor import as_predictor
from madry_cifar.runs.checkpoints import Checkpoints
from madry_cifar.training import registry
from madry_cifar.training.construction import build
from madry_cifar.training.method import Defense
from madry_cifar.training.optimizers import Momentum

NEW = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 21)
needs_stablehlo = pytest.mark.skipif(not NEW, reason="an old TensorFlow, which cannot write StableHLO")
SETTINGS = {"depth": 10, "width": 1, "num_classes": 10, "seed": 3}


def scatter(network, seed=0):
    """Gives every variable a value of its own: scales, offsets and statistics too, the variances positive."""
    draws = np.random.default_rng(seed)
    for variable in network.variables:
        around = variable.numpy() + 0.1 * draws.normal(size=variable.shape)
        variable.assign(np.abs(around) if "variance" in variable.path else around)
    return network


@pytest.fixture(scope="module")
def network():
    """Two units a stage, so that there are units with and without stride, padding and shared activation."""
    return scatter(WideResNet(16, 2, 7))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, [5, 32, 32, 3]).astype(np.float32)


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    """written(format) is the path of the network in a format, for batches of five where that is fixed."""
    folder, paths = tmp_path_factory.mktemp("written"), {}

    def written(name):
        if name not in paths:
            paths[name] = folder / f"network{FORMATS[name].ending}"
            FORMATS[name].write(as_predictor(network), paths[name], 5)
        return paths[name]

    return written


@pytest.mark.parametrize("name", [pytest.param(f, marks=needs_stablehlo) if f == "stablehlo" else f for f in FORMATS])
def test_a_file_computes_the_networks_logits(written, network, images, name):
    classify = FORMATS[name].load(written(name))
    expected = network(images).logits.numpy()
    np.testing.assert_allclose(classify(images), expected, atol=1e-5 * np.abs(expected).max())
    if FORMATS[name].any_batch:
        np.testing.assert_allclose(classify(images[3:4]), expected[3:4], atol=1e-5 * np.abs(expected).max())
    flipped = classify(images[:, :, ::-1])
    assert np.abs(flipped - expected).max() > 1e-3 * np.abs(expected).max()  # no constant


def test_the_keras_file_needs_keras_alone(written):
    with zipfile.ZipFile(written("keras")) as archive:
        config = json.loads(archive.read("config.json"))

    def classes(part):
        if isinstance(part, dict):
            if "class_name" in part and "module" in part:
                yield part["module"], part.get("registered_name")
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from classes(inner)

    found = set(classes(config))
    assert ("keras.layers", None) in found
    assert {module.split(".")[0] for module, _ in found if module} == {"keras"}
    assert not [name for _, name in found if name and name.startswith(("madry_cifar", "rvs_tf"))]


def test_the_keras_graph_has_every_weight_and_the_features(network, images):
    graph = plain(network)
    assert graph.count_params() == network.count_params()
    features = keras.Model(graph.input, graph.get_layer("features").output)(images)
    expected = network(images).features.numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scaling", SCALINGS)
def test_plain_layers_of_the_standard_architecture(images, scaling, tmp_path):
    settings = {"architecture": "standard", "input_scaling": scaling, "batch_norm_epsilon": 1e-5}
    network = scatter(WideResNet(16, 2, 7, **settings))
    FORMATS["keras"].write(as_predictor(network), tmp_path / "model.keras", 5)
    for graph in (plain(network), keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(graph(images), network(images).logits, rtol=1e-3, atol=1e-4)


def test_the_signature_of_the_savedmodel(written):
    signature = tf.saved_model.load(str(written("savedmodel"))).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"] == tf.TensorSpec([None, 32, 32, 3], name="images")
    assert signature.structured_outputs["logits"].shape.as_list() == [None, 7]


def test_the_tflite_file_has_built_in_operations_alone_and_no_batch_norm(written):
    interpreter = tf.lite.Interpreter(str(written("tflite")))
    operations = [detail["op_name"] for detail in interpreter._get_ops_details()]
    assert operations.count("CONV_2D") == 13
    assert not [name for name in operations if "Flex" in name or "CUSTOM" in name.upper() or "BATCH" in name.upper()]


@needs_stablehlo
def test_the_stablehlo_file_takes_its_own_batch_size_alone(written, images):
    assert written("stablehlo").read_bytes().startswith(b"ML\xefR\x01StableHLO_v0.")  # the oldest: any reader's
    with pytest.raises(tf.errors.OpError):
        FORMATS["stablehlo"].load(written("stablehlo"))(images[:3])


def test_a_tensorflow_that_cannot_write_stablehlo_is_named(monkeypatch, network, tmp_path):
    def as_in_2_16(stage):
        raise ValueError(f"Invalid stage selected: '{stage}'. Valid values are: 'hlo', 'optimized_hlo'")

    function = type(tf.function(lambda: 0))
    monkeypatch.setattr(function, "experimental_get_compiler_ir", lambda *args, **kwargs: as_in_2_16)
    with pytest.raises(UsageError, match=f"--format=stablehlo: TensorFlow {tf.__version__} cannot write it"):
        FORMATS["stablehlo"].write(as_predictor(network), tmp_path / "network.stablehlo", 5)


class LastLayer(Defense):
    """Trains the last layer on the mean colour; reads the factors of the last batch norm, and changes them not."""

    name = "last layer"

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        head = [v.value for v in classifier.logits.trainable_variables]
        self.optimizers["classifier"] = Momentum(head, self.options.schedule(), self.options.momentum)

    def train_step(self, images, labels, step):
        with tf.GradientTape() as tape:
            colours = tf.repeat(tf.reduce_mean(images, axis=[1, 2]) / 255, [22, 21, 21], axis=1)
            logits = self.classifier.logits(colours * self.classifier.norm_last.gamma.value)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        self.minimize("classifier", loss, tape, step)
        return {"total": loss, "step": tf.cast(step, tf.float32)}


@pytest.fixture
def last_layer(images):
    options = LastLayer.Options(learning_rates=(0.5,), learning_rate_boundaries=(), momentum=0.75)
    training = LastLayer(scatter(WideResNet(10, 1, 10)), options)
    for slot in training.optimizers["classifier"].state["momentum"]:
        slot.assign_add(tf.fill(slot.shape, 0.125))
    return training, TrainStep(training, images, np.array([1, 0, 3, 2, 9]), 11)


@needs_stablehlo
def test_the_files_of_a_step(last_layer, tmp_path):
    training, step = last_layer
    step.write(tmp_path / "s.stablehlo", {"what": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.json", "s.npz", "s.stablehlo"]
    content = json.loads((tmp_path / "s.json").read_text())
    names = [entry["name"] for entry in content["inputs"]]
    head = {f"classifier.logits.{name}{kept}" for name in ("kernel", "bias") for kept in ("", ".momentum")}
    assert names[:3] == ["images", "labels", "step"]
    assert {*names[3:]} == head | {"classifier.norm_last.gamma"}
    with np.load(tmp_path / "s.npz", allow_pickle=False) as stored:
        assert stored.files == names
        assert [[*stored[name].shape] for name in names] == [entry["shape"] for entry in content["inputs"]]
        assert [stored[name].dtype.name for name in names] == [entry["dtype"] for entry in content["inputs"]]
        np.testing.assert_array_equal(stored["classifier.logits.kernel"], training.classifier.logits.kernel)
        assert (stored["step"], stored["labels"].tolist()) == (11, [1, 0, 3, 2, 9])
    outputs = [entry["name"] for entry in content["outputs"]]
    assert outputs[:2] == ["step", "total"]
    assert {*outputs[2:]} == head  # what is only read is no output
    assert all(names[entry["replaces"]] == entry["name"] for entry in content["outputs"][2:])


@needs_stablehlo
def test_a_step_that_is_loaded_again_computes_the_update(last_layer, images, tmp_path):
    """Against the gradient of softmax regression, written out."""
    _, step = last_layer
    path = tmp_path / "s.stablehlo"
    step.write(path, {})
    content = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz")) as stored:
        inputs = dict(stored)
    specs = [tf.TensorSpec(entry["shape"], entry["dtype"]) for entry in content["outputs"]]
    results = step_module.stablehlo.load(path.read_bytes(), specs)(*inputs.values())
    found = {entry["name"]: value.numpy() for entry, value in zip(content["outputs"], results, strict=True)}

    kernel, bias, gamma = (inputs[f"classifier.{name}"] for name in ("logits.kernel", "logits.bias", "norm_last.gamma"))
    colours = np.repeat(images.mean(axis=(1, 2)) / 255, [22, 21, 21], axis=1) * gamma
    odds = np.exp(colours @ kernel + bias)
    shares = odds / odds.sum(axis=1, keepdims=True)
    assert found["total"] == pytest.approx(-np.log(shares[np.arange(5), inputs["labels"]]).mean(), rel=1e-5)
    assert found["step"] == 11
    errors = (shares - np.eye(10)[inputs["labels"]]) / 5
    momentum = 0.75 * 0.125 + colours.T @ errors
    np.testing.assert_allclose(found["classifier.logits.kernel.momentum"], momentum, atol=1e-5)
    np.testing.assert_allclose(found["classifier.logits.kernel"], kernel - 0.5 * momentum, atol=1e-5)
    np.testing.assert_allclose(found["classifier.logits.bias"], bias - 0.5 * (0.75 * 0.125 + errors.sum(0)), atol=1e-5)


@needs_stablehlo
@pytest.mark.parametrize("changed", [None, "images", "classifier.logits.kernel.momentum"])
def test_a_file_that_computes_something_else_is_told(last_layer, tmp_path, changed):
    _, step = last_layer
    path = tmp_path / "s.stablehlo"
    step.write(path, {})
    with np.load(path.with_suffix(".npz")) as stored:
        inputs = dict(stored)
    if changed:
        inputs[changed] *= 1.05
    np.savez(path.with_suffix(".npz"), **inputs)
    of_losses, of_updates = step.difference(path)
    assert (of_losses > 1e-4) == (changed == "images")
    assert (of_updates > 1e-2) == (changed is not None)


@needs_stablehlo
@pytest.mark.parametrize("name", ["natural", "at", "rvs"])
def test_every_defence_has_all_its_variables_in_the_files(images, tmp_path, name):
    training = build(SETTINGS | {"defense": name, "learning_rates": [0.3, 0.03], "learning_rate_boundaries": [5]})
    assert (training.seed, training.options.learning_rates) == (3, (0.3, 0.03))
    assert training.options.momentum == 0.9  # what the settings do not have
    TrainStep(training, images, np.arange(5), 0).write(tmp_path / "s.stablehlo", {})
    Checkpoints(tmp_path, training.networks, training.optimizers).save(1)
    stored = {name for name, _ in tf.train.list_variables(str(tmp_path / "checkpoints" / "ckpt-1"))}
    content = json.loads((tmp_path / "s.json").read_text())
    variables = {entry["name"] for entry in content["inputs"][3:]}
    assert len(variables) == len(stored) - 2  # without the step and the graph of objects
    assert {entry["name"] for entry in content["outputs"] if "replaces" in entry} == variables
    assert {"total", "cross_entropy", "weight_decay"} <= {entry["name"] for entry in content["outputs"]}


def test_a_run_in_bfloat16_is_rebuilt_so():
    training = build(SETTINGS | {"defense": "natural", "precision": "bfloat16"})
    assert (training.classifier.compute_dtype, training.classifier.variable_dtype) == ("bfloat16", "float32")


def test_restoring_a_step(images, tmp_path):
    saved = registry.find("natural")(scatter(WideResNet(10, 1, 10)))
    path = Checkpoints(tmp_path, saved.networks, saved.optimizers).save(4)
    step = TrainStep(build(SETTINGS | {"defense": "natural"}), images, np.arange(5), 4)
    step.restore(path)
    for variable in saved.classifier.variables:
        name = "classifier." + variable.path.split("/", 1)[1].replace("/", ".")
        np.testing.assert_array_equal(step.variables[name], variable)
    for other in ({"defense": "rvs"}, {"defense": "natural", "width": 2}):
        with pytest.raises(RunError, match="ckpt-4: of another network"):
            TrainStep(build(SETTINGS | other), images, np.arange(5), 4).restore(path)


def test_the_batch_is_that_of_the_training(digits):
    images, labels = batch(digits, 200, 16, seed=5)
    rows = data.Batches(len(digits.train), 16, 5)(200)
    np.testing.assert_array_equal(images, digits.train.images[rows])
    np.testing.assert_array_equal(labels, digits.train.labels[rows])
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    augmented, same_labels = batch(dataclasses.replace(digits, augmented=True), 200, 16, seed=5)
    np.testing.assert_array_equal(augmented, data.augment(tf.constant(images), 5, 200))
    np.testing.assert_array_equal(labels, same_labels)
