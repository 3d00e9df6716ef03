"""What an evaluation is told: which network, attacked how, on which images."""

from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like, option


class Attacks(Settings):
    """The run whose network is attacked, and how."""

    train_dir: str = like(Checkpoint, "train_dir")
    attacks: tuple[str, ...] = option(
        ("natural", "fgsm", "pgd-7", "pgd-20", "cw-20"),
        "what to run: natural, fgsm, fgsm-rs (from a random start), pgd-N, cw-N, eot-pgd-N (random outputs), apgd-ce, "
        "apgd-dlr, apgd-t, fab-t, square, multitargeted, cw-l2, autoattack (-plus, -rand); see docs/evaluation.md",
    )
    epsilon: tuple[float, ...] = option(
        (8.0,), "radius of the L∞ ball, in grey levels of 255; or several, with commas", kind="radius"
    )
    step_size: float = option(2.0, "size of a step of PGD and CW, in grey levels", kind="step")
    restarts: int = option(
        1, "random starts of attacks that have one and do not say how many, as pgd-20x5 does", minimum=1
    )


class Surrogate(Settings):
    """Another run's network, that the adversarial images are made on."""

    surrogate_dir: str | None = option(
        None, "run whose network the adversarial images are made on [--train_dir]", kind="path"
    )
    surrogate_checkpoint: str | None = option(None, "step or path of its checkpoint [the latest]", kind="path")


class Images(Settings):
    """The images that are attacked, and how many at once."""

    split: str = option("test", "test or validation (with --validation_size, as the run was trained)")
    max_images: int = option(0, "of the split, from its beginning; 0 is all", minimum=0)
    seed: int = like(Seed, "seed", help="of the random starts")
    batch_size: int = option(200, "images attacked at once", minimum=1)


class EvaluationSettings(Images, Surrogate, Attacks):
    """An evaluation of any checkpoints of a run."""

    skip_misclassified: bool = option(
        False,
        "attack no image that is misclassified without an attack: it counts as misclassified, even where an attack "
        "would put it right, so an accuracy is equal or lower; what is attacked comes out as without this flag",
    )
    data_dir: str | None = like(Download, "data_dir")
    download: bool = like(Download, "download")
