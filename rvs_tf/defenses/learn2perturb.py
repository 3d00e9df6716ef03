"""Learn2Perturb (Jeddi et al., CVPR 2020): noise of learned size in every block, in training and at test.

Released code: Ahmadreza-Jeddi/Learn2Perturb `train.py`, `models/`.
"""

import keras
import numpy as np
import tensorflow as tf

from madry_cifar import attacks, randomness, replicas
from madry_cifar.attacks.steps import climb, gradient_of
from madry_cifar.cli.settings import like
from madry_cifar.networks.layers import flat_variables
from madry_cifar.predictor import NetworkPredictor
from madry_cifar.randomness import draw_seed
from madry_cifar.training.method import Defense
from madry_cifar.training.optimizers import Momentum
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register

LEAST = 0.01  # σ is kept at least so large


class Learn2PerturbOptions(Options):
    """Defaults: the settings of the released script l2p.sh, which is not what its main.py has by default."""

    weight_decay: float = option(3e-4, "of the weights but σ, added to their gradients", minimum=0)
    weight_decay_on: str = like(Options, "weight_decay_on", default="all", choices=("all",))
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attack_steps: int = option(7, "steps of the PGD attack trained on", minimum=0)
    attack_step_size: float = option(2.55, "size of such a step, in grey levels (0.01 of 1)", minimum=0, kind="step")
    attack_labels: str = option(
        "predicted",
        "the classes that the attack leads away from: predicted ones (released code) or true ones",
        choices=("predicted", "true"),
    )
    training_epochs: int = option(
        350, "the epochs that --steps count as: the noise's schedule is stretched with them", minimum=1
    )
    noise_epoch: int = option(10, "of these, the one that noise begins with", minimum=0)
    attack_epoch: int = option(20, "of these, the one that adversarial training begins with", minimum=0)
    noise_weight: float = option(1e-4, "γ of the term by which σ grows", minimum=0)
    harmonic: str = option(
        "released",
        "γ is divided by 1 + … + 1/n, where n in epoch e is released: e - noise_epoch, and 1 where that is 0, by which "
        "the released code divides and stops; or shifted: e - noise_epoch + 1",
        choices=("released", "shifted"),
    )
    sigma_gradient: str = option(
        "released",
        "of σ⊙n in the blocks: released (n + σ, as in the numbers of the authors' code, where n seems to be a copy of "
        "σ that is overwritten) or exact (n, as of the first map's)",
        choices=("released", "exact"),
    )
    first_sigma: float = option(0.25, "σ of all noise at first", minimum=LEAST)
    shared_noise: bool = option(
        True, "in training, one draw for all images of a batch (released code); off: each image has its own"
    )


