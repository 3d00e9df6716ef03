"""What a training is told beside the options of its method: on what, which network, and what is written on the way."""

from madry_cifar.cli.settings import Checkpoint, Download, Seed, Settings, like, option
from madry_cifar.data.datasets import PADDING
from madry_cifar.networks.architectures import ARCHITECTURES, PRECISIONS, check_size
from madry_cifar.networks.scaling import SCALINGS


class DataSettings(Settings):
    """The data set, and what of it is trained on."""

    dataset: str = option("digits", "digits (embedded), cifar10, cifar100 or svhn_cropped")
    data_dir: str | None = like(
        Download,
        "data_dir",
        help="folder of prepared tensorflow-datasets data or of the original files [~/tensorflow_datasets]",
    )
    download: bool = like(Download, "download", help="prepare the data set in --data_dir if it is missing")
    validation_size: int = option(0, "training images to hold out", minimum=0)
    max_train_images: int = option(
        0, "train on the first so many images of the training split alone; 0 is all", minimum=0
    )
    crop_padding: int = option(
        PADDING,
        "pixels added to each side of an image before a crop: 2 in the released code, 4 in most others",
        minimum=0,
        maximum=32,
    )
    crop_fill: int = option(0, "grey level of these pixels", minimum=0, maximum=255)


class NetworkSettings(Settings):
    """The classifier. Raises UsageError for one that there is not."""

    depth: int = option(
        34, "6n + 4 layers: 28 in the paper's text, 34 in the released code; of other architectures 6n + 2 or 8n + 2"
    )
    width: int = option(10, "widening factor", minimum=1)
    architecture: str = option(
        "madry",
        "of wide ResNets madry (LeakyReLU, shortcuts without weights; released code) or standard (ReLU, shortcuts of "
        "1×1 convolutions; TRADES, FeatScatter, Adv-interp, L2L, ADT); of post-activation ResNets resnet_pad (L2L-DA), "
        "resnet_project (Direct), resnet_append or resnet18 (Learn2Perturb), which differ in their shortcuts",
        choices=ARCHITECTURES,
    )
    input_scaling: str = option(
        "standardize",
        "of pixels, inside the network: standardize (each image; released code), signed (to [-1, 1]), unit "
        "(to [0, 1]), or imagenet or cifar10 (by the mean and deviation of the channels there)",
        choices=SCALINGS,
    )
    batch_norm_epsilon: float = option(
        1e-3, "added to the variance: 1e-3 in the released code, 1e-5 in PyTorch", minimum=1e-10
    )
    precision: str = option(
        "float32",
        "of the convolutions: float32, or bfloat16 (weights, batch norm's statistics, features, losses and optimal "
        "transport stay float32)",
        choices=PRECISIONS,
    )

    def __post_init__(self):
        super().__post_init__()
        check_size(self.architecture, self.depth, self.width, 2)


class Identity(Settings):
    """Which run it is."""

    train_dir: str = like(Checkpoint, "train_dir", help="folder of the run; an interrupted training goes on there")
    defense: str = option("at", "how to train")
    seed: int = like(Seed, "seed", help="of the weights, the order of the data and every draw")


class Execution(Settings):
    """How the steps are run."""

    jit_compile: str = option("auto", "compile the step with XLA: true, false, or auto (on a single GPU)")
    steps_per_call: int = option(1, "steps at once, without a return to Python in between", minimum=1)
    strategy: str = option(
        "none",
        "devices that share each batch: none (one device), mirrored (all GPUs of this machine) or multiworker (those "
        "of all the processes in TF_CONFIG)",
    )
    sync_bn: bool = option(False, "batch norm over the images of all replicas, as on one device, not of each")
    profile_steps: str = option(
        "", "a,b: profile the steps from a to b for TensorBoard's Profile tab (pip install xprof)"
    )


class Schedule(Settings):
    """How often, in steps, a run does what; 0 is never. `keep`: checkpoints to keep, 0 for all."""

    checkpoint_every: int = option(1000, "steps between checkpoints", minimum=0)
    keep: int = option(3, "latest checkpoints to keep; 0 keeps all", minimum=0)
    log_every: int = option(100, "steps between points on TensorBoard's curves; 0 never", minimum=0)
    image_every: int = option(1000, "steps between images in TensorBoard; 0 never", minimum=0)
    eval_every: int = option(1000, "steps between evaluations into TensorBoard; 0 never", minimum=0)


class LoopSettings(Schedule, Execution):
    """How the steps are run, and what is written on the way."""

    eval_attacks: str = option("natural,pgd-7", "attacks of the periodic evaluation (see rvs_tf.evaluate)")
    starts_from: tuple[str, ...] = option(
        (), "folders of runs whose weights the networks of the same names start from, with commas", kind="path"
    )
    eval_images: int = option(500, "held-out (or else test) images for it; 0 for all", minimum=0)


class TrainSettings(NetworkSettings, DataSettings, LoopSettings, Identity):
    """All that a training command is told, but for the options of its method."""


SECTIONS = {"Data": DataSettings, "Network": NetworkSettings, "Run": LoopSettings}  # of --help
