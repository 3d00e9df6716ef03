"""What the grid measured: a work folder's configuration and result files, each number with where it comes from.

A file that is missing is not measured yet. One that is damaged, or that is not of the run it stands for, is as good as
missing and is named in `Work.problems`, a line each.
"""

import json
import math
import pathlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from madry_cifar.errors import RunError, UsageError

SCHEMA_VERSION = 1
WHITE_BOX = "white-box"
EPSILON = 8  # grey levels; all tables of the paper are at 8/255
ABOUT = ("train_dir", "defense", "network", "checkpoint", "classifier_sha256", "provenance", "split")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, zipfile.BadZipFile)


def transfer_from(surrogate: str) -> str:
    """The setting, as `published.csv` names it, of attacks made on the surrogate of this row."""
    return f"transfer from {surrogate}"


@dataclass(frozen=True)
class Run:
    """One training of the grid: data set × row × seed. `flags` are those of the training command."""

    id: str
    dataset: str
    row: str
    seed: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One accuracy of one run under one attack.

    Attributes:
      run: whose classifier was attacked.
      setting: `WHITE_BOX`, or what `transfer_from` gives.
      accuracy: in percent of `images`.
      protocol: of the attack, as its result file has it.
      about: what else the result file says: checkpoint, fingerprint, provenance, versions, surrogate, ...
      file: the result file, relative to the work folder.
    """

    run: Run
    setting: str
    attack: str
    accuracy: float
    images: int
    protocol: Mapping[str, Any]
    about: Mapping[str, Any]
    file: str

    @property
    def epsilon(self) -> float | None:
        """Radius in grey levels; None for an attack that has none."""
        return self.protocol.get("epsilon")

    @property
    def surrogate(self) -> Mapping[str, Any]:
        """What the attack was made on, as the result file has it; empty for white-box."""
        return self.about.get("surrogate") or {}

    @property
    def standard_error(self) -> float:
        """Of the accuracy, in points, from the number of images (binomial)."""
        return binomial_error(self.accuracy, self.images)


def binomial_error(accuracy: float, images: int) -> float:
    """The standard error in points of an accuracy in percent on so many images."""
    share = accuracy / 100
    return 100 * math.sqrt(share * (1 - share) / images)


class Work:
    """A work folder of the grid, read when asked.

    Attributes:
      folder: where it is.
      config: the content of `config.json`.
      runs: the trainings of the grid, those of former calls too.
      parts: the tables and figures that it was asked for.
      problems: files that could not be used, a line each.

    Raises:
      UsageError: for a folder that holds no grid.
      RunError: for a `config.json` that cannot be understood.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        self.problems: list[str] = []
        self._known: dict[pathlib.Path, Any] = {}
        path = self.folder / "config.json"
        try:
            self.config = json.loads(path.read_text(encoding="utf-8"))
            if self.config["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {self.config['schema_version']}, this program knows {SCHEMA_VERSION}")
            self.profile = str(self.config["profile"])
            self.runs = [
                Run(run["id"], run["dataset"], run["row"], int(run["seed"]), tuple(run.get("flags", ())))
                for run in [*self.config["runs"], *self.config.get("earlier_runs", ())]
            ]
            self.datasets = list(dict.fromkeys([*self.config["datasets"], *(run.dataset for run in self.runs)]))
            self.parts = [*self.config.get("parts", ()), *self.config.get("earlier_parts", ())]
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"--work_dir={folder}: holds no grid (no config.json); experiments.table2 and its like "
                             "make one") from None  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: damaged ({error!r})") from None

    def rows(self, part: str) -> list[str]:
        """The rows that the grid was asked to measure for a part of the report."""
        return list(self.config.get("rows", {}).get(part, ()))

    def of(self, dataset: str, row: str) -> list[Run]:
        """The runs of a row, by seed."""
        runs = [run for run in self.runs if (run.dataset, run.row) == (dataset, row)]
        return sorted(runs, key=lambda run: run.seed)

    def white_box(self, run: Run) -> list[Measurement]:
        """What was measured with attacks on the run itself, each once, from the newest file that has it."""
        files = self.path(run, "").glob("white-box*.json")
        newest_first = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
        found = {}
        for path in newest_first:
            for measurement in self._measurements(run, None, path.name):
                found.setdefault((measurement.attack, measurement.epsilon), measurement)
        return list(found.values())

    def transfer(self, run: Run, surrogate: str) -> list[Measurement]:
        """What was measured with attacks made on the surrogate of a row."""
        return self._measurements(run, surrogate, f"from-{surrogate}.json")

    def at_epsilon(self, run: Run, surrogate: str | None = None) -> dict[str, Measurement]:
        """A run's accuracies at the tables' ε, by attack: white-box, or with attacks made on a surrogate."""
        measured = self.transfer(run, surrogate) if surrogate else self.white_box(run)
        here = {m.attack: m for m in reversed(measured) if m.epsilon in (None, EPSILON)}
        others = sorted({m.epsilon for m in measured if m.attack not in here})
        if others:
            found = ", ".join(f"{epsilon:g}" for epsilon in others)
            self._problem(f"{self.folder / measured[0].file}: at ε = {found}; the tables are at ε = {EPSILON}")
        return here

    def epsilons(self, run: Run) -> list[Measurement]:
        """What was measured over ε, for Figure 2."""
        return self._measurements(run, None, "epsilons.json")

    def diversity(self, run: Run) -> dict | None:
        """The content of `diversity.json`, for Figure 3; its checkpoints in the order of training."""
        return self._once(self.path(run, "diversity.json"), lambda path: _diversity(path, run))

    def latent(self, run: Run) -> dict[str, Any] | None:
        """The arrays of `latent.npz` but for the features, and what it is about, for Figure 4."""
        return self._once(self.path(run, "latent.npz"), lambda path: _latent(path, run))

    def path(self, run: Run, name: str) -> pathlib.Path:
        """A result file of a run."""
        return self.folder / "results" / run.id / name

    def _measurements(self, run, surrogate, name):
        path = self.path(run, name)
        contents = self._once(path, lambda path: _contents(path, run, surrogate)) or []
        setting = transfer_from(surrogate) if surrogate else WHITE_BOX
        found = []
        for content in contents:
            about = {key: value for key, value in content.items() if key != "attacks"}
            for attack, entry in content["attacks"].items():
                try:
                    accuracy, images, protocol = _entry(entry)
                except _DAMAGE as error:
                    self._problem(f"{path}: {attack} left out ({error})")
                    continue
                file = path.relative_to(self.folder).as_posix()
                found.append(Measurement(run, setting, attack, accuracy, images, protocol, about, file))
        return found

    def _once(self, path, read):
        if path not in self._known:
            try:
                self._known[path] = read(path)
            except FileNotFoundError:
                self._known[path] = None
            except _DAMAGE as error:
                self._known[path] = None
                self._problem(f"{path}: cannot be used, taken as missing ({_one_line(error)})")
        return self._known[path]

    def _problem(self, line):
        if line not in self.problems:
            self.problems.append(line)


