"""Evaluates checkpoints of a run as settings say: what `rvs_tf.evaluate` and `madry_cifar.eval` have in common."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from madry_cifar import attacks, data
from madry_cifar.attacks.registry import takes_restarts
from madry_cifar.cli.errors import UsageError, text
from madry_cifar.cli.settings import Download
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import Evaluator, Task, skipping
from madry_cifar.evaluation.settings import EvaluationSettings, Images, Surrogate
from madry_cifar.networks.architectures import name_of
from madry_cifar.predictor import Predictor
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.files import alone
from madry_cifar.training.construction import build


class EvaluatedRun:
    """The classifier of a run, without weights until `load`.

    Attributes:
      train_dir: the run's folder.
      flags: the settings that it was trained with.
      provenance: of the data that it was trained on; None where nothing is known of it.
      predictor: what is evaluated of it.

    Raises:
      UsageError, RunError: when the folder holds no run or a damaged one.
    """

    def __init__(self, train_dir: str):
        self.train_dir, self.flags = train_dir, run_folder.read_flags(train_dir)
        if "defense" not in self.flags:
            raise UsageError("train_dir", train_dir, "holds an attack that was trained, and no classifier")
        self.provenance = run_folder.read_provenance(train_dir)
        self.predictor = build(self.flags, dtype="float32").predictor()

    def load(self, checkpoint) -> dict[str, Any]:
        """Loads the weights of a checkpoint (step, path, or None for the latest); returns what tells it from others."""
        step, _ = checkpoints.find(self.train_dir, checkpoint)
        checkpoints.load(self.predictor.variables(), self.train_dir, step)
        return {
            "train_dir": str(self.train_dir),
            "defense": self.flags["defense"],
            "network": name_of(self.flags),
            "checkpoint": step,
            "classifier_sha256": self.predictor.fingerprint(),
            "training_flags": self.flags,
        }


class Evaluation:
    """Evaluates checkpoints of a run.

    What was measured is kept on disk after each batch, so that it goes on there when it was killed, and each attack is
    in the results file as soon as it is finished.

    Args:
      settings: which run, which attacks, on what.
      save_adversarial: whether to write the adversarial images too.
      extra: what is measured beside --attacks, at each ε.

    Attributes:
      epsilons: the radii.
      names: of the entries of each results file that are measured.

    Raises:
      UsageError, RunError: for settings, a folder or data that cannot be used.
    """

    def __init__(self, settings: EvaluationSettings, save_adversarial: bool = False, extra: Sequence[Task] = ()):
        self.settings, self.target = settings, EvaluatedRun(settings.train_dir)
        self.epsilons = list(dict.fromkeys(settings.epsilon))
        if not self.epsilons:
            raise UsageError("epsilon", "", "must be a number of grey levels, or several with commas")
        chosen = list(dict.fromkeys(settings.attacks))
        if not (chosen or extra):
            raise UsageError("attacks", "", "name at least one, for instance natural,pgd-20")
        self._plan = []  # for each results file, the sizes of attacks that it is of, and what is measured for it
        for epsilon in self.epsilons:
            sizes = {"epsilon": epsilon, "step_size": settings.step_size}
            chosen_attacks = [attacks.attack(name, **sizes, restarts=settings.restarts) for name in chosen]
            self._plan.append((sizes, [*map(Task, chosen_attacks), *extra]))
        _check_restarts(settings)
        if settings.skip_misclassified:
            for task in [task for _, tasks in self._plan for task in tasks]:
                task.attack = skipping(task.attack)
        self.names = [name for task in self._plan[0][1] for name in task.names]
        self.results = pathlib.Path(settings.train_dir) / "results"
        place = self.results if self.results.exists() else self.results.parent
        if not (place.is_dir() and os.access(place, os.W_OK)):  # told now, not after hours of attacks
            raise UsageError("train_dir", settings.train_dir, f"results cannot be written to {place}")
        if settings.surrogate_dir:
            _check_transfer(self._plan[0][1])
        attacked, self._surrogate = surrogate_of(self.target, settings)
        mode = getattr(attacked or self.target.predictor, "batch_norm", "eval")
        for task in [task for _, tasks in self._plan for task in tasks]:
            task.attack = _through(mode, task.attack)
        self.dataset = dataset_of(self.target.flags, settings, train=settings.split == "validation")
        self.split = split_of(self.target, self.dataset, settings)
        self.evaluator = Evaluator(
            self.target.predictor,
            attacked=attacked,
            progress=True,
            batch_size=min(settings.batch_size, len(self.split)),
            keep_adversarial=save_adversarial,
        )

    def of(self, checkpoint, reuse: bool = False) -> list[dict]:
        """What is in the results file of each ε on a checkpoint (step, path, or None for the latest), as far as asked.

        It is measured and written first; with `reuse`, only what the file does not have of the same weights, data and
        protocol.
        """
        about = self._load(checkpoint)
        for sizes, tasks in self._plan:
            for task in tasks:
                task.check(about.get("surrogate", about), sizes["epsilon"])
        with alone(pathlib.Path(self.settings.train_dir)):
            return self._measure(about, reuse)

    def _measure(self, about, reuse):
        self._before, self._natural = 0, None
        contents = [self._at(about | sizes, tasks, reuse) for sizes, tasks in self._plan]
        if self._before:
            print(f"going on after {self._before} attacked images: there are no others")
        for content, (_, tasks) in zip(contents, self._plan, strict=True):
            for task in tasks:
                results.remove_partial(pathlib.Path(content["file"]), task.attack)
        return contents

    def _load(self, checkpoint):
        """Loads the checkpoint; what results on it are of."""
        about = self.target.load(checkpoint)
        about |= {
            "dataset": self.dataset.name,
            "provenance": self.dataset.provenance,
            "split": self.settings.split,
            "images": len(self.split),
            "seed": self.settings.seed,
            "batch_size": self.evaluator.batch_size,
        }
        if self._surrogate is None:
            return about
        if self._surrogate["classifier_sha256"] == about["classifier_sha256"]:
            raise UsageError(
                "surrogate_dir",
                self.settings.surrogate_dir,
                f"checkpoint {self._surrogate['checkpoint']} is "
                "the network evaluated; without this flag, it is attacked as a white box",
            )
        return about | {"surrogate": self._surrogate}

    def _at(self, about, tasks, reuse):
        """Measures what is missing at one ε; what the results file then has of it."""
        file = self.results / f"{results.file_name(about)}.json"
        content = results.read(file, about)
        entries = dict(content.get("attacks", {})) if reuse else {}  # that are not measured again

        def measure(task, attack, part="", earlier=None):
            if part and attack.name in entries and not self.evaluator.keep_adversarial:
                known = results.outcome(file, about, attack)  # a part of this task that is an attack of its own, too
                if known is not None:
                    return known.after(earlier) if earlier else known
            name = "_".join(filter(None, [task.attack.name, part]))
            partial = results.Partial(file, about, attack, name, images=self.evaluator.keep_adversarial)
            before = partial.read(self.split)
            self._tell(attack, 0 if before is None else len(before.labels))
            earlier = earlier or self._earlier(attack)
            outcome = self.evaluator.run(
                attack, self.split, seed=self.settings.seed, earlier=earlier, before=before, after_batch=partial.write
            )
            if attack.name == "natural":
                self._natural = outcome
            return outcome

        for task in tasks:
            if not all(name in entries and task.is_of(entries[name]["protocol"]) for name in task.names):
                outcomes = task.outcomes(functools.partial(measure, task))
                results.write_adversarial(file, outcomes)
                content = results.write(file, outcomes, about)
                entries |= {name: content["attacks"][name] for name in outcomes}
        asked = {name: content["attacks"][name] for name in self.names}
        worst = results.worst_case(file, about, self.names)
        return content | about | {"attacks": asked, "worst_case": worst, "file": str(file)}

    def _earlier(self, attack):
        """The outcome without an attack, if what is misclassified there is to be skipped; measured once."""
        skips = self.settings.skip_misclassified or attack.protocol.get("stops_at_error")
        if not skips or attack.name == "natural":
            return None
        if self._natural is None:
            self._natural = self.evaluator.run(attacks.attack("natural"), self.split)
        return self._natural

    def _tell(self, attack, done):
        """Says, at the first attack that an interrupted evaluation left unfinished, how much of it there is."""
        self._before += done
        if self._before and done < len(self.split):
            print(f"going on after {self._before} attacked images: {attack.name} from image {done} on", flush=True)
            self._before = 0


def accuracies(contents: Sequence[Mapping]) -> dict[str, float]:
    """The accuracies in what `Evaluation.of` returns, by attack (at which ε, if not 8; which surrogate)."""
    result = {}
    for content in contents:
        for name, entry in content["attacks"].items():
            if "epsilon" in entry["protocol"] and content["epsilon"] != 8:
                name += f"_eps-{content['epsilon']:g}"
            if "surrogate" in content:
                name += f"_from-{content['surrogate']['defense']}"
            result[name] = entry["accuracy"]
    return result


def _through(batch_norm, attack):
    """The attack, its protocol saying which mode of batch norm its gradients go through."""
    if "batch_norm" in attack.protocol:
        attack = attack._replace(protocol=attack.protocol | {"batch_norm": batch_norm})
    return attack._replace(stages=tuple(_through(batch_norm, stage) for stage in attack.stages))


def _check_restarts(settings):
    if settings.restarts > 1 and not any(map(takes_restarts, settings.attacks)):
        raise UsageError(
            "restarts",
            settings.restarts,
            f"none of --attacks={text(settings.attacks)} has random starts whose number is open (pgd-N, cw-N, "
            "apgd-ce, … have)",
        )


def _check_transfer(tasks):
    for name in (task.attack.name for task in tasks if task.attack.protocol.get("stops_at_error")):
        raise UsageError(
            "attacks",
            name,
            "stops at the first error of the network that it attacks, so its images "
            "tell little of another one; with --surrogate_dir, use pgd-N or cw-N",
        )


def surrogate_of(target: EvaluatedRun, settings: Surrogate) -> tuple[Predictor | None, dict | None]:
    """The predictor to attack in place of the target's, and what tells it from others; or two None."""
    if not settings.surrogate_dir:
        if settings.surrogate_checkpoint:
            raise UsageError("surrogate_checkpoint", settings.surrogate_checkpoint, "needs --surrogate_dir")
        return None, None
    try:
        subject = EvaluatedRun(settings.surrogate_dir)
        about = subject.load(settings.surrogate_checkpoint)
    except UsageError as error:
        raise error.renamed(train_dir="surrogate_dir", checkpoint="surrogate_checkpoint") from None
    for theirs, ours in (
        (subject.flags["dataset"], target.flags["dataset"]),
        (subject.provenance, target.provenance),
    ):
        if None not in (theirs, ours) and theirs != ours:
            raise UsageError(
                "surrogate_dir",
                settings.surrogate_dir,
                f"was trained on other data ({theirs}) than --train_dir={target.train_dir} ({ours})",
            )
    return subject.predictor, about | {"seed": subject.flags.get("seed")}


def dataset_of(run_flags: Mapping, settings: Download, *, train: bool = False) -> data.Dataset:
    """The data set of a run with these flags, from where it is now; with `train`, also its training images."""
    names = ("validation_size", "max_train_images")
    return data.load(
        run_flags["dataset"],
        data_dir=settings.data_dir or run_flags.get("data_dir"),
        download=settings.download,
        train=train,
        **{name: run_flags.get(name, 0) for name in names},
    )


def split_of(target: EvaluatedRun, dataset: data.Dataset, settings: Images) -> data.Split:
    """The images to evaluate. Raises UsageError where the run has no such split."""
    split = {"test": dataset.test, "validation": dataset.validation}.get(settings.split)
    if split is None:
        raise UsageError("split", settings.split, "must be test, or validation if the run held images out")
    if settings.split == "validation" and target.provenance not in (None, dataset.provenance):
        raise UsageError(
            "split",
            "validation",
            "which images were held out is not known in other data than those "
            f"trained on: then {target.provenance}, now {dataset.provenance}",
        )
    return split.take(slice(settings.max_images or None))
