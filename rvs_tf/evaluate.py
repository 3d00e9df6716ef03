"""Evaluates a run, or a model from elsewhere, under attacks: a table here, JSON and each image's outcome in results/.

  python -m rvs_tf.evaluate --train_dir=runs/rvs --attacks=natural,fgsm,pgd-7,pgd-20,cw-20
  python -m rvs_tf.evaluate --train_dir=runs/rvs --attacks=pgd-20 --epsilon=0,2,4,8 --output=epsilons.json
  python -m rvs_tf.evaluate --train_dir=runs/rvs --attacks=pgd-20,pgd-20x10,autoattack
  python -m rvs_tf.evaluate --train_dir=runs/rvs --surrogate_dir=runs/at --advgan_dir=advgan/at
  python -m rvs_tf.evaluate --train_dir=runs/natural --purify_with=runs/gan --attacks=natural,bpda-pgd-20,latent-100
  python -m rvs_tf.evaluate --model=own.keras --pixel_range=0,1 --data=images.npz --attacks=natural,pgd-20,autoattack

The fourth makes the adversarial images on another network, the fifth is of a network behind a purifier (Defense-GAN);
docs/any_model.md tells of the last. Which attack is for what is in docs/evaluation.md. An evaluation that was killed
goes on after its last batch when the same command is typed again.
"""

import functools
import os
import pathlib
from collections.abc import Iterable

from rich.console import Console

from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import like, option
from madry_cifar.evaluation.evaluator import Task, telling
from madry_cifar.evaluation.results import adversarial_path
from madry_cifar.evaluation.run_evaluation import Evaluation, accuracies
from madry_cifar.evaluation.settings import EvaluationSettings, Images, Target
from madry_cifar.evaluation.table import table
from madry_cifar.runs.files import write_json
from madry_cifar.training.summaries import record_evaluation
from rvs_tf.advgan.advgan import TrainedAdvGAN
from rvs_tf.defense_gan.purification import AT_ONCE, Purification, purify


