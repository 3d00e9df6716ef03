"""A network of ours in PyTorch, and the attacks of AutoAttack's authors on it, as packaged by torchattacks.

torchattacks 3.5.1 has their code (its APGD, APGDT, FAB and Square), but defaults of its own: 10 steps where the
published ones are 100. Here they get the published ones: one start, 100 steps, 9 targets, 5,000 queries.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from benchmarks.attacks import Attacker, by_batch

APGD = (
    "stretches the random start until a pixel changes by ε; on the first interval counts the first step as a rise "
    "if the loss is above zero"
)
SQUARE = "one square and one colour at a time for all images of a batch; none touches the last row or column"


def network_in_torch(network: Callable):
    """A `torch.nn.Module` that maps images [B, C, H, W] in [0, 1] to the logits [B, K] of a network of ours.

    Both directions are compiled by TensorFlow. A gradient can be asked for once for each forward pass.
    """
    import torch

    @tf.function(autograph=False, reduce_retracing=True)
    def logits(images):
        return network(images).logits

    def grey_levels(images):
        return tf.constant(255 * images.detach().permute(0, 2, 3, 1).numpy())

    class Logits(torch.autograd.Function):
        @staticmethod
        def forward(context, images):
            context.images = grey_levels(images)
            with tf.GradientTape(watch_accessed_variables=False) as context.tape:
                context.tape.watch(context.images)
                context.logits = logits(context.images)
            return torch.tensor(context.logits.numpy())

        @staticmethod
        def backward(context, upstream):
            upstream = tf.constant(upstream.numpy())
            gradient = context.tape.gradient(context.logits, context.images, output_gradients=upstream)
            return 255 * torch.tensor(gradient.numpy().transpose(0, 3, 1, 2).copy())

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.place = torch.nn.Parameter(torch.zeros(1))  # where attacks look up the device

        def forward(self, images):
            if torch.is_grad_enabled() and images.requires_grad:
                return Logits.apply(images)
            return torch.tensor(logits(grey_levels(images)).numpy())

    return Network()


def _attacker(subject, make) -> Attacker:
    """Of an attack of torchattacks' that `make(package, settings)` makes."""
    import torch
    import torchattacks

    torch.set_num_threads(1)  # its threads wait busily, on the cores that TensorFlow needs
    module = network_in_torch(subject.network)
    settings = {"model": module, "norm": "Linf", "eps": subject.epsilon / 255, "n_restarts": 1, "seed": subject.seed}
    attack = make(torchattacks, settings)

    def perturb(images, labels):
        images = torch.tensor((images / 255).transpose(0, 3, 1, 2).copy())
        found = attack(images, torch.tensor(labels.astype(np.int64)))
        return tf.constant(255 * found.detach().permute(0, 2, 3, 1).numpy())

    return by_batch(perturb, subject.batch_size)


def _apgd(package, settings, loss):
    return package.APGD(steps=100, loss=loss, **settings)


def _apgd_targeted(package, settings):
    return package.APGDT(steps=100, n_classes=10, **settings)


def _fab(package, settings):
    return package.FAB(steps=100, multi_targeted=True, n_classes=10, **settings)


def _square(package, settings):
    return package.Square(n_queries=5000, **settings)


def apgd(subject, loss: str) -> Attacker:
    """APGD with `loss` "ce" or "dlr"."""
    return _attacker(subject, lambda package, settings: _apgd(package, settings, loss))


def apgd_targeted(subject) -> Attacker:
    """APGD-T."""
    return _attacker(subject, _apgd_targeted)


def fab(subject) -> Attacker:
    """FAB-T."""
    return _attacker(subject, _fab)


def square(subject) -> Attacker:
    """Square."""
    return _attacker(subject, _square)


def autoattack(subject) -> Attacker:
    """The standard version: each on the images that have withstood those before."""

    def make(package, settings):
        first = _apgd(package, settings, "ce")
        others = [each(package, settings) for each in (_apgd_targeted, _fab, _square)]
        return package.MultiAttack([first, *others])

    return _attacker(subject, make)
