"""The wide ResNet of TRADES's PyTorch code, written here from its description: an oracle for imported weights."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-activation, where the width changes before the 1×1 shortcut too."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x):
        activated = functional.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + self.conv2(functional.relu(self.bn2(self.conv1(activated))))


class Stage(nn.Module):
    def __init__(self, units, inputs, outputs, stride):
        super().__init__()
        self.layer = nn.Sequential(
            *(Block(outputs if n else inputs, outputs, 1 if n else stride) for n in range(units))
        )

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """On images [B, 3, 32, 32] as the code scales them; with `unused` a second first stage that no pass uses."""

    def __init__(self, depth, width, num_classes, unused):
        super().__init__()
        units, filters = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(units, filters[0], filters[1], 1)
        if unused:
            self.sub_block1 = Stage(units, filters[0], filters[1], 1)
        self.block2, self.block3 = Stage(units, *filters[1:3], 2), Stage(units, *filters[2:], 2)
        self.bn1, self.fc = nn.BatchNorm2d(filters[3]), nn.Linear(filters[3], num_classes)

    def forward(self, x):
        outputs = functional.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(outputs.mean(dim=(2, 3)))


def trained(*args, **kwargs):
    """Such a network in evaluation mode, after some batches of noise, so that its statistics are not the first ones."""
    torch.manual_seed(0)
    network = WideResNet(*args, **kwargs)
    for _ in range(3):
        network(torch.rand(8, 3, 32, 32))
    return network.eval()


def logits(network, images, scaling):
    """Of `images` [B, 32, 32, 3], pixels in [0, 255]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        return network(pixels / 255 if scaling == "unit" else pixels / 127.5 - 1).numpy()
