"""A report on runs that were trained and evaluated by hand: their results, a row each, without published numbers."""

import collections
import csv
import io
import json
import pathlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import result_files
from experiments.duration import duration
from experiments.measured import binomial_error
from experiments.result_files import WHEN_AND_WHERE
from experiments.rows import column_of
from experiments.training_time import training_time
from experiments.writers import write_file
from madry_cifar.cli.errors import UsageError, text
from madry_cifar.evaluation.results import identity, purified_by, subject
from madry_cifar.networks.architectures import name_of
from madry_cifar.runs import run_folder
from madry_cifar.runs.run_folder import ADDED, MAY_CHANGE

SAME = ("provenance", "split", "images", "epsilon", "step_size")  # what the rows of a table share


@dataclass
class RunRow:
    """What was measured on a checkpoint of a run: an entry of its results file for each attack."""

    folder: str
    about: dict[str, Any]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    apart: str = ""  # what tells it from another row of this run, if there is one

    @property
    def label(self) -> str:
        """Folder, defence, network and step, or the name of a model from elsewhere; the attacks' seed, if not 0."""
        name = self.about["model"] if "model" in self.about else f"{self.folder}: {subject(self.about)}"
        return name + (f", attacks' seed {self.about['seed']}" if self.about["seed"] else "") + self.apart


@dataclass
class RunTable:
    """Results on the same images by attacks of the same sizes, made on the runs or on one surrogate."""

    title: str
    rows: list[RunRow]

    @property
    def attacks(self) -> list[str]:
        """The columns, in the order of Table II."""
        names = {name for row in self.rows for name in row.entries}
        return sorted(names, key=lambda name: column_of(name).order)


class RunReport:
    """The results of runs by their folders.

    Attributes:
      runs: what is said of each run beside its results, by folder.
      tables: of the results that can be compared.
      problems: files that could not be used, a line each.

    Raises:
      UsageError: for a folder that holds no run, or one without results.
      RunError: for a run whose settings cannot be understood.
    """

    def __init__(self, folders: Iterable[str]):
        self.runs: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        found: dict[str, dict[tuple, RunRow]] = {}
        for folder in dict.fromkeys(folders):
            self.runs[folder] = _about(folder)
            contents = list(self._results(folder))
            if not contents:
                reason = f"has no results; python -m rvs_tf.evaluate --train_dir={shlex.quote(folder)} makes them"
                if (kind := run_folder.kind_of(self.runs[folder]["flags"])) != run_folder.CLASSIFIER:
                    reason = f"holds {kind}; name the run of the classifier, whose results tell of it"
                raise UsageError("runs", folder, reason)
            for content in contents:
                row = RunRow(folder, content, content["attacks"])
                rows = found.setdefault(_title(content), {})
                which = json.dumps([folder, content.get("model"), content.get("checkpoint"), identity(content)])
                rows.setdefault(which, row).entries.update(row.entries)
        tables = [RunTable(title, _told_apart([*rows.values()])) for title, rows in found.items()]
        self.tables = sorted(tables, key=lambda table: _place(table.rows[0].about))

    def _results(self, folder):
        """The contents of the results files of a run that can be used, the earliest checkpoint first."""
        contents = []
        place = pathlib.Path(folder)
        for path in sorted([*place.glob("results/ckpt-*.json"), *place.glob("model_*.json")]):
            try:
                content = result_files.read_results(path)
                where = {name: content.get(name, "") for name in WHEN_AND_WHERE}
                entries = {
                    name: result_files.check_entry(entry) | {"environment": where | entry.get("environment", {})}
                    for name, entry in content["attacks"].items()
                }
                contents += _by_protocol(content, entries)
            except result_files.DAMAGE as error:
                self.problems.append(f"{path}: cannot be used, taken as missing ({' '.join(str(error).split())[:200]})")
        return sorted(contents, key=lambda content: content.get("checkpoint", 0))

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes runs.html, runs.csv and, for tables with several sizes, plots into a folder; returns their paths."""
        from experiments import run_page, run_plot

        plots = {
            f"steps-{number}.png": run_plot.png(table)
            for number, table in enumerate(self.tables, start=1)
            if run_plot.panels(table)
        }
        for path in folder.glob("steps-*.png"):  # of a report before, whose tables may be others
            if path.stem.removeprefix("steps-").isdecimal():
                path.unlink()
        files = {"runs.html": run_page.render(self, plots), "runs.csv": self.csv(), **plots}
        for name, content in files.items():
            write_file(folder / name, content)
        return [folder / name for name in files]

    def csv(self) -> str:
        """A line for each accuracy, with where it comes from."""
        out = io.StringIO()
        about = ("model", "defense", "network", "checkpoint", "classifier_sha256", *SAME, "seed", "batch_size")
        of_entry = ("made_on", "purified_by", "attack", "accuracy", "standard_error", "protocol")
        writer = csv.writer(out)
        of_training = (f"trained_{name}" for name in ("with", "seed", *WHEN_AND_WHERE))
        writer.writerow(["run", *about, *of_training, *WHEN_AND_WHERE, *of_entry])
        for table in self.tables:
            for row, settings in zip(table.rows, _differing(table.rows), strict=True):
                surrogate = (row.about.get("surrogate") or {}).get("train_dir", "")
                purified = purified_by(row.about)
                trained = row.about.get("trained") or {}
                start = [row.folder, *(row.about.get(name, "") for name in about)]
                start += [settings, row.about.get("training_flags", {}).get("seed", "")]
                start += map(trained.get, WHEN_AND_WHERE)
                for name, entry in row.entries.items():
                    where = map(entry["environment"].get, WHEN_AND_WHERE)
                    error = binomial_error(entry["accuracy"], entry["images"])
                    numbers = (f"{entry['accuracy']:.4f}", f"{error:.4f}", json.dumps(entry["protocol"]))
                    writer.writerow([*start, *where, surrogate, purified, name, *numbers])
        return out.getvalue()

    def show(self) -> None:
        """Prints the tables."""
        console = Console(highlight=False)
        for table in self.tables:
            grid = Table(title=escape(table.title), box=box.SIMPLE, title_justify="left")
            for column in ("run", "attack", "accuracy %"):
                grid.add_column(column, justify="right" if column == "accuracy %" else "left", overflow="fold")
            for row in table.rows:
                measured = [attack for attack in table.attacks if attack in row.entries]
                for attack in measured:
                    label = row.label if attack == measured[0] else ""
                    shown = (escape(label), column_of(attack).label, cell(row.entries[attack]))
                    grid.add_row(*shown, end_section=attack == measured[-1])
            console.print(grid)


def _by_protocol(content, entries):
    """A results file's content; two of one in which an earlier version kept attacks that skip images and others."""
    skip = {name for name, entry in entries.items() if entry["protocol"].get("skip_misclassified")}
    if not skip or "skip_misclassified" in content:
        return [content | {"attacks": entries}]
    others = {name: entry for name, entry in entries.items() if name not in skip}
    skipping = {name: entry for name, entry in entries.items() if name in skip | {"natural"}}
    contents = [content | {"attacks": others}] if others.keys() - {"natural"} else []
    return [*contents, content | {"attacks": skipping, "skip_misclassified": True}]


