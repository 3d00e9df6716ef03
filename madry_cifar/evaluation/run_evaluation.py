"""Evaluates a run or a model as settings say: what `rvs_tf.evaluate` and `madry_cifar.eval` have in common."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from madry_cifar import attacks
from madry_cifar.attacks.registry import takes_restarts
from madry_cifar.cli.errors import UsageError, text
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import Evaluator, Task, skipping
from madry_cifar.evaluation.measuring import Measuring
from madry_cifar.evaluation.settings import EvaluationSettings
from madry_cifar.evaluation.targets import EvaluatedModel, EvaluatedRun, results_folder, surrogate_of, target_of
from madry_cifar.predictor import Predictor


class Evaluation:
    """Evaluates checkpoints of a run, or a model from elsewhere.

    Args:
      settings: what is attacked, how, on which images.
      save_adversarial: whether to write the adversarial images too.
      extra: what is measured beside --attacks, at each ε.
      purify: of the target, the predictor that is evaluated in its place, which purifies images. Surrogates do not.

    Attributes:
      epsilons: the radii.
      names: of the entries of each results file that are measured.

    Raises:
      UsageError, RunError: for settings, a folder or data that cannot be used.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        save_adversarial: bool = False,
        extra: Sequence[Task] = (),
        purify: Callable[[EvaluatedRun | EvaluatedModel], Predictor] | None = None,
    ):
        self.settings, self.target = settings, target_of(settings)
        predictor = purify(self.target) if purify else self.target.predictor
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
        places = (getattr(settings, name, None) for name in ("results_dir", "output"))
        self.results = results_folder(self.target, *places)
        if settings.surrogate_dir:
            _check_transfer(self._plan[0][1])
        same_run = pathlib.Path(settings.surrogate_dir or "").resolve() == self.target.folder.resolve()
        checkpoint = settings.checkpoint if purify and same_run else None  # the grey box is made on the bare network
        attacked, self._surrogate = surrogate_of(self.target, settings, checkpoint)
        mode = getattr(attacked or self.target.predictor, "batch_norm", "eval")
        for task in [task for _, tasks in self._plan for task in tasks]:
            task.attack = _through(mode, task.attack)
        self.dataset, self.split = self.target.images(settings)
        self.evaluator = Evaluator(
            predictor,
            attacked=attacked,
            progress=True,
            batch_size=min(settings.batch_size, len(self.split)),
            keep_adversarial=save_adversarial,
            jit_compile=settings.jit_compile,
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
        settings, chosen = self.settings, [task.attack for task in self._plan[0][1]]
        split = self.evaluator.admit(self.split, *chosen)
        for note in self.evaluator.notes:
            results.warn(note)
        skip, lock = settings.skip_misclassified, self.target.folder if self.results == self.target.results else None
        measuring = Measuring(self.evaluator, split, self.results, settings.seed, skip, lock)
        return measuring(about, self._plan, reuse)

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
        } | ({"skip_misclassified": True} if self.settings.skip_misclassified else {})
        if told := self.evaluator.predictor.purification():
            sha256 = self.evaluator.predictor.fingerprint(self.split.images.shape[1:])
            about |= {"purification": told, "classifier_sha256": sha256}
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


def accuracies(contents: Sequence[Mapping]) -> dict[str, float]:
    """The accuracies in what `Evaluation.of` returns, by attack.

    The name goes on with another ε than 8, skipping, a purifier, a surrogate, and another split than the test images.
    """
    result = {}
    for content in contents:
        for name, entry in content["attacks"].items():
            if "epsilon" in entry["protocol"] and content["epsilon"] != 8:
                name += f"_eps-{content['epsilon']:g}"
            name += "_skip" if content.get("skip_misclassified") and name != "natural" else ""
            if "purification" in content:
                name += f"_purified-{content['classifier_sha256'][:8]}"
            if "surrogate" in content:
                name += f"_from-{content['surrogate']['defense']}"
            name += f"_{content['split']}" if content["split"] != "test" else ""
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
