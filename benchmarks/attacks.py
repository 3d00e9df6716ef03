"""Times PGD on one network, beside Foolbox, the Adversarial Robustness Toolbox (ART) and PyTorch doing the same.

  python -m benchmarks.attacks                                                      # WRN-10-1, digits
  python -m benchmarks.attacks --depth=34 --width=10 --images=4 --batch_size=4 --train_steps=0 --repeats=2
  python -m benchmarks.attacks --train_dir=runs/at --images=200 --batch_size=100

The same weights, images, batches, ε, step size, number of steps and a random start, in turns in one process. The peers
are given the network twice: as it is, which is how their documentation has it, and compiled (`tf.function`). ART's
times have two forward passes in them that its attack adds, to tell how often it succeeded. `PyTorch` is torchattacks'
PGD on the network written out in PyTorch with our weights, channels last, with as many threads as TensorFlow has.
`passes alone` is no attack: it passes the images forward through our network, and a gradient back, once for each step,
in a compiled loop; `percent of passes` is how much of an attack's time that is. One round is not timed: it compiles.
Times are of the attack alone, from arrays to arrays. Three columns tell whether the attacks are equally strong: robust
accuracy, mean cross-entropy and the largest change of a pixel. With --json, one JSON object on the last line.
"""

import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks import in_torch, machine, report
from benchmarks.batches import Attacker, by_batch
from benchmarks.iteration import Network
from benchmarks.report import Benchmark
from madry_cifar import attacks, data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Checkpoint, Download, Settings, like, option
from madry_cifar.data.datasets import Split
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.runs import run_folder
from madry_cifar.training.construction import build, load_classifier
from madry_cifar.training.settings import Schedule
from madry_cifar.training.trainer import Trainer

PEERS = {  # in TensorFlow: what is imported, and the distribution that has it
    "Foolbox": ("foolbox", "foolbox"),
    "ART": ("art.attacks.evasion", "adversarial-robustness-toolbox"),
}
PASSES = "passes alone"
RANDOM = "random weights: the accuracies and cross-entropies below say nothing of how strong the attacks are"


def ours(network, sizes: dict, batch_size: int) -> Attacker:
    """Our PGD."""
    return by_batch(lambda images, labels: attacks.pgd(network, images, labels, **sizes), batch_size)


def foolbox(network, sizes: dict, batch_size: int) -> Attacker:
    """Foolbox's, without the predictions that a call of the attack adds before and after it."""
    import foolbox

    model = foolbox.TensorFlowModel(network, bounds=attacks.PIXEL_RANGE)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=sizes["step_size"], steps=sizes["steps"], random_start=True)

    def perturb(images, labels):
        criterion = foolbox.criteria.Misclassification(tf.constant(labels, tf.int64))
        return attack.run(model, tf.constant(images), criterion, epsilon=sizes["epsilon"])

    return by_batch(perturb, batch_size)


def art(network, sizes: dict, batch_size: int) -> Attacker:
    """ART's for TensorFlow 2, which makes the batches itself."""
    from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=network,
        nb_classes=network(tf.zeros([1, 32, 32, 3])).shape[1],
        input_shape=(32, 32, 3),
        loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        clip_values=attacks.PIXEL_RANGE,
    )
    numbers = {"eps": sizes["epsilon"], "eps_step": sizes["step_size"], "max_iter": sizes["steps"]}
    return ProjectedGradientDescentTensorFlowV2(
        classifier, norm=np.inf, **numbers, num_random_init=1, batch_size=batch_size, verbose=False
    ).generate


def passes(network, steps: int, batch_size: int) -> Attacker:
    """No attack: `steps` forward passes, each with the gradient of the logits' sum, one after another in one graph."""

    @tf.function(autograph=False)
    def run(images, nothing):
        def step(point):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                total = tf.reduce_sum(network(point))
            return (point + nothing * tape.gradient(total, point),)  # so that no pass can be left out, or moved

        return tf.while_loop(
            lambda _: True, step, (tf.convert_to_tensor(images),), parallel_iterations=1, maximum_iterations=steps
        )[0]

    return by_batch(lambda images, labels: run(images, tf.constant(0.0)), batch_size)


def attackers(classifier: keras.Model, sizes: dict, batch_size: int) -> dict[str, Attacker | None]:
    """By name, each attack on a network, and its passes alone; None for a package that is not installed."""

    def logits(images, training=False):  # ART says which mode it wants; it is always that of evaluation
        return classifier(images).logits

    found = {"ours": ours(classifier, sizes, batch_size), PASSES: passes(logits, sizes["steps"], batch_size)}
    for name, make in (("Foolbox", foolbox), ("ART", art)):
        if not machine.is_installed(PEERS[name][0]):
            found[f"{name}: not installed"] = None
            continue
        found[name] = make(logits, sizes, batch_size)
        found[f"{name}, network compiled"] = make(tf.function(logits, autograph=False), sizes, batch_size)
    if not isinstance(classifier, WideResNet):
        found["PyTorch: wide ResNets alone"] = None
    elif in_torch.is_installed():
        found["PyTorch"] = in_torch.pgd(classifier, sizes, batch_size)
    else:
        found["PyTorch: not installed"] = None
    return found


