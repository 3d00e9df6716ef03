"""What is evaluated: a run of this project or a model from elsewhere, and the images that belong to it."""

import os
import pathlib
from typing import Any

from madry_cifar import data
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.images import load_file, load_tfds
from madry_cifar.evaluation.settings import SCALING, Images, Surrogate, Target
from madry_cifar.models import load_model
from madry_cifar.networks.architectures import name_of
from madry_cifar.predictor import Predictor, predictor
from madry_cifar.runs import checkpoints, run_folder, selection
from madry_cifar.training.construction import build


class EvaluatedRun:
    """The classifier of a run, without weights until `load`.

    Attributes:
      flag, name: the flag that names it, and its value.
      train_dir: the run's folder.
      folder, results: where one process at a time works, and where its results are kept.
      flags: the settings that it was trained with.
      provenance: of the data that it was trained on; None where nothing is known of it.
      predictor: what is evaluated of it.

    Raises:
      UsageError, RunError: when the folder holds no run or a damaged one.
    """

    def __init__(self, train_dir: str):
        self.flag, self.name = "train_dir", train_dir
        self.train_dir, self.flags = train_dir, run_folder.read_flags(train_dir)
        self.folder = pathlib.Path(train_dir)
        self.results = self.folder / "results"
        if "defense" not in self.flags:
            kind = run_folder.kind_of(self.flags)
            raise UsageError("train_dir", train_dir, f"holds {kind} that was trained, and no classifier")
        self.provenance = run_folder.read_provenance(train_dir)
        self.predictor = build(self.flags, dtype="float32").predictor()

    def images(self, settings: Images) -> tuple[data.Dataset, data.Split]:
        """Its data set, from where that is now, and the images to evaluate on.

        Raises:
          UsageError: where the run has no such split.
        """
        names = ("validation_size", "max_train_images")
        dataset = data.load(
            self.flags["dataset"],
            data_dir=settings.data_dir or self.flags.get("data_dir"),
            download=settings.download,
            train=settings.split == "validation",
            **{name: self.flags.get(name, 0) for name in names},
        )
        split = {"test": dataset.test, "validation": dataset.validation}.get(settings.split)
        if split is None:
            raise UsageError("split", settings.split, "must be test, or validation if the run held images out")
        if settings.split == "validation" and self.provenance not in (None, dataset.provenance):
            raise UsageError(
                "split",
                "validation",
                "which images were held out is not known in other data than those "
                f"trained on: then {self.provenance}, now {dataset.provenance}",
            )
        return dataset, split.take(slice(settings.max_images or None))

    def load(self, checkpoint) -> dict[str, Any]:
        """Loads the weights of a checkpoint (step, path, "best" by held-out images, or None for the latest).

        Returns what tells it from others; of the best, also how it was found.
        """
        step, _ = checkpoints.find(self.train_dir, checkpoint)
        chosen = {"selection": selection.best(self.train_dir)[1]} if checkpoint == checkpoints.BEST else {}
        content = run_folder.read(self.train_dir)
        if elsewhere := content.get("elsewhere"):
            chosen["elsewhere"] = elsewhere
        checkpoints.load(self.predictor.variables(), self.train_dir, step)
        return {
            "train_dir": str(self.train_dir),
            "defense": self.flags["defense"],
            "network": name_of(self.flags),
            "checkpoint": step,
            "classifier_sha256": self.predictor.fingerprint(),
            "training_flags": self.flags,
            "trained": run_folder.trained(content),
            **chosen,
        }


