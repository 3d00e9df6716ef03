"""The grid's result files, read and checked: each function raises one of `DAMAGE` for a file that cannot be used.

A file must be of this schema, be measured, and be of the run that it stands for.
"""

import json
import math
import pathlib
import zipfile
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
ABOUT = ("train_dir", "defense", "network", "checkpoint", "classifier_sha256", "provenance", "split")
WHEN_AND_WHERE = ("git_revision", "machine", "date")  # of a measurement or a training
DISTANCES = ("mean_distance", "mean_standard_deviation")
VERDICTS = ("suspect", "note", "ok", "not measured")
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, zipfile.BadZipFile)


def read_accuracies(path: pathlib.Path, run, surrogate: str | None) -> list[dict]:
    """What `rvs_tf.evaluate` wrote of a run, made on the surrogate of this row or, for none, on the run itself."""
    contents = _read(path)
    if not isinstance(contents, list):
        raise ValueError("not a list of results")
    for content in contents:
        _check(content, run, ABOUT)
        _check_surrogate(content, run, surrogate)
        for name in ("attacks", "training_flags"):
            content[name].items()
    return contents


def read_results(path: pathlib.Path) -> dict:
    """What an evaluation keeps in the results/ of a run, or of a model from elsewhere."""
    content = _read(path)
    subject = ("model", *ABOUT[-3:]) if "model" in content else ABOUT
    _check_measured(content, (*subject, "images", "epsilon", "step_size", "seed"))
    content["attacks"].items()
    return content


def check_entry(entry: dict) -> dict[str, Any]:
    """An attack's accuracy in percent, number of images and protocol; and, where known, `linf` and `not_finite`."""
    accuracy, images, protocol = entry["accuracy"], entry["images"], entry["protocol"]
    for value in (accuracy, *protocol.get("accuracy_after", {}).values()):
        if not (_is_number(value) and 0 <= value <= 100):
            raise ValueError(f"accuracy {value}")
    if not (isinstance(images, int) and images > 0):
        raise ValueError(f"{images} images")
    known = {"linf": entry.get("linf"), "not_finite": entry.get("broken")}
    known = {name: value for name, value in known.items() if _is_number(value)}
    return {"accuracy": float(accuracy), "images": images, "protocol": protocol} | known


def read_diversity(path: pathlib.Path, run) -> dict:
    """What `rvs_tf.analysis.diversity` wrote of a run; its checkpoints in the order of training."""
    content = _read(path)
    _check(content, run, ("network", "provenance", "split", "images", "draws"))
    for entry in content["checkpoints"]:
        values = [entry[kind][name] for kind in ("noise", "no_noise") for name in DISTANCES]
        if not all(map(_is_number, values)):
            raise ValueError(f"checkpoint {entry['checkpoint']}: {values}")
    if not content["checkpoints"]:
        raise ValueError("no checkpoints")
    return content | {"checkpoints": sorted(content["checkpoints"], key=lambda entry: entry["checkpoint"])}


def read_latent(path: pathlib.Path, run) -> dict[str, Any]:
    """The arrays that `rvs_tf.analysis.latent_space` wrote of a run, but for the features."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("checkpoints", "embedding", "labels", "natural")}
        arrays["about"] = json.loads(str(file["about"]))
    points = len(arrays["labels"])
    expected = {"embedding": (len(arrays["checkpoints"]), points, 2), "natural": (points,)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, not {shape}")
    if not (points and len(arrays["checkpoints"]) and np.isfinite(arrays["embedding"]).all()):
        raise ValueError("no points, or some not finite")
    _check({"schema_version": SCHEMA_VERSION, "numbers": "measured"} | arrays["about"], run, ("network", "provenance"))
    return arrays


def read_diagnosis(path: pathlib.Path, run) -> dict:
    """What `rvs_tf.diagnose` wrote of a run; its plot, `surface`, by its name beside the file, or None."""
    content = _read(path)
    _check(content, run, (*ABOUT, "images", "epsilon", "verdict"))
    for check in content["checks"]:
        if not all(isinstance(check[name], str) for name in ("name", "question", "verdict", "evidence")):
            raise ValueError(f"check {check['name']}: a question, verdict and evidence must be text")
        if check["verdict"] not in VERDICTS:
            raise ValueError(f"check {check['name']}: verdict {check['verdict']}")
    surface = content.get("surface")
    if surface is not None and pathlib.PurePath(surface).name != surface:
        raise ValueError(f"its plot {surface} is not beside it")
    return content


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _check_measured(content, needed):
    """Raises for what is no measurement, or lacks something."""
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {content['schema_version']}")
    if content["numbers"] != "measured":
        raise ValueError(f"its numbers are {content['numbers']}, not measured")
    for name in needed:
        content[name]


def _check(content, run, needed):
    """Raises for what is no measurement of this run."""
    _check_measured(content, needed)
    expected, parts = pathlib.PurePath(run.id).parts, pathlib.PurePath(content["train_dir"]).parts
    if parts[-len(expected) :] != expected:
        raise ValueError(f"it is of another run, {content['train_dir']}")


def _check_surrogate(content, run, row):
    """Raises unless the attacks were made on the surrogate of this row; for none, on the run itself."""
    surrogate = content.get("surrogate")
    if not row and not surrogate:
        return
    parts = pathlib.PurePath(surrogate["train_dir"]).parts if surrogate else ()
    if not row or parts[-3:-2] != (run.dataset,) or parts[-2].rpartition("-")[0] != row:
        raise ValueError(f"its attacks were made on {surrogate['train_dir'] if surrogate else 'the run itself'}")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
