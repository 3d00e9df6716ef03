"""Writes a run's classifier, or its compiled training iteration, as a file that runs without this package.

  python -m rvs_tf.export --train_dir=runs/rvs --format=savedmodel --output=rvs.savedmodel
  python -m rvs_tf.export --train_dir=runs/rvs --format=keras --output=rvs.keras
  python -m rvs_tf.export --train_dir=runs/rvs --format=tflite --output=rvs.tflite
  python -m rvs_tf.export --train_dir=runs/rvs --format=stablehlo --batch_size=64 --output=rvs.stablehlo
  python -m rvs_tf.export --train_dir=runs/rvs --what=train_step --format=stablehlo --output=step.stablehlo

A classifier takes images [B, 32, 32, 3] float32 of pixels in [0, 255] to logits [B, K]. What was written is loaded
again and compared with the network on test images; if it differs, it is removed. All of it on the CPU.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags as absl_flags

import rvs_tf  # noqa: F401 (registers the defences)
from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError, unknown
from madry_cifar.evaluation.run_evaluation import Subject
from madry_cifar.export.formats import FORMATS, Format
from madry_cifar.export.train_step import TrainStep, batch, rebuild
from madry_cifar.networks.wide_resnet import name_of
from madry_cifar.runs import checkpoints
from madry_cifar.runs.files import naming
from madry_cifar.runs.run_folder import SCHEMA_VERSION

FLAGS = absl_flags.FLAGS
WHAT = ("classifier", "train_step")
IMAGES = 64  # to compare on, at least
LOGITS_TOLERANCE = 1e-3  # of the largest logit
STEP_TOLERANCES = {  # of a loss, and of the change of a variable
    "float32": (1e-4, 1e-2),
    "bfloat16": (1e-2, 0.5),  # XLA may keep more digits in one compilation than in another; a wrong update has 1
}


def main() -> None:
    """Exports as the flags say, and prints one line."""
    for name in ("train_dir", "format", "output"):
        if not FLAGS[name].value:
            raise UsageError(name, "", "required (see --help)")
    chosen = _format()
    output = _output(chosen)
    with contextlib.suppress(RuntimeError):  # TensorFlow is in use already, on the devices that there are
        tf.config.set_visible_devices([], "GPU")  # whose float32 products may be rounded to TF32
    subject = Subject(FLAGS.train_dir)
    export = _export_classifier if FLAGS.what == "classifier" else _export_train_step
    line = export(subject, chosen, output)
    print(f"{FLAGS.what} of {subject.flags['defense']} as {FLAGS.format} in {output}: {line}")


def _format() -> Format:
    if FLAGS.format not in FORMATS:
        raise unknown("format", FLAGS.format, FORMATS)
    if FLAGS.what not in WHAT:
        raise unknown("what", FLAGS.what, WHAT)
    if FLAGS.what == "train_step" and FLAGS.format != "stablehlo":
        raise UsageError("format", FLAGS.format, "a training iteration is written as --format=stablehlo alone")
    chosen = FORMATS[FLAGS.format]
    if FLAGS.batch_size and chosen.any_batch:
        raise UsageError(
            "batch_size", FLAGS.batch_size, f"--format={FLAGS.format} takes batches of any size; leave it out"
        )
    return chosen


def _output(chosen: Format) -> pathlib.Path:
    """The path of --output, whose folder is made if it is missing."""
    output = pathlib.Path(FLAGS.output)
    if output.suffix != chosen.ending and chosen.ending:
        raise UsageError("output", output, f"must end in {chosen.ending} for --format={FLAGS.format}")
    beside = [output.with_suffix(ending) for ending in (".npz", ".json") if FLAGS.what == "train_step"]
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


def _export_classifier(subject: Subject, chosen: Format, output: pathlib.Path) -> str:
    """Writes the classifier; returns what to say of it.

    Raises:
      RunError: when it has diverged, or is not the same when it is loaded again.
    """
    about, batch_size = subject.load(FLAGS.checkpoint), FLAGS.batch_size or 1
    images, shown = _test_images(subject)
    images = np.resize(images, [-(-max(IMAGES, batch_size) // batch_size) * batch_size, *images.shape[1:]])
    expected = subject.classifier.predict(images, batch_size=IMAGES, verbose=0).logits
    if not np.all(np.isfinite(expected)):
        raise RunError(f"checkpoint {about['checkpoint']}: logits that are not finite: the network has diverged")
    batches = [images[:1], images[1:]] if chosen.any_batch else np.split(images, len(images) // batch_size)
    with _whole_or_not_at_all(output) as path:
        chosen.write(subject.classifier, path, batch_size)
        said = f"{about['network']}, step {about['checkpoint']}, {_megabytes(path)}"
        said += "" if chosen.any_batch else f", batches of {batch_size}"
        if not FLAGS.check:
            return f"{said}; not checked"
        classify = chosen.load(path)
        found = np.concatenate([classify(part) for part in batches])
        return f"{said}; loaded again, on {len(images)} {shown}: {_compare(found, expected)}"


def _compare(found: np.ndarray, expected: np.ndarray) -> str:
    """How well the logits [N, K] of the file agree with the network's. Raises RunError if they do not."""
    difference, largest = np.max(np.abs(found - expected)), np.max(np.abs(expected))
    if not difference <= LOGITS_TOLERANCE * largest:
        raise RunError(
            f"--format={FLAGS.format}: loaded again, its logits differ by up to {difference:.2g} from the "
            f"network's, whose largest is {largest:.2g}; removed"
        )
    same = np.sum(found.argmax(axis=1) == expected.argmax(axis=1))
    return f"logits differ by at most {difference:.1e} (largest: {largest:.2g}), the same class for {same}"


