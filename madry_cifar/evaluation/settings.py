"""What an evaluation is told: which network, attacked how, on which images."""

from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like, option
from madry_cifar.predictor import OUTPUTS


class Target(Checkpoint):
    """What is attacked: a run, or a model from elsewhere."""

    train_dir: str | None = like(Checkpoint, "train_dir", required=False)
    model: str | None = option(
        None,
        "in place of a run a model from elsewhere: FILE.keras, a SavedModel's folder or package.module:function",
        kind="path",
    )
    pixel_range: tuple[float, ...] = option((0.0, 255.0), "of --model: what it takes for a pixel of 0 and one of 255")
    mean: tuple[float, ...] = option((), "of --model: subtracted from pixels in that range; one, or one a channel")
    std: tuple[float, ...] = option((), "of --model: what they are divided by then")
    outputs: str = option("logits", "of --model: logits or probabilities", choices=OUTPUTS)
    dataset: str | None = option(None, "for --model: digits, or an image-classification set of tensorflow-datasets")
    data: str | None = option(
        None, "for --model: images.npz with images and labels, or FOLDER with CLASS/*.png", kind="path"
    )
    image_size: tuple[int, ...] = option((), "for --model: height and width to resize images to [as the model tells]")
    results_dir: str | None = option(
        None, "folder for results [results/ of the run; MODEL.results of a model]", kind="path"
    )

    def __post_init__(self):
        super().__post_init__()
        if bool(self.train_dir) == bool(self.model):
            raise UsageError("train_dir", self.train_dir or "", "name a run, or in its place a model by --model")
        others = {name: getattr(self, name) for name in OF_MODEL}
        given = [name for name, value in others.items() if value != Target.__dataclass_fields__[name].default]
        if self.train_dir and given:
            raise UsageError(given[0], others[given[0]], "is for --model; a run knows it")
        if self.model and self.checkpoint:
            raise UsageError("checkpoint", self.checkpoint, "is for --train_dir; --model names one file")
        if self.model and bool(self.dataset) == bool(self.data):
            raise UsageError("data", self.data or "", "--model needs images: either --dataset=NAME or --data=FILE")


SCALING = ("pixel_range", "mean", "std", "outputs")  # settings of `Target`: what `predictor` is told
OF_MODEL = (*SCALING, "dataset", "data", "image_size")


class Attacks(Settings):
    """How it is attacked."""

    attacks: tuple[str, ...] = option(
        ("natural", "fgsm", "pgd-7", "pgd-20", "cw-20"),
        "what to run: natural, fgsm, fgsm-rs (from a random start), pgd-N, cw-N, eot-pgd-N (random outputs), "
        "bpda-pgd-N (those without a gradient), latent-N (behind a purifier), apgd-ce, apgd-dlr, apgd-t, fab-t, "
        "square, multitargeted, cw-l2, autoattack (-plus, -rand); see docs/evaluation.md",
    )
    epsilon: tuple[float, ...] = option(
        (8.0,), "radius of the L∞ ball, in grey levels of 255; or several, with commas", kind="radius"
    )
    step_size: float = option(2.0, "size of a step of PGD and CW, in grey levels", kind="step")
    restarts: int = option(
        1,
        "random starts of pgd-N, cw-N, apgd-… and multitargeted where they do not say how many, as pgd-20x5 does; "
        "others have one",
        minimum=1,
    )


class Surrogate(Settings):
    """Another run's network, that the adversarial images are made on."""

    surrogate_dir: str | None = option(
        None, "run whose network the adversarial images are made on [--train_dir]", kind="path"
    )
    surrogate_checkpoint: str | None = option(
        None,
        "step or path of its checkpoint; of the attacked run itself, behind a purifier, --checkpoint's [the latest]",
        kind="path",
    )


class Images(Settings):
    """The images that are attacked, and how many at once."""

    split: str = option("test", "test or validation (with --validation_size, as the run was trained)")
    max_images: int = option(0, "of the split, from its beginning; 0 is all", minimum=0)
    seed: int = like(Seed, "seed", help="of the random starts")
    batch_size: int = option(200, "images attacked at once", minimum=1)


class EvaluationSettings(Images, Surrogate, Attacks):
    """An evaluation."""

    skip_misclassified: bool = option(
        False,
        "attack no image that is misclassified without an attack: it counts as misclassified, even where an attack "
        "would put it right, so an accuracy is equal or lower; what is attacked comes out as without this flag",
    )
    jit_compile: bool = option(False, "compile the network's passes with XLA (for a GPU: on a CPU it is slower)")
    data_dir: str | None = like(Download, "data_dir")
    download: bool = like(Download, "download")
