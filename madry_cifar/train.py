"""Trains a classifier: natural training or PGD adversarial training.

  python -m madry_cifar.train --defense=at --dataset=cifar10 --data_dir=DATA --train_dir=runs/at

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import flags as absl_flags

from madry_cifar import attacks, data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.networks.layers import synchronize
from madry_cifar.networks.wide_resnet import LEAKINESS, SCALINGS, check_size, name_of, network_of
from madry_cifar.runs import run_folder
from madry_cifar.training import registry, strategies
from madry_cifar.training.options import Options
from madry_cifar.training.trainer import Schedule, Trainer

FLAGS = absl_flags.FLAGS


def define_flags(default_defense: str) -> None:
    """The flags of a training command, with those of every registered defence."""
    define = flags.define
    define("Run", "train_dir", None, "folder of the run; an interrupted run is continued (required)")
    define("Run", "defense", default_defense, f"how to train: {', '.join(registry.REGISTRY)}")
    define(
        "Run", "seed", 0, "of the weights, the order of the data and every draw", kind=int, minimum=0, maximum=2**31 - 1
    )
    define_settings()


def define_settings() -> None:
    """The flags of how to train, on what, and what is written on the way."""
    define = flags.define
    flags.define_data_flags()
    define(
        "Data",
        "crop_padding",
        data.PADDING,
        "pixels added to each side of an image before a crop: 2 in the released code, 4 in most others",
        kind=int,
        minimum=0,
        maximum=32,
    )
    define("Data", "crop_fill", 0, "grey level of these pixels", kind=int, minimum=0, maximum=255)
    define("Network", "depth", 34, "6n + 4 layers: 28 in the paper's text, 34 in the released code", kind=int)
    define("Network", "width", 10, "widening factor", kind=int, minimum=1)
    define(
        "Network",
        "architecture",
        "madry",
        "madry (LeakyReLU, shortcuts without weights; released code), or "
        "standard (ReLU, shortcuts of 1×1 convolutions; TRADES, FeatScatter, Adv-interp)",
    )
    define(
        "Network",
        "input_scaling",
        "standardize",
        "of pixels, inside the network: standardize (each image; "
        "released code), signed (to [-1, 1]) or unit (to [0, 1])",
    )
    define(
        "Network",
        "batch_norm_epsilon",
        1e-3,
        "added to the variance: 1e-3 in the released code, 1e-5 in PyTorch",
        kind=float,
        minimum=1e-10,
    )
    define(
        "Network",
        "precision",
        "float32",
        "of the convolutions: float32, or bfloat16 (weights, batch norm's "
        "statistics, features, losses and optimal transport stay float32)",
    )
    define("Run", "jit_compile", "auto", "compile the step with XLA: true, false, or auto (on a single GPU)")
    define("Run", "steps_per_call", 1, "steps at once, without a return to Python in between", kind=int, minimum=1)
    define(
        "Run",
        "strategy",
        "none",
        "devices that share each batch: none (one device), mirrored (all GPUs of this "
        "machine) or multiworker (those of all the processes in TF_CONFIG)",
    )
    define(
        "Run", "sync_bn", False, "batch norm over the images of all replicas, as on one device, not of each", kind=bool
    )
    define(
        "Run",
        "profile_steps",
        "",
        "a,b: profile the steps from a to b for TensorBoard's Profile tab (pip install xprof)",
    )
    for field in dataclasses.fields(Schedule):
        define("Run", field.name, field.default, SCHEDULE_HELP[field.name], kind=int, minimum=0)
    define("Run", "eval_attacks", "natural,pgd-7", "attacks of the periodic evaluation (see rvs_tf.evaluate)")
    define("Run", "eval_images", 500, "held-out (or else test) images for it; 0 for all", kind=int, minimum=0)
    flags.define_option_flags(registry.REGISTRY)


PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # and Keras's names of them

SCHEDULE_HELP = {
    "checkpoint_every": "steps between checkpoints",
    "keep": "latest checkpoints to keep; 0 keeps all",
    "log_every": "steps between points on TensorBoard's curves; 0 never",
    "image_every": "steps between images in TensorBoard; 0 never",
    "eval_every": "steps between evaluations into TensorBoard; 0 never",
}


def main() -> None:
    """Trains as the flags say."""
    if not FLAGS.train_dir:
        raise UsageError("train_dir", "", "say in which folder the run is to be kept")
    strategy = strategies.make(FLAGS.strategy)
    defense_class = registry.find(FLAGS.defense)
    options = flags.given_options(defense_class)
    jit_compile, evaluation_attacks = check_flags(options)
    profile_steps = _profile_steps(FLAGS.profile_steps)
    names = ["data_dir", "download", "validation_size", "max_train_images", "crop_padding", "crop_fill"]
    dataset = data.load(FLAGS.dataset, **flags.configuration(names))
    batches = data.Batches(len(dataset.train), options.batch_size, FLAGS.seed)  # refuses a batch larger than the data
    options = options.in_steps(batches.steps_per_epoch)
    settings = settings_of(options, dataset.num_classes)
    with strategy.scope():
        dtype = PRECISIONS[FLAGS.precision]
        classifier = network_of(settings, seed=FLAGS.seed, dtype=dtype)
        subject = defense_class(classifier, options, FLAGS.seed)
    if FLAGS.sync_bn:
        for network in subject.networks.values():
            synchronize(network)
    if chief := strategies.is_chief(strategy):
        run_folder.create(FLAGS.train_dir, settings, dataset.provenance)
    trainer = Trainer(
        subject,
        dataset,
        FLAGS.train_dir,
        Schedule(**flags.configuration([field.name for field in dataclasses.fields(Schedule)])),
        evaluator=Evaluator(classifier, evaluation_attacks, max_images=FLAGS.eval_images),
        jit_compile=jit_compile,
        steps_per_call=FLAGS.steps_per_call,
        strategy=strategy,
        profile_steps=profile_steps,
    )
    if chief:
        _announce(trainer, dataset, settings)
    trainer.train()


def _announce(trainer, dataset, settings):
    options, devices = trainer.method.options, _devices(trainer.strategy.num_replicas_in_sync)
    print(
        f"{FLAGS.defense} on {dataset.provenance}: {len(dataset.train)} training images, {name_of(settings)}, "
        f"{options.steps} steps of {options.batch_size} on {devices}, into {trainer.train_dir}"
    )
    if trainer.step:
        print(
            f"going on after step {trainer.step}"
            if trainer.step < options.steps
            else f"already trained for {trainer.step} steps"
        )
    else:
        trainer.summaries.settings(settings)


def check_flags(options: Options) -> tuple[bool, list[attacks.Attack]]:
    """Whether to use XLA, and the attacks of the periodic evaluation. Raises UsageError for a flag it cannot use."""
    check_network(flags.configuration(flags.section("Network")))
    return _jit_compile(FLAGS.jit_compile), _evaluation_attacks(options)


def check_network(settings: Mapping[str, Any]) -> None:
    """Raises UsageError for a setting of the network, by the name of its flag, that there is not."""
    check_size(settings["depth"], settings["width"], 2)
    for name, choices in (("precision", PRECISIONS), ("architecture", LEAKINESS), ("input_scaling", SCALINGS)):
        if settings[name] not in choices:
            raise unknown(name, settings[name], choices)


def settings_of(options: Options, num_classes: int) -> dict[str, Any]:
    """All settings of a run as the flags say: what `flags.json` holds."""
    names = [name for part in ("Run", "Data", "Network") for name in flags.section(part) if name != "train_dir"]
    return flags.configuration(names) | {"num_classes": num_classes} | options.as_dict()


def gpus() -> int:
    """How many GPUs TensorFlow sees."""
    return len(tf.config.list_physical_devices("GPU"))


def _devices(replicas):
    if replicas > 1:
        return f"{replicas} replicas"
    return {0: "the CPU", 1: "the GPU"}.get(gpus(), f"the first of {gpus()} GPUs")


def _jit_compile(value):
    alone = FLAGS.strategy == "none"
    choices = {"true": True, "false": False, "auto": gpus() > 0 and alone}
    if value.lower() not in choices:
        raise UsageError("jit_compile", value, "must be auto, true or false")
    if choices[value.lower()] and not alone:
        raise UsageError("jit_compile", value, f"for one device alone; leave it out with --strategy={FLAGS.strategy}")
    return choices[value.lower()]


def _profile_steps(value):
    """The first and last step to profile, or None."""
    if not value:
        return None
    try:
        first, last = map(int, value.split(","))
        if not 1 <= first <= last:
            raise ValueError
    except ValueError:
        raise UsageError("profile_steps", value, "must be two steps, the first not after the last: 20,24") from None
    return first, last


def _evaluation_attacks(options):
    """The attacks of the periodic evaluation, at the ε that the defence trains with, if it has one."""
    names = [name for name in FLAGS.eval_attacks.split(",") if name]
    try:
        return [attacks.attack(name, epsilon=getattr(options, "epsilon", 8.0)) for name in names]
    except UsageError as error:
        raise error.renamed(attacks="eval_attacks") from None


def command() -> None:
    """Entry point."""
    define_flags("at")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