def _told_apart(rows):
    """The rows of a table; those with one label say how large batches were, and whose weights were attacked."""
    labels = collections.Counter(row.label for row in rows)
    for row in [row for row in rows if labels[row.label] > 1]:
        surrogate = (row.about.get("surrogate") or {}).get("classifier_sha256")
        made = f", images made on {surrogate[:8]}" if surrogate else ""
        weights = row.about["classifier_sha256"][:8]
        row.apart = f", batches of {row.about.get('batch_size', '?')}, weights {weights}{made}"
    return rows


def training_settings(row: RunRow) -> dict[str, Any]:
    """The flags that decide what a row's training gives, but for its seed and the folders that it started from."""
    flags = ADDED | row.about.get("training_flags", {})
    return {name: flags[name] for name in flags.keys() - {"seed", "starts_from", *MAY_CHANGE}}


def _differing(rows):
    """Of each row the settings of its training in which those of one defence differ, as flags with their values."""
    told = [(row.about.get("defense"), training_settings(row)) for row in rows]
    for defense, own in told:
        alike = [settings for other, settings in told if other == defense]
        names = sorted(name for name in own if any(settings.get(name) != own[name] for settings in alike))
        values = (tuple(own[name]) if isinstance(own[name], list) else own[name] for name in names)
        yield " ".join(f"--{name}={text(value)}" for name, value in zip(names, values, strict=True))


def cell(entry: dict[str, Any] | None) -> str:
    """An accuracy with its standard error, or – for none."""
    return f"{entry['accuracy']:.2f} ± {binomial_error(entry['accuracy'], entry['images']):.2f}" if entry else "–"


def _about(folder):
    """What is told of a run beside its results; of a model from elsewhere nothing is known."""
    pictures = sorted(place for pattern in ("results/*.png", "*.png") for place in pathlib.Path(folder).glob(pattern))
    if any(pathlib.Path(folder).glob("model_*.json")):
        return {"pictures": pictures, "flags": {}, "trained": "", "training_time": ""}
    try:
        content = run_folder.read(folder)
    except UsageError as error:
        raise error.renamed(train_dir="runs") from None
    seconds = training_time(folder)
    flags = content["flags"]
    return {
        "defense": flags.get("defense", "–"),
        "network": name_of(flags) if "depth" in flags else "–",
        "data": content.get("provenance") or flags.get("dataset") or "–",
        "trained": ", ".join(filter(None, map(run_folder.trained(content).get, ("date", "machine")))),
        "training_time": "" if seconds is None else duration(seconds),
        "flags": flags,
        "pictures": pictures,
    }


def _place(content):
    """Among the tables: by data, white-box before transfer, then by size."""
    surrogate = (content.get("surrogate") or {}).get("train_dir", "")
    return content["provenance"], surrogate, *(content[name] for name in SAME[1:])


def _title(content):
    """What the results in a table have in common, in words."""
    surrogate = content.get("surrogate")
    step = f", step {surrogate['checkpoint']}" if surrogate and "checkpoint" in surrogate else ""
    made = f", adversarial images made on {surrogate['train_dir']}{step}" if surrogate else ""
    sizes = f"ε = {content['epsilon']:g}, steps of {content['step_size']:g}"
    skipped = "; images that are misclassified anyway are not attacked" if content.get("skip_misclassified") else ""
    return f"{content['images']:,} {content['split']} images of {content['provenance']}; {sizes}{made}{skipped}"