class Noise(keras.Model):
    """The standard deviations σ [H, W, C] of the noise in each feature map, and whether there is noise yet."""

    def __init__(self, shapes, sigma: float, *, name: str = "noise", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sigmas = [
            self.add_weight(name=f"sigma_{index}", shape=shape, initializer=keras.initializers.Constant(sigma))
            for index, shape in enumerate(shapes)
        ]
        self.on = self.add_weight(name="on", shape=(), initializer="zeros", trainable=False)
        self.built = True

    def scaled(self, draws):
        """σ·n for draws n ~ N(0, 1) of each map, [H, W, C] or one for each image; 0 while there is no noise yet."""
        return [self.on.value * sigma.value * draw for sigma, draw in zip(self.sigmas, draws, strict=True)]


class NoisyPredictor(NetworkPredictor):
    """A network with noise in its feature maps; each image has its own, which depends on `draw`."""

    stochastic = True

    def __init__(self, network, noise: Noise):
        super().__init__(network)
        self.noise = noise

    def __call__(self, images, draw=0):
        maps = self.network.map_shapes
        numbers = tf.broadcast_to(tf.cast(draw, tf.int64), [tf.shape(images)[0]]) * len(maps)
        draws = [
            randomness.noise(numbers + index, [tf.shape(images)[0], *shape], self.network.variable_dtype)
            for index, shape in enumerate(maps)
        ]
        return self.network(images, noise=self.noise.scaled(draws))

    def noiseless(self):
        return NetworkPredictor(self.network)

    def variables(self):
        return super().variables() | flat_variables("noise", self.noise)


LOSSES = {
    "total": "What the classifier minimises: natural, or once the attack has begun the mean of both.",
    "natural": "Cross-entropy of the natural images, with noise.",
    "adversarial": "Cross-entropy of the attacked images, with noise.",
}


@register
class Learn2Perturb(Defense):
    """f(x, σ⊙n) on natural images and those of PGD; σ is raised by its own term, and set by the cross-entropy."""

    name = "learn2perturb"
    Options = Learn2PerturbOptions
    losses = LOSSES

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        self.noise = Noise(classifier.map_shapes, self.options.first_sigma, dtype=classifier.variable_dtype)
        self.networks["noise"] = self.noise
        self.optimizers["noise"] = Momentum(
            [sigma.value for sigma in self.noise.sigmas], self.options.schedule(), self.options.momentum, nesterov=True
        )

    def optimizer(self, network, schedule):
        options, variables = self.options, [variable.value for variable in network.trainable_variables]
        return Momentum(variables, schedule, options.momentum, nesterov=True, weight_decay=options.weight_decay)

    def predictor(self):
        return NoisyPredictor(self.classifier, self.noise)

    def train_step(self, images, labels, step):
        options, sigmas = self.options, self.optimizers["noise"].variables
        epoch = step * options.training_epochs // max(options.steps, 1)
        noisy, attacked = epoch >= options.noise_epoch, epoch >= options.attack_epoch
        replicas.assign(self.noise.on.value, tf.cast(noisy, sigmas[0].dtype))

        weight = tf.cast(noisy, sigmas[0].dtype) * options.noise_weight / self._harmonic(epoch, sigmas[0].dtype)
        self.apply("noise", [-weight / (2 * tf.sqrt(sigma)) for sigma in sigmas], step)  # of −γ/H·Σ√σ

        with tf.GradientTape() as tape:
            natural = self.logits(images, step, 0, batch_norm="train")
            natural_loss = tf.reduce_mean(attacks.cross_entropy(natural, labels))
        aims = labels if options.attack_labels == "true" else tf.argmax(natural, axis=1, output_type=labels.dtype)
        adversarial = tf.cond(attacked, lambda: self.attack(images, aims, step), lambda: images)
        with tape:  # before the attack begins nothing of this pass counts
            updates = tf.cast(attacked, natural.dtype)
            logits = self.logits(adversarial, step, options.attack_steps + 1, batch_norm="train", updates=updates)
            adversarial_loss = tf.reduce_mean(attacks.cross_entropy(logits, labels))
            total = tf.where(attacked, (natural_loss + adversarial_loss) / 2, natural_loss)
        weights = self.optimizers["classifier"].variables
        of_weights, of_sigmas = tape.gradient(total, (weights, sigmas))
        self.apply("classifier", of_weights, step)
        self.apply("noise", of_sigmas, step)
        for sigma in sigmas:
            replicas.assign(sigma, tf.maximum(sigma, LEAST))
        return {"total": total, "natural": natural_loss, "adversarial": adversarial_loss}

    def _harmonic(self, epoch, dtype):
        """H = 1 + 1/2 + … + 1/n of the epoch: ψ(n + 1) + Euler's constant, so that XLA need not know n."""
        last = epoch - self.options.noise_epoch + (self.options.harmonic == "shifted")
        return tf.math.digamma(tf.cast(tf.maximum(last, 1) + 1, dtype)) + np.euler_gamma

    def logits(self, images, step, forward, batch_norm: str = "eval", updates=1):
        """Logits [B, K] with the noise of a step's pass of this number: 0 natural, then the attack's, then the last."""
        draws = [
            self.draw(step, forward, index, [tf.shape(images)[0], *shape])
            for index, shape in enumerate(self.classifier.map_shapes)
        ]
        if self.options.sigma_gradient == "released":  # in value the same
            first, *others = zip(draws, self.noise.sigmas, strict=True)
            draws = [first[0], *(draw + sigma.value - tf.stop_gradient(sigma.value) for draw, sigma in others)]
        noise = self.noise.scaled(draws)
        return self.classifier(images, batch_norm=batch_norm, updates=updates, noise=noise).logits

    def draw(self, step, forward, index: int, shape):
        """n ~ N(0, 1) for the map `index`: of `shape` [B, H, W, C], or without B where the batch shares it."""
        seed = draw_seed(self.seed, step, f"noise {index}")
        seed = tf.random.fold_in(seed, tf.cast(forward, tf.int64), alg=randomness.GENERATOR)
        if self.options.shared_noise:
            return randomness.normal(shape[1:], seed, self.classifier.variable_dtype)
        return replicas.draw(randomness.normal, tf.stack(shape), seed, self.classifier.variable_dtype)

    def attack(self, images, labels, step):
        """PGD with other noise in each of its steps; batch norm uses its running statistics."""
        options = self.options

        def loss(point, number):
            return attacks.cross_entropy(self.logits(point, step, number + 1), labels)

        start = attacks.random_start(images, options.epsilon, self.start_draws(step))
        return climb(gradient_of(loss), images, start, options.epsilon, options.attack_step_size, options.attack_steps)

    def watched_logits(self, images, step):
        return self.logits(images, step, 0, batch_norm=self.watched_batch_norm)

    def histograms(self, images, labels, step):
        return {f"sigma/{index}": sigma.value for index, sigma in enumerate(self.noise.sigmas)}

    def adversarial_images(self, images, labels, step):
        return self.attack(images, labels, step)
