"""Writes a run's classifier, or its training, as files that run without this package.

  python -m rvs_tf.export --train_dir=runs/rvs --format=savedmodel --output=rvs.savedmodel
  python -m rvs_tf.export --train_dir=runs/rvs --format=keras --output=rvs.keras
  python -m rvs_tf.export --train_dir=runs/rvs --format=tflite --output=rvs.tflite
  python -m rvs_tf.export --train_dir=runs/rvs --format=stablehlo --batch_size=64 --output=rvs.stablehlo
  python -m rvs_tf.export --train_dir=runs/rvs --what=train_step --output=step.stablehlo
  python -m rvs_tf.export --train_dir=runs/rvs --what=training --output=rvs.training

A classifier takes images [B, 32, 32, 3] float32 of pixels in [0, 255] to logits [B, K]. One with random outputs
(Learn2Perturb) is written without its noise or, with --noise=draw, with a number of the draw as its second input. What
was written is loaded again and compared with the network on test images; if it differs, it is removed. All of it on the
CPU. A training is a folder, to be trained where JAX is and no TensorFlow (docs/deployment.md); a run of --steps=0 is
one of untrained networks.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from madry_cifar import attacks, data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Checkpoint, Download, like, option, required
from madry_cifar.evaluation.targets import EvaluatedRun
from madry_cifar.export.formats import FORMATS
from madry_cifar.export.train_step import TrainStep, batch
from madry_cifar.export.training import Training
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import checkpoints
from madry_cifar.runs.files import naming
from madry_cifar.runs.run_folder import SCHEMA_VERSION
from madry_cifar.train import periodic_attacks
from madry_cifar.training.construction import build
from madry_cifar.training.settings import Execution, LoopSettings

IMAGES = 64  # to compare on, at least
DRAW = 7  # of a stochastic predictor, to compare with
LOGITS_TOLERANCE = 1e-3  # of the largest logit
STEP_TOLERANCES = {  # of a loss, and of the change of a variable
    "float32": (1e-4, 1e-2),
    "bfloat16": (1e-2, 0.5),  # XLA may keep more digits in one compilation than in another; a wrong update has 1
}


class ExportSettings(Checkpoint):
    """What is written, and how. Raises UsageError for a training iteration in another form than StableHLO."""

    what: str = option(
        "classifier",
        "classifier; train_step, the compiled training iteration, with its inputs in .npz and their names in .json "
        "beside it; or training, a folder of all that training takes where TensorFlow is not",
        choices=("classifier", "train_step", "training"),
    )
    format: str | None = option(
        None, f"of a classifier: {', '.join(FORMATS)} [required]; a training is StableHLO", choices=FORMATS
    )
    output: str = required("file to write, for savedmodel and a training a folder; must not exist yet", kind="path")
    batch_size: int | None = option(
        None,
        "images that a stablehlo program takes [classifier: 1; train_step: as the run was trained]",
        minimum=1,
    )
    noise: str = option(
        "off",
        "of a classifier with random outputs: off, or draw: the number of the draw (int64) is a second input",
        choices=("off", "draw"),
    )
    check: bool = option(
        True, "load and run what was written; for a training or its step at full size that takes minutes and memory"
    )
    steps_per_call: int | None = like(
        Execution, "steps_per_call", default=None, help="of a training: steps in one call [as the run was trained]"
    )
    images: str = option(
        "pixels",
        "of a training: images as pixels; as the files that tensorflow-datasets stores, which Pillow decodes there (of "
        "JPEG a third of the size, and not quite TensorFlow's pixels); or none, if another folder's data.npz has them",
        choices=("pixels", "files", "none"),
    )
    eval_images: int = like(
        LoopSettings, "eval_images", default=2000, help="of a training: held-out (or else test) images to evaluate on"
    )
    eval_attacks: str = like(
        LoopSettings, "eval_attacks", default="natural,pgd-20,cw-20", help="of a training: what to evaluate under"
    )
    data_dir: str | None = like(Download, "data_dir")

    def __post_init__(self):
        if self.what == "classifier" and not self.format:
            raise UsageError("format", "", f"required: {', '.join(FORMATS)}")
        super().__post_init__()
        if self.what != "classifier" and self.format not in (None, "stablehlo"):
            raise UsageError("format", self.format, "a training is written as --format=stablehlo alone; leave it out")
        for name in ("steps_per_call", "images", "eval_images", "eval_attacks") if self.what != "training" else ():
            if (value := getattr(self, name)) != self.__dataclass_fields__[name].default:
                raise UsageError(name, value, f"has no meaning for --what={self.what}; leave it out")
        if self.what == "training" and self.batch_size:
            raise UsageError("batch_size", self.batch_size, "a training has that of its run; leave it out")
        object.__setattr__(self, "format", self.format or "stablehlo")
        if self.noise == "draw" and not FORMATS[self.format].takes_draw:
            able = ", ".join(name for name, each in FORMATS.items() if each.takes_draw)
            raise UsageError("noise", self.noise, f"cannot be written as {self.format}; --format={able} can")
        if self.batch_size and FORMATS[self.format].any_batch:
            raise UsageError(
                "batch_size", self.batch_size, f"--format={self.format} takes batches of any size; leave it out"
            )


def main() -> None:
    """Exports as the flags say, and prints one line."""
    settings = flags.read(ExportSettings)
    output = _output(settings)
    with contextlib.suppress(RuntimeError):  # TensorFlow is in use already, on the devices that there are
        tf.config.set_visible_devices([], "GPU")  # whose float32 products may be rounded to TF32
    subject = EvaluatedRun(settings.train_dir)
    exports = {"classifier": _export_classifier, "train_step": _export_train_step, "training": _export_training}
    line = exports[settings.what](subject, settings, output)
    print(f"{settings.what} of {subject.flags['defense']} as {settings.format} in {output}: {line}")


def _output(settings: ExportSettings) -> pathlib.Path:
    """The path of --output, whose folder is made if it is missing."""
    output = pathlib.Path(settings.output)
    ending = "" if settings.what == "training" else FORMATS[settings.format].ending
    if output.suffix != ending and ending:
        raise UsageError("output", output, f"must end in {ending} for --format={settings.format}")
    beside = [output.with_suffix(ending) for ending in (".npz", ".json") if settings.what == "train_step"]
    for path in (output, *beside):
        if path.exists():
            raise UsageError("output", output, f"{path} exists already; choose another name, or remove it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UsageError("output", output, f"cannot be written ({error.strerror})") from None
    return output


@contextlib.contextmanager
def _whole_or_not_at_all(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path like `output` in a temporary folder beside it: what the block writes there, is moved if it succeeds."""
    with naming(output), tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        yield pathlib.Path(folder, output.name)
        for path in sorted(pathlib.Path(folder).iterdir(), key=lambda path: path.name == output.name):  # it comes last
            path.rename(output.parent / path.name)


