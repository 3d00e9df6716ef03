"""Purification as an evaluation is told of it: by which GAN, how."""

from typing import Any

from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Settings, like, option
from madry_cifar.evaluation.settings import Surrogate
from madry_cifar.evaluation.targets import EvaluatedModel, EvaluatedRun, check_same_data
from madry_cifar.runs import checkpoints, run_folder
from rvs_tf.defense_gan.gan import load_gan
from rvs_tf.defense_gan.purified import Purified


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
    purify_restarts: int = option(10, "random starts of the search for that image", minimum=1)
    purify_steps: int = option(
        200, "of each search; an image costs starts times steps passes of the generator, each time", minimum=1
    )
    purify_rate: float = option(10.0, "learning rate of the search", minimum=1e-6)
    purify_rate_drop: bool = option(False, "it drops to a tenth after 0.8 of the steps; the released code forgets it")

    def __post_init__(self):
        super().__post_init__()
        for name, field in Purification.__dataclass_fields__.items():
            if not self.purify_with and name != "purify_with" and getattr(self, name) != field.default:
                raise UsageError(name, getattr(self, name), "needs --purify_with")


def purify(settings: Purification, target: EvaluatedRun | EvaluatedModel) -> tuple[Purified, dict[str, Any]]:
    """What is evaluated of a target behind the purifier, and what results are to tell of this.

    Raises:
      UsageError: for a folder that holds no GAN or no such checkpoint, one of other data than the target's, or of
        other images than it takes.
      RunError: when it is damaged.
    """
    folder = settings.purify_with
    try:
        gan = run_folder.read(folder)
        if settings.purify_checkpoint == checkpoints.BEST:
            raise UsageError("checkpoint", checkpoints.BEST, "a GAN has no accuracy to choose by; name a step")
        step, _ = checkpoints.find(folder, settings.purify_checkpoint)
        generator = load_gan(folder, step)
    except UsageError as error:
        raise error.renamed(train_dir="purify_with", checkpoint="purify_checkpoint") from None
    check_same_data("purify_with", folder, gan["flags"]["dataset"], gan.get("provenance"), target)
    search = {name: getattr(settings, f"purify_{name}") for name in ("restarts", "steps", "rate", "rate_drop")}
    try:
        purified = Purified(target.predictor, generator, **search)
    except UsageError as error:
        raise UsageError("purify_with", folder, error.reason) from None
    return purified, {"gan": str(folder), "checkpoint": step, **purified.purification()}
