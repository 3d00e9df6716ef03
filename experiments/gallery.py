"""The gallery of the report: for each row a few test images, what an attack makes of them, and what is seen in either.

The images are the first ones of the row's own evaluation, attacked again as there: the same checkpoint, ε, steps and
random start. A run's picture and what it shows are kept in WORK/report/gallery and made again when the measurement
changes; a run that is elsewhere, with nothing but its results here, has none.
"""

import base64
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.measured import EPSILON, Measurement, Run, Work
from experiments.rows import dataset_of, row_of
from experiments.writers import write_file
from madry_cifar import attacks
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.evaluation.outcome import Outcome
from madry_cifar.evaluation.settings import EvaluationSettings
from madry_cifar.evaluation.targets import EvaluatedRun

IMAGES = 6
ATTACKS = ("eot-pgd-20", "pgd-20")  # the first that was measured: the one for random outputs is, only where they are


def write(work: Work, folder: pathlib.Path) -> None:
    """Makes what is due: `folder`/RUN.png and .json for the first seed of each row. Why one has none is told in
    `work.problems`."""
    for run, measurement in _shown(work):
        about = _about(measurement)
        trained_here = (work.folder / "runs" / run.id / "flags.json").exists()
        if not trained_here or (_read(folder, run) or {}).get("about") == about:
            continue
        try:
            split, natural, attacked = _attack(work, run, measurement)
        except (UsageError, RunError) as error:
            work.problems.append(f"{run.id}: no gallery ({' '.join(str(error).split())})")
            continue
        shown = {"labels": split.labels, "natural": natural.predictions, "adversarial": attacked.predictions}
        images = {name: values[:IMAGES].tolist() for name, values in shown.items()}
        pixels = picture(split.images[:IMAGES], attacked.adversarial[:IMAGES], measurement.epsilon)
        write_file(folder / f"{run.id}.png", tf.io.encode_png(pixels).numpy())
        write_file(folder / f"{run.id}.json", json.dumps({"about": about, "images": images}, indent=1) + "\n")


def picture(natural: np.ndarray, adversarial: np.ndarray, epsilon: float) -> np.ndarray:
    """The images of the gallery [3 · H, N · W, C] uint8: natural, adversarial and, amplified, what was added.

    Grey is no change, black and white are −ε and ε.

    Args:
      natural, adversarial: [N, H, W, C] pixels in [0, 255].
      epsilon: above 0, in grey levels.
    """
    perturbation = 127.5 * (1 + (adversarial - natural) / epsilon)
    rows = [np.concatenate(list(images), axis=1) for images in (natural, adversarial, perturbation)]
    return np.clip(np.rint(np.concatenate(rows)), 0, 255).astype(np.uint8)


def entries(work: Work, folder: pathlib.Path) -> list[dict[str, Any]]:
    """What the page shows, by run: what was kept of measurements that still count."""
    found = []
    for run, measurement in _shown(work):
        content = _read(folder, run)
        if content and content["about"] == _about(measurement):
            found.append(_entry(run, measurement, content, (folder / f"{run.id}.png").read_bytes()))
    return found


def _shown(work: Work) -> list[tuple[Run, Measurement]]:
    """The first run of each row on each data set that was attacked, and what was measured with that attack."""
    found = {}
    for run in sorted(work.runs, key=lambda run: run.seed):
        measured = {m.attack: m for m in [*work.epsilons(run), *work.white_box(run)] if m.epsilon == EPSILON}
        attack = next((name for name in ATTACKS if name in measured), None)
        if attack:
            found.setdefault((run.dataset, run.row), (run, measured[attack]))
    order = {run.id: place for place, run in enumerate(work.runs)}
    return sorted(found.values(), key=lambda pair: order[pair[0].id])


def _about(measurement: Measurement) -> dict[str, Any]:
    """What a gallery depends on."""
    names = ("checkpoint", "classifier_sha256", "provenance", "seed")
    about = {name: measurement.about.get(name) for name in names}
    return about | {"attack": measurement.attack, "protocol": dict(measurement.protocol)}


def _read(folder, run):
    """What was kept of a run; None if nothing was, or it cannot be read."""
    try:
        content = json.loads((folder / f"{run.id}.json").read_text())
        return content if {"about", "images"} <= set(content) and (folder / f"{run.id}.png").exists() else None
    except (OSError, ValueError, TypeError):
        return None


def _attack(work: Work, run: Run, measurement: Measurement) -> tuple[Split, Outcome, Outcome]:
    """The images, and their outcomes without and with the attack.

    Raises:
      UsageError, RunError: when the checkpoint or the data are not those of the measurement any more.
    """
    about, protocol = measurement.about, measurement.protocol
    target = EvaluatedRun(str(work.folder / "runs" / run.id))
    if target.load(about["checkpoint"])["classifier_sha256"] != about["classifier_sha256"]:
        raise RunError("its checkpoint is another than the one that was measured")
    batch = about.get("batch_size") or about["images"]
    # with statistics of the batch an image's logits depend on the others: then all of them are attacked
    images = min(batch, about["images"]) if target.predictor.batch_dependent else min(IMAGES, about["images"])
    settings = EvaluationSettings(max_images=images, split=about["split"], data_dir=work.config.get("data_dir"))
    dataset, split = target.images(settings)
    if dataset.provenance != about["provenance"]:
        raise RunError(f"the data are others ({dataset.provenance}) than those measured on ({about['provenance']})")
    size = batch if target.predictor.batch_dependent else len(split)
    evaluator = Evaluator(target.predictor, batch_size=size, keep_adversarial=True, look=False)
    sizes = {"epsilon": protocol["epsilon"], "step_size": protocol["step_size"]}
    chosen = [attacks.attack("natural"), attacks.attack(measurement.attack, **sizes)]
    return split, *(evaluator.run(attack, split, seed=about.get("seed") or 0) for attack in chosen)


def _entry(run: Run, measurement: Measurement, content: Mapping, png: bytes) -> dict[str, Any]:
    dataset, images = dataset_of(run.dataset), content["images"]
    names = [map(dataset.class_label, images[key]) for key in ("labels", "natural", "adversarial")]
    return {
        "label": row_of(run.row).label,
        "dataset": dataset.label,
        "run": run,
        "checkpoint": measurement.about["checkpoint"],
        "attack": measurement.attack,
        "accuracy": measurement.accuracy,
        "of": measurement.images,
        "epsilon": measurement.epsilon,
        "amplified": 127.5 / measurement.epsilon,
        "images": [dict(zip(("label", "before", "after"), each, strict=True)) for each in zip(*names, strict=True)],
        "picture": "data:image/png;base64," + base64.b64encode(png).decode(),
    }
