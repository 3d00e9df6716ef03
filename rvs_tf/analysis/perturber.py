"""Features of test images and of their perturbations, made as training makes them: for Figures 3 and 4."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.randomness import GENERATOR, draw_seed, normal, uniform
from rvs_tf.generator import Generator
from rvs_tf.perturbation import perturb

VARIANTS = ("noise", "no_noise")  # x_adv with uniform noise before the perturbation (released code), and without (text)

_IMAGES = tf.TensorSpec([None, 32, 32, 3], tf.float32)


class Perturber:
    """Perturbs images, each by its own latent vectors, and computes features; compiled once, whatever the weights.

    In training the generator's batch norm uses the statistics of the batch of latent vectors, one for each image. So
    it does here: images come in groups of `group_size`, the batch size of the training, and one draw for a group is
    one batch of as many latent vectors, also where a last group has fewer images. What an image is perturbed by
    depends on `seed`, its place and the number of the draw alone: not on the weights, on `batch_size`, or on how many
    images or draws there are.

    The classifier's batch norm is in evaluation mode.

    Args:
      classifier, generator: with their current weights.
      epsilon: radius of the ball, in grey levels.
      group_size: images per group.
      draws: perturbations of each image.
      seed: of latent vectors and noise.
      batch_size: perturbed images of each variant at once; rounded to whole draws for a group.
    """

    def __init__(
        self,
        classifier: WideResNet,
        generator: Generator,
        *,
        epsilon: float,
        group_size: int,
        draws: int = 100,
        seed: int = 0,
        batch_size: int = 256,
    ):
        self.classifier, self.generator = classifier, generator
        self.epsilon, self.group_size, self.draws, self.seed = epsilon, group_size, draws, seed
        self.draws_at_once = max(1, batch_size // group_size)
        self._features = tf.function(self._features, input_signature=[_IMAGES], autograph=False)
        numbers = (tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int64))
        self._synthesize = tf.function(self._synthesize, input_signature=[_IMAGES, *numbers], autograph=False)

    def groups(self, images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The groups of `images` [N, 32, 32, 3]: the number of each and its images, float32."""
        for number, start in enumerate(range(0, len(images), self.group_size)):
            yield number, images[start : start + self.group_size].astype(np.float32)

    def adversarial(self, images: np.ndarray, group: int) -> Iterator[tf.Tensor]:
        """x_adv of the `images` of a group, some draws at a time: [c, 2, n, 32, 32, 3], the second axis as VARIANTS."""
        for first in range(0, self.draws, self.draws_at_once):
            yield self._synthesize(images, group, np.arange(first, min(first + self.draws_at_once, self.draws)))

    def features(self, images) -> np.ndarray:
        """f(x) / ‖f(x)‖ for images of any leading axes [..., 32, 32, 3]: [..., d] float32."""
        features = self._features(tf.reshape(images, [-1, 32, 32, 3])).numpy()
        return features.reshape(*images.shape[:-3], features.shape[-1])

    def _features(self, images):
        return tf.math.l2_normalize(self.classifier(images).features, axis=1)

    def _synthesize(self, images, group, draws):
        def both_variants(draw):
            latent = normal([self.group_size, self.generator.latent_dim], self._seed(group, draw, "latent"))
            noise = uniform([self.group_size, *images.shape[1:]], self._seed(group, draw, "noise"), -1, 1)
            size = tf.shape(images)[0]  # of the last group, whose latent vectors are as many as in any other
            perturbation = self.generator(latent, batch_norm="frozen")[:size]
            with_noise = perturb(images, perturbation, self.epsilon, self.epsilon * noise[:size])
            return tf.stack([with_noise, perturb(images, perturbation, self.epsilon)])

        return tf.map_fn(both_variants, draws, fn_output_signature=tf.float32)

    def _seed(self, group, draw, purpose):
        return tf.random.fold_in(draw_seed(self.seed, group, f"analysis {purpose}"), draw, alg=GENERATOR)
