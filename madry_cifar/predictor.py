"""What is attacked, evaluated, diagnosed and exported: a function from images to logits, ours or anybody's."""

import abc
import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import UsageError
from madry_cifar.networks.layers import flat_variables


class Outputs(NamedTuple):
    """What a classifier returns: `features` f(x) [B, d] (or None), the last ones before the `logits` [B, K]."""

    features: tf.Tensor | None
    logits: tf.Tensor


class PurifiedOutputs(NamedTuple):
    """The same of a predictor that classifies another image in place of the one that it is given.

    `reconstruction_error` [B] says how far that is from the image: by it, some detect attacked ones.
    """

    features: tf.Tensor | None
    logits: tf.Tensor
    reconstruction_error: tf.Tensor


class Predictor(abc.ABC):
    """A classifier as it is used: what an attack asks, and what its images are judged by.

    Attributes:
      num_classes: K, at least 2; None where it is not known before a call.
      image_shape: (H, W, C); None likewise.
      stochastic: whether the outputs depend on `draw`.
      batch_dependent: whether those for an image are known to depend on the rest of its batch.

    A predictor with noise inside, for example:

        class Noisy(Predictor):
            num_classes, image_shape, stochastic = 10, (32, 32, 3), True

            def __init__(self, predictor):
                self.predictor = predictor

            def __call__(self, images, draw=0):
                return self.predictor(images + 4 * randomness.noise(draw, tf.shape(images)), draw)
    """

    num_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    stochastic = False
    batch_dependent = False

    @abc.abstractmethod
    def __call__(self, images: tf.Tensor, draw=0) -> Outputs:
        """Features and logits of `images` [B, H, W, C], pixels in [0, 255].

        Args:
          images: the batch; what is returned for one of them does not depend on the others.
          draw: for a stochastic predictor the number of the query, an integer for each image [B] or one for all: equal
            numbers give equal outputs, different ones independent ones.
        """

    def differentiable(self) -> "Predictor":
        """What attacks take gradients of: itself or, where it has no useful gradient, a stand-in for it (BPDA)."""
        return self

    def unwrapped(self) -> "Predictor":
        """The predictor itself, without what only passes its outputs on."""
        return self

    def wrapping(self, predictor: "Predictor") -> "Predictor":
        """Another predictor, with what wraps this one around it: nothing, if this is `unwrapped` itself."""
        return predictor

    def purification(self) -> dict | None:
        """What results are to tell of how images are replaced before they are classified; None: they are not.

        At least "restarts", "steps", "rate" and "rate_drop" of a search; the outputs are then `PurifiedOutputs`.
        """
        return None

    def notes(self, images: np.ndarray) -> tuple[str, ...]:
        """What whoever evaluates it should know, after a look at some images [B, H, W, C]: a line each."""
        return ()

    def noiseless(self) -> "Predictor":
        """The predictor without the noise inside, where it can do without; else itself."""
        return self

    def variables(self) -> dict[str, tf.Variable]:
        """All variables that take part in a prediction, by unambiguous names."""
        return {}

    def settings(self) -> dict:
        """What else the prediction depends on, beside the code: nothing, where all of it is as by default."""
        return {}

    def fingerprint(self, image_shape: Sequence[int] | None = None) -> str:
        """A digest of all that takes part in a prediction, to tell whether two results are of the same predictor.

        One that tells no variables is known by its logits for an image, of `image_shape` if it does not tell that. If
        these are random whatever the draw, or no shape is known, no two digests are equal.
        """
        digest = hashlib.sha256()
        if not self.variables():
            digest.update(self._known_by(self.image_shape or image_shape))
        for name, variable in sorted(self.variables().items()):
            digest.update(name.encode() + variable.numpy().tobytes())
        for name, value in sorted(self.settings().items()):
            digest.update(f"{name}={value!r}".encode())
        return digest.hexdigest()

    def _known_by(self, shape):
        """The bytes of its logits for an image; others each time where they are random."""
        first, again = (self._logits_of_an_image(shape) for _ in range(2))
        same = first is not None and np.array_equal(first, again)
        return first.tobytes() if same else os.urandom(32)

    def _logits_of_an_image(self, shape):
        """None where it has none: whoever looks at the predictor tells what is wrong (see `attacks.inputs`)."""
        if shape is None:
            return None
        image = np.random.default_rng(0).integers(0, 256, (1, *shape))
        try:
            return np.asarray(self(tf.constant(image, tf.float32), draw=0).logits)
        except Exception:  # of somebody's code
            return None


