"""What a training is, and a defence: networks, their optimizers and a step. Natural and PGD adversarial training.

A new defence is a subclass of `Defense` with a `name`, its `Options` and a `train_step`; decorated with `register` it
is a value of `--defense`, its options are flags, and the one training loop (`trainer.py`) runs it.
"""

import abc
import dataclasses
from collections.abc import Mapping

import keras
import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.cli.errors import unknown
from madry_cifar.cli.settings import option
from madry_cifar.networks.layers import kernels
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.randomness import draw_seed
from madry_cifar.training.optimizers import Momentum, Optimizer
from madry_cifar.training.options import Options, TrainingOptions

REGISTRY: dict[str, type["Defense"]] = {}


def register(defense: type["Defense"]) -> type["Defense"]:
    """Class decorator: makes a defence available under its name."""
    REGISTRY[defense.name] = defense
    return defense


def find(name: str) -> type["Defense"]:
    """The defence called `name`. Raises UsageError, naming the nearest, when there is none."""
    if name not in REGISTRY:
        raise unknown("defense", name, REGISTRY)
    return REGISTRY[name]


class Training(abc.ABC):
    """What the training loop repeats: a step that updates networks, and what is seen of it.

    Attributes:
      name: of the way to train.
      Options: the dataclass of its hyper-parameters.
      classifier: the network whose accuracy is watched: the one that a defence trains, or that an attack aims at.
      watched_batch_norm: the mode of its batch norm when it is watched; no mode that updates anything.
      networks: what is trained and saved, by name.
      optimizers: by the name of the network that they update.
      options, seed: as given.
    """

    name: str
    Options: type[TrainingOptions]
    watched_batch_norm: str

    def __init__(self, classifier: WideResNet, options: TrainingOptions | None = None, seed: int = 0):
        self.classifier, self.seed = classifier, seed
        self.options = self.Options() if options is None else options
        self.networks: dict[str, keras.Model] = {}
        self.optimizers: dict[str, Optimizer] = {}

    @abc.abstractmethod
    def steps(self, steps_per_epoch: int) -> int:
        """The number of training steps in all."""

    def minimize(self, name: str, loss: tf.Tensor, tape: tf.GradientTape, step) -> None:
        """One update of the network called `name`, and of no other, along the gradient of `loss`.

        Where several replicas have a loss each, what is minimised is their mean.
        """
        optimizer = self.optimizers[name]
        optimizer.apply(replicas.mean(tape.gradient(loss, optimizer.variables)), step)

    @abc.abstractmethod
    def train_step(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """One update of every network, as part of a compiled function.

        Args:
          images: [B, 32, 32, 3] training images, augmented if the data set is, pixels in [0, 255].
          labels: [B] integer classes.
          step: scalar int64 counted from 0; decides learning rates and random draws.

        Returns:
          The losses by name; "total" is what the classifier minimised, or the attack on it.
        """

    def adversarial_images(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor | None:
        """What `train_step` would make of `images`, for showing; changes no state. None: it leaves them as they are."""
        return None


class Defense(Training):
    """A way to train a classifier; its network "classifier" is the one that is evaluated."""

    Options: type[Options] = Options
    watched_batch_norm = "frozen"  # the batch's own statistics, as in training

    def __init__(self, classifier: WideResNet, options: Options | None = None, seed: int = 0):
        super().__init__(classifier, options, seed)
        self.networks["classifier"] = classifier
        self.optimizers["classifier"] = self.optimizer(classifier, self.options.schedule())

    def steps(self, steps_per_epoch):
        return self.options.steps

    def optimizer(self, network: keras.Model, schedule) -> Momentum:
        """Momentum on all trainable variables of a network."""
        return Momentum([v.value for v in network.trainable_variables], schedule, self.options.momentum)

    def weight_decay(self) -> tf.Tensor:
        """The classifier's weight decay term: the factor times the sum of weight²/2 (`l2_loss`) over its kernels.

        Or over all its weights, as `weight_decay_on` says.
        """
        everything = [variable.value for variable in self.classifier.trainable_variables]
        decayed = everything if self.options.weight_decay_on == "all" else kernels(self.classifier)
        return self.options.weight_decay * tf.add_n([tf.nn.l2_loss(weight) for weight in decayed])


class OnExamples(Defense):
    """A defence whose step is one on the cross-entropy of examples that it makes of the natural ones."""

    @abc.abstractmethod
    def examples(self, images, labels, step) -> tuple[tf.Tensor, tf.Tensor]:
        """The images [B, 32, 32, 3] to train on, and their labels: classes [B], or soft ones [B, K]."""

    def train_step(self, images, labels, step):
        images, labels = self.examples(images, labels, step)
        with tf.GradientTape() as tape:
            logits = self.classifier(images, batch_norm="train").logits
            cross_entropy = tf.reduce_mean(attacks.cross_entropy(logits, labels))
            weight_decay = self.weight_decay()
            total = cross_entropy + weight_decay
        self.minimize("classifier", total, tape, step)
        return {"total": total, "cross_entropy": cross_entropy, "weight_decay": weight_decay}

    def adversarial_images(self, images, labels, step):
        return self.examples(images, labels, step)[0]


@register
class Natural(OnExamples):
    """Training on the images as they are, with the recipe of the MadryLab code."""

    name = "natural"

    def examples(self, images, labels, step):
        return images, labels

    def adversarial_images(self, images, labels, step):
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialTrainingOptions(Options):
    """Madry et al., with the seven steps that the RvS paper names."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0)
    attack_steps: int = option(7, "steps of the PGD attack trained on", minimum=0)
    attack_step_size: float = option(2.0, "size of such a step, in grey levels", minimum=0)
    attack_batch_norm: str = option(
        "train",
        "batch norm while attacking: train (batch statistics, running ones updated at every step, as released), "
        "frozen (batch statistics, none updated) or eval (running ones)",
        choices=("train", "frozen", "eval"),
    )


@register
class AdversarialTraining(OnExamples):
    """PGD adversarial training (Madry et al.): the images of each step are those that maximise the cross-entropy."""

    name = "at"
    Options = AdversarialTrainingOptions

    def examples(self, images, labels, step):
        return self.attack(images, labels, step, self.options.attack_batch_norm), labels

    def adversarial_images(self, images, labels, step):
        mode = self.options.attack_batch_norm
        return self.attack(images, labels, step, "frozen" if mode == "train" else mode)

    def attack(self, images, labels, step, batch_norm: str):
        """The images that PGD makes of `images`, with the classifier's batch norm in that mode."""
        return attacks.pgd(
            self.classifier,
            images,
            labels,
            epsilon=self.options.epsilon,
            step_size=self.options.attack_step_size,
            steps=self.options.attack_steps,
            seed=draw_seed(self.seed, step, "attack start"),
            batch_norm=batch_norm,
        )