def measure(classifier: keras.Model, split: Split, sizes: dict, batch_size: int, repeats: int) -> list[dict]:
    """A row for each attack on all images of `split`, a whole number of batches.

    `sizes` are epsilon, step_size (both in grey levels) and steps.
    """
    images, labels = split.images.astype(np.float32), split.labels
    contenders = attackers(classifier, sizes, batch_size)
    running = {name: attack for name, attack in contenders.items() if attack is not None}
    adversarial, seconds = {}, {name: [] for name in running}
    for _ in range(repeats + 1):
        for name, attack in running.items():
            started = time.perf_counter()
            adversarial[name] = attack(images, labels)
            seconds[name].append(time.perf_counter() - started)
    rows = []
    for name in contenders:
        if name not in running:
            rows.append(dict.fromkeys(rows[0]) | {"attack": name})
            continue
        strength = _strength(classifier, images, labels, adversarial[name], batch_size)
        rows.append(
            {
                "attack": name,
                "images_per_second": len(images) / statistics.median(seconds[name][1:]),
                "times_ours": _ratio(seconds[name], seconds["ours"]),
                "percent_of_passes": 100 * _ratio(seconds[PASSES], seconds[name]),
                **(dict.fromkeys(strength) if name == PASSES else strength),
            }
        )
    return rows


def _ratio(one, other):
    """The median over the rounds but the first."""
    return statistics.median(mine / theirs for mine, theirs in zip(one[1:], other[1:], strict=True))


def _strength(classifier, images, labels, adversarial, batch_size):
    starts = range(0, len(images), batch_size)
    logits = np.concatenate([classifier(adversarial[start : start + batch_size]).logits for start in starts])
    return {
        "robust_accuracy": 100 * float(np.mean(np.argmax(logits, axis=1) == labels)),
        "cross_entropy": float(np.mean(attacks.cross_entropy(logits, labels))),
        "linf": float(np.abs(adversarial - images).max()),
    }


class SubjectSettings(Settings):
    """A network that is attacked, of a run or trained for the benchmark, and how."""

    train_dir: str | None = like(
        Checkpoint,
        "train_dir",
        help="run whose latest network and test images are used, instead of the next three",
        required=False,
    )
    depth: int = like(Network, "depth")
    width: int = like(Network, "width", default=1)
    train_steps: int = option(60, "of natural training on digits; with 0, accuracies say nothing", minimum=0)
    data_dir: str | None = like(
        Download, "data_dir", help="where the data set of --train_dir is now [as the run was trained]"
    )
    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0)
    batch_size: int = option(250, "images attacked at once", minimum=1)
    json: bool = like(Benchmark, "json")


def subject(settings: SubjectSettings) -> tuple[keras.Model, data.Dataset]:
    """The network to attack and its data: of --train_dir, or trained for --train_steps on digits."""
    if settings.train_dir:
        run_flags = run_folder.read_flags(settings.train_dir)
        data_dir = settings.data_dir or run_flags.get("data_dir")
        dataset = data.load(run_flags["dataset"], data_dir=data_dir, train=False)
        return load_classifier(settings.train_dir), dataset
    steps, dataset = settings.train_steps, data.load("digits")
    rates = {"learning_rates": (0.1, 0.01), "learning_rate_boundaries": (3 * steps // 4,)} if steps > 1 else {}
    options = {"batch_size": 32, "steps": steps, **rates}
    natural = build({"defense": "natural", "num_classes": 10} | settings.pick("depth", "width") | options)
    never = Schedule(checkpoint_every=0, log_every=0, image_every=0, eval_every=0)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(natural, dataset, folder, never).train()
    return natural.classifier, dataset


def trained(classifier: keras.Model, settings: SubjectSettings) -> dict:
    """What the network of `subject` is, for a benchmark's settings."""
    folder = settings.train_dir and pathlib.Path(settings.train_dir).name  # the rest says nothing to others
    steps = f"run {folder}" if folder else f"{settings.train_steps} steps"
    return {"depth": classifier.depth, "width": classifier.width, "trained": steps}


class AttacksSettings(SubjectSettings):
    """PGD on some images."""

    step_size: float = option(2.0, "size of a step, in grey levels", minimum=0)
    steps: int = option(20, "of PGD", minimum=1)
    images: int = option(128, "attacked, a whole number of batches", minimum=1)
    batch_size: int = like(SubjectSettings, "batch_size", default=64)
    repeats: int = like(Benchmark, "repeats", help="rounds that are timed; their median is reported")

    def __post_init__(self):
        super().__post_init__()
        if self.images % self.batch_size:
            raise UsageError(
                "images",
                self.images,
                f"must be a multiple of --batch_size={self.batch_size}, so that nobody compiles a smaller batch",
            )


def main() -> None:
    """Measures as the flags say, and prints."""
    settings = flags.read(AttacksSettings)
    classifier, dataset = subject(settings)
    if settings.images > len(dataset.test):
        raise UsageError("images", settings.images, f"{dataset.name} has {len(dataset.test)} test images")
    sizes = settings.pick("epsilon", "step_size", "steps")
    split = dataset.test.take(slice(settings.images))
    rows = measure(classifier, split, sizes, settings.batch_size, settings.repeats)
    counts = settings.pick("images", "batch_size", "repeats")
    about = {
        "benchmark": "attacks",
        "machine": machine.describe(*(distribution for _, distribution in PEERS.values()), *in_torch.MODULES),
        "settings": trained(classifier, settings) | sizes | counts | {"dataset": dataset.name} | in_torch.threads(),
    }
    note = {} if settings.train_dir or settings.train_steps else {"note": RANDOM}
    report.show(about | note | {"attacks": rows}, settings.json)


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", AttacksSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
