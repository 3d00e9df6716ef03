"""Evaluates checkpoints of a run as flags say: what `rvs_tf.evaluate` and `madry_cifar.eval` have in common."""

import os
import pathlib

from absl import flags as absl_flags

from madry_cifar import attacks, checkpoints, data, flags, results, run_folder
from madry_cifar.errors import UsageError
from madry_cifar.evaluation import Evaluator, fingerprint
from madry_cifar.model import WideResNet

FLAGS = absl_flags.FLAGS


def define_flags(checkpoint: bool = True) -> None:
    """The flags of an evaluation; with `checkpoint`, also the one that chooses a checkpoint."""
    define = flags.define
    define("Evaluation", "train_dir", None, "folder of the run to evaluate (required)")
    if checkpoint:
        define("Evaluation", "checkpoint", None, "step or path of the checkpoint [the latest]")
    define("Evaluation", "attacks", "natural,fgsm,pgd-7,pgd-20,cw-20",
           "what to run: natural, fgsm, fgsm-rs (from a random start), pgd-N, cw-N")  # fmt: skip
    define("Evaluation", "epsilon", 8.0, "radius of the L∞ ball, in grey levels of 255", kind=float)
    define("Evaluation", "step_size", 2.0, "size of a step of PGD and CW, in grey levels", kind=float)
    define("Evaluation", "split", "test", "test or validation (with --validation_size, as the run was trained)")
    define("Evaluation", "max_images", 0, "of the split, from its beginning; 0 is all", kind=int, minimum=0)
    define("Evaluation", "seed", 0, "of the random starts", kind=int, minimum=0, maximum=2**31 - 1)
    define("Evaluation", "batch_size", 200, "images attacked at once; random starts depend on it", kind=int, minimum=1)
    define("Evaluation", "data_dir", None, "where the data set is now [as the run was trained]")
    define("Evaluation", "download", False, "prepare the data set there if it is missing", kind=bool)


class Evaluation:
    """Evaluates checkpoints of a run as the flags say; with `save_adversarial`, keeps the adversarial images too.

    Attributes:
      names: the attacks.
      run_flags: the settings that the run was trained with.

    Raises:
      UsageError, RunError: for flags, a folder or data that cannot be used.
    """

    def __init__(self, save_adversarial: bool = False):
        if not FLAGS.train_dir:
            raise UsageError("--train_dir=: say which run to evaluate")
        self.run_flags = run_folder.read_flags(FLAGS.train_dir)
        sizes = flags.configuration(["epsilon", "step_size"])
        chosen = [attacks.attack(name, **sizes) for name in dict.fromkeys(FLAGS.attacks.split(",")) if name]
        if not chosen:
            raise UsageError("--attacks=: name at least one, for instance natural,pgd-20")
        self.names = [attack.name for attack in chosen]
        self.results = pathlib.Path(FLAGS.train_dir) / "results"
        place = self.results if self.results.exists() else self.results.parent
        if not (place.is_dir() and os.access(place, os.W_OK)):  # told now, not after hours of attacks
            raise UsageError(f"--train_dir={FLAGS.train_dir}: results cannot be written to {place}")
        self.dataset = data.load(
            self.run_flags["dataset"],
            data_dir=FLAGS.data_dir or self.run_flags.get("data_dir"),
            download=FLAGS.download,
            validation_size=self.run_flags.get("validation_size", 0),
        )
        self.split = self._split()
        self.classifier = WideResNet(*(self.run_flags[name] for name in ("depth", "width", "num_classes")))
        self.evaluator = Evaluator(self.classifier, chosen, batch_size=min(FLAGS.batch_size, len(self.split)),
                                   progress=True, keep_adversarial=save_adversarial)  # fmt: skip

    def _split(self):
        split = {"test": self.dataset.test, "validation": self.dataset.validation}.get(FLAGS.split)
        if split is None:
            raise UsageError(f"--split={FLAGS.split}: must be test, or validation if the run held images out")
        trained_on = run_folder.read_provenance(FLAGS.train_dir)
        if FLAGS.split == "validation" and trained_on not in (None, self.dataset.provenance):
            raise UsageError(f"--split=validation: which images were held out is not known in other data than those "
                             f"trained on: then {trained_on}, now {self.dataset.provenance}")  # fmt: skip
        return split.take(slice(FLAGS.max_images or None))

    def of(self, checkpoint, reuse: bool = False) -> dict:
        """The results of a checkpoint (step, path, or None for the latest): measured, written and returned.

        With `reuse`, what its results file has of all the attacks is not measured again.
        """
        step, _ = checkpoints.find(FLAGS.train_dir, checkpoint)
        checkpoints.load_network(self.classifier, "classifier", FLAGS.train_dir, step)
        about = {
            "train_dir": str(FLAGS.train_dir),
            "defense": self.run_flags["defense"],
            "network": f"WRN-{self.run_flags['depth']}-{self.run_flags['width']}",
            "checkpoint": step,
            "classifier_sha256": fingerprint(self.classifier),
            "dataset": self.dataset.name,
            "provenance": self.dataset.provenance,
            "split": FLAGS.split,
            "images": len(self.split),
            "seed": FLAGS.seed,
            "batch_size": self.evaluator.batch_size,
            "training_flags": self.run_flags,
        }
        name = results.file_name(step, FLAGS.split, len(self.split), FLAGS.epsilon, FLAGS.step_size, FLAGS.seed)
        file = self.results / f"{name}.json"
        content = results.read(file, about) if reuse else {}
        if not set(self.names) <= set(content.get("attacks", ())):
            outcomes = self.evaluator(self.split, seed=FLAGS.seed)
            content = results.write(file, outcomes, about)
            results.write_adversarial(file, outcomes)
        return content | {"file": str(file)}
