"""A network of ours in PyTorch, and attacks of torchattacks on it: PGD, and those of AutoAttack's authors.

    network_in_torch   any network, wrapped: its passes are TensorFlow's
    plain              a wide ResNet of PyTorch's own layers, with our weights

torchattacks 3.5.1 has the authors' code (its APGD, APGDT, FAB and Square), but defaults of its own: 10 steps where the
published ones are 100. Here they get the published ones: one start, 100 steps, 9 targets, 5,000 queries.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks import machine
from benchmarks.batches import Attacker, by_batch
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.wide_resnet import WideResNet

MODULES = ("torch", "torchattacks")
APGD = (
    "stretches the random start until a pixel changes by ε; on the first interval counts the first step as a rise "
    "if the loss is above zero"
)
SQUARE = "one square and one colour at a time for all images of a batch; none touches the last row or column"
TOLERANCE = 1e-4  # of the logits, relative


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


def plain(classifier: keras.Model):
    """A `torch.nn.Module` as `network_in_torch`'s, all of it PyTorch's, whose parameters need no gradient.

    Raises:
      UsageError: for what is no wide ResNet, as nothing else is written out.
      RunError: when its logits differ from ours by more than `TOLERANCE`.
    """
    import torch

    from benchmarks import torch_network

    if not isinstance(classifier, WideResNet):
        raise UsageError("peers", "PyTorch", "only wide ResNets are written out there")
    module = torch_network.of(classifier)
    images = np.random.default_rng(0).uniform(0, 255, (4, *classifier.image_shape)).astype(np.float32)
    expected, found = classifier(images).logits.numpy(), module(_pixels(torch, images)).numpy()
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not difference <= TOLERANCE:
        raise RunError(f"the network in PyTorch: its logits differ from ours by {difference:.1g} of their size")
    return module


def set_threads(count: int) -> int:
    """Gives PyTorch so many threads; returns how many it says it has."""
    import torch

    torch.set_num_threads(count)
    return torch.get_num_threads()


def is_installed() -> bool:
    """Whether there is what the attacks of this module need."""
    return all(map(machine.is_installed, MODULES))


def threads() -> dict[str, int]:
    """For a benchmark's settings: how many TensorFlow has for an operation and, if installed, the plain network."""
    count = machine.threads()
    in_torch = {"torch_threads": set_threads(count)} if is_installed() else {}
    return {"tensorflow_threads": count} | in_torch


def _pixels(torch, images):
    """[B, H, W, C] in grey levels as [B, C, H, W] in [0, 1], and so in memory, as the authors' FAB needs it."""
    return torch.from_numpy(images / 255).permute(0, 3, 1, 2).contiguous()


def _by_batch(attack, batch_size, threads) -> Attacker:
    """Of an attack of torchattacks'."""
    import torch

    def perturb(images, labels):
        set_threads(threads)  # here, as several may take turns
        found = attack(_pixels(torch, images), torch.tensor(labels.astype(np.int64)))
        return 255 * found.detach().permute(0, 2, 3, 1)

    return by_batch(perturb, batch_size)


def pgd(classifier: keras.Model, sizes: dict, batch_size: int) -> Attacker:
    """PGD from a random start on the plain network; `sizes` as for `benchmarks.attacks.measure`."""
    import torchattacks

    radius, step_size = (sizes[name] / 255 for name in ("epsilon", "step_size"))
    attack = torchattacks.PGD(plain(classifier), eps=radius, alpha=step_size, steps=sizes["steps"])
    return _by_batch(attack, batch_size, machine.threads())


def _attacker(subject, make, module=None) -> Attacker:
    """Of an attack of torchattacks' that `make(package, settings)` makes, on a module or on the wrapped network."""
    import torchattacks

    threads = machine.threads()
    if module is None:  # PyTorch's threads wait busily, on the cores that TensorFlow needs
        module, threads = network_in_torch(subject.network), 1
    elif subject.count:
        module.register_forward_hook(_counting(subject.count))
    settings = {"model": module, "norm": "Linf", "eps": subject.epsilon / 255, "n_restarts": 1, "seed": subject.seed}
    return _by_batch(make(torchattacks, settings), subject.batch_size, threads)


def _counting(count):
    """A hook that tells `count(forward, backward)` of the images that pass."""

    def hook(module, inputs, logits):
        count(len(logits), 0)
        if logits.requires_grad:
            logits.register_hook(lambda upstream: count(0, len(upstream)))

    return hook


def _apgd(package, settings, loss="ce"):
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


STAGES = {"apgd-ce": _apgd, "apgd-t": _apgd_targeted, "fab-t": _fab, "square": _square}  # of the standard version


def autoattack(subject, module=None) -> Attacker:
    """The subject's stages of the standard version, each on the images that have withstood those before.

    They attack the `module`, which maps pixels in [0, 1], [B, C, H, W], to logits, or the subject's network, wrapped.
    """

    def make(package, settings):
        stages = [STAGES[name](package, settings) for name in subject.stages]
        return package.MultiAttack(stages) if len(stages) > 1 else stages[0]  # it takes no fewer than two

    return _attacker(subject, make, module)


def autoattack_in_torch(subject) -> Attacker:
    """The same on the plain network."""
    return autoattack(subject, plain(subject.classifier))
