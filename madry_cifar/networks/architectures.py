"""The networks by name: what --architecture may be."""

from collections.abc import Mapping
from typing import Any

import keras

from madry_cifar.networks import resnet, wide_resnet
from madry_cifar.networks.resnet import ResNet
from madry_cifar.networks.wide_resnet import WideResNet

ARCHITECTURES = {**dict.fromkeys(wide_resnet.LEAKINESS, WideResNet), **dict.fromkeys(resnet.KINDS, ResNet)}
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # of the convolutions, and Keras's names of them
SETTINGS = ("depth", "width", "num_classes", "architecture", "input_scaling", "batch_norm_epsilon")


def network_of(settings: Mapping[str, Any], **kwargs) -> keras.Model:
    """The network that a run's settings describe, with its first weights; what they leave out is as by default.

    Raises:
      UsageError: for one that there is not.
    """
    kind = ARCHITECTURES[settings.get("architecture", "madry")]
    return kind(**{name: settings[name] for name in SETTINGS if name in settings}, **kwargs)


def name_of(settings: Mapping[str, Any]) -> str:
    """What the network of a run's settings is called: WRN-28-10, standard WRN-34-10, ResNet-20 (resnet_pad)."""
    architecture = settings.get("architecture", "madry")
    if architecture in resnet.KINDS:
        width = f" of width {settings['width']}" if settings["width"] != 1 else ""
        return f"ResNet-{settings['depth']}{width} ({architecture})"
    prefix = "standard " if architecture == "standard" else ""
    return f"{prefix}WRN-{settings['depth']}-{settings['width']}"


def check_size(architecture: str, depth: int, width: int, num_classes: int) -> None:
    """Raises UsageError, naming the argument, unless a network of this size exists."""
    if architecture in resnet.KINDS:
        resnet.check_size(architecture, depth, width, num_classes)
    else:
        wide_resnet.check_size(depth, width, num_classes)
