"""Trains a classifier: natural training or PGD adversarial training.

  python -m madry_cifar.train --defense=at --dataset=cifar10 --data_dir=DATA --train_dir=runs/at

The same command again goes on after the latest checkpoint in --train_dir. Ctrl-C saves and ends.
Watch it with: tensorboard --logdir runs
"""

import contextlib
import shlex
from typing import Any

import tensorflow as tf

from madry_cifar import attacks, data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.networks.architectures import name_of
from madry_cifar.networks.layers import synchronize
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training import registry, strategies
from madry_cifar.training.construction import build, start_from
from madry_cifar.training.options import Options
from madry_cifar.training.settings import SECTIONS, Identity, TrainSettings
from madry_cifar.training.trainer import Trainer


def define_flags(default_defense: str | None, **changes: Any) -> None:
    """The flags of a training command, with those of every registered defence; `changes` as in `flags.define`."""
    chosen = {"default": default_defense, "help": f"how to train: {', '.join(registry.REGISTRY)}"}
    flags.define("Run", Identity, defense=chosen)
    for section, settings in SECTIONS.items():
        flags.define(section, settings, **changes)
    flags.define_option_flags(registry.REGISTRY)


def main(evaluate: str = "madry_cifar.eval", shorter: str = "") -> None:
    """Trains as the flags say, and ends with the command that comes next: of the module `evaluate`.

    Who gives no flag but --train_dir is told what is `shorter` than the defaults.
    """
    settings = flags.read(TrainSettings)
    if settings.defense not in registry.REGISTRY:  # whose options are not among the flags, though it may be installed
        raise unknown("defense", settings.defense, registry.REGISTRY)
    strategy = strategies.make(settings.strategy)
    options = flags.given_options(registry.find(settings.defense))
    jit_compile, evaluation_attacks = check(settings, options)
    profile_steps = _profile_steps(settings.profile_steps)
    names = ("data_dir", "download", "validation_size", "max_train_images", "crop_padding", "crop_fill")
    dataset = data.load(settings.dataset, **settings.pick(*names))
    batches = data.Batches(len(dataset.train), options.batch_size, settings.seed)  # refuses one larger than the data
    options = options.in_steps(batches.steps_per_epoch)
    run_flags = flags_of(settings, options, dataset.num_classes)
    with strategy.scope():
        subject = build(run_flags)
    for attack in evaluation_attacks:
        if reason := attack.refusal(subject.predictor()):
            raise UsageError("eval_attacks", attack.name, reason)
    if not checkpoints.saved_steps(settings.train_dir):
        start_from(subject, settings.starts_from)
    if settings.sync_bn:
        for network in subject.networks.values():
            synchronize(network)
    chief = strategies.is_chief(strategy)
    with run_folder.trained_alone(settings.train_dir) if chief else contextlib.nullcontext():
        if chief:
            run_folder.check(settings.train_dir, run_flags, dataset.provenance)
        trainer = Trainer(
            subject,
            dataset,
            settings.train_dir,
            settings,
            evaluator=Evaluator(subject.predictor(), evaluation_attacks, max_images=settings.eval_images),
            jit_compile=jit_compile,
            steps_per_call=settings.steps_per_call,
            strategy=strategy,
            profile_steps=profile_steps,
        )
        if chief:
            done = trainer.step if trainer.step >= options.steps else None
            run_folder.create(settings.train_dir, run_flags, dataset.provenance, done=done)  # now that it can go on
            _announce(trainer, dataset, run_flags)
            given = flags.given(TrainSettings) | flags.given(type(trainer.method.options))
            if shorter and not trainer.step and given.keys() == {"train_dir"}:
                print(f"no other flags were given, so these are {shorter}", flush=True)
        trainer.train()
    if chief:
        print(f"next: python -m {evaluate} --train_dir={shlex.quote(str(trainer.train_dir))} --attacks=natural,pgd-20")


def _announce(trainer, dataset, run_flags):
    options, devices = trainer.method.options, _devices(trainer.strategy.num_replicas_in_sync)
    print(
        f"{trainer.method.name} on {dataset.provenance}: {len(dataset.train)} training images, {name_of(run_flags)}, "
        f"{options.steps} steps of {options.batch_size} on {devices}, into {trainer.train_dir}",
        flush=True,
    )
    if trainer.step:
        print(
            f"going on after step {trainer.step}"
            if trainer.step < options.steps
            else f"already trained for {trainer.step} steps"
        )
    else:
        trainer.summaries.settings(run_flags, _names(run_flags["eval_attacks"]))


def check(settings: TrainSettings, options: Options) -> tuple[bool, list[attacks.Attack]]:
    """Whether to use XLA, and the attacks of the periodic evaluation. Raises UsageError for what it cannot use."""
    epsilon = getattr(options, "epsilon", 8.0)  # that the defence trains with, if it has one
    return _jit_compile(settings.jit_compile, settings.strategy), periodic_attacks(settings.eval_attacks, epsilon)


def flags_of(settings: TrainSettings, options: Options, num_classes: int) -> dict[str, Any]:
    """All settings of a run: what `flags.json` holds."""
    result = settings.as_dict() | {"num_classes": num_classes} | options.as_dict()
    del result["train_dir"]
    return result


def gpus() -> int:
    """How many GPUs TensorFlow sees."""
    return len(tf.config.list_physical_devices("GPU"))


def _devices(replicas):
    if replicas > 1:
        return f"{replicas} replicas"
    return {0: "the CPU", 1: "the GPU"}.get(gpus(), f"the first of {gpus()} GPUs")


def _jit_compile(value, strategy):
    alone = strategy == "none"
    choices = {"true": True, "false": False, "auto": gpus() > 0 and alone}
    if value.lower() not in choices:
        raise UsageError("jit_compile", value, "must be auto, true or false")
    if choices[value.lower()] and not alone:
        raise UsageError("jit_compile", value, f"for one device alone; leave it out with --strategy={strategy}")
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


def _names(attacks):
    return [name.strip() for name in attacks.split(",") if name.strip()]


def periodic_attacks(names: str, epsilon: float) -> list[attacks.Attack]:
    """The attacks of a periodic evaluation, by their names with commas between. Raises UsageError for what is none."""
    try:
        chosen = [attacks.attack(name, epsilon=epsilon) for name in _names(names)]
    except UsageError as error:
        raise error.renamed(attacks="eval_attacks") from None
    for attack in chosen:
        if attack.stages:
            raise UsageError("eval_attacks", attack.name, "is several attacks in turn; leave it to rvs_tf.evaluate")
    return chosen


def command() -> None:
    """Entry point."""
    define_flags("at")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
