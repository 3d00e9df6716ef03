"""An attack on a purified predictor in the latent space of its GAN, among the images that the GAN can make.

Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018: there are adversarial
images that the generator makes itself, and purifying leaves those as they are.
"""

import tensorflow as tf

from madry_cifar.attacks.losses import lead
from madry_cifar.attacks.registry import Attack, linf, register
from madry_cifar.attacks.restarts import LOOK
from madry_cifar.attacks.steps import Search, adam, ascend, gradient_of, project, where
from rvs_tf.defense_gan.gan import GREY
from rvs_tf.defense_gan.purified import Purified

RATE = 0.02  # of Adam
OUTSIDE = 0.1  # c: what a grey level outside the ball costs, in logits
CONFIDENCE = 1.0  # by how much another class is to lead: a search for z ends a little beside it


def run_latent(predictor, images, labels, draws, epsilon, steps, rate=RATE, weight=OUTSIDE, confidence=CONFIDENCE):
    """From the reconstruction z* of each image, minimises max(margin of G(z) + κ, 0) + c·max(‖G(z) − x‖∞ − ε, 0).

    The margin is the lead of the true class in the logits of what classifies, without the purifier. Steps are Adam's;
    what is returned is the image of least loss, moved into the ball of ε: [B, H, W, C].
    """
    purified = predictor.unwrapped()
    classify, epsilon = predictor.wrapping(purified.predictor).differentiable(), tf.cast(epsilon, images.dtype)

    def loss(latent, number):
        made = GREY * (purified.generator(latent) + 1)
        margin = tf.nn.relu(lead(classify(made, draws.query(number)).logits, labels) + confidence)
        outside = tf.nn.relu(tf.reduce_max(tf.abs(made - images), axis=[1, 2, 3]) - epsilon)
        return -(margin + weight * outside), made  # to be maximised

    def keep(kept, _, here):
        nearest, least = kept
        better = -here.loss < least
        return where(better, here.extra, nearest), tf.where(better, -here.loss, least)

    latent, rule = purified.reconstruct(images, draws.query(LOOK)).latent, adam(rate)
    nothing = images, tf.fill(tf.shape(labels), tf.constant(float("inf"), images.dtype))
    search = ascend(Search(latent, rule.begin(latent), nothing), gradient_of(loss), rule, steps=steps, keep=keep)
    return project(search.kept[0], images, epsilon)


def _refusal(predictor):
    if isinstance(predictor.unwrapped(), Purified):
        return None
    return (
        "searches the latent space of a purifier, and what is attacked has none; give --purify_with=GAN (without "
        "--surrogate_dir), or a rvs_tf.Purified"
    )


@register(r"latent-([1-9]\d*)", "latent-100")
def _named(match, sizes):
    settings = {"epsilon": sizes.epsilon, "steps": int(match[1])}
    constants = {"rate": RATE, "weight": OUTSIDE, "confidence": CONFIDENCE}
    protocol = linf(**settings, **constants, loss="margin and distance, in latent space", random_start=True)
    return Attack(match[0], run_latent, protocol, settings, refusal=_refusal)