class EvaluateSettings(Purification, EvaluationSettings, Target):
    """An evaluation of one checkpoint, or of a model from elsewhere."""

    advgan_dir: tuple[str, ...] = option(
        (),
        "folder of rvs_tf.train_advgan, or several with commas: attacks by its checkpoints, which were trained against "
        "the network that is attacked",
        kind="path",
    )
    reuse: bool = option(False, "take what results/ has of the same weights, data and protocol")
    save_adversarial: bool = option(
        False,
        "keep the adversarial images in results/, a .npy an attack (for madry_cifar.run_attack, but for those made "
        "behind a purifier, of which it knows nothing)",
    )
    batch_size: int | None = like(
        Images,
        "batch_size",
        default=None,
        help=f"images attacked at once; {AT_ONCE} behind a purifier [200]",
    )
    output: str | None = option(
        None, "JSON file for these results beside results/: an array with one entry per ε", kind="path"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size is None:
            usual = Images.__dataclass_fields__["batch_size"].default
            object.__setattr__(self, "batch_size", AT_ONCE if self.purify_with else usual)  # a frozen dataclass
        if self.reuse and self.save_adversarial:
            raise UsageError("reuse", True, "of attacks that are not run again, --save_adversarial has no images")


def main() -> None:
    """Evaluates as the flags say, and prints the table."""
    settings = flags.read(EvaluateSettings)
    output = _output(settings.output)
    purify_target = functools.partial(purify, settings, split=settings.split) if settings.purify_with else None
    evaluation = Evaluation(settings, settings.save_adversarial, advgans(settings.advgan_dir), purify_target)
    contents = evaluation.of(settings.checkpoint, settings.reuse)
    if settings.train_dir:
        record_evaluation(settings.train_dir, contents[0]["checkpoint"], accuracies(contents))
    if output:
        write_json(output, contents)
    Console().print(table(contents))
    files = [content["file"] for content in contents] + [output] * bool(output)
    if settings.save_adversarial:
        files += [adversarial_path(content["file"], name) for content in contents for name in content["attacks"]]
    for file in dict.fromkeys(files):
        print(file)


def _output(output):
    """The path of --output, if it was given and can be written."""
    if not output:
        return None
    path = pathlib.Path(output)
    place = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not (place.is_dir() and os.access(place, os.W_OK)):
        raise UsageError("output", path, "cannot be a file there")
    return path


class AdvGANTask(Task):
    """All checkpoints of an AdvGAN, for two entries: NAME of the strongest one, as in the paper, and NAME-final."""

    TOLD = ("checkpoint", "selection", "accuracy_by_checkpoint")

    def __init__(self, advgan: TrainedAdvGAN, folder: str):
        super().__init__(advgan.attack)
        self.advgan, self.folder = advgan, folder
        self.names = (advgan.name, f"{advgan.name}-final")

    def check(self, attacked, epsilon):
        """Raises UsageError unless the AdvGAN was trained against the network that is attacked, and for this ε."""
        if self.advgan.target_sha256 != attacked["classifier_sha256"]:
            if "purification" in attacked:
                reason = "an AdvGAN cannot be trained against a purifier; use --surrogate_dir for the grey box"
                raise UsageError("advgan_dir", self.folder, reason)
            which = attacked.get("model") or "checkpoint {checkpoint} of {train_dir}".format_map(attacked)
            raise UsageError(
                "advgan_dir",
                self.folder,
                "was trained against another network "
                f"({self.advgan.target_sha256[:12]}) than {which} ({attacked['classifier_sha256'][:12]})",
            )
        if self.advgan.epsilon != epsilon:
            raise UsageError(
                "epsilon", f"{epsilon:g}", f"the AdvGAN in {self.folder} was trained for {self.advgan.epsilon:g}"
            )

    def is_of(self, protocol):
        """Whether the protocol is of this AdvGAN, with the checkpoints that it has now."""
        steps = [str(step) for step in self.advgan.steps]
        return super().is_of(protocol) and list(protocol.get("accuracy_by_checkpoint", ())) == steps

    def outcomes(self, measure):
        """The outcomes of the strongest checkpoint (lowest accuracy, the earliest of several) and of the last one."""
        accuracies, strongest = {}, None
        for step in self.advgan.steps:
            self.advgan.restore(step)
            attack = self.attack._replace(protocol=self.attack.protocol | {"checkpoint": step})
            last = measure(attack, part=f"ckpt-{step}")
            accuracies[str(step)] = last.accuracy
            if strongest is None or last.accuracy < strongest.accuracy:
                strongest = last
        oracle = f"strongest of {len(accuracies)} checkpoints on these images, an oracle choice, as in the paper"
        chosen = zip(self.names, (strongest, last), (oracle, "final"), strict=True)
        return {
            name: telling(outcome, selection=selection, accuracy_by_checkpoint=accuracies)
            for name, outcome, selection in chosen
        }


def advgans(folders: Iterable[str]) -> list[AdvGANTask]:
    """What is measured for the AdvGANs in these folders.

    Raises:
      UsageError, RunError: for a folder without one, or two that would have the same name in the results.
    """
    tasks = {}
    for folder in folders:
        try:
            advgan = TrainedAdvGAN(folder)
        except UsageError as error:
            raise error.renamed(train_dir="advgan_dir") from None
        if advgan.name in tasks:
            raise UsageError(
                "advgan_dir",
                folder,
                f"as wide as that in {tasks[advgan.name].folder}, and both are "
                f"called {advgan.name} in the results; evaluate one of them",
            )
        tasks[advgan.name] = AdvGANTask(advgan, folder)
    return list(tasks.values())


def command() -> None:
    """Entry point."""
    flags.define("Evaluation", EvaluateSettings)
    flags.run(main, __doc__, resumes=True)


if __name__ == "__main__":
    command()
