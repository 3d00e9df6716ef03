"""Anybody's model: what it computes as a predictor, and how it is had from a file, a folder or a function."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

import rvs_tf
from madry_cifar.cli.errors import UsageError
from madry_cifar.models import load_model
from madry_cifar.predictor import as_predictor

SHAPE = (6, 5, 3)
IMAGES = np.random.default_rng(1).integers(0, 256, (4, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)])


def test_pixels_are_scaled_as_told(network):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    scaled = (-1 + 2 * IMAGES / 255 - np.float32(mean)) / np.float32(std)
    found = rvs_tf.predictor(network, pixel_range=(-1, 1), mean=mean, std=std)
    np.testing.assert_allclose(found(tf.constant(IMAGES)).logits, network(scaled), rtol=1e-5, atol=1e-5)
    assert (found.num_classes, found.image_shape) == (4, SHAPE)


def test_a_softmax_is_undone_exactly(network):
    probabilities = lambda images: tf.nn.softmax(network(images))  # noqa: E731
    found = rvs_tf.predictor(probabilities, pixel_range=(0, 1), outputs="probabilities")
    expected = log_softmax(network(IMAGES / 255).numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(found(tf.constant(IMAGES)).logits, expected, rtol=1e-5, atol=1e-5)
    images, labels = IMAGES.astype(np.uint8), np.argmax(expected, axis=1)
    same = rvs_tf.predictor(network, pixel_range=(0, 1))
    theirs, ours = (rvs_tf.attacks.pgd(each, images, labels, steps=3) for each in (found, same))
    assert np.mean(np.abs(theirs - ours) < 1e-3) > 0.99  # where a gradient is not zero but for rounding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixel_range": (1, 0)}, "pixel_range must be two numbers, the lower first"),
        ({"pixel_range": (0, 1, 2)}, "pixel_range must be two numbers"),
        ({"std": 0}, "std must be above 0"),
        ({"outputs": "softmax"}, "outputs must be one of logits, probabilities"),
    ],
)
def test_settings_that_cannot_be(network, settings, message):
    with pytest.raises(ValueError, match=message):
        rvs_tf.predictor(network, **settings)


class Module(tf.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE])])
    def __call__(self, images):
        return {"logits": self.network(images), "features": images}


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """The network in all forms, by name; and the folder."""
    folder = tmp_path_factory.mktemp("models")
    network.save(folder / "own.keras")
    network.save(folder / "own.h5")
    network.export(folder / "exported", verbose=False)
    module = Module(network)
    tf.saved_model.save(module, folder / "module", signatures=module.__call__.get_concrete_function())
    tf.saved_model.save(module, folder / "bare")
    (folder / "mine.py").write_text(
        "import keras, pathlib\n"
        "def build():\n    return keras.saving.load_model(pathlib.Path(__file__).with_name('own.keras'))\n"
        "network = build()\n"
        "def logits(images):\n    return network(images)\n"
        "number = 3\n"
    )
    return folder


FORMS = ["own.keras", "own.h5", "exported", "module", "bare", "mine:build", "mine:logits", "mine:network"]


@pytest.mark.parametrize("form", FORMS)
def test_loaded_it_is_the_same(network, saved, form, monkeypatch):
    monkeypatch.chdir(saved)
    loaded = load_model(form)
    if form == "bare":  # returns logits and features by name
        loaded = lambda images, bare=loaded: bare(images)["logits"]  # noqa: E731
    predictor = as_predictor(loaded)
    np.testing.assert_allclose(predictor(tf.constant(IMAGES)).logits, network(IMAGES), rtol=1e-5, atol=1e-4)
    found = rvs_tf.attacks.pgd(loaded, IMAGES, [0, 1, 2, 3], steps=2)
    expected = rvs_tf.attacks.pgd(network, IMAGES, [0, 1, 2, 3], steps=2)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert predictor.fingerprint(SHAPE) == as_predictor(loaded).fingerprint(SHAPE)


@pytest.mark.parametrize("change", [lambda logits: logits, tf.nn.sigmoid, tf.nn.relu])
def test_other_outputs_than_those_of_a_softmax_are_no_probabilities(network, change):
    """PGD would climb a loss without a slope, and leave all images as they are."""
    model = rvs_tf.predictor(lambda images: change(network(images)), outputs="probabilities")
    with pytest.raises(UsageError, match=r"outputs are no probabilities: of an image from .* to .*leave out outputs="):
        rvs_tf.attacks.pgd(model, IMAGES, [0, 1, 2, 3], steps=2)
    half = rvs_tf.predictor(
        lambda images: tf.cast(tf.nn.softmax(network(images) / 100), tf.bfloat16), outputs="probabilities"
    )
    assert rvs_tf.attacks.pgd(half, IMAGES, [0, 1, 2, 3], steps=2).shape == IMAGES.shape


def test_other_weights_or_scaling_are_another_predictor(network):
    before = as_predictor(network).fingerprint()
    assert rvs_tf.predictor(network, pixel_range=(0, 1)).fingerprint() != before
    kernel = network.layers[-1].kernel
    kernel.assign(kernel + 1e-3)
    assert as_predictor(network).fingerprint() != before
    kernel.assign(kernel - 1e-3)
    functions = [lambda images, factor=factor: factor * network(images) for factor in (1, 2)]
    assert len({as_predictor(function).fingerprint(SHAPE) for function in functions}) == 2


def test_what_else_is_done_with_the_same_weights_is_another_predictor(network):
    layers = keras.layers
    models = [
        network,
        keras.Sequential([layers.Rescaling(1 / 255), network]),
        keras.Sequential([network, layers.Rescaling(1 / 10)]),
        keras.Sequential([layers.Lambda(lambda images: 16 * keras.ops.round(images / 16)), network]),
    ]
    predictors = [as_predictor(model) for model in models]
    for predictor in predictors:
        predictor(tf.constant(IMAGES))
    assert len({predictor.fingerprint(SHAPE) for predictor in predictors}) == len(models)
    assert as_predictor(models[0]).fingerprint(SHAPE) == as_predictor(keras.Sequential([network])).fingerprint(SHAPE)


def test_a_models_dropout_is_no_part_of_it(tmp_path):
    """Keras gives it another seed each time it is loaded, and counts that among the model's variables."""
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    loaded = [load_model(str(tmp_path / "model.keras")) for _ in range(2)]
    seeds = [next(v for v in model.variables if "seed" in v.path).numpy().tolist() for model in loaded]
    assert seeds[0] != seeds[1]
    assert as_predictor(loaded[0]).fingerprint() == as_predictor(loaded[1]).fingerprint()