class EvaluatedModel:
    """A model from elsewhere; the same as `EvaluatedRun` for who evaluates it.

    Raises:
      UsageError: when there is none, or it cannot be used.
    """

    def __init__(self, settings: Target):
        self.flag, self.name, self.provenance = "model", settings.model, None
        self.flags = {"dataset": settings.dataset} if settings.dataset else {}
        self._settings, self._shape = settings, None
        scaling = {"mean": settings.mean or None, "std": settings.std or None, "outputs": settings.outputs}
        try:
            model = load_model(settings.model)
            self.predictor = self._as_it_is(model) or predictor(model, settings.pixel_range, **scaling)
        except UsageError as error:
            if error.flag:
                raise
            raise UsageError("model", settings.model, error.reason) from None
        self.folder = self.results = pathlib.Path(settings.model.replace(":", ".").rstrip("/") + ".results")

    def _as_it_is(self, model):
        """A `Predictor`, which takes pixels in [0, 255] and returns logits; None for another model."""
        if not isinstance(model, Predictor):
            return None
        for name in SCALING:
            if (value := getattr(self._settings, name)) != Target.__dataclass_fields__[name].default:
                raise UsageError(name, value, f"{self.name} is a Predictor, which takes pixels in [0, 255] as they are")
        return model

    def images(self, settings: Images) -> tuple[data.Dataset, data.Split]:
        """The data set that the settings name, and its images."""
        if settings.split != "test" and (self._settings.data or self._settings.dataset in data.NUM_CLASSES):
            raise UsageError("split", settings.split, "must be test: a model from elsewhere was not trained here")
        dataset = self._dataset(settings)
        split = dataset.test.take(slice(settings.max_images or None))
        self._shape = split.images.shape[1:]
        return dataset, split

    def _dataset(self, settings):
        own, shape = self._settings, self.predictor.image_shape
        if shape is not None and len(shape) != 3:
            raise UsageError("model", self.name, f"takes {list(shape)}, not images [H, W, C]")
        if own.image_size:
            if len(own.image_size) != 2:
                raise UsageError("image_size", own.image_size, "must be height and width")
            if own.dataset in data.NUM_CLASSES or (own.data and not pathlib.Path(own.data).is_dir()):
                reason = "is for pictures in folders and for other sets: these images are taken as they are"
                raise UsageError("image_size", own.image_size, reason)
            shape = (*own.image_size, shape[2] if shape else 3)
        if own.data:
            return load_file(own.data, shape, settings.max_images)
        where = {"data_dir": settings.data_dir, "download": settings.download}
        if own.dataset in data.NUM_CLASSES:
            return data.load(own.dataset, **where, train=False)
        return load_tfds(own.dataset, **where, split=settings.split, shape=shape, max_images=settings.max_images)

    def load(self, checkpoint) -> dict[str, Any]:
        """What tells it from others, once its `images` are known; it has no checkpoints."""
        return {"model": self.name, "classifier_sha256": self.predictor.fingerprint(self._shape)}


def target_of(settings: Target) -> EvaluatedRun | EvaluatedModel:
    """What the settings name."""
    return EvaluatedModel(settings) if getattr(settings, "model", None) else EvaluatedRun(settings.train_dir)


def results_folder(target, results_dir: str | None, output: str | None = None) -> pathlib.Path:
    """Where results of a target are written: told now that they cannot be, not after hours of attacks.

    It is `results_dir` if given; else the target's own or, where that is read-only, one beside `output`.

    Raises:
      UsageError: where there is no place.
    """
    if results_dir:
        if not _writable(pathlib.Path(results_dir)):
            raise UsageError("results_dir", results_dir, "cannot be written")
        return pathlib.Path(results_dir)
    if _writable(target.results):
        return target.results
    if output:
        return pathlib.Path(output).with_suffix(".results")
    raise UsageError(
        target.flag, target.name, f"results cannot be written to {target.results}; add --results_dir=FOLDER"
    )


def _writable(folder):
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return place.is_dir() and os.access(place, os.W_OK)


def check_same_data(flag: str, folder: str, dataset: str, provenance: str | None, target) -> None:
    """Raises UsageError where what a flag names was trained on other data than the target, as far as both are known."""
    for theirs, ours in ((dataset, target.flags.get("dataset")), (provenance, target.provenance)):
        if None not in (theirs, ours) and theirs != ours:
            reason = f"was trained on other data ({theirs}) than --{target.flag}={target.name} ({ours})"
            raise UsageError(flag, folder, reason)


def surrogate_of(
    target: EvaluatedRun, settings: Surrogate, checkpoint: str | None = None
) -> tuple[Predictor | None, dict | None]:
    """The predictor to attack in place of the target's, and what tells it from others; or two None.

    `checkpoint` is its own where the settings name none; None for the latest.
    """
    if not settings.surrogate_dir:
        if settings.surrogate_checkpoint:
            raise UsageError("surrogate_checkpoint", settings.surrogate_checkpoint, "needs --surrogate_dir")
        return None, None
    try:
        subject = EvaluatedRun(settings.surrogate_dir)
        about = subject.load(settings.surrogate_checkpoint or checkpoint)
    except UsageError as error:
        names = {"checkpoint": "surrogate_checkpoint"} if settings.surrogate_checkpoint else {}
        raise error.renamed(train_dir="surrogate_dir", **names) from None
    check_same_data("surrogate_dir", settings.surrogate_dir, subject.flags["dataset"], subject.provenance, target)
    return subject.predictor, about | {"seed": subject.flags.get("seed")}
