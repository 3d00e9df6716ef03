"""Purification as an evaluation is told of it: by which GAN, how."""

from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Settings, like, option
from madry_cifar.evaluation.results import warn
from madry_cifar.evaluation.settings import Surrogate
from madry_cifar.evaluation.targets import EvaluatedModel, EvaluatedRun, check_same_data
from madry_cifar.runs import checkpoints, run_folder
from rvs_tf.defense_gan.gan import load_gan
from rvs_tf.defense_gan.purified import RATE, RESTARTS, SEARCH, STEPS, Purified

AT_ONCE = 20  # images, unless it is told: each is as many as there are starts, and after each batch one can go on


class Purification(Settings):
    """Whether images are purified before they are classified, and how (Defense-GAN)."""

    purify_with: str | None = option(
        None,
        "folder of rvs_tf.train_gan: each image is replaced by the nearest that its generator is found to make, then "
        "classified (Defense-GAN); results are kept apart. For this there is the attack latent-N, too",
        kind="path",
    )
    purify_checkpoint: str | None = like(
        Surrogate, "surrogate_checkpoint", help="step or path of the GAN's checkpoint [the latest]"
    )
    purify_restarts: int | None = option(None, f"random starts of the search for that image [{RESTARTS}]", minimum=1)
    purify_steps: int | None = option(
        None,
        f"of each search; an image costs starts times steps passes of the generator, each time [{STEPS}]",
        minimum=1,
    )
    purify_rate: float | None = option(None, f"learning rate of the search [{RATE:g}]", minimum=1e-6)
    purify_rate_drop: bool | None = option(
        None, "whether it drops to a tenth after 0.8 of the steps, which the released code forgets [no]"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.purify_with == "":
            raise UsageError("purify_with", "", "names no folder; leave it out to evaluate without a purifier")
        for name in Purification.__dataclass_fields__:
            if not self.purify_with and name != "purify_with" and getattr(self, name) is not None:
                raise UsageError(name, getattr(self, name), "needs --purify_with")


def purify(settings: Purification, target: EvaluatedRun | EvaluatedModel, split: str = "test") -> Purified:
    """What is evaluated of a target behind the purifier, on images of a split.

    Raises:
      UsageError: for a folder that holds no GAN, one that was not trained or no such checkpoint, one of other data than
        the target's or that knows the split, or of other images than the target takes.
      RunError: when it is damaged.
    """
    folder = settings.purify_with
    try:
        gan, held_out = run_folder.read(folder), target.flags.get("validation_size")
        if settings.purify_checkpoint == checkpoints.BEST:
            raise UsageError("checkpoint", checkpoints.BEST, "a GAN has no accuracy to choose by; name a step")
        step, _ = checkpoints.find(folder, settings.purify_checkpoint)
        generator = load_gan(folder, step)
    except UsageError as error:
        raise error.renamed(train_dir="purify_with", checkpoint="purify_checkpoint") from None
    if step <= (first := gan["flags"]["critic_updates"]):
        reason = f"at step {step} its generator is as it was drawn, and is first trained at step {first + 1}"
        if settings.purify_checkpoint:
            raise UsageError("purify_checkpoint", settings.purify_checkpoint, f"{reason}; name a later one")
        raise UsageError("purify_with", folder, f"{reason}; train it further")
    steps = gan["flags"]["iterations"] * gan["flags"]["critic_updates"]
    if step < steps:
        warn(f"--purify_with={folder}: what is evaluated is step {step:,} of the {steps:,} of its training")
    check_same_data("purify_with", folder, gan["flags"]["dataset"], gan.get("provenance"), target)
    if split == "validation" and held_out and gan["flags"]["validation_size"] != held_out:
        reason = f"was trained on the images that --split=validation is of; train it with --validation_size={held_out}"
        raise UsageError("purify_with", folder, reason)
    search = {name: value for name in SEARCH if (value := getattr(settings, f"purify_{name}")) is not None}
    try:
        return Purified(target.predictor, generator, **search)
    except UsageError as error:
        raise UsageError("purify_with", folder, error.reason) from None
