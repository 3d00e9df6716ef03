"""Direct (Wang and Yu, ICLR 2019): a generator perturbs images for the classifier that is trained on both.

Released code: whxbergkamp/RobustDL_GAN `cifar10/adversarial_networks/train_gan_cifar10.py`.
"""

import contextlib

import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.attacks.steps import PIXEL_RANGE
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import like
from madry_cifar.networks.layers import kernels
from madry_cifar.predictor import NetworkPredictor
from madry_cifar.training.method import WEIGHT_DECAY, Defense
from madry_cifar.training.optimizers import Adam, PiecewiseConstant
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register
from rvs_tf.attackers import ResidualAttacker

ZERO = tf.UnconnectedGradients.ZERO
GREY = 127.5  # grey levels in 1 of the released code, whose pixels are in [-1, 1]


class DirectOptions(Options):
    """Defaults: as released for CIFAR-10, but for ε (released: 7.97) and the schedule, which is in the presets."""

    weight_decay: float = option(1e-5, "factor of the sum of weight²/2 in the loss of each network", minimum=0)
    weight_decay_on: str = like(Options, "weight_decay_on", choices=("kernels",))
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    generator_updates: int = option(5, "of the generator in a step", minimum=1)
    generator_learning_rate: float = option(2e-3, "of the generator's Adam, constant", minimum=0)
    generator_width: int = option(64, "channels of the generator's first layer", minimum=1)
    gradient_term: str = option(
        "released",
        "of the classifier's loss: released (a finite difference, which rewards large gradients of the generator), "
        "penalty (their squared norm, exactly, as the text means it) or none",
        choices=("released", "penalty", "none"),
    )
    gradient_weight: float = option(0.01, "γ of that term", minimum=0)
    finite_difference: float = option(0.01, "h, the generator's virtual step in the released term", minimum=1e-12)
    fresh_momentum: bool = option(
        True, "the classifier's momentum starts anew where its rate drops (released code: a second optimizer)"
    )
    clip_pixels: bool = option(False, "keep perturbed images in the range of pixels (released code: not)")
    test_batch_norm: str = option(
        "eval",
        "batch norm of the classifier where it is evaluated: eval (running statistics), or frozen (those of the batch "
        "that is classified, attacked images among them; released code)",
        choices=("eval", "frozen"),
    )


LOSSES = {
    "total": "What the classifier minimises but for the gradient term, which as released is no loss.",
    "natural": "Cross-entropy of the natural images.",
    "perturbed": "Cross-entropy of the images that the generator makes, after its updates.",
    "weight_decay": WEIGHT_DECAY,
    "generator": "What the generator minimised in its last update: its weight decay less the cross-entropy.",
}