def _export_classifier(subject: EvaluatedRun, settings: ExportSettings, output: pathlib.Path) -> str:
    """Writes the classifier; returns what to say of it.

    Raises:
      RunError: when it has diverged, or is not the same when it is loaded again.
    """
    about, batch_size, chosen = subject.load(settings.checkpoint), settings.batch_size or 1, FORMATS[settings.format]
    images, shown = _test_images(subject, settings.data_dir)
    images = np.resize(images, [-(-max(IMAGES, batch_size) // batch_size) * batch_size, *images.shape[1:]])
    predictor = subject.predictor.noiseless() if settings.noise == "off" else subject.predictor
    if predictor.batch_dependent:
        reason = f"a run of {subject.flags['defense']} that is evaluated by the statistics of each batch, "
        reason += "which a file does not have; export one of --test_batch_norm=eval"
        raise UsageError("train_dir", settings.train_dir, reason)
    if predictor.stochastic != (settings.noise == "draw"):
        have = "always has" if predictor.stochastic else "has no"
        reason = f"a classifier of {subject.flags['defense']} {have} random outputs"
        raise UsageError("noise", settings.noise, reason)
    predict = tf.function(lambda images: predictor(images, DRAW).logits, autograph=False)
    expected = np.concatenate([predict(images[first : first + IMAGES]) for first in range(0, len(images), IMAGES)])
    if not np.all(np.isfinite(expected)):
        raise RunError(f"checkpoint {about['checkpoint']}: logits that are not finite: the network has diverged")
    batches = [images[:1], images[1:]] if chosen.any_batch else np.split(images, len(images) // batch_size)
    with _whole_or_not_at_all(output) as path:
        chosen.write(predictor, path, batch_size)
        said = f"{about['network']}, step {about['checkpoint']}, {_megabytes(path)}"
        said += "" if chosen.any_batch else f", batches of {batch_size}"
        if not settings.check:
            return f"{said}; not checked"
        classify = chosen.load(path, DRAW) if predictor.stochastic else chosen.load(path)
        logits = np.concatenate([classify(part) for part in batches])
        return f"{said}; loaded again, on {len(images)} {shown}: {_compare(logits, expected, settings.format)}"


def _compare(found: np.ndarray, expected: np.ndarray, format: str) -> str:
    """How well the logits [N, K] of the file agree with the network's. Raises RunError if they do not."""
    difference, largest = np.max(np.abs(found - expected)), np.max(np.abs(expected))
    if not difference <= LOGITS_TOLERANCE * largest:
        raise RunError(
            f"--format={format}: loaded again, its logits differ by up to {difference:.2g} from the "
            f"network's, whose largest is {largest:.2g}; removed"
        )
    same = np.sum(found.argmax(axis=1) == expected.argmax(axis=1))
    return f"logits differ by at most {difference:.1e} (largest: {largest:.2g}), the same class for {same}"


def _test_images(subject: EvaluatedRun, data_dir: str | None) -> tuple[np.ndarray, str]:
    """Images to compare on, float32, and what to call them: random ones where the data set is not at hand."""
    dataset = _dataset(subject, data_dir, train=False)
    if dataset:
        return dataset.test.images[:IMAGES].astype(np.float32), f"test images of {dataset.provenance}"
    images = np.random.default_rng(0).uniform(0, 255, [IMAGES, 32, 32, 3])
    return images.astype(np.float32), "random images (the data set is not at hand)"


def _dataset(subject: EvaluatedRun, data_dir: str | None, **which: Any) -> data.Dataset | None:
    """The data set of the run; None where it is not at hand. Raises UsageError for a `data_dir` that has it not."""
    try:
        return data.load(subject.flags["dataset"], data_dir=data_dir or subject.flags.get("data_dir"), **which)
    except UsageError:
        if data_dir:
            raise
        return None


def _export_train_step(subject: EvaluatedRun, settings: ExportSettings, output: pathlib.Path) -> str:
    """Writes the training iteration with its inputs; returns and raises as `_export_classifier`."""
    run_flags = subject.flags
    step, checkpoint = checkpoints.find(settings.train_dir, settings.checkpoint)
    images, labels, shown = _training_batch(subject, settings, step)
    train_step = TrainStep(build(run_flags), images, labels, step)
    train_step.restore(checkpoint)
    about = _about("train_step", run_flags, step) | {"batch": shown, "training_flags": run_flags}
    with _whole_or_not_at_all(output) as path:
        train_step.write(path, about)
        said = f"{about['network']}, step {step}, {shown}, {_megabytes(path)}, with .npz and .json"
        if not settings.check:
            return f"{said}; not checked"
        of_losses, of_updates = train_step.difference(path)
        _check_step("train_step", of_losses, of_updates, run_flags)
        return f"{said}; {_agrees(of_losses, of_updates)}"


def _about(what, run_flags, step):
    """What the description of an export begins with."""
    about = {"schema_version": SCHEMA_VERSION, "what": what, "defense": run_flags["defense"]}
    return about | {"network": name_of(run_flags), "checkpoint": step}


def _check_step(what: str, of_losses: float, of_updates: float, run_flags) -> None:
    """Raises RunError unless the differences are those of rounding."""
    for_losses, for_updates = STEP_TOLERANCES[run_flags.get("precision", "float32")]
    if not (of_losses <= for_losses and of_updates <= for_updates):
        raise RunError(
            f"--what={what}: loaded again, a loss differs by {of_losses:.2g} and an update by "
            f"{of_updates:.2g} from TensorFlow's own, relatively; removed"
        )


def _agrees(of_losses, of_updates):
    return (
        f"loaded again, relative differences from TensorFlow's own compiled iteration are at most "
        f"{of_losses:.1e} (losses) and {of_updates:.1e} (updates of variables)"
    )


def _export_training(subject: EvaluatedRun, settings: ExportSettings, output: pathlib.Path) -> str:
    """Writes all that the training takes; returns and raises as `_export_classifier`."""
    run_flags = subject.flags
    step, checkpoint = checkpoints.find(settings.train_dir, settings.checkpoint)
    data_dir = settings.data_dir or run_flags.get("data_dir")
    dataset = data.load(run_flags["dataset"], data_dir=data_dir, **_of_training(run_flags))
    if step and subject.provenance not in (None, dataset.provenance):
        reason = f"the run was trained on other data: there {subject.provenance}, now {dataset.provenance}"
        raise UsageError("data_dir", settings.data_dir or "", reason)
    per_call = settings.steps_per_call or run_flags.get("steps_per_call", 1)
    method = build(run_flags)
    chosen = _evaluation(settings.eval_attacks, run_flags, method.predictor())
    evaluated = (dataset.validation or dataset.test).take(slice(settings.eval_images or None))
    training = Training(method, dataset, evaluated, chosen, per_call)
    checkpoints.assign(training.variables, checkpoints.read(checkpoint), checkpoint)
    steps = run_flags["steps"] or type(method.options)().steps
    about = _about("training", run_flags, step)
    evaluated_under = {"eval_attacks": settings.eval_attacks}  # what --checkpoint=best of the imported run goes by
    about |= {"provenance": dataset.provenance, "steps": steps, "flags": run_flags | evaluated_under}
    with _whole_or_not_at_all(output) as path:
        difference = training.write(path, about, settings.images, data_dir)
        said = (
            f"{about['network']}, step {step} of {steps}, {len(dataset.train)} images of {dataset.provenance}, "
            f"{_megabytes(path)}"
        )
        said += f", Pillow's pixels differ from TensorFlow's by {difference}" if difference else ""
        next_step = f"next: python {output}/train_xla.py {output}"
        if not settings.check:
            return f"{said}; not checked\n{next_step}"
        of_losses, of_updates = training.difference(path)
        _check_step("training", of_losses, of_updates, run_flags)
        return f"{said}; {_agrees(of_losses, of_updates)}\n{next_step}"


def _evaluation(names, run_flags, predictor) -> list[attacks.Attack]:
    """The attacks of these names, at the ε that the run is trained with. Raises UsageError for what is no program."""
    chosen = periodic_attacks(names, run_flags.get("epsilon", 8.0))
    for attack in chosen:
        if reason := attack.refusal(predictor):
            raise UsageError("eval_attacks", attack.name, reason)
    return chosen


def _of_training(run_flags):
    """What decides which training images a run has, for `data.load`."""
    names = ("validation_size", "max_train_images", "crop_padding", "crop_fill")
    return {name: run_flags[name] for name in names if name in run_flags}


def _training_batch(subject: EvaluatedRun, settings: ExportSettings, step: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The images and labels that the run takes at `step`, and what to call them."""
    run_flags = subject.flags
    size, seed = settings.batch_size or run_flags["batch_size"], run_flags["seed"]
    dataset = _dataset(subject, settings.data_dir, **_of_training(run_flags))
    if dataset:
        return *batch(dataset, step, size, seed), f"{size} training images of {dataset.provenance}"
    draws = np.random.default_rng(seed)
    images = draws.uniform(0, 255, [size, 32, 32, 3]).astype(np.float32)
    return (
        images,
        draws.integers(run_flags["num_classes"], size=size, dtype=np.int32),
        f"{size} random images (the data set is not at hand)",
    )


def _megabytes(path: pathlib.Path) -> str:
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:.3g} MB"


def command() -> None:
    """Entry point."""
    flags.define("Export", ExportSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
