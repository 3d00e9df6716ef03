"""What a generator can make that is nearest to an image: a search in latent space, from several starts."""

import math
from typing import NamedTuple

import tensorflow as tf

from madry_cifar.attacks.steps import Rule, Search, ascend, gradient_of
from rvs_tf.defense_gan.gan import GREY

MOMENTUM = 0.7
DROP, DROPPED = 0.8, 0.1  # the share of the steps after which the rate would drop, and to which share of itself


class Reconstruction(NamedTuple):
    """Of each image the nearest that was found.

    Attributes:
      images: [B, H, W, C] pixels in [0, 255].
      errors: [B] mean squared differences to the images, of pixels in [-1, 1]: large for what the generator cannot
        make, as an image of another kind.
      latent: [B, latent_dim]: `images` are what the generator makes of these.
      restart: [B] int32, the start that it was found from.
    """

    images: tf.Tensor
    errors: tf.Tensor
    latent: tf.Tensor
    restart: tf.Tensor


def reconstruct(
    generator, images: tf.Tensor, starts: tf.Tensor, *, steps: int = 200, rate: float = 10.0, rate_drop: bool = False
) -> Reconstruction:
    """Minimises the mean squared error of G(z) from each of some starts, by momentum; the best of them is taken.

    As released (kabkabm/defensegan `models/gan.py`, `reconstruct`), error and image are those from before the last
    update, which has no effect. The released rate is meant to drop, by a schedule whose counter nothing increments.

    Args:
      generator: G, of pixels in [-1, 1].
      images: [B, H, W, C] pixels in [0, 255].
      starts: [B, R, latent_dim].
      steps: L, so many forward passes of G for each start.
      rate: of the descent.
      rate_drop: whether the rate drops to a tenth after .8·L steps.
    """
    restarts, latent_dim = tf.shape(starts)[1], starts.shape[2]
    target = tf.repeat(images / GREY - 1, restarts, axis=0)
    first = tf.reshape(starts, [-1, latent_dim])

    def loss(latent, _):
        made = generator(latent)
        errors = tf.reduce_mean(tf.square(made - target), axis=[1, 2, 3])
        return -errors, (made, errors, latent)  # to be maximised

    def move(gradient, velocity, number):
        velocity = MOMENTUM * velocity + gradient
        dropped = rate_drop & (number >= math.ceil(DROP * steps))
        return rate * tf.where(dropped, DROPPED * velocity, velocity), velocity

    rule = Rule(tf.zeros_like, move)
    search = Search(first, rule.begin(first), (tf.zeros_like(target), tf.zeros_like(target[:, 0, 0, 0]), first))
    made, errors, latent = ascend(
        search, gradient_of(loss), rule, steps=steps, keep=lambda kept, point, here: here.extra
    ).kept
    restart = tf.argmin(tf.reshape(errors, [-1, restarts]), axis=1, output_type=tf.int32)
    rows = tf.range(tf.shape(images)[0]) * restarts + restart
    made, errors, latent = (tf.stop_gradient(tf.gather(each, rows)) for each in (made, errors, latent))
    return Reconstruction(GREY * (made + 1), errors, latent, restart)