class NetworkPredictor(Predictor):
    """A network of this package, in its mode for evaluation.

    Batch norm uses its running statistics unless it is told otherwise. With `batch_norm="frozen"` it uses those of each
    batch: then an image's outputs depend on the others, against what is expected of a predictor, and the diagnosis says
    so.
    """

    def __init__(self, network, batch_norm: str = "eval"):
        self.network, self.batch_norm, self.batch_dependent = network, batch_norm, batch_norm != "eval"
        self.num_classes = getattr(network, "num_classes", None)
        self.image_shape = getattr(network, "image_shape", None)

    def __call__(self, images, draw=0):
        mode = {} if self.batch_norm == "eval" else {"batch_norm": self.batch_norm}  # other networks have no modes
        outputs = self.network(images, **mode)
        return Outputs(getattr(outputs, "features", None), outputs.logits)

    def variables(self):
        return flat_variables("classifier", self.network)

    def settings(self):
        defaults = getattr(self.network, "DEFAULTS", {})
        values = {"batch_norm": self.batch_norm} | {name: getattr(self.network, name) for name in defaults}
        defaults = {"batch_norm": "eval"} | defaults
        return {name: value for name, value in values.items() if value != defaults[name]}


class Wrapped(Predictor):
    """A predictor whose outputs are passed on; a subclass does something beside it, to its stand-in too."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.num_classes, self.image_shape = predictor.num_classes, predictor.image_shape
        self.stochastic, self.batch_dependent = predictor.stochastic, predictor.batch_dependent

    def differentiable(self):
        smooth = self.predictor.differentiable()
        return self if smooth is self.predictor else self.around(smooth)

    def around(self, predictor: Predictor) -> "Wrapped":
        """The same around another predictor."""
        return type(self)(predictor)

    def unwrapped(self):
        return self.predictor.unwrapped()

    def wrapping(self, predictor):
        return self.around(self.predictor.wrapping(predictor))

    def purification(self):
        return self.predictor.purification()


class WithXLA(Wrapped):
    """A predictor whose passes, and the gradients of its logits, are compiled by XLA, for each size of batch."""

    def __init__(self, predictor: Predictor):
        super().__init__(predictor)

        def compiled(images, draw):
            outputs = predictor(images, draw)
            return outputs.logits, getattr(outputs, "reconstruction_error", None)

        self._compiled = tf.function(compiled, autograph=False, jit_compile=True)

    def __call__(self, images, draw=0):
        logits, error = self._compiled(images, tf.convert_to_tensor(draw))
        return Outputs(None, logits) if error is None else PurifiedOutputs(None, logits, error)


OUTPUTS = ("logits", "probabilities")


class ModelPredictor(Predictor):
    """Anybody's model, made by `predictor`."""

    def __init__(self, model: Callable, pixel_range, mean, std, outputs: str, stochastic: bool):
        self.model, self.pixel_range, self.outputs, self.stochastic = model, pixel_range, outputs, stochastic
        self.mean, self.std = mean, std
        self._inference = _inference(model)
        self.image_shape = _known_shape(model, "input_shape")
        *_, self.num_classes = _known_shape(model, "output_shape") or (None,)

    def __call__(self, images, draw=0):
        for name in ("mean", "std"):
            value, channels = getattr(self, name), images.shape[-1]
            if value is not None and np.size(value) not in (1, channels):
                raise UsageError(name, value, f"images have {channels} channels: give one number, or so many")
        low, high = self.pixel_range
        values = images if (low, high) == (0, 255) else low + images * ((high - low) / 255)
        if self.mean is not None:
            values = values - tf.constant(self.mean, values.dtype)
        if self.std is not None:
            values = values / tf.constant(self.std, values.dtype)
        outputs = self.model(values, **self._inference)
        if isinstance(outputs, Mapping) and len(outputs) == 1:  # a signature's
            (outputs,) = outputs.values()
        if isinstance(outputs, (Mapping, list, tuple)) and not hasattr(outputs, "logits"):
            names = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else f"{len(outputs)} of them"
            raise UsageError(
                None, None, f"the model has several outputs ({names}); give a function that returns logits"
            )
        logits = tf.convert_to_tensor(getattr(outputs, "logits", outputs))
        logits = tf.cast(logits, images.dtype)
        if self.outputs == "probabilities":
            if tf.executing_eagerly() and logits.shape.rank == 2 and logits.shape[1] > 1:  # at a first look
                _check_probabilities(logits.numpy())
            logits = tf.math.log(tf.maximum(logits, np.finfo(logits.dtype.as_numpy_dtype).tiny))
        return Outputs(None, logits)

    def variables(self):
        # Keras counts among a layer's variables the seeds of its dropout, which are others each time it is loaded
        kept = "weights" if isinstance(self.model, keras.layers.Layer) else "variables"
        variables = enumerate(getattr(self.model, kept, ()))
        return {f"{place}.{v.name}": v.value if isinstance(v, keras.Variable) else v for place, v in variables}

    def settings(self):
        return {name: getattr(self, name) for name in ("pixel_range", "mean", "std", "outputs")}

    def fingerprint(self, image_shape=None):
        """As of any predictor. Two models may share their variables and do something else with them, so ten logits for
        an image take part, to three digits: of a hundred models another processor rounds one otherwise, or none."""
        digest, shape = super().fingerprint(image_shape), self.image_shape or image_shape
        if not self.variables() or self.stochastic:
            return digest
        logits = self._logits_of_an_image(shape)
        if logits is None or not logits.size or not np.isfinite(logits).all():
            return digest
        logits = logits.ravel()[:: -(-logits.size // 10)]
        digit = 10.0 ** (np.floor(np.log10(max(np.abs(logits).max(), 1e-30))) - 2)
        told = f"{digest} {digit:.0e} {np.rint(logits / digit).astype(int).tolist()}"
        return hashlib.sha256(told.encode()).hexdigest()


def _check_probabilities(outputs):
    """Logits of which the logarithm is taken would leave most attacks without a gradient, and a number all the same."""
    sums = outputs.sum(axis=-1, dtype=np.float64)
    if (outputs < 0).any() or (np.abs(sums - 1) > 0.02).any():  # 8 bits of a bfloat16
        raise UsageError(
            None,
            None,
            f"the model's outputs are no probabilities: of an image from {outputs.min():.4g} to {outputs.max():.4g}, "
            f"their sum {sums.flat[np.argmax(np.abs(sums - 1))]:.4g}; if they are logits, leave out "
            "outputs='probabilities' (by command --outputs)",
        )


def predictor(
    model,
    pixel_range: Sequence[float] = (0, 255),
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    outputs: str = "logits",
    stochastic: bool = False,
) -> Predictor:
    """Makes a `Predictor` of anybody's model, so that it can be attacked and evaluated.

    It is used for inference: with `training=False` where the model takes such an argument.

    Example:
      A model that was trained on images in [0, 1], normalised channel by channel, and ends in a softmax:

      >>> import keras, rvs_tf
      >>> layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
      >>> model = keras.Sequential(layers)
      >>> mine = rvs_tf.predictor(model, pixel_range=(0, 1), mean=0.1307, std=0.3081, outputs="probabilities")

    Args:
      model: a Keras model, a `tf.Module`, what `tf.saved_model.load` returns, or a function. It maps images
        [B, H, W, C] to outputs [B, K] of K ≥ 2 classes (or to something that holds them as `logits`).
      pixel_range: what it takes for a pixel of 0 and one of 255.
      mean, std: of a pixel in that range: the first is subtracted, then it is divided by the second; one number, or one
        for each channel.
      outputs: "logits", or "probabilities": then their logarithm, the logits up to a constant, is attacked.
      stochastic: whether its outputs are random on purpose. Attacks then average over queries where their names say so,
        and images are judged several times. A number is not repeated, unless you write a `Predictor` that uses `draw`.

    Raises:
      ValueError: for a range, deviation or kind of outputs that cannot be, or something that cannot be called; when it
        is attacked, for "probabilities" that are none.
    """
    low, high = map(float, pixel_range) if len(pixel_range) == 2 else (0.0, 0.0)
    if not low < high:
        raise UsageError(None, None, f"pixel_range must be two numbers, the lower first. Received: {pixel_range}")
    if outputs not in OUTPUTS:
        raise UsageError(None, None, f"outputs must be one of {', '.join(OUTPUTS)}. Received: {outputs!r}")
    if std is not None and not np.all(np.asarray(std) > 0):
        raise UsageError(None, None, f"std must be above 0. Received: {std}")
    return ModelPredictor(_callable(model), (low, high), mean, std, outputs, stochastic)


def _callable(model):
    """What is called with images: the model itself, or the signature of a SavedModel."""
    if getattr(model, "signatures", None):
        return _Signature(model)
    if not callable(model):
        raise UsageError(None, None, f"a model must be callable with images. Received: {type(model).__name__}")
    return model


class _Signature:
    """The signature of a SavedModel for inference, with its one argument."""

    def __init__(self, saved_model):
        signatures = saved_model.signatures
        name = next(iter(signatures)) if len(signatures) == 1 else "serving_default"
        if name not in signatures:
            raise UsageError(
                None, None, f"the SavedModel's signatures are {', '.join(signatures)}: not serving_default"
            )
        self.function = signatures[name]
        arguments = self.function.structured_input_signature[1]
        if len(arguments) != 1:
            raise UsageError(
                None, None, f"the SavedModel's signature takes {', '.join(sorted(arguments))}, not images alone"
            )
        ((self.argument, self.spec),) = arguments.items()
        self.variables = self.function.variables
        self.input_shape = self.spec.shape.as_list() if self.spec.shape.rank else None
        outputs = self.function.structured_outputs
        self.output_shape = next(iter(outputs.values())).shape.as_list() if len(outputs) == 1 else None

    def __call__(self, images):
        outputs = self.function(**{self.argument: tf.cast(images, self.spec.dtype)})
        return outputs.get("logits", outputs)


def _inference(model):
    """The argument by which a model is told that this is no training."""
    if isinstance(model, keras.layers.Layer):
        return {"training": False}
    try:
        known = inspect.signature(model).parameters
    except (TypeError, ValueError):  # some callables do not tell
        return {}
    return {name: False for name in ("training", "is_training") if name in known}


def _known_shape(model, name):
    """The shape without the batch, if a model tells it and all of it is known."""
    try:
        shape = tuple(getattr(model, name))[1:]
    except (AttributeError, TypeError, ValueError, RuntimeError):  # Keras's words for a model that was never called
        return None
    return shape if shape and all(isinstance(size, int) for size in shape) else None


def as_predictor(model) -> Predictor:
    """The predictor itself, that of a network of this package, or that of anybody's model as it is."""
    if isinstance(model, Predictor):
        return model
    return NetworkPredictor(model) if hasattr(model, "DEFAULTS") else predictor(model)
