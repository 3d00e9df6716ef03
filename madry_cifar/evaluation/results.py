"""Results files: what was measured on a run's checkpoint, with its protocol, and the outcome of each image.

    path_of                    where results are kept, so that they replace no others
    read, write                a results file (.json) with the predictions beside it (.npz)
    outcome, worst_case        what such a file has of one attack, and of several together
    subject                    what it is of, in words
    write_adversarial, adversarial_path    adversarial images that were kept
    Partial, remove_partial    what an evaluation in progress has measured, from which it goes on after it was killed

A results file holds what was measured on the same weights, images and batches, and made on the same surrogate.
"""

import glob
import hashlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping

import numpy as np

from madry_cifar.attacks.registry import Attack
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.outcome import BESIDE, Outcome, accuracy
from madry_cifar.runs.files import naming, write_array, write_json
from madry_cifar.runs.run_folder import SCHEMA_VERSION, environment

PURIFIED = "_purified-"  # in the name of what is of images that are purified


def file_name(about: Mapping) -> str:
    """The name, without ending, under which results of this protocol are kept in a run's `results/`."""
    name = f"ckpt-{about['checkpoint']}" if "checkpoint" in about else "model"
    name += "_{split}-{images}_eps-{epsilon:g}_step-{step_size:g}_seed-{seed}".format_map(about)
    name += "_skip" if about.get("skip_misclassified") else ""
    if "purification" in about:
        name += f"{PURIFIED}{about['classifier_sha256'][:8]}"
    if surrogate := about.get("surrogate"):
        name += f"_from-{surrogate['defense']}-{surrogate['classifier_sha256'][:8]}"
    return name


def subject(about: Mapping) -> str:
    """What results are of, for people: "rvs, WRN-28-10, step 80000", or a model's name, and whether it is purified."""
    name = about["model"] if "model" in about else "{defense}, {network}, step {checkpoint}".format_map(about)
    return f"{name}, purified by {purified_by(about)}" if "purification" in about else name


def purified_by(about: Mapping) -> str:
    """The GAN, its checkpoint and the search before the classifier, in words; "" if images are not purified."""
    if not (told := about.get("purification")):
        return ""
    gan = "{gan}, step {checkpoint}".format_map(told) if "gan" in told else "a GAN"
    drop = ", which drops" if told["rate_drop"] else ""
    return "{gan}, {restarts} × {steps} steps at rate {rate:g}{drop}".format_map(told | {"gan": gan, "drop": drop})


SAME = ("classifier_sha256", "provenance", "split", "images", "seed", "batch_size", "skip_misclassified")


def identity(about: Mapping) -> dict:
    """What results must share to stand in one file, beside its name."""
    surrogate = (about.get("surrogate") or {}).get("classifier_sha256")
    return {name: about[name] for name in SAME if name in about} | {"surrogate": surrogate}


def path_of(folder: pathlib.Path, about: Mapping, prefix: str = "") -> pathlib.Path:
    """Where results are kept in a folder: a file of their own, if one of other results has their name already."""
    plain = folder / f"{prefix}{file_name(about)}.json"
    try:
        content = json.loads(plain.read_text())
        is_other = content["schema_version"] != SCHEMA_VERSION or identity(content) != identity(about)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # there is none, or it is damaged
        return plain
    digest = hashlib.sha256(json.dumps(identity(about), sort_keys=True).encode()).hexdigest()[:8]
    return plain.with_name(f"{plain.stem}_{digest}.json") if is_other else plain


def read(path: pathlib.Path, about: Mapping) -> dict:
    """The results file at `path`, or {} if there is none of this schema and of the same (see `identity`).

    What is damaged in it, in the JSON or in the predictions, is left out, with a warning on stderr.
    """
    content, _, faults = _read(path, about)
    if faults:
        warn(f"{path}: damaged ({faults[0]}); what it held is measured again when it is asked for")
    return content