def _one_line(error):
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _contents(path, run, surrogate):
    contents = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(contents, list):
        raise ValueError("not a list of results")
    for content in contents:
        _check(content, run, ABOUT)
        _check_surrogate(content, run, surrogate)
        for name in ("attacks", "training_flags"):
            content[name].items()
    return contents


def _check(content, run, needed):
    """Raises for what is no measurement of this run."""
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {content['schema_version']}")
    if content["numbers"] != "measured":
        raise ValueError(f"its numbers are {content['numbers']}, not measured")
    wanted, parts = pathlib.PurePath(run.id).parts, pathlib.PurePath(content["train_dir"]).parts
    if parts[-len(wanted) :] != wanted:
        raise ValueError(f"it is of another run, {content['train_dir']}")
    for name in needed:
        content[name]


def _check_surrogate(content, run, row):
    """Raises unless the attacks were made on the surrogate of this row; for none, on the run itself."""
    surrogate = content.get("surrogate")
    if not row and not surrogate:
        return
    parts = pathlib.PurePath(surrogate["train_dir"]).parts if surrogate else ()
    if not row or parts[-3:-2] != (run.dataset,) or parts[-2].rpartition("-")[0] != row:
        raise ValueError(f"its attacks were made on {surrogate['train_dir'] if surrogate else 'the run itself'}")


def _entry(entry):
    accuracy, images, protocol = entry["accuracy"], entry["images"], entry["protocol"]
    if not (_is_number(accuracy) and 0 <= accuracy <= 100):
        raise ValueError(f"accuracy {accuracy}")
    if not (isinstance(images, int) and images > 0):
        raise ValueError(f"{images} images")
    protocol.items()
    return float(accuracy), images, protocol


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _diversity(path, run):
    content = json.loads(path.read_text(encoding="utf-8"))
    _check(content, run, ("network", "provenance", "split", "images", "draws"))
    for entry in content["checkpoints"]:
        values = [entry[kind][name] for kind in ("noise", "no_noise") for name in DISTANCES]
        if not all(map(_is_number, values)):
            raise ValueError(f"checkpoint {entry['checkpoint']}: {values}")
    if not content["checkpoints"]:
        raise ValueError("no checkpoints")
    return content | {"checkpoints": sorted(content["checkpoints"], key=lambda entry: entry["checkpoint"])}


DISTANCES = ("mean_distance", "mean_standard_deviation")


def _latent(path, run):
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