@register
class Direct(Defense):
    """Generator G(x) and classifier f: G raises F = CE(f(x + ε·G(x)), y) several times, f lowers F + CE(f(x), y).

    And f pays for a term that is meant to keep the gradient of F in G's weights φ small: γ/2·‖∇_φF‖² (penalty), or
    in its place γ/h·(F(φ) − F(φ − h·v)) (released), v being the gradient that G descends.
    """

    name = "direct"
    Options = DirectOptions
    losses = LOSSES

    def __init__(self, classifier, options=None, seed=0):
        super().__init__(classifier, options, seed)
        options = self.options
        self.generator = ResidualAttacker(options.generator_width, seed=seed + 1, dtype=classifier.dtype_policy)
        self.networks["generator"] = self.generator
        self.optimizers["generator"] = Adam(
            [variable.value for variable in self.generator.trainable_variables],
            PiecewiseConstant([options.generator_learning_rate]),
            beta1=0.5,
        )

    def predictor(self):
        return NetworkPredictor(self.classifier, self.options.test_batch_norm)

    def train_step(self, images, labels, step):
        for _ in range(self.options.generator_updates):
            with self._watching("generator") as tape:
                perturbed = self._cross_entropy(self.perturb(images, "train"), labels, "frozen")
                generator_loss = self._generator_decay() - perturbed
            self.minimize("generator", generator_loss, tape, step)

        with self._watching("classifier") as tape:
            natural_loss = self._cross_entropy(images, labels, "train")
            weight_decay = self.weight_decay()
            clean = natural_loss + weight_decay
        of_clean = tape.gradient(clean, self.optimizers["classifier"].variables)
        perturbed, of_perturbed, of_term = self._perturbed_gradients(images, labels)
        parts = zip(of_clean, of_perturbed, of_term, strict=True)
        gradients = [natural + attacked + self.options.gradient_weight * term for natural, attacked, term in parts]
        if self.options.fresh_momentum:
            self._forget_at_a_drop(step)
        self.apply("classifier", gradients, step)
        return {
            "total": clean + perturbed,  # but for the gradient term, which as released is no loss
            "natural": natural_loss,
            "perturbed": perturbed,
            "weight_decay": weight_decay,
            "generator": generator_loss,
        }

    def _perturbed_gradients(self, images, labels):
        """F after the generator's updates; its gradient in the classifier's weights; that of the gradient term."""
        if self.options.gradient_term == "penalty" and replicas.count() > 1:
            raise UsageError("gradient_term", "penalty", "on one device alone: leave out --strategy")
        theta, phi = (self.optimizers[name].variables for name in ("classifier", "generator"))
        with self._watching("classifier") as outer:
            with self._watching("classifier", "generator") as tape:
                loss = self._cross_entropy(self.perturb(images, "train"), labels, "train")
            if self.options.gradient_term == "penalty":
                of_theta, of_phi = tape.gradient(loss, (theta, phi))
                penalty = tf.add_n([tf.nn.l2_loss(gradient) for gradient in of_phi])
        if self.options.gradient_term == "penalty":
            return loss, of_theta, outer.gradient(penalty, theta, unconnected_gradients=ZERO)
        of_theta, of_phi = tape.gradient(loss, (theta, phi))
        if self.options.gradient_term == "none":
            return loss, of_theta, [tf.zeros_like(gradient) for gradient in of_theta]
        of_virtual, h = self._virtual_gradient(images, labels, replicas.mean(of_phi)), self.options.finite_difference
        return loss, of_theta, [(here - there) / h for here, there in zip(of_theta, of_virtual, strict=True)]

    def _virtual_gradient(self, images, labels, of_phi):
        """∇_θF(φ − h·v), with v = ∇_φ(weight decay − F) and `of_phi` = ∇_φF."""
        phi, h = self.optimizers["generator"].variables, self.options.finite_difference
        with self._watching("generator") as tape:
            decay = self._generator_decay()
        of_decay = tape.gradient(decay, phi, unconnected_gradients=ZERO)
        before = [tf.identity(variable) for variable in phi]
        for variable, value, decayed, gradient in zip(phi, before, of_decay, of_phi, strict=True):
            replicas.assign(variable, value - h * (decayed - gradient))
        adversarial = self.perturb(images)
        for variable, value in zip(phi, before, strict=True):
            replicas.assign(variable, value)
        with self._watching("classifier") as tape:
            loss = self._cross_entropy(adversarial, labels, "frozen")
        return tape.gradient(loss, self.optimizers["classifier"].variables)

    @contextlib.contextmanager
    def _watching(self, *names):
        """A tape that watches what the optimizers of these names update, and nothing else."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for name in names:
                tape.watch(self.optimizers[name].variables)
            yield tape

    def perturb(self, images, batch_norm: str = "frozen"):
        """x + ε·G(x); `batch_norm` of the generator."""
        adversarial = images + self.options.epsilon * self.generator(images / GREY - 1, batch_norm=batch_norm)
        return tf.clip_by_value(adversarial, *PIXEL_RANGE) if self.options.clip_pixels else adversarial

    def _cross_entropy(self, images, labels, batch_norm):
        return tf.reduce_mean(attacks.cross_entropy(self.classifier(images, batch_norm=batch_norm).logits, labels))

    def _generator_decay(self):
        return self.options.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels(self.generator)])

    def _forget_at_a_drop(self, step):
        """Sets the classifier's momentum to zero in the first step with another rate."""
        optimizer = self.optimizers["classifier"]
        drops = [boundary + 1 for boundary in optimizer.schedule.boundaries]
        keep = tf.reduce_all([step != drop for drop in drops]) if drops else True
        for accumulated in optimizer.state["momentum"]:
            replicas.assign(accumulated, accumulated * tf.cast(keep, accumulated.dtype))

    def adversarial_images(self, images, labels, step):
        return self.perturb(images)
