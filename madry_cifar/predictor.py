"""What is attacked, evaluated, diagnosed and exported: a function from images to logits, ours or anybody's."""

import abc
import hashlib
from typing import NamedTuple

import tensorflow as tf

from madry_cifar.networks.layers import flat_variables


class Outputs(NamedTuple):
    """What a classifier returns: `features` f(x) [B, d] (or None), the last ones before the `logits` [B, K]."""

    features: tf.Tensor | None
    logits: tf.Tensor


class Predictor(abc.ABC):
    """A classifier as it is used: what an attack asks, and what its images are judged by.

    Attributes:
      num_classes: K, at least 2; None where it is not known before a call.
      image_shape: (H, W, C); None likewise.
      stochastic: whether the outputs depend on `draw`.

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

    def noiseless(self) -> "Predictor":
        """The predictor without the noise inside, where it can do without; else itself."""
        return self

    def variables(self) -> dict[str, tf.Variable]:
        """All variables that take part in a prediction, by unambiguous names."""
        return {}

    def settings(self) -> dict:
        """What else the prediction depends on, beside the code: nothing, where all of it is as by default."""
        return {}

    def fingerprint(self) -> str:
        """A digest of all that takes part in a prediction, to tell whether two results are of the same predictor."""
        digest = hashlib.sha256()
        for name, variable in sorted(self.variables().items()):
            digest.update(name.encode() + variable.numpy().tobytes())
        for name, value in sorted(self.settings().items()):
            digest.update(f"{name}={value!r}".encode())
        return digest.hexdigest()


class NetworkPredictor(Predictor):
    """A network that is called as `network(images)` and returns `.logits`, in its mode for evaluation.

    So the networks of this package are: batch norm uses its running statistics unless it is told otherwise. With
    `batch_norm="frozen"` it uses those of each batch: then an image's outputs depend on the others, against what is
    expected of a predictor, and the diagnosis says so.
    """

    def __init__(self, network, batch_norm: str = "eval"):
        self.network, self.batch_norm = network, batch_norm
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


def as_predictor(model) -> Predictor:
    """The predictor itself, or that of a network of this package."""
    return model if isinstance(model, Predictor) else NetworkPredictor(model)
