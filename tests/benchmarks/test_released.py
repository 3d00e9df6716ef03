"""The place where the authors' code runs: here a small program of the same form, written for this test."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import released
from benchmarks.turns import Contender
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.layers import BatchNorm

TRAIN = """
import json
import tensorflow as tf
import cifar10_input
from model import scale

config = json.load(open("config.json"))
data = cifar10_input.CIFAR10Data(config["data_path"])
step = tf.contrib.framework.get_or_create_global_step()
images = tf.placeholder(tf.float32, [None, 32, 32, 3])
outputs = scale * tf.contrib.layers.batch_norm(inputs=images, decay=0.9, center=True, scale=True, activation_fn=None,
                                               updates_collections=None, is_training=True)
train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(outputs), global_step=step)
saver = tf.train.Saver()
with tf.Session() as session:
    batches = cifar10_input.AugmentedCIFAR10Data(data, session, None).train_data
    session.run(tf.global_variables_initializer())
    for number in range(1000):
        x, y = batches.get_next_batch(config["batch"], multiple_passes=True)
        assert x.shape == (config["training_batch_size"], 32, 32, 3) == (5, 32, 32, 3)
        assert y.min() >= 0 and y.max() < 10 and y.shape == (5,)
        session.run(train, feed_dict={images: x})
        if number == 0:
            session.run([outputs], feed_dict={images: x})
            saver.save(session, "/nowhere/checkpoint")
        assert session.run(step) == number + 1
        if number == 2:
            raise ValueError("the third one")
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "model.py").write_text("scale = 2.0\n")
    (tmp_path / "eval_pgd_attack.py").write_text("")
    config = {"training_batch_size": 64, "batch": 5, "data_path": "cifar10_data"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_takes_turns(checkout):
    with Contender("released code", "benchmarks.released", {"folder": str(checkout), "batch_size": 5}) as contender:
        contender.turn()
        contender.turn()
        assert all(seconds > 0 for seconds in contender.seconds)
        with pytest.raises(RunError, match="released code: ValueError: the third one"):
            contender.turn()


def test_batch_norm_is_that_of_our_layer():
    rng = np.random.default_rng(0)
    inputs = rng.normal(1, 2, (4, 8, 8, 3)).astype(np.float32)
    layer = BatchNorm()
    expected = layer(tf.constant(inputs), mode="train").numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        outputs = released.batch_norm(inputs=tf.constant(inputs), decay=0.9, is_training=True, center=True)
        session.run(tf.compat.v1.global_variables_initializer())
        np.testing.assert_allclose(session.run(outputs), expected, atol=1e-6)
        values = {v.op.name: session.run(v) for v in tf.compat.v1.global_variables()}
    for name in ("beta", "gamma", "moving_mean", "moving_variance"):
        np.testing.assert_allclose(values[f"BatchNorm/{name}"], getattr(layer, name), rtol=1e-5, atol=1e-6)


def test_what_is_no_checkout_or_has_no_such_network(checkout):
    released.check(str(checkout), 34, 10)
    with pytest.raises(UsageError, match="its network is that of --depth=34 --width=10 alone"):
        released.check(str(checkout), 28, 10)
    (checkout / "model.py").unlink()
    with pytest.raises(UsageError, match=r"no model\.py there"):
        released.check(str(checkout), 34, 10)
