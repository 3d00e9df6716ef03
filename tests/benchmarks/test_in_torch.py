"""Networks of ours in PyTorch, and the attacks on them."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import autoattack, in_torch, machine, peers
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.resnet import ResNet

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("make", [in_torch.network_in_torch, in_torch.plain])
def test_logits_and_gradients_are_ours(trained, digits, make):
    images = digits.test.images[:3].astype(np.float32)
    with tf.GradientTape() as tape:
        points = tf.constant(images)
        tape.watch(points)
        logits = trained(points).logits
        loss = tf.reduce_sum(logits[:, 1] * tf.constant([1.0, -2.0, 3.0]))
    expected = tape.gradient(loss, points)
    points = torch.tensor(images.transpose(0, 3, 1, 2) / 255, requires_grad=True)
    network = make(trained)
    found = network(points)
    np.testing.assert_allclose(found.detach().numpy(), logits, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad((found[:, 1] * torch.tensor([1.0, -2.0, 3.0])).sum(), [points])
    np.testing.assert_allclose(gradient.numpy().transpose(0, 2, 3, 1) / 255, expected, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(network(points).numpy(), logits, rtol=1e-4, atol=1e-4)


def test_the_plain_network_is_as_one_would_have_it(trained):
    network, pixels = in_torch.plain(trained), torch.rand(2, 3, 32, 32)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for inputs in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        maps = network.block1(network.conv1(network.scale(inputs)))
        assert maps.is_contiguous(memory_format=torch.channels_last)


def test_another_network_is_not_timed(trained, monkeypatch):
    from benchmarks import torch_network

    monkeypatch.setitem(torch_network.SCALINGS, "standardize", torch_network.SCALINGS["signed"])
    with pytest.raises(RunError, match="its logits differ from ours by"):
        in_torch.plain(trained)


def test_what_is_not_written_out():
    with pytest.raises(UsageError, match="--peers=PyTorch: only wide ResNets"):
        in_torch.plain(ResNet(20, 1, 10, architecture="resnet_pad"))


def test_both_have_as_many_threads():
    pytest.importorskip("torchattacks")
    count = machine.threads()
    assert in_torch.threads() == {"tensorflow_threads": count, "torch_threads": count}
    assert torch.get_num_threads() == count


@pytest.fixture
def one_thread(monkeypatch):
    """For PyTorch, whose threads would wait for each other where others work."""
    monkeypatch.setattr(machine, "threads", lambda: 1)


@pytest.fixture
def right(trained, digits):
    """Eight digits that the network is right about."""
    predicted = np.argmax(trained(digits.test.images[:12]).logits, axis=1)
    return digits.test.take(np.flatnonzero(predicted == digits.test.labels[:12])[:8])


def attacked(make, trained, split):
    """Makes APGD-CE, of 3 steps or as published, attack; returns the passes and how many images are still right."""
    counted, images = autoattack.Counted(trained), split.images.astype(np.float32)
    subject = peers.Subject(counted, 8.0, batch_size=4, stages=("apgd-ce",), classifier=trained, count=counted.add)
    adversarial = make(subject)(images, split.labels)
    passes = counted.take().tolist()
    assert 0 < np.abs(adversarial - images).max() < 8.001
    return passes, np.mean(np.argmax(trained(adversarial).logits, axis=1) == split.labels)


@pytest.mark.parametrize("make", [in_torch.autoattack, in_torch.autoattack_in_torch])
def test_passes_of_the_originals_attacks_are_counted(trained, right, one_thread, monkeypatch, make):
    pytest.importorskip("torchattacks")
    monkeypatch.setitem(in_torch.STAGES, "apgd-ce", lambda package, settings: package.APGD(steps=3, **settings))
    passes, left = attacked(make, trained, right)
    assert passes == [5 * 8, 4 * 8]  # whether it is right, the start, three steps; gradients
    assert left < 1
