"""What a network does with pixels in [0, 255] before its first layer."""

from madry_cifar.networks.layers import standardize

CHANNELS = {  # mean and deviation of each channel, of pixels in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # L2L-DA
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # Learn2Perturb
}


def _by_channel(mean, deviation):
    def scale(images):
        return (images / 255 - mean) / deviation

    return scale


SCALINGS = {
    "standardize": standardize,  # each image to mean 0 and deviation 1
    "signed": lambda images: images / 127.5 - 1,
    "unit": lambda images: images / 255,
    **{name: _by_channel(*constants) for name, constants in CHANNELS.items()},
}
