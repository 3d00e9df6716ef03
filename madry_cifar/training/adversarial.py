"""Natural training, and PGD adversarial training (Madry et al.)."""

from madry_cifar import attacks
from madry_cifar.training.method import OnExamples
from madry_cifar.training.options import Options, option
from madry_cifar.training.registry import register


@register
class Natural(OnExamples):
    """Training on the images as they are, with the recipe of the MadryLab code."""

    name = "natural"

    def examples(self, images, labels, step):
        return images, labels

    def adversarial_images(self, images, labels, step):
        return None


class AdversarialTrainingOptions(Options):
    """Madry et al., with the seven steps that the RvS paper names."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0, kind="radius")
    attack_steps: int = option(7, "steps of the PGD attack trained on", minimum=0)
    attack_step_size: float = option(2.0, "size of such a step, in grey levels", minimum=0, kind="step")
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
        return attacks.sign_steps(
            lambda images: attacks.cross_entropy(self.classifier(images, batch_norm=batch_norm).logits, labels),
            images,
            attacks.random_start(images, self.options.epsilon, self.start_draws(step)),
            epsilon=self.options.epsilon,
            step_size=self.options.attack_step_size,
            steps=self.options.attack_steps,
        )
