"""A predictor whose images are replaced by what a GAN can make, before they are classified (Defense-GAN)."""

import hashlib
import math

import numpy as np
import tensorflow as tf

from madry_cifar import randomness
from madry_cifar.cli.errors import UsageError
from madry_cifar.networks.layers import flat_variables
from madry_cifar.predictor import Outputs, Predictor, PurifiedOutputs, as_predictor
from rvs_tf.defense_gan.networks import IMAGE_SHAPE, GANGenerator
from rvs_tf.defense_gan.reconstruction import Reconstruction, reconstruct

RESTARTS, STEPS, RATE = 10, 200, 10.0  # as released
SEARCH = ("restarts", "steps", "rate", "rate_drop")  # its settings


class Purified(Predictor):
    """Any predictor behind a purifier: what it is given is the generator's nearest image, not the image itself.

    The nearest is looked for from random starts, so outputs are random. They have no gradient in the images, which
    reach them through the search alone: whoever follows one finds none, and robust is what only seems so. Attacks
    follow that of `differentiable()`, which purifies in the forward pass and does nothing in the backward pass (BPDA;
    Athalye, Carlini and Wagner, ICML 2018).

    Example:
      >>> import madry_cifar, rvs_tf, tensorflow as tf
      >>> from rvs_tf.defense_gan.networks import GANGenerator  # in earnest: rvs_tf.load_gan("runs/gan")
      >>> network = madry_cifar.WideResNet(depth=10, width=1)
      >>> purified = rvs_tf.Purified(network, GANGenerator(width=2), restarts=2, steps=3)
      >>> images = tf.random.uniform([4, 32, 32, 3], 0, 255)
      >>> purified(images).logits.shape, purified.reconstruct(images).errors.shape
      (TensorShape([4, 10]), TensorShape([4]))

    Args:
      predictor: what classifies; a `Predictor` or what `as_predictor` makes one of. It is not changed.
      generator: as `load_gan` returns it.
      restarts: R, starts of the search for each image.
      steps: L, of each search. An image costs R·L forward and backward passes of the generator.
      rate: of the descent.
      rate_drop: whether the rate drops to a tenth after .8·L steps, which the released code means to do and does not.

    Raises:
      UsageError: for less than one start or step, a rate that is no number above 0, or a predictor of images that are
        not the generator's.
    """

    stochastic = True

    def __init__(
        self,
        predictor,
        generator: GANGenerator,
        *,
        restarts: int = RESTARTS,
        steps: int = STEPS,
        rate: float = RATE,
        rate_drop: bool = False,
    ):
        for name, value in (("restarts", restarts), ("steps", steps)):
            if value < 1:
                raise UsageError(None, None, f"{name} must be at least 1. Received: {name}={value}")
        if not 0 < rate < math.inf:
            raise UsageError(None, None, f"rate must be a number above 0. Received: rate={rate}")
        self.predictor, self.generator = as_predictor(predictor), generator
        if self.predictor.image_shape not in (None, IMAGE_SHAPE):
            taken = list(self.predictor.image_shape)
            raise UsageError(None, None, f"the GAN makes images {list(IMAGE_SHAPE)}, and the classifier takes {taken}")
        self.restarts, self.steps, self.rate, self.rate_drop = restarts, steps, rate, rate_drop
        self.num_classes, self.image_shape = self.predictor.num_classes, IMAGE_SHAPE
        self.batch_dependent = self.predictor.batch_dependent
        self._search = tf.function(self._search, autograph=False, reduce_retracing=True)  # thousands of passes

    def __call__(self, images, draw=0):
        made = self.reconstruct(images, draw)
        outputs = self.predictor(made.images, draw)
        return PurifiedOutputs(getattr(outputs, "features", None), outputs.logits, made.errors)

    def reconstruct(self, images: tf.Tensor, draw=0) -> Reconstruction:
        """What `images` [B, 32, 32, 3], pixels in [0, 255], are replaced by, and how far that is from them.

        Each image's starts depend on its number in `draw` alone: see `Predictor.__call__`.
        """
        return self._search(tf.convert_to_tensor(images), tf.convert_to_tensor(draw))

    def _search(self, images, draw):
        size = self.generator.latent_dim
        shape = [tf.shape(images)[0], self.restarts * size]
        starts = randomness.noise(draw, shape, self.generator.variable_dtype) / size**0.5
        made = reconstruct(
            self.generator,
            tf.cast(images, self.generator.variable_dtype),
            tf.reshape(starts, [-1, self.restarts, size]),
            steps=self.steps,
            rate=self.rate,
            rate_drop=self.rate_drop,
        )
        return made._replace(images=tf.cast(made.images, images.dtype))

    def differentiable(self):
        return _StandIn(self)

    def notes(self, images):
        if self.steps == 1:
            return ()
        begun = Purified(self.predictor, self.generator, restarts=self.restarts, steps=1)
        first, last = (float(np.mean(each.reconstruct(images).errors)) for each in (begun, self))
        if last <= first:
            return ()
        return (
            f"the purifier's search ends farther from the images (mean squared error {last:.3g}) than it begins "
            f"({first:.3g}), so accuracies mean nothing: its rate of {self.rate:g} is too large",
        )

    def variables(self):
        return self.predictor.variables() | flat_variables("purifier", self.generator)

    def purification(self):
        return self.generator.origin | self._settings()

    def _settings(self):
        return {name: getattr(self, name) for name in SEARCH}

    def settings(self):
        return self.predictor.settings() | {f"purify_{name}": value for name, value in self._settings().items()}

    def fingerprint(self, image_shape=None):
        inner = self.predictor.fingerprint(image_shape or self.image_shape)  # which may tell no variables
        return hashlib.sha256((inner + super().fingerprint(image_shape)).encode()).hexdigest()


class _StandIn(Predictor):
    """A `Purified` with another gradient: that of what classifies, at the purified image, taken for the image's."""

    stochastic = True

    def __init__(self, purified: Purified):
        self.purified = purified
        self.num_classes, self.image_shape = purified.num_classes, purified.image_shape
        self.batch_dependent = purified.batch_dependent

    def __call__(self, images, draw=0) -> Outputs:
        made = self.purified.reconstruct(images, draw).images
        return self.purified.predictor.differentiable()(_in_place_of(images, made), draw)


@tf.custom_gradient
def _in_place_of(images, made):
    return tf.identity(made), lambda gradient: (gradient, None)
