"""Our wide ResNets in PyTorch, written as one would there, with the names that the layers have in TRADES's code.

Importing this module needs PyTorch.
"""

import torch
from torch import nn
from torch.nn import functional

from madry_cifar.networks import wide_resnet
from madry_cifar.networks.layers import flat_variables
from madry_cifar.networks.scaling import CHANNELS
from madry_cifar.runs import pytorch


class Block(nn.Module):
    """As `madry_cifar.networks.wide_resnet.ResidualUnit`; `is_first` of its stage."""

    def __init__(self, inputs, outputs, stride, is_first, standard, epsilon):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs, epsilon), nn.BatchNorm2d(outputs, epsilon)
        # TensorFlow's "SAME" adds the zeros that a stride of 2 leaves over behind alone.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride > 1 and not standard else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, int(stride == 1 or standard), bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        projected = standard and inputs != outputs
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projected else None
        self.activation = activation(standard)
        self.is_activation_shared = projected if standard else is_first
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x):
        activated = self.activation(self.bn1(x))
        outputs = self.conv2(self.activation(self.bn2(self.conv1(self.pad(activated)))))
        return outputs + self._fit(activated if self.is_activation_shared else x)

    def _fit(self, shortcut):
        if self.convShortcut is not None:
            return self.convShortcut(shortcut)
        if self.stride > 1:
            shortcut = functional.avg_pool2d(shortcut, self.stride)
        before = self.missing // 2
        return functional.pad(shortcut, (0, 0, 0, 0, before, self.missing - before)) if self.missing else shortcut


class Stage(nn.Module):
    """So many blocks, of which the first has the stride; `first` is whether this is the first stage."""

    def __init__(self, units, inputs, outputs, stride, first, *kind):
        super().__init__()
        others = (Block(outputs, outputs, 1, False, *kind) for _ in range(units - 1))
        self.layer = nn.Sequential(Block(inputs, outputs, stride, first, *kind), *others)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """Maps pixels in [0, 1], [B, 3, 32, 32], to logits [B, K].

    The arguments are those of `madry_cifar.WideResNet`; with `unused` there is a second first stage that no pass uses,
    as in the code of TRADES.
    """

    def __init__(
        self,
        depth,
        width,
        num_classes=10,
        *,
        architecture="standard",
        input_scaling="unit",
        batch_norm_epsilon=1e-5,
        unused=False,
    ):
        super().__init__()
        standard = architecture == "standard"
        units, filters, kind = (
            (depth - 4) // 6,
            [16, 16 * width, 32 * width, 64 * width],
            (standard, batch_norm_epsilon),
        )
        self.scale = SCALINGS[input_scaling]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(units, *filters[:2], 1, True, *kind)
        if unused:
            self.sub_block1 = Stage(units, *filters[:2], 1, True, *kind)
        self.block2, self.block3 = (Stage(units, *filters[k : k + 2], 2, False, *kind) for k in (1, 2))
        self.bn1, self.activation = nn.BatchNorm2d(filters[3], batch_norm_epsilon), activation(standard)
        self.fc = nn.Linear(filters[3], num_classes)

    def features(self, pixels):
        """What the last layer gets, [B, 64w]."""
        outputs = self.block3(self.block2(self.block1(self.conv1(self.scale(pixels)))))
        return self.activation(self.bn1(outputs)).mean(dim=(2, 3))

    def forward(self, pixels):
        return self.fc(self.features(pixels))


def activation(standard):
    """Of the two architectures, in place as is usual in PyTorch."""
    return nn.ReLU(inplace=True) if standard else nn.LeakyReLU(wide_resnet.LEAKINESS["madry"], inplace=True)


def _standardized(pixels):
    """As `madry_cifar.networks.layers.standardize` of grey levels."""
    centred = 255 * (pixels - pixels.mean(dim=(1, 2, 3), keepdim=True))
    variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred * variance.clamp(min=1 / pixels[0].numel()).rsqrt()


def _by_channel(mean, deviation):
    def scale(pixels):
        mine, other = (pixels.new_tensor(numbers).reshape(-1, 1, 1) for numbers in (mean, deviation))
        return (pixels - mine) / other

    return scale


SCALINGS = {  # as madry_cifar.networks.scaling, of pixels in [0, 1]
    "standardize": _standardized,
    "signed": lambda pixels: 2 * pixels - 1,
    "unit": lambda pixels: pixels,
    **{name: _by_channel(*constants) for name, constants in CHANNELS.items()},
}


def of(classifier: wide_resnet.WideResNet) -> WideResNet:
    """The same network with the same weights, for evaluation and with gradients for its inputs alone.

    Its kernels are channels last in memory, and so is all that its convolutions return.
    """
    settings = {name: getattr(classifier, name) for name in classifier.DEFAULTS}
    network = WideResNet(classifier.depth, classifier.width, classifier.num_classes, **settings)
    values = {name: variable.numpy() for name, variable in flat_variables("classifier", classifier).items()}
    arrays = pytorch.state_dict(values, "standard", classifier.depth, unused=False)  # "madry" differs in no name
    network.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()}, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