def outcome(path: pathlib.Path, about: Mapping, attack: Attack) -> Outcome | None:
    """The outcome of an attack that the results file at `path` has, of the same and with this protocol."""
    content, arrays, _ = _read(path, about)
    entry = content.get("attacks", {}).get(attack.name)
    if entry is None or entry["protocol"] != attack.protocol:
        return None
    numbers = {name: entry[name] for name in NUMBERS if name in entry}
    beside = {kind: arrays[f"{attack.name}.{kind}"] for kind, told in BESIDE.items() if told in entry}
    return Outcome(attack, arrays[attack.name], arrays["labels"], **beside, **numbers)


def worst_case(path: pathlib.Path, about: Mapping, names: Iterable[str]) -> dict | None:
    """Accuracy in percent under the worst of these attacks for each image, as far as they are in an L∞ ball.

    None if the results file at `path` has not at least two of them, and behind a purifier: there attacks on the latent
    vectors and through a stand-in are columns of their own, each of one draw of the starts.
    """
    if "purification" in about:
        return None
    content, arrays, _ = _read(path, about)
    entries = content.get("attacks", {})
    counted = [name for name in names if name in entries and entries[name]["protocol"].get("norm", "linf") == "linf"]
    if len([name for name in counted if name != "natural"]) < 2:
        return None
    right = np.all([arrays[name] == arrays["labels"] for name in counted], axis=0)
    return {"accuracy": 100 * float(right.mean()), "attacks": counted}


def _read(path, about):
    """The content and predictions of a results file as far as both are whole, and what is wrong with it."""
    try:
        content = json.loads(path.read_text())
        if content["schema_version"] != SCHEMA_VERSION or identity(content) != identity(about):
            return {}, {}, []
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = dict(stored)
        faults = {name: fault for name, entry in content["attacks"].items() if (fault := _fault(name, entry, arrays))}
    except FileNotFoundError as error:
        return {}, {}, [] if error.filename == str(path) else ["its predictions are missing"]
    except Exception as error:  # arbitrary bytes may make the readers of JSON and of archives raise anything
        return {}, {}, [_reason(error)]
    content["attacks"] = {name: entry for name, entry in content["attacks"].items() if name not in faults}
    return content, arrays, list(faults.values())


def _fault(name, entry, arrays):
    """What is wrong with an attack's entry; None if it is whole and that of its predictions."""
    needed = [name, *(f"{name}.{kind}" for kind, told in BESIDE.items() if told in entry)]
    if missing := [each for each in needed if each not in arrays]:
        return f"no predictions of {missing[0]}"
    if {"accuracy", "images", "protocol", "linf", "seconds"} - set(entry):
        return f"{name} is incomplete"
    if not isinstance(entry.get("environment", {}), dict):
        return f"the environment of {name} is not understood"
    if accuracy(arrays[name], arrays["labels"]) != entry["accuracy"]:
        return f"the accuracy of {name} is not that of its predictions"
    return None


def _reason(error):
    return " ".join(str(error).split())[:100] or type(error).__name__


def write(path: pathlib.Path, outcomes: Mapping[str, Outcome], about: Mapping) -> dict:
    """Writes `path` (.json) and the per-image outcomes beside it (.npz); returns what the JSON holds.

    Attacks that the file already has, of the same weights, data and batches, are kept beside the new ones. What of the
    versions, revision, machine and date that they were measured with is not the file's, their entries tell
    (`environment`).

    Args:
      path: of the JSON file.
      outcomes: by attack.
      about: what they are of: of `SAME` at least the first six.

    Raises:
      OSError: naming the file, when it cannot be written; the earlier one is then as it was.
    """
    before, arrays, _ = _read(path, about)
    arrays |= {"labels": next(iter(outcomes.values())).labels}
    arrays |= {name: outcome.predictions for name, outcome in outcomes.items()}
    beside = {f"{name}.{kind}": getattr(each, kind) for name, each in outcomes.items() for kind in BESIDE}
    arrays |= {name: array for name, array in beside.items() if array is not None}
    now = environment()
    content = {
        "schema_version": SCHEMA_VERSION,
        "numbers": "measured",
        **about,
        **now,
        "attacks": _kept(before, now) | {name: outcome.as_dict() for name, outcome in outcomes.items()},
        "predictions": path.with_suffix(".npz").name,
    }
    write_array(path.with_suffix(".npz"), np.savez_compressed, **arrays)
    write_json(path, content)
    return content


