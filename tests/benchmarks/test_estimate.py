"""The estimate of GPU hours, against the arithmetic of the jobs."""

import pytest
import tensorflow as tf

from benchmarks import estimate, flops
from madry_cifar import WideResNet
from madry_cifar.training.adversarial import Natural
from madry_cifar.training.settings import NetworkSettings
from rvs_tf import RobustnessViaSynthesis
from rvs_tf.defense_gan.gan import GANOptions
from rvs_tf.defense_gan.networks import Critic, GANGenerator

SMALL = NetworkSettings(depth=10, width=1)
FORWARD = 2 * 9 * (32**2 * (3 * 16 + 2 * 16 * 16) + 16**2 * (16 * 32 + 32 * 32) + 8**2 * (32 * 64 + 64 * 64)) + 1280


def test_work_of_an_image_in_a_training_step():
    first_layer = 2 * 9 * 32**2 * 3 * 16  # has no gradient with respect to the images
    options = Natural.Options(batch_size=3)
    assert estimate._training_step(Natural, options, SMALL, 10) == 3 * FORWARD - first_layer


def test_work_of_a_step_of_an_attack():
    assert estimate._attack_step(SMALL, 10) == 2 * FORWARD


def test_work_hardly_depends_on_the_batch():
    kind = RobustnessViaSynthesis
    small, large = (estimate._training_step(kind, kind.Options(batch_size=size), SMALL, 10) for size in (2, 64))
    assert small == pytest.approx(large, rel=0.01)
    assert 8 * FORWARD < small < 11 * FORWARD  # and a generator, which is large beside so small a network


def test_work_behind_a_purifier():
    """A search goes through the generator and back to the latent vector; a training updates both networks."""
    generator, critic = GANGenerator(width=4), Critic(width=4)
    made, scored = (
        flops.count(tf.function(network).get_concrete_function(tf.TensorSpec(shape)))
        for network, shape in ((generator, [1, generator.latent_dim]), (critic, [1, 32, 32, 3]))
    )
    assert estimate._search_step(4) == pytest.approx(2 * made, rel=0.01)
    options = GANOptions(width=4, batch_size=2, critic_updates=3)
    of_generator = 3 * made + 2 * scored
    least = made + 3 * 2 * scored  # real and fake images, forward and twice back
    assert 2 * (of_generator + 3 * least) < estimate._gan_step(options) < 2 * (of_generator + 3 * (least + 8 * scored))


def test_hours():
    class Operations:
        def seconds(self, kind, output):
            return {"train": 3e18, "evaluate": 1e18, "report": 0.0}[kind] * int(output)

    jobs = [("train", "1"), ("report", "1"), ("train", "2"), ("evaluate", "1")]
    rows = estimate.rows(jobs, Operations(), flop_per_second=1e15)
    assert [(row["job"], row["number"]) for row in rows] == [("train", 2), ("evaluate", 1), ("all", 3)]
    assert [row["exaflop"] for row in rows] == pytest.approx([9, 1, 10])
    assert [row["gpu_hours"] for row in rows] == pytest.approx([9e3 / 3600, 1e3 / 3600, 1e4 / 3600])


def test_networks_are_built_for_every_data_set():
    assert estimate._attack_step(SMALL, 100) - estimate._attack_step(SMALL, 10) == 2 * (2 * 64 * 90)
    assert WideResNet(10, 1, 100).num_classes == 100
