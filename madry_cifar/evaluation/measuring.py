"""Measures attacks one after another, and keeps what came out in a folder, so that it can go on there."""

import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from madry_cifar import attacks
from madry_cifar.attacks.pgd import STAND_IN
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import results
from madry_cifar.evaluation.evaluator import Evaluator, Task, against
from madry_cifar.runs.files import alone


class Measuring:
    """Measures tasks on the images of a split.

    What was measured is kept on disk after each batch, so that it goes on there when it was killed, and each attack is
    in the results file as soon as it is finished.

    Args:
      evaluator: of what is attacked.
      split: the images.
      folder: for the results files.
      seed: of random starts.
      skip_misclassified: whether images that are misclassified without an attack are not attacked.
      lock: the folder in which one process at a time measures; that for the results files by default.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        split: Split,
        folder: pathlib.Path,
        seed: int = 0,
        skip_misclassified: bool = False,
        lock: pathlib.Path | None = None,
    ):
        self.evaluator, self.split, self.folder, self.lock = evaluator, split, folder, lock or folder
        self.seed, self.skip_misclassified = seed, skip_misclassified

    def __call__(
        self, about: Mapping[str, Any], plan: Sequence[tuple[Mapping, Sequence[Task]]], reuse: bool = False
    ) -> list[dict]:
        """What is in the results files, as far as asked.

        Args:
          about: what the results are of; see `results`.
          plan: for each file the sizes of attacks that it is of ("epsilon", "step_size"), and what is measured for it.
          reuse: whether to measure only what a file does not have of the same weights, data and protocol.
        """
        attacked = self.evaluator.attacked
        gradients = {"gradients": STAND_IN} if attacked.differentiable() is not attacked else {}
        for task in itertools.chain.from_iterable(tasks for _, tasks in plan):
            task.attack = against(task.attack, attacked)
        with alone(self.lock):
            self._before, self._natural = 0, None
            contents = [self._at({**about, **gradients, **sizes}, tasks, reuse) for sizes, tasks in plan]
            if self._before:
                print(f"going on after {self._before} attacked images: there are no others")
            for content, (_, tasks) in zip(contents, plan, strict=True):
                for task in tasks:
                    results.remove_partial(pathlib.Path(content["file"]), task.attack)
            return contents

    def _at(self, about, tasks, reuse):
        """Measures what is missing at one ε; what the results file then has of it."""
        file = results.path_of(self.folder, about)
        content = results.read(file, about)
        entries = dict(content.get("attacks", {})) if reuse else {}  # that are not measured again
        if self.evaluator.keep_adversarial:
            entries = {name: e for name, e in entries.items() if results.adversarial_path(file, name).exists()}

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
                attack, self.split, seed=self.seed, earlier=earlier, before=before, after_batch=partial.write
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
        names = [name for task in tasks for name in task.names]
        asked = {name: content["attacks"][name] for name in names}
        worst = results.worst_case(file, about, names)
        return content | about | {"attacks": asked, "worst_case": worst, "file": str(file)}

    def _earlier(self, attack):
        """The outcome without an attack, if what is misclassified there is to be skipped; measured once."""
        skips = self.skip_misclassified or attack.protocol.get("stops_at_error")
        if not skips or attack.name == "natural":
            return None
        if self._natural is None:
            self._natural = self.evaluator.run(attacks.attack("natural"), self.split, seed=self.seed)
        return self._natural

    def _tell(self, attack, done):
        """Says, at the first attack that an interrupted evaluation left unfinished, how much of it there is."""
        self._before += done
        if self._before and done < len(self.split):
            print(f"going on after {self._before} attacked images: {attack.name} from image {done} on", flush=True)
            self._before = 0
