"""What a method of training is, and a defence: networks, optimizers and a step.

A new defence is a subclass of `Defense` with a `name`, its `Options` and a `train_step`; decorated with `register`
(`registry.py`) it is a value of `--defense`, its options are flags, and the one training loop (`trainer.py`) runs it.
"""

import abc
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from madry_cifar import attacks, replicas
from madry_cifar.networks.layers import kernels
from madry_cifar.predictor import NetworkPredictor, Predictor
from madry_cifar.randomness import Draws, draw_seed
from madry_cifar.training.optimizers import Momentum, Optimizer, clip_by_global_norm
from madry_cifar.training.options import Options, TrainingOptions

WEIGHT_DECAY = "The factor times the sum of weight²/2 over the weights that decay."


class Method(abc.ABC):
    """What the training loop repeats: a step that updates networks, and what is seen of it.

    Attributes:
      name: of the method.
      Options: the dataclass of its hyper-parameters.
      classifier: the network whose accuracy is watched: the one that a defence trains, or that an attack aims at. None
        where there is none, as in the training of a GAN.
      watched_batch_norm: the mode of its batch norm when it is watched; no mode that updates anything.
      networks: what is trained and saved, by name.
      optimizers: by any name; several may update one network. What they keep is saved too.
      losses: what each loss that `train_step` returns is, by name, for TensorBoard.
      options, seed: as given.
      dtype: of the images that it is given.
    """

    name: str
    Options: type[TrainingOptions]
    watched_batch_norm: str
    losses: Mapping[str, str] = {}

    def __init__(self, classifier: keras.Model | None, options: TrainingOptions | None = None, seed: int = 0):
        self.classifier, self.seed = classifier, seed
        self.dtype = getattr(classifier, "variable_dtype", "float32")
        self.options = self.Options() if options is None else options
        self.networks: dict[str, keras.Model] = {}
        self.optimizers: dict[str, Optimizer] = {}

    @abc.abstractmethod
    def steps(self, steps_per_epoch: int) -> int:
        """The number of training steps in all."""

    def minimize(
        self, optimizer: str, loss: tf.Tensor, tape: tf.GradientTape, step, *, clip_norm: float | None = None
    ) -> None:
        """One update by the optimizer of that name along the gradient of `loss`; see `apply`.

        Where several replicas have a loss each, what is minimised is their mean.
        """
        self.apply(optimizer, tape.gradient(loss, self.optimizers[optimizer].variables), step, clip_norm=clip_norm)

    def apply(self, optimizer: str, gradients: Sequence[tf.Tensor], step, *, clip_norm: float | None = None) -> None:
        """One update by the optimizer of that name, of its variables and no others.

        Args:
          optimizer: one of `optimizers`.
          gradients: of its variables, in order; where several replicas have some each, their mean is taken.
          step: as `train_step` gets it; decides the learning rate.
          clip_norm: the largest l2 norm of all gradients together (of their mean); None is without.
        """
        gradients = replicas.mean(gradients)
        if clip_norm is not None:
            gradients = clip_by_global_norm(gradients, clip_norm)
        self.optimizers[optimizer].apply(gradients, step)

    @abc.abstractmethod
    def train_step(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Updates the networks, as part of a compiled function.

        Args:
          images: [B, 32, 32, 3] training images, augmented if the data set is, pixels in [0, 255].
          labels: [B] integer classes.
          step: scalar int64 counted from 0; decides learning rates and random draws.

        Returns:
          The losses by name; "total" is what the classifier minimised, or the attack on it.
        """

    def watched_logits(self, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Logits [B, K] of the classifier as it is watched in training; changes no state."""
        return self.classifier(images, batch_norm=self.watched_batch_norm).logits

    def histograms(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """What is shown of a batch as histograms in TensorBoard, by name: nothing, if a method does not say otherwise.

        Changes no state.
        """
        return {}

    def samples(self) -> tf.Tensor | None:
        """Images [N, H, W, C], pixels in [0, 255], that are shown in place of the batch; None: it is the batch.

        For a method without a classifier, which generates images: each time of the same draws.
        """
        return None

    @property
    def perturbation_bound(self) -> float | None:
        """The radius in grey levels of the L∞ ball that `adversarial_images` stay in; None where they stay in none."""
        return self.options.epsilon

    def adversarial_images(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor | None:
        """What `train_step` would make of `images`, for showing; changes no state. None: it leaves them as they are."""
        return None


class Defense(Method):
    """A way to train a classifier; its network "classifier" is the one that is evaluated.

    Example, of label smoothing as a defence; decorated with `madry_cifar.register` it is a value of --defense:
      >>> import madry_cifar, tensorflow as tf
      >>> class Smoothing(madry_cifar.Defense):
      ...     name = "smoothing"
      ...
      ...     def train_step(self, images, labels, step):
      ...         with tf.GradientTape() as tape:
      ...             logits = self.classifier(images, batch_norm="train").logits
      ...             targets = 0.9 * tf.one_hot(labels, 10) + 0.01
      ...             total = tf.reduce_mean(madry_cifar.attacks.cross_entropy(logits, targets))
      ...         self.minimize("classifier", total, tape, step)
      ...         return {"total": total}
      >>> defense = Smoothing(madry_cifar.WideResNet(depth=10, width=1))
      >>> losses = defense.train_step(tf.zeros([2, 32, 32, 3]), tf.constant([3, 7]), tf.constant(0, tf.int64))
      >>> list(losses)
      ['total']
    """

    Options: type[Options] = Options
    watched_batch_norm = "frozen"  # the batch's own statistics, as in training
    starts_from: tuple[str, ...] = ()  # the methods whose runs it may take its first weights from, if it needs any

    def __init__(self, classifier: keras.Model, options: Options | None = None, seed: int = 0):
        super().__init__(classifier, options, seed)
        self.networks["classifier"] = classifier
        self.optimizers["classifier"] = self.optimizer(classifier, self.options.schedule())

    def steps(self, steps_per_epoch):
        return self.options.steps

    def predictor(self) -> Predictor:
        """What is evaluated, attacked and exported of it."""
        return NetworkPredictor(self.classifier)

    def optimizer(self, network: keras.Model, schedule) -> Momentum:
        """Momentum on all trainable variables of a network."""
        return Momentum([v.value for v in network.trainable_variables], schedule, self.options.momentum)

    def start_draws(self, step) -> Draws:
        """The random start of the attack that a step trains on."""
        return Draws(draw_seed(self.seed, step, "attack start"))

    def weight_decay(self) -> tf.Tensor:
        """The classifier's weight decay term: the factor times the sum of weight²/2 (`l2_loss`) over its kernels.

        Or over all its weights, as `weight_decay_on` says.
        """
        everything = [variable.value for variable in self.classifier.trainable_variables]
        decayed = everything if self.options.weight_decay_on == "all" else kernels(self.classifier)
        return self.options.weight_decay * tf.add_n([tf.nn.l2_loss(weight) for weight in decayed])


LOSSES = {
    "total": "What the classifier minimises: cross-entropy and weight decay.",
    "cross_entropy": "Of the images and labels that the method makes of the batch.",
    "weight_decay": WEIGHT_DECAY,
}


class OnExamples(Defense):
    """A defence whose step is one on the cross-entropy of examples that it makes of the natural ones."""

    losses = LOSSES

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
