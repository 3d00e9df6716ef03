"""From flags to the configuration of the grid: which networks are trained how, and what is measured on them."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from absl import flags as absl_flags

import rvs_tf  # noqa: F401 (registers the defences)
from experiments import presets
from experiments.rows import COLUMNS, PARTS, SURROGATES, row_of
from madry_cifar import data, train
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.networks.wide_resnet import WideResNet
from madry_cifar.runs.run_folder import MAY_CHANGE, SCHEMA_VERSION
from madry_cifar.training import method as defense
from madry_cifar.training.options import Options

FLAGS = absl_flags.FLAGS
HERE = pathlib.Path(__file__).parent
PROFILES = sorted(path.stem for path in (HERE / "profiles").glob("*.flags"))
DIAGNOSED = 1000  # images at most: then two standard errors are some two points


def define_flags() -> None:
    """The flags of the tables and figures, and of every training."""
    define = flags.define
    profiles = ", ".join(["full", *PROFILES])
    define("Grid", "work_dir", None, "folder of runs, results and report; what is there is not done again (required)")
    define("Grid", "profile", "full", f"settings of experiments/profiles that flags override: {profiles}")
    define("Grid", "defenses", None, f"rows of Table II that are trained [{','.join(defense.REGISTRY)}]")
    define(
        "Grid",
        "columns",
        "paper",
        "of Table II: paper, or extended by AutoAttack and other strong attacks, with a "
        "diagnosis of masked gradients for each run",
    )
    define("Grid", "seeds", 1, "trainings of each row, with seeds from 0; tables show mean ± std", kind=int, minimum=1)
    define("Grid", "images", 0, "test images that are attacked, from the beginning; 0 is all", kind=int, minimum=0)
    define("Grid", "epsilons", ",".join(map(str, range(21))), "of Figure 2, in grey levels")
    define(
        "Grid",
        "advgan_widths",
        "1,8",
        "channels of AdvGAN's generators, in multiples of the published one; empty: no AdvGAN",
    )
    define("Grid", "advgan_epochs", 50, "of training each AdvGAN", kind=int, minimum=1)
    define("Grid", "draws", 100, "perturbations of each image in Figures 3 and 4", kind=int, minimum=2)
    define("Grid", "diversity_images", 0, "test images of Figure 3; 0 is all", kind=int, minimum=0)
    define("Grid", "checkpoints", 20, "kept of each training, evenly: Figure 3's points", kind=int, minimum=1)
    define("Grid", "attack_batch_size", 200, "images attacked at once", kind=int, minimum=1)
    define("Grid", "plan", False, "print what would be done, with an estimate of the time, and do nothing", kind=bool)
    define("Grid", "unlock", False, "release a lock that a killed command left", kind=bool)
    define("Grid", "jobs", 1, "commands run at once on this machine", kind=int, minimum=1)
    define("Grid", "memory_mb", 8000, "of a job, for cluster executors", kind=int, minimum=1)
    define(
        "Grid",
        "defense",
        None,
        "of a preset given by --flagfile: other rows get its ε, network, batch and steps, "
        "not its method's options; --defenses chooses the rows",
    )
    train.define_settings()


def apply_profile() -> None:
    """Sets the flags that were not given to what the profile says.

    Raises:
      UsageError: for a profile that there is not.
    """
    if FLAGS.profile == "full":
        return
    if FLAGS.profile not in PROFILES:
        raise unknown("profile", FLAGS.profile, ["full", *PROFILES])
    for name, value in read_flagfile(HERE / "profiles" / f"{FLAGS.profile}.flags").items():
        if not FLAGS[name].present:
            FLAGS[name].parse(value)


def read_flagfile(path: pathlib.Path) -> dict[str, str]:
    """The flags in a file by name, as text; --noNAME is NAME with "false"."""
    values = {}
    for argument in FLAGS.read_flags_from_files([f"--flagfile={path}"]):
        name, given, value = argument.lstrip("-").partition("=")
        if not given:
            name, value = (name, "true") if name in FLAGS else (name.removeprefix("no"), "false")
        values[name] = value
    return values


def configuration(parts: list[str]) -> dict[str, Any]:
    """The configuration for these tables and figures as the flags say; what `layout.py` and the Snakefile read.

    Raises:
      UsageError: for a value that cannot be used, before anything is run.
    """
    datasets = _listed("dataset", str)
    for name in datasets:
        if name not in data.NUM_CLASSES:
            raise unknown("dataset", name, data.NUM_CLASSES)
    if FLAGS.columns not in COLUMNS:
        raise unknown("columns", FLAGS.columns, COLUMNS)
    if FLAGS.defense:
        defense.find(FLAGS.defense)
    defenses = _listed("defenses", str) if FLAGS.defenses else list(defense.REGISTRY)
    for name in defenses:
        if name not in defense.REGISTRY:
            raise unknown("defenses", name, defense.REGISTRY)
    rows = {name: list(part.rows) or defenses for name, part in PARTS.items()}
    trained = {row: None for part in parts for row in [*rows[part], *(SURROGATES if part == "table3" else [])]}
    runs = [run(dataset, row, seed) for dataset in datasets for row in trained for seed in range(FLAGS.seeds)]
    unused = _given_settings().keys() - {name for entry in runs for name in entry["given"]}
    if unused:
        name = min(unused)
        raise UsageError(name, FLAGS[name].value, f"applies to none of {', '.join(trained)}")
    attacks = {name: list(part.attacks) for name, part in PARTS.items() if part.attacks}
    attacks["table2"] += COLUMNS[FLAGS.columns]
    return {
        "schema_version": SCHEMA_VERSION,
        "profile": FLAGS.profile,
        "parts": parts,
        "datasets": datasets,
        "data_dir": FLAGS.data_dir and str(pathlib.Path(FLAGS.data_dir).expanduser().absolute()),
        "download": FLAGS.download,
        "runs": [{key: value for key, value in entry.items() if key != "given"} for entry in runs],
        "rows": rows,
        "surrogates": list(SURROGATES),
        "attacks": attacks,
        "attack_flags": [
            "--epsilon=8",
            "--step_size=2",
            f"--max_images={FLAGS.images}",
            f"--batch_size={FLAGS.attack_batch_size}",
        ],
        "images": FLAGS.images,
        "epsilons": _numbers("epsilons"),
        "advgan_widths": _numbers("advgan_widths"),
        "advgan_flags": [
            "--epsilon=8",
            f"--epochs={FLAGS.advgan_epochs}",
            f"--max_train_images={FLAGS.max_train_images}",
            f"--eval_images={FLAGS.images}",
        ],
        "draws": FLAGS.draws,
        "checkpoints": FLAGS.checkpoints,
        "diversity_images": FLAGS.diversity_images,
        "mem_mb": FLAGS.memory_mb,
    } | _diagnosis()


def _diagnosis():
    """What `layout.diagnoses` and its rule need; nothing without the extended columns."""
    if FLAGS.columns == "paper":
        return {}
    images = min(FLAGS.images or DIAGNOSED, DIAGNOSED)
    return {"diagnosis_flags": ["--epsilon=8", f"--max_images={images}", f"--batch_size={FLAGS.attack_batch_size}"]}


def _listed(name, kind):
    try:
        values = [kind(part) for part in (FLAGS[name].value or "").split(",") if part]
    except ValueError:
        raise UsageError(name, FLAGS[name].value, "must be numbers with commas") from None
    return list(dict.fromkeys(values))


def _numbers(name):
    values = _listed(name, int)
    wrong = [value for value in values if not (0 if name == "epsilons" else 1) <= value <= 255]
    if wrong:
        raise UsageError(name, wrong[0], f"must be from {0 if name == 'epsilons' else 1} to 255")
    return values


def run(dataset: str, row: str, seed: int) -> dict[str, Any]:
    """One training: its identity, and the flags of `rvs_tf.train` for it.

    The settings of a row are, each before the next: the preset of its defence for the data set; what the grid needs
    (checkpoints spread over the training, all kept); the flags and the profile, as far as the defence has such an
    option (of another method's preset, `_shared_options` alone); what makes the row.
    """
    name = row_of(row).defense
    kind = defense.find(name)
    options = {field.name for field in dataclasses.fields(kind.Options)}
    reached = options & _shared_options() if FLAGS.defense not in (None, name) else options
    given = {key: value for key, value in _given_settings().items() if key in reached | _common_settings()}
    settings = preset(dataset, name) | given | row_of(row).settings
    steps = int(settings.get("steps", kind.Options().steps))
    settings = {"checkpoint_every": str(max(1, steps // FLAGS.checkpoints)), "keep": "0"} | settings
    changed = _check(kind, dataset, settings, options)
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return {
        "id": f"{dataset}/{row}-{digest}/seed-{seed}",
        "dataset": dataset,
        "row": row,
        "seed": seed,
        "flags": [f"--defense={name}", *(f"--{key}={value}" for key, value in sorted(settings.items()))],
        "given": given,
    }


def _common_settings():
    """The flags of a training that are not options of its defence, and that a row may be given."""
    names = [name for part in ("Run", "Data", "Network") for name in flags.section(part)]
    return {name for name in names if name not in ("dataset", "data_dir", "download")}


def _shared_options():
    """The options of a defence that mean the same in every other one: a preset of one may set them for all rows."""
    return {field.name for field in dataclasses.fields(Options)} | {"epsilon"}


def _given_settings():
    """The settings of training that were given, by a flag or the profile, as text."""
    names = [*_common_settings(), *flags.section("Defence")]
    return {
        name: str(FLAGS[name].value).lower() if FLAGS[name].boolean else str(FLAGS[name].value)
        for name in names
        if FLAGS[name].present
    }


def preset(dataset: str, name: str) -> dict[str, str]:
    """The flags, as text, of a defence's preset for a data set, if there is one.

    RvS's is that of the paper's text, and those of the methods beside it are on the same footing.
    """
    flags = presets.flags_of(dataset, "paper" if name == "rvs" else f"{name}_rvs") or presets.flags_of(dataset, name)
    return {key: value for key, value in flags.items() if key != "keep"}


def _check(kind, dataset, settings, options):
    """What of the settings differs from the defaults and decides what is trained; raises UsageError for bad ones."""
    values = {key: flags.parse(key, value) for key, value in settings.items()}
    for name, instead in (("epochs", "steps"), ("learning_rate_epochs", "learning_rate_boundaries")):
        if values.get(name):
            raise UsageError(
                name, values[name], f"the rows of a table are trained for the same --steps; give --{instead}"
            )
    given = flags.options_of(kind, {key: values[key] for key in options & values.keys()})
    chosen = given.as_dict()
    chosen |= {key: values.get(key, FLAGS[key].default) for key in _common_settings() - MAY_CHANGE}
    default = kind.Options().as_dict() | {key: FLAGS[key].default for key in _common_settings()}
    changed = {key: value for key, value in chosen.items() if value != default[key]}
    train.check_network({name: FLAGS[name].default for name in flags.section("Network")} | chosen)
    data.check_crop(dataset, chosen["crop_padding"], chosen["crop_fill"])
    kind(WideResNet(10, 1, data.NUM_CLASSES[dataset]), given)  # its own checks; the smallest network does for them
    return changed
