"""The generator: Table I's layers, modes and loading from a run. Its numbers: `test_golden.py`."""

import keras
import numpy as np
import pytest

from madry_cifar import WideResNet
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from rvs_tf import Generator, load_generator


@pytest.fixture
def latent():
    return np.random.default_rng(0).normal(size=(16, 640)).astype(np.float32)


def test_layers_are_those_of_table_1():
    shapes = {v.path: tuple(v.shape) for v in Generator().trainable_variables}
    assert shapes == {
        "generator/dense/kernel": (640, 8 * 8 * 64),
        "generator/dense/bias": (8 * 8 * 64,),
        "generator/deconv1/kernel": (4, 4, 32, 64),
        "generator/norm1/gamma": (32,),
        "generator/norm1/beta": (32,),
        "generator/deconv2/kernel": (4, 4, 16, 32),
        "generator/norm2/gamma": (16,),
        "generator/norm2/beta": (16,),
        "generator/conv3/kernel": (4, 4, 16, 3),
    }
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 2_667_360


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("latent_dim", [640, 7])
def test_output_is_an_image_of_each_latent_vector(latent, latent_dim, dtype):
    generator = Generator(latent_dim, dtype=dtype)
    outputs = generator(latent[:, :latent_dim])
    assert outputs.shape == (16, 32, 32, 3)
    assert outputs.dtype == dtype
    alone = generator(latent[3:4, :latent_dim])
    np.testing.assert_allclose(alone[0], outputs[3], rtol=1e-4, atol=1e-4)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


def test_output_is_linear_in_the_last_kernel_and_unbounded(latent):
    generator = Generator()
    before = generator(latent).numpy()
    generator.conv3.kernel.assign(100 * generator.conv3.kernel)
    np.testing.assert_allclose(generator(latent), 100 * before, rtol=1e-3, atol=1e-2)
    assert np.abs(before).max() * 100 > 255


def test_initial_perturbations_are_of_a_few_grey_levels(latent):
    deviation = np.std(Generator()(latent, batch_norm="frozen"))
    assert 1.5 < deviation < 3.5  # about 2.3 in the released code, within ε = 8


def running(generator):
    return [variable.numpy().copy() for variable in generator.non_trainable_variables]


def test_modes_of_batch_norm(latent):
    generator = Generator(dtype="float64")
    start = running(generator)
    evaluated, frozen = generator(latent), generator(latent, batch_norm="frozen")
    np.testing.assert_array_equal(generator(latent, batch_norm="eval"), evaluated)
    for before, after in zip(start, running(generator), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(generator(latent, batch_norm="train"), frozen)
    for before, after in zip(start, running(generator), strict=True):
        assert not np.any(before == after)
    assert np.abs(evaluated - frozen).max() > 0.1
    with pytest.raises(ValueError, match="Received: batch_norm='training'"):
        generator(latent, batch_norm="training")


def test_configuration_makes_the_same_generator(latent):
    generator = Generator(100, seed=3, name="other")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(generator))
    assert copy.get_config() == generator.get_config()
    assert {"latent_dim": 100, "seed": 3, "name": "other"}.items() <= copy.get_config().items()
    np.testing.assert_array_equal(copy(latent[:, :100]), generator(latent[:, :100]))


def test_generator_of_a_run(tmp_path, latent):
    run_folder.create(tmp_path, {"depth": 10, "width": 1, "num_classes": 10})
    networks = {"classifier": WideResNet(10, 1, 10), "generator": Generator(seed=1)}
    saver = Checkpoints(tmp_path, networks, {})
    saver.save(1)
    first = networks["generator"](latent).numpy()
    networks["generator"].norm1.beta.assign_add(np.ones(32))
    saver.save(2)
    np.testing.assert_array_equal(load_generator(tmp_path)(latent), networks["generator"](latent))
    np.testing.assert_array_equal(load_generator(tmp_path, 1)(latent), first)
    assert np.abs(first - load_generator(tmp_path)(latent)).max() > 0.1


def test_run_without_a_generator(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        load_generator(tmp_path)
    run_folder.create(tmp_path, {"depth": 10, "width": 1, "num_classes": 10})
    with pytest.raises(UsageError, match="holds no checkpoints yet"):
        load_generator(tmp_path)
    path = Checkpoints(tmp_path, {"classifier": WideResNet(10, 1, 10)}, {}).save(1)
    with pytest.raises(RunError, match=f"checkpoint {path}: of another network"):
        load_generator(tmp_path)
