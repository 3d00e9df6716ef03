"""Where the grid keeps what, under its work folder; read by the Snakefile and the commands, without TensorFlow.

config.json       what was asked for: runs, attacks, sizes (Snakemake's configfile)
runs/ID/          a training: dataset/row-hash/seed-N; the hash is of the settings that differ from the defaults
advgan/ID/xN/     an AdvGAN trained against that run's classifier, N times the channels
gan/ID/           the GAN that purifies the images of a row behind one
results/ID/       what was measured on it: white-box-TABLE.json, from-SURROGATE.json (transfer), epsilons.json,
                  diversity.json, latent.npz; with --columns=extended diagnosis.json and .png
report/           tables, figures, report.html; gallery/ID.png and .json: images of each row under attack
"""

import itertools
import json
import pathlib
import sys
import zipfile

from experiments.parts import PARTS
from experiments.result_files import SCHEMA_VERSION

TRAINED = "trained"  # the mark of a finished training in its folder
FOLDERS = {"runs", "advgan", "gan", "results", "report"}


def run_of(config: dict, identity: str) -> dict:
    """The entry of a run in the configuration."""
    return next(run for run in config["runs"] if run["id"] == identity)


def runs_of(config: dict, part: str) -> list[dict]:
    """The runs whose measurements a table or figure shows."""
    return [run for run in config["runs"] if run["row"] in config["rows"][part]]


def surrogate_of(config: dict, run: dict, row: str) -> dict:
    """The run of a surrogate's row on the same data, with the same seed."""
    same = (run["dataset"], run["seed"])
    return next(r for r in config["runs"] if r["row"] == row and (r["dataset"], r["seed"]) == same)


def attacks_on(config: dict, run: dict, part: str) -> list[str]:
    """The white-box attacks of a table on a run; in Table II those for random outputs or a purifier, if it has one."""
    attacks = config["attacks"][part]
    if run.get("purified"):
        return config["attacks"]["purified"]
    if part != "table2" or not run.get("stochastic"):
        return attacks
    return ["eot-pgd-20", *("autoattack-rand" if name == "autoattack" else name for name in attacks)]


def measured(config: dict, part: str) -> list[str]:
    """The measured files that a table or figure is made of."""
    files = []
    for run in runs_of(config, part):
        names = [f"white-box-{part}.json"] if part.startswith("table") else FIGURE_FILES[part]
        if part == "table3":
            names += [f"from-{row}.json" for row in config["surrogates"] if row != run["row"]]
        files += [f"results/{run['id']}/{name}" for name in names]
    return files


def shown(config: dict, part: str) -> list:
    """The rows that a table or figure shows, and the runs of former calls among what it is made of."""
    rows = config.get("shown", {}).get(part) or config["rows"][part]
    return [rows, *sorted(run["id"] for run in config.get("earlier_runs", ()) if run["row"] in rows)]


def diagnoses(config: dict) -> list[str]:
    """The files of the diagnoses of masked gradients that the report shows; none but with the extended columns."""
    if "diagnosis_flags" not in config or "table2" not in config["parts"]:
        return []
    folders = [f"results/{run['id']}" for run in runs_of(config, "table2") if not run.get("purified")]
    return [f"{folder}/diagnosis.{ending}" for folder in folders for ending in ("json", "png")]


def diagnosis_surrogate(config: dict, run: dict) -> str | None:
    """The run that a diagnosis makes adversarial images on: AT's, whose images do more to robust networks, or else the
    naturally trained one; None if the grid has neither but the run itself."""
    trained = {r["row"]: r["id"] for r in config["runs"] if (r["dataset"], r["seed"]) == (run["dataset"], run["seed"])}
    return next((trained[row] for row in ("at", "natural") if row in trained and row != run["row"]), None)


FIGURE_FILES = {"figure2": ["epsilons.json"], "figure3": ["diversity.json"], "figure4": ["latent.npz"]}
REPORT_FILES = {
    name: [f"{name}.{ending}" for ending in (("md", "csv", "tex", "json") if part.is_table else ("png", "pdf"))]
    for name, part in PARTS.items()
}


def mend(config: dict) -> list[str]:
    """Removes what would stand in the way of a rerun, so that it is made anew; returns a warning for each.

    That is the mark of a finished training whose checkpoints are gone, and a measured file that cannot be read, or that
    another version wrote. An AdvGAN against a network that is gone is kept under another name: the run that is trained
    again may have other weights.
    """
    warnings = []
    for run in config["runs"]:
        if not _has_checkpoints(pathlib.Path("runs", run["id"])):
            for folder in filter(_has_checkpoints, pathlib.Path("advgan", run["id"]).glob("x*")):
                kept = _free(folder.with_name(f"of_lost_network_{folder.name}"))
                folder.rename(kept)
                (kept / TRAINED).unlink(missing_ok=True)
                warnings.append(f"{folder}: the network that it was trained against is gone; kept as {kept}")
        of_advgans = pathlib.Path("advgan", run["id"]).glob(f"*/{TRAINED}")
        for mark in (*(pathlib.Path(kind, run["id"], TRAINED) for kind in ("runs", "gan")), *of_advgans):
            if mark.exists() and not _has_checkpoints(mark.parent):
                mark.unlink()
                warnings.append(f"{mark.parent}: its checkpoints are gone; trained again")
        for file in pathlib.Path("results", run["id"]).glob("*.*"):
            if not _whole(file):
                file.unlink()
                warnings.append(f"{file}: damaged, or of another version; measured again")
    return warnings


def _has_checkpoints(folder):
    return any(folder.glob("checkpoints/ckpt-*.index"))


def _free(path):
    """The path, or with a number behind it, if there is something."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if not each.exists())


def _whole(file):
    try:
        if file.suffix == ".json":
            content = json.loads(file.read_text())
            contents = content if isinstance(content, list) else [content]
            return bool(contents) and all(each["schema_version"] == SCHEMA_VERSION for each in contents)
        elif file.suffix == ".npz":
            return zipfile.ZipFile(file).testzip() is None
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        return False
    return True


def warn(warnings: list[str]) -> None:
    """Prints warnings, one a line."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
