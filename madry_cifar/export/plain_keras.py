"""The classifier as a graph of Keras's own layers, which Keras loads by itself, whatever its backend."""

import keras
import numpy as np

from madry_cifar.networks.layers import BatchNorm, Conv, Dense
from madry_cifar.networks.scaling import CHANNELS
from madry_cifar.networks.wide_resnet import LEAKINESS, ResidualUnit, WideResNet


def plain(classifier: WideResNet) -> keras.Model:
    """A functional model of `classifier` with its present weights: images [B, 32, 32, 3] in [0, 255] → logits [B, K].

    It is meant for inference: if it is trained, Keras's batch norm follows the biased variance of a batch, ours the
    unbiased one.
    """
    images = keras.Input((32, 32, 3), name="images")
    outputs = _copy(classifier.init_conv, _SCALINGS[classifier.input_scaling](images))
    for unit in classifier.units:
        outputs = _unit(unit, outputs)
    outputs = keras.layers.LeakyReLU(LEAKINESS[classifier.architecture])(_copy(classifier.norm_last, outputs))
    features = keras.layers.GlobalAveragePooling2D(name="features")(outputs)
    return keras.Model(images, _copy(classifier.logits, features), name=classifier.name)


def _standardized(images):
    """As `layers.standardize`."""
    centred = images - keras.ops.mean(images, axis=(1, 2, 3), keepdims=True)
    variance = keras.ops.mean(keras.ops.square(centred), axis=(1, 2, 3), keepdims=True)
    return centred * keras.ops.rsqrt(keras.ops.maximum(variance, 1 / (32 * 32 * 3)))


_SCALINGS = {
    "standardize": _standardized,
    "signed": keras.layers.Rescaling(1 / 127.5, -1),
    "unit": keras.layers.Rescaling(1 / 255),
    **{
        name: keras.layers.Rescaling((1 / 255 / np.array(std)).tolist(), (-np.array(mean) / std).tolist())
        for name, (mean, std) in CHANNELS.items()
    },
}


def _unit(unit: ResidualUnit, inputs):
    """As `ResidualUnit.call`."""
    activation = keras.layers.LeakyReLU(LEAKINESS[unit.architecture])
    outputs = activation(_copy(unit.norm1, inputs, unit.name))
    shortcut = outputs if unit.shared_activation else inputs
    outputs = _copy(unit.conv1, outputs, unit.name)
    outputs = activation(_copy(unit.norm2, outputs, unit.name))
    outputs = _copy(unit.conv2, outputs, unit.name)
    if unit.projection:
        return outputs + _copy(unit.projection, shortcut, unit.name)
    if unit.stride > 1:
        shortcut = keras.layers.AveragePooling2D(unit.stride)(shortcut)
    missing = unit.filters - shortcut.shape[-1]
    if missing:
        shortcut = keras.ops.pad(shortcut, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]])
    return outputs + shortcut


def _copy(layer, inputs, place: str | None = None):
    """What Keras's layer with the weights of ours makes of `inputs`."""
    name = f"{place}_{layer.name}" if place else layer.name
    if isinstance(layer, Conv):
        if layer.symmetric:
            inputs = keras.layers.ZeroPadding2D(layer.size // 2)(inputs)
        padding = "valid" if layer.symmetric else "same"
        twin = keras.layers.Conv2D(layer.filters, layer.size, layer.stride, padding, use_bias=False, name=name)
    elif isinstance(layer, BatchNorm):
        twin = keras.layers.BatchNormalization(momentum=layer.decay, epsilon=layer.epsilon, name=name)
    elif isinstance(layer, Dense):
        twin = keras.layers.Dense(layer.units, name=name)
    outputs = twin(inputs)
    twin.set_weights(layer.get_weights())
    return outputs