def test_a_model_that_cannot_take_the_images_has_a_fingerprint_all_the_same():
    """It is asked before the model is looked at, which tells in one line what is wrong."""
    free = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    )

    def function(images):
        return free(images)

    for model in (free, function):
        assert len(as_predictor(model).fingerprint((28, 28, 1))) == 64
        with pytest.raises(UsageError, match=r"the model cannot be called with images \[4, 28, 28, 1\]"):
            rvs_tf.attacks.pgd(model, np.zeros([4, 28, 28, 1], np.float32), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.keras", "--model=nothing.keras: no such file or folder"),
        ("text.keras", "no Keras model"),
        ("text.h5", r"Keras \S+ cannot load this HDF5 file.*tf_keras"),
        ("text.txt", "no model: FILE.keras, the folder of a SavedModel or package.module:function"),
        ("weights.pt", "weights of PyTorch: .*madry_cifar.import_torch"),
        ("empty", "holds no SavedModel"),
        ("broken", "the SavedModel cannot be loaded"),
        ("run", "a run of this project: --train_dir=run"),
        ("custom.keras", "if it has classes of your own, give a function"),
        ("mine:nothing", "cannot be had: AttributeError"),
        ("no.module:f", "cannot be had: ModuleNotFoundError"),
    ],
)
def test_files_that_are_no_model(saved, name, message, monkeypatch):
    monkeypatch.chdir(saved)
    for file in ("text.keras", "text.h5", "text.txt", "weights.pt"):
        (saved / file).write_text("text")
    for folder, file in (("empty", "x"), ("broken", "saved_model.pb"), ("run", "flags.json")):
        (saved / folder).mkdir(exist_ok=True)
        (saved / folder / file).write_text("text")

    class Custom(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input(SHAPE), Custom(), keras.layers.Flatten()]).save(saved / "custom.keras")
    with pytest.raises(UsageError, match=message) as error:
        load_model(name)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_a_signature_that_takes_something_else(saved, tmp_path):
    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None, 2])])
        def both(self, first, second):
            return first + second

    module = Two()
    tf.saved_model.save(module, tmp_path, signatures=module.both.get_concrete_function())
    with pytest.raises(UsageError, match="signature takes first, second, not images alone"):
        as_predictor(load_model(str(tmp_path)))
