"""Small work folders of the grid: results as the measuring commands write them, with chosen numbers; their tables."""

import csv
import io
import json
import struct
import zlib

import numpy as np

from experiments import statement, tables, writers
from experiments.measured import Work
from experiments.rows import COLUMNS
from madry_cifar import attacks

PROVENANCE = "cifar10 3.0.2 (tensorflow-datasets), JPEG-recompressed images: not the original pixels"
MARKDOWN_SIGNS = str.maketrans("", "", "\\")
ROWS = {
    "table2": ["natural", "at", "rvs"],
    "table3": ["natural", "at", "rvs"],
    "table4": ["noreg_ot", "otreg_xent", "rvs", "paired"],
    "figure2": ["rvs", "at"],
    "figure3": ["rvs"],
    "figure4": ["rvs"],
}


class WorkFolder:
    """A work folder with a run for each row and seed; results are added one by one."""

    def __init__(self, folder, profile="reduced", dataset="cifar10", seeds=1, images=1000, rows=None, **config):
        self.folder, self.dataset, self.images = folder, dataset, images
        rows = ROWS | (rows or {})
        names = dict.fromkeys(name for of_part in rows.values() for name in of_part)
        self.runs = {(name, seed): self._run(name, seed) for name in names for seed in range(seeds)}
        self.config = {
            "schema_version": 1,
            "profile": profile,
            "parts": list(rows),
            "datasets": [dataset],
            "runs": list(self.runs.values()),
            "rows": rows,
            "surrogates": ["natural", "at"],
            "advgan_widths": [],
            **config,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))

    def _run(self, row, seed):
        identity = f"{self.dataset}/{row}-0a1b2c3d/seed-{seed}"
        return {"id": identity, "dataset": self.dataset, "row": row, "seed": seed, "flags": ["--depth=10"]}

    def path(self, row, name, seed=0):
        """A result file of a run; its folder is made."""
        path = self.folder / "results" / self.runs[row, seed]["id"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def about(self, row, seed=0, **changes):
        """What a result file says beside the attacks."""
        identity = self.runs[row, seed]["id"]
        return {
            "schema_version": 1,
            "numbers": "measured",
            "train_dir": f"/somewhere/runs/{identity}",
            "defense": row,
            "network": "WRN-10-2",
            "checkpoint": 4000,
            "classifier_sha256": f"sha-of-{row}-{seed}",
            "dataset": self.dataset,
            "provenance": PROVENANCE,
            "split": "test",
            "images": self.images,
            "seed": seed,
            "training_flags": {"seed": seed, "depth": 10, "width": 2},
            "trained": {"git_revision": "fedcba9", "machine": "a graphics card", "date": "2026-02-01"},
            "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
            "git_revision": "0123abc",
            "machine": "4 cores of a processor",
            "date": f"2026-03-{seed + 1:02}",
        } | changes

    def entry(self, attack, accuracy, epsilon=8.0):
        """A result under an attack, with its protocol."""
        protocol = {}
        if attack in COLUMNS["extended"]:
            protocol = dict(attacks.attack(attack, epsilon=epsilon).protocol)
            stages = protocol.get("stages", ())
            if stages:  # each breaks one point more
                after = {name: accuracy + len(stages) - 1 - place for place, name in enumerate(stages)}
                protocol["accuracy_after"] = {"natural": 80.0} | after
        elif attack != "natural":
            family, _, steps = attack.rpartition("-")
            protocol = {"norm": "linf", "epsilon": epsilon}
            if family in ("pgd", "cw"):
                loss = {"pgd": "xent", "cw": "cw"}[family]
                protocol |= {"loss": loss, "steps": int(steps), "step_size": 2.0, "random_start": True, "restarts": 1}
        return {"accuracy": accuracy, "images": self.images, "protocol": protocol, "linf": epsilon, "seconds": 1.0}

    def white_box(self, row, accuracies, seed=0, epsilon=8.0, part="table2", **changes):
        """Writes white-box-PART.json: accuracies by attack."""
        attacks = {name: self.entry(name, accuracy, epsilon) for name, accuracy in accuracies.items()}
        content = self.about(row, seed, **changes) | {"attacks": attacks}
        self.path(row, f"white-box-{part}.json", seed).write_text(json.dumps([content]))

    def transfer(self, row, surrogate, accuracies, seed=0):
        """Writes from-SURROGATE.json."""
        attacks = {name: self.entry(name, accuracy) for name, accuracy in accuracies.items()}
        content = self.about(row, seed) | {"attacks": attacks, "surrogate": self.about(surrogate, seed)}
        self.path(row, f"from-{surrogate}.json", seed).write_text(json.dumps([content]))

    def epsilons(self, row, accuracies, seed=0, **changes):
        """Writes epsilons.json: PGD-20 accuracies by ε."""
        about = self.about(row, seed, **changes)
        contents = [about | {"attacks": {"pgd-20": self.entry("pgd-20", a, float(e))}} for e, a in accuracies.items()]
        self.path(row, "epsilons.json", seed).write_text(json.dumps(contents))

    def diagnosis(self, row, verdicts, seed=0, **changes):
        """Writes diagnosis.json, with a check for each verdict, and its plot."""
        checks = [
            {
                "name": name,
                "question": f"Is {name} well?",
                "verdict": verdict,
                "evidence": f"{name}: 12.5 ± 3.1",
                "numbers": {"difference": 12.5},
            }
            for name, verdict in verdicts.items()
        ]
        content = self.about(row, seed) | {"epsilon": 8.0, "checks": checks, "verdict": f"of {row}: see below"}
        content |= {"surface": "diagnosis.png"} | changes
        self.path(row, "diagnosis.json", seed).write_text(json.dumps(content))
        self.path(row, "diagnosis.png", seed).write_bytes(png(640, 4))

    def diversity(self, row, distances, seed=0):
        """Writes diversity.json: (mean distance, mean standard deviation) by step, with noise; half of it without."""
        names = ("mean_distance", "mean_standard_deviation")
        checkpoints = [
            {
                "checkpoint": step,
                "noise": dict(zip(names, values, strict=True)),
                "no_noise": {name: value / 2 for name, value in zip(names, values, strict=True)},
            }
            for step, values in distances.items()
        ]
        content = self.about(row, seed) | {"draws": 100, "checkpoints": checkpoints}
        self.path(row, "diversity.json", seed).write_text(json.dumps(content))

    def latent(self, row, steps=(400, 4000), classes=10, draws=5, seed=0):
        """Writes latent.npz; returns the embedding."""
        labels = np.repeat(np.arange(classes), draws + 1)
        natural = np.arange(len(labels)) % (draws + 1) == 0
        embedding = np.random.default_rng(seed).normal(size=(len(steps), len(labels), 2)).astype(np.float32)
        about = {name: self.about(row, seed)[name] for name in ("train_dir", "network", "provenance")}
        arrays = {"features": np.zeros((len(steps), len(labels), 3)), "labels": labels, "natural": natural}
        np.savez(
            self.path(row, "latent.npz", seed),
            checkpoints=np.array(steps),
            embedding=embedding,
            about=json.dumps(about),
            **arrays,
        )
        return embedding

    def complete(self):
        """Everything measured, with plain numbers; returns itself."""
        for row in {name for name, _ in self.runs}:
            self.white_box(row, {"natural": 80.0, "fgsm": 50.0, "pgd-20": 30.0, "pgd-100": 29.0, "cw-20": 28.0})
            (self.folder / "runs" / self.runs[row, 0]["id"]).mkdir(parents=True)
        for row, surrogate in (("rvs", "natural"), ("rvs", "at"), ("at", "natural"), ("natural", "at")):
            self.transfer(row, surrogate, {"pgd-20": 60.0, "cw-20": 61.0})
        for row in ("rvs", "at"):
            self.epsilons(row, {0: 80.0, 8: 30.0, 20: 5.0})
        self.diversity("rvs", {400: (0.5, 0.1), 4000: (0.3, 0.1)})
        self.latent("rvs")
        return self


def png(width, height):
    """A black picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(height * (1 + width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def cell(table, row, attack, group=0):
    """The cell of a built table."""
    (found,) = (found for found in table.groups[group].rows if found.name == row)
    return found.cells[attack]


def records(table):
    """The lines of its CSV."""
    return list(csv.DictReader(io.StringIO(writers.tidy_csv(table))))


def lines(table):
    """The body of the Markdown tables: defence (repeated), kind, entries by attack."""
    row, heads = None, None
    for line in writers.markdown(table).splitlines():
        entries = [entry.strip().translate(MARKDOWN_SIGNS) for entry in line.strip("|").split(" | ")]
        if line.startswith("| defence"):
            heads = entries[2:]
        elif line.startswith("| "):
            row = entries[0] or row
            yield row, entries[1], dict(zip(heads, entries[2:], strict=True))


def build(grid, part="table2"):
    """The table of a work folder, and the folder as it was read."""
    work = Work(grid.folder)
    return tables.build(work, part, statement.build(work)), work
