"""What the grid measured: a work folder's configuration and result files, each number with where it comes from.

A file that is missing is not measured yet. One that is damaged, or that is not of the run it stands for, is as good as
missing and is named in `Work.problems`, a line each.
"""

import json
import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import result_files
from experiments.result_files import DAMAGE, SCHEMA_VERSION
from experiments.rows import WHITE_BOX, transfer_from
from madry_cifar.cli.errors import RunError, UsageError

EPSILON = 8  # grey levels; all tables of the paper are at 8/255


@dataclass(frozen=True)
class Run:
    """One training of the grid: data set × row × seed. `flags` are those of the training command."""

    id: str
    dataset: str
    row: str
    seed: int
    flags: tuple[str, ...]

    @property
    def settings(self) -> str:
        """What the runs of a row share that differ in their seed alone: the row, and the hash of its settings."""
        return self.id.rpartition("/")[0]


@dataclass(frozen=True)
class Measurement:
    """One accuracy of one run under one attack.

    Attributes:
      run: whose classifier was attacked.
      setting: `WHITE_BOX`, or what `transfer_from` gives.
      accuracy: in percent of `images`.
      protocol: of the attack, as its result file has it.
      about: what else the result file says of it: checkpoint, fingerprint, provenance, versions, surrogate, ...
      file: the result file, relative to the work folder.
      linf: the largest change of a pixel in grey levels, if the file says so.
      not_finite: number of adversarial images that were not, if it says so.
    """

    run: Run
    setting: str
    attack: str
    accuracy: float
    images: int
    protocol: Mapping[str, Any]
    about: Mapping[str, Any]
    file: str
    linf: float | None = None
    not_finite: int | None = None

    @property
    def epsilon(self) -> float | None:
        """Radius of the L∞ ball in grey levels; None for an attack that has none."""
        return self.protocol.get("epsilon")

    @property
    def is_linf(self) -> bool:
        """Whether it is an attack, and within an L∞ ball."""
        return self.attack != "natural" and self.protocol.get("norm", "linf") == "linf"

    @property
    def surrogate(self) -> Mapping[str, Any]:
        """What the attack was made on, as the result file has it; empty for white-box."""
        return self.about.get("surrogate") or {}

    def alike(self, other: "Measurement") -> bool:
        """Whether both are of the same weights, images and batches, with the same seed of the starts."""
        same = ("classifier_sha256", "seed", "batch_size")
        return self.images == other.images and all(self.about.get(name) == other.about.get(name) for name in same)

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
      runs: the trainings of the grid, those of former calls too: of each row those with the settings given last to it,
        and not to what another row starts from.
      parts: the tables and figures that it was asked for.
      problems: files that could not be used, a line each.

    Raises:
      UsageError: for a folder that holds no grid.
      RunError: for a `config.json` that cannot be understood.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        self.problems: list[str] = []
        self._contents: dict[pathlib.Path, Any] = {}
        path = self.folder / "config.json"
        try:
            self.config = json.loads(path.read_text(encoding="utf-8"))
            if self.config["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {self.config['schema_version']}, this program knows {SCHEMA_VERSION}")
            self.profile = str(self.config["profile"])
            runs = [
                Run(run["id"], run["dataset"], run["row"], int(run["seed"]), tuple(run.get("flags", ())))
                for run in [*self.config["runs"], *self.config.get("earlier_runs", ())]
            ]
            asked = {row for part in self.config.get("parts", ()) for row in self.config.get("rows", {}).get(part, ())}
            starts = [run for run in runs[: len(self.config["runs"])] if run.row not in asked]  # of what was asked for
            latest = [run for run in runs if run not in starts] + starts
            settings = {(run.dataset, run.row): run.settings for run in reversed(latest)}
            self.runs = [run for run in runs if run.settings == settings[run.dataset, run.row]]
            self.datasets = list(dict.fromkeys([*self.config["datasets"], *(run.dataset for run in self.runs)]))
            self.parts = [*self.config.get("parts", ()), *self.config.get("earlier_parts", ())]
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                "work_dir", folder, "holds no grid (no config.json); experiments.table2 and its like make one"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: damaged ({error!r})") from None

    def rows(self, part: str) -> list[str]:
        """The rows that the grid was asked to measure for a part of the report, in former calls too."""
        return list(self.config.get("shown", {}).get(part) or self.config.get("rows", {}).get(part, ()))

    def runs_of(self, dataset: str, row: str) -> list[Run]:
        """The runs of a row, by seed."""
        runs = [run for run in self.runs if (run.dataset, run.row) == (dataset, row)]
        return sorted(runs, key=lambda run: run.seed)

    def white_box(self, run: Run, part: str = "") -> list[Measurement]:
        """What was measured with attacks on the run itself, each once, all of the same weights, images and batches.

        From the file of a table (`part`), or else the newest; and from others what that does not have.
        """
        found = {}
        for m in self._white_box(run, part):
            if m.alike(next(iter(found.values()), m)):
                found.setdefault((m.attack, m.epsilon), m)
        return list(found.values())

    def _white_box(self, run, part=""):
        """All of it, that of a table first and then the newest."""
        files = sorted(self.path(run, "").glob("white-box*.json"), key=lambda path: -path.stat().st_mtime)
        files.sort(key=lambda path: path.name != f"white-box-{part}.json")
        return [m for path in files for m in self._measurements(run, None, path.name)]

    def measurements(self, run: Run) -> list[Measurement]:
        """All that was measured of a run with attacks, on whatever images: white-box, over ε and on the surrogates."""
        transfers = [m for name in self.config.get("surrogates", ()) for m in self.transfer(run, name)]
        once = {(m.attack, m.epsilon, m.images, m.about["checkpoint"]): m for m in reversed(self._white_box(run))}
        return [*reversed(once.values()), *self.epsilons(run), *transfers]

    def transfer(self, run: Run, surrogate: str) -> list[Measurement]:
        """What was measured with attacks made on the surrogate of a row."""
        return self._measurements(run, surrogate, f"from-{surrogate}.json")

    def at_epsilon(self, run: Run, surrogate: str | None = None, part: str = "") -> dict[str, Measurement]:
        """A run's accuracies at the tables' ε, by attack: white-box for a table, or by attacks made on a surrogate."""
        measured = self.transfer(run, surrogate) if surrogate else self.white_box(run, part)
        by_attack = {m.attack: m for m in reversed(measured) if m.epsilon in (None, EPSILON)}
        others = sorted({m.epsilon for m in measured if m.attack not in by_attack})
        if others:
            epsilons = ", ".join(f"{epsilon:g}" for epsilon in others)
            self._problem(f"{self.folder / measured[0].file}: at ε = {epsilons}; the tables are at ε = {EPSILON}")
        return by_attack

    def epsilons(self, run: Run) -> list[Measurement]:
        """What was measured over ε, for Figure 2."""
        return self._measurements(run, None, "epsilons.json")

    def diversity(self, run: Run) -> dict | None:
        """The content of `diversity.json`, for Figure 3; its checkpoints in the order of training."""
        return self._once(self.path(run, "diversity.json"), lambda path: result_files.read_diversity(path, run))

    def latent(self, run: Run) -> dict[str, Any] | None:
        """The arrays of `latent.npz` but for the features, and what it is about, for Figure 4."""
        return self._once(self.path(run, "latent.npz"), lambda path: result_files.read_latent(path, run))

    def diagnosis(self, run: Run) -> dict | None:
        """The content of `diagnosis.json`: the checks for masked gradients."""
        return self._once(self.path(run, "diagnosis.json"), lambda path: result_files.read_diagnosis(path, run))

    def path(self, run: Run, name: str) -> pathlib.Path:
        """A result file of a run."""
        return self.folder / "results" / run.id / name

    def _measurements(self, run, surrogate, name):
        path = self.path(run, name)
        contents = self._once(path, lambda path: result_files.read_accuracies(path, run, surrogate)) or []
        setting = transfer_from(surrogate) if surrogate else WHITE_BOX
        measurements = []
        for content in contents:
            about = {key: value for key, value in content.items() if key != "attacks"}
            for attack, entry in content["attacks"].items():
                try:
                    checked = result_files.check_entry(entry)
                    told = about | entry.get("environment", {})
                except DAMAGE as error:
                    self._problem(f"{path}: {attack} left out ({error})")
                    continue
                file = path.relative_to(self.folder).as_posix()
                measurements.append(Measurement(run, setting, attack, about=told, file=file, **checked))
        return measurements

    def _once(self, path, read):
        if path not in self._contents:
            self._contents[path] = None
            try:
                self._contents[path] = read(path)
            except FileNotFoundError:
                pass
            except DAMAGE as error:
                self._problem(f"{path}: cannot be used, taken as missing ({_one_line(error)})")
        return self._contents[path]

    def _problem(self, line):
        if line not in self.problems:
            self.problems.append(line)


def _one_line(error):
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
