"""A classifier as a file: how each format is written, and how it is loaded again without the classifier."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.quiet import hold_back_stderr
from madry_cifar.export import stablehlo
from madry_cifar.export.plain_keras import plain
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.predictor import Predictor
from madry_cifar.runs.files import no_pattern

Classify = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
      write: write(predictor, path, batch_size) writes images [B, H, W, C] float32 in [0, 255] → logits [B, K].
      load: load(path, draw=None) returns that function of arrays, from what is in `path` alone, with the number of the
        draw for what takes one.
      ending: of the file's name; "" for a folder.
      any_batch: whether B is free; otherwise it is `batch_size`, which is not used where it is free.
      takes_draw: whether a stochastic predictor can be written, with the number of its draw as a second input.
    """

    write: Callable[[Predictor, pathlib.Path, int], None]
    load: Callable[..., Classify]
    ending: str
    any_batch: bool = True
    takes_draw: bool = True


def _inference(predictor: Predictor, batch_size: int | None = None):
    """The concrete function images → logits, with what has to be kept alive for it.

    Of a stochastic predictor it takes the number of the draw too, an int64.
    """
    signature = [tf.TensorSpec([batch_size, *predictor.image_shape], name="images")]
    signature += [tf.TensorSpec([], tf.int64, name="draw")] * predictor.stochastic

    @tf.function(input_signature=signature, autograph=False)
    def infer(images, *draw):
        return {"logits": predictor(images, *draw).logits}

    module = tf.Module()
    module.variables_used = list(predictor.variables().values())
    module.infer = infer
    return infer.get_concrete_function(), module


def _write_savedmodel(predictor, path, batch_size):
    function, module = _inference(predictor)
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})


def _load_savedmodel(path, draw=None):
    with no_pattern(f"{path}/saved_model.pb") as file:
        model = tf.saved_model.load(os.path.dirname(file))  # kept by the function below, as its variables are
    others = {} if draw is None else {"draw": tf.constant(draw, tf.int64)}
    return lambda images: model.signatures["serving_default"](images=tf.constant(images), **others)["logits"].numpy()


def _write_keras(predictor, path, batch_size):
    network = getattr(predictor, "network", None)
    if not isinstance(network, WideResNet):
        raise UsageError("format", "keras", "for wide ResNets alone; another format writes any predictor")
    plain(network).save(path)


def _load_keras(path, draw=None):
    model = keras.models.load_model(path)
    return lambda images: keras.ops.convert_to_numpy(model(images, training=False))


def _write_tflite(predictor, path, batch_size):
    function, module = _inference(predictor)
    # Built-in operations alone, by default: it fails rather than ask for TensorFlow's own beside the interpreter.
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert())


def _load_tflite(path, draw=None):
    with hold_back_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has moved to ai_edge_litert, which has no other
        interpreter = tf.lite.Interpreter(str(path))
        runner = interpreter.get_signature_runner("serving_default")
        runner(images=np.zeros([1, 32, 32, 3], np.float32))  # says once how it runs
    return lambda images: runner(images=images)["logits"]


def _write_stablehlo(predictor, path, batch_size):
    function, _ = _inference(predictor, batch_size)
    constant = convert_variables_to_constants_v2(function)  # the weights are in the program, not among its inputs
    compiled = tf.function(lambda *inputs: constant(*inputs), jit_compile=True, autograph=False)
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in constant.inputs]
    path.write_bytes(stablehlo.lower(compiled, *specs)[0])


def _load_stablehlo(path, draw=None):
    call = stablehlo.load(path.read_bytes(), [tf.TensorSpec([None, None])])
    others = () if draw is None else (np.int64(draw),)
    return lambda images: call(images, *others)[0].numpy()


FORMATS = {
    "savedmodel": Format(_write_savedmodel, _load_savedmodel, ""),
    "keras": Format(_write_keras, _load_keras, ".keras", takes_draw=False),
    "tflite": Format(_write_tflite, _load_tflite, ".tflite", takes_draw=False),  # it has no such bit operations
    "stablehlo": Format(_write_stablehlo, _load_stablehlo, ".stablehlo", any_batch=False),
}