def _test_images(subject: Subject) -> tuple[np.ndarray, str]:
    """Images to compare on, float32, and what to call them: random ones where the data set is not at hand."""
    dataset = _dataset(subject, train=False)
    if dataset:
        return dataset.test.images[:IMAGES].astype(np.float32), f"test images of {dataset.provenance}"
    images = np.random.default_rng(0).uniform(0, 255, [IMAGES, 32, 32, 3])
    return images.astype(np.float32), "random images (the data set is not at hand)"


def _dataset(subject: Subject, **which: Any) -> data.Dataset | None:
    """The data set of the run; None where it is not at hand. Raises UsageError for a --data_dir that has it not."""
    try:
        data_dir = FLAGS.data_dir or subject.flags.get("data_dir")
        return data.load(subject.flags["dataset"], data_dir=data_dir, **which)
    except UsageError:
        if FLAGS.data_dir:
            raise
        return None


def _export_train_step(subject: Subject, chosen: Format, output: pathlib.Path) -> str:
    """Writes the training iteration with its inputs; returns and raises as `_export_classifier`."""
    settings = subject.flags
    step, checkpoint = checkpoints.find(FLAGS.train_dir, FLAGS.checkpoint)
    images, labels, shown = _training_batch(subject, step)
    train_step = TrainStep(rebuild(settings), images, labels, step)
    train_step.restore(checkpoint)
    about = {
        "schema_version": SCHEMA_VERSION,
        "what": "train_step",
        "defense": settings["defense"],
        "network": name_of(settings),
        "checkpoint": step,
        "batch": shown,
        "training_flags": settings,
    }
    with _whole_or_not_at_all(output) as path:
        train_step.write(path, about)
        said = f"{about['network']}, step {step}, {shown}, {_megabytes(path)}, with .npz and .json"
        if not FLAGS.check:
            return f"{said}; not checked"
        of_losses, of_updates = train_step.difference(path)
        for_losses, for_updates = STEP_TOLERANCES[settings.get("precision", "float32")]
        if not (of_losses <= for_losses and of_updates <= for_updates):
            raise RunError(
                f"--what=train_step: loaded again, a loss differs by {of_losses:.2g} and an update by "
                f"{of_updates:.2g} from TensorFlow's own, relatively; removed"
            )
        return (
            f"{said}; loaded again, relative differences from TensorFlow's own compiled iteration are at most "
            f"{of_losses:.1e} (losses) and {of_updates:.1e} (updates of variables)"
        )


def _training_batch(subject: Subject, step: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The images and labels that the run takes at `step`, and what to call them."""
    settings = subject.flags
    size, seed = FLAGS.batch_size or settings["batch_size"], settings["seed"]
    names = ("validation_size", "max_train_images", "crop_padding", "crop_fill")
    dataset = _dataset(subject, **{name: settings[name] for name in names if name in settings})
    if dataset:
        return *batch(dataset, step, size, seed), f"{size} training images of {dataset.provenance}"
    draws = np.random.default_rng(seed)
    images = draws.uniform(0, 255, [size, 32, 32, 3]).astype(np.float32)
    return (
        images,
        draws.integers(settings["num_classes"], size=size, dtype=np.int32),
        f"{size} random images (the data set is not at hand)",
    )


def _megabytes(path: pathlib.Path) -> str:
    files = path.rglob("*") if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files if file.is_file()) / 1e6:.3g} MB"


def command() -> None:
    """Entry point."""
    define = flags.define
    define("Export", "train_dir", None, "folder of the run (required)")
    define("Export", "checkpoint", None, "step or path of its checkpoint [the latest]")
    define("Export", "format", None, f"{', '.join(FORMATS)} (required)")
    define(
        "Export",
        "what",
        "classifier",
        "classifier, or train_step, the compiled training iteration, with its "
        "inputs in .npz and their names in .json beside it (stablehlo)",
    )
    define("Export", "output", None, "file to write, for savedmodel a folder; must not exist yet (required)")
    define(
        "Export",
        "batch_size",
        None,
        "images that a stablehlo program takes [classifier: 1; train_step: as the run was trained]",
        kind=int,
        minimum=1,
    )
    define(
        "Export",
        "check",
        True,
        "load and run what was written; for a train_step at full size that takes minutes and memory",
        kind=bool,
    )
    define("Export", "data_dir", None, "where the data set is now [as the run was trained]")
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