def _kept(before, now):
    """The entries of a results file as it was, each with what of its environment is not as `now`."""
    kept = {}
    for name, entry in before.get("attacks", {}).items():
        then = {key: before.get(key) for key in now} | entry.get("environment", {})
        other = {key: value for key, value in then.items() if value != now[key]}
        plain = {key: value for key, value in entry.items() if key != "environment"}
        kept[name] = plain | ({"environment": other} if other else {})
    return kept


def adversarial_path(path: str | os.PathLike, name: str) -> pathlib.Path:
    """Where the adversarial images of an attack are kept, beside the results file at `path`."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}_{name}.npy")


def write_adversarial(path: pathlib.Path, outcomes: Mapping[str, Outcome]) -> None:
    """Writes the adversarial images that were kept, [N, 32, 32, 3] float32, beside `path`: one .npy an attack."""
    for name, outcome in outcomes.items():
        if outcome.adversarial is not None:
            write_array(adversarial_path(path, name), np.save, outcome.adversarial)


NUMBERS = ("linf", "attacked", "seconds", "compiled_images", "compiled_seconds")  # of an `Outcome`


class Partial:
    """The outcome so far of an attack, on disk after each batch, until the evaluation that it belongs to has ended.

    Args:
      path: of the results file.
      about: what that is of.
      attack: with its protocol.
      name: tells it apart from others that are measured for the same results file.
      images: whether adversarial images are kept too: in a file of their own, to which each batch's are appended.
    """

    def __init__(self, path: pathlib.Path, about: Mapping, attack: Attack, name: str, images: bool = False):
        self.path = path.with_name(f".{path.stem}_{name}.partial.npz")
        self.attack = attack
        self.images_path = self.path.with_suffix(".images") if images else None
        self._images = 0  # how many are in that file
        self._key = json.dumps([identity(about), attack.protocol, images], sort_keys=True)

    def read(self, split: Split) -> Outcome | None:
        """The outcome of the first images of `split`; None, with a warning, if it is damaged or of something else."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                content = dict(stored)
            if str(content["key"]) != self._key:
                raise ValueError("of other weights, data or settings")
            done = slice(len(content["predictions"]))
            adversarial = self._read_images(split.images[done].shape) if self.images_path else None
            numbers = {name: content[name].item() for name in NUMBERS}
            arrays = {"adversarial": adversarial} | {kind: content.get(kind) for kind in BESIDE}
            return Outcome(self.attack, content["predictions"], split.labels[done], **arrays, **numbers)
        except Exception as error:  # as in `_read`
            warn(f"{self.path}: cannot be gone on from ({_reason(error)}); measured from the first image")
            return None

    def _read_images(self, shape):
        size = math.prod(shape) * np.float32().nbytes
        images = np.frombuffer(self.images_path.read_bytes()[:size], np.float32).reshape(shape)
        os.truncate(self.images_path, size)  # a batch that was not finished
        self._images = len(images)
        return images

    def write(self, outcome: Outcome) -> None:
        """Keeps the outcome so far. Raises OSError, naming the file, when it cannot be written."""
        if self.images_path:
            with naming(self.images_path):
                self.images_path.parent.mkdir(parents=True, exist_ok=True)
                with self.images_path.open("ab" if self._images else "wb") as file:
                    file.write(outcome.adversarial[self._images :].tobytes())
            self._images = len(outcome.adversarial)
        arrays = {name: getattr(outcome, name) for name in ("predictions", *NUMBERS)}
        arrays |= {kind: array for kind in BESIDE if (array := getattr(outcome, kind)) is not None}
        write_array(self.path, np.savez, key=self._key, **arrays)

    def remove(self) -> None:
        """Removes what was kept."""
        for path in filter(None, (self.path, self.images_path)):
            path.unlink(missing_ok=True)


def remove_partial(path: pathlib.Path, attack: Attack) -> None:
    """Removes what `Partial`s of an attack have kept for the results file at `path`."""
    for kept in path.parent.glob(glob.escape(f".{path.stem}_{attack.name}") + "[._]*"):
        kept.unlink(missing_ok=True)


def warn(message: str) -> None:
    """A line on stderr."""
    print(f"warning: {message}", file=sys.stderr)
