"""Results files: what was measured on a run's checkpoint, with its protocol, and the outcome of each image."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from madry_cifar.evaluation import Outcome
from madry_cifar.run_folder import SCHEMA_VERSION, environment, write_json


def file_name(step: int, split: str, images: int, epsilon: float, step_size: float, seed: int) -> str:
    """The name, without ending, under which results of this protocol are kept in a run's `results/`."""
    return f"ckpt-{step}_{split}-{images}_eps-{epsilon:g}_step-{step_size:g}_seed-{seed}"


SAME = ("classifier_sha256", "provenance", "batch_size")  # what results must share to stand in one file


def read(path: pathlib.Path, about: Mapping) -> dict:
    """The results file at `path`, or {} if there is none that is whole, of this schema and of the same (see `SAME`)."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    same = all(content.get(name) == about.get(name) for name in SAME)
    return content if same and content.get("schema_version") == SCHEMA_VERSION else {}


def write(path: pathlib.Path, outcomes: Mapping[str, Outcome], about: Mapping) -> dict:
    """Writes `path` (.json) and the per-image outcomes beside it (.npz); returns what the JSON holds.

    Attacks that the file already has, of the same weights, data and batches, are kept beside the new ones.

    Args:
      path: of the JSON file.
      outcomes: by attack.
      about: what they are of: at least `SAME`.
    """
    before = read(path, about)
    arrays = {}
    if before:
        # without the outcomes of the images, their results go: they are measured again
        damaged = contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile)
        with damaged, np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = dict(stored)
    known = {name: entry for name, entry in before.get("attacks", {}).items() if name in arrays}
    arrays |= {"labels": next(iter(outcomes.values())).labels}
    arrays |= {name: outcome.predictions for name, outcome in outcomes.items()}
    content = {
        "schema_version": SCHEMA_VERSION,
        "numbers": "measured",
        **about,
        **environment(),
        "attacks": known | {name: outcome.as_dict() for name, outcome in outcomes.items()},
        "predictions": path.with_suffix(".npz").name,
    }
    write_array(path.with_suffix(".npz"), np.savez_compressed, **arrays)
    write_json(path, content)
    return content


def write_adversarial(path: pathlib.Path, outcomes: Mapping[str, Outcome]) -> None:
    """Writes the adversarial images that were kept, [N, 32, 32, 3] float32, beside `path`: one .npy an attack."""
    for name, outcome in outcomes.items():
        if outcome.adversarial is not None:
            write_array(path.with_name(f"{path.stem}_{name}.npy"), np.save, outcome.adversarial)


def write_array(path: pathlib.Path, save, *arrays, **named_arrays) -> None:
    """Writes arrays by NumPy's `save` under a temporary name, then renames the file to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    save(temporary, *arrays, **named_arrays)
    temporary.replace(path)
