"""From settings to the configuration of the grid: which networks are trained how, and what is measured on them."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping, Set
from typing import Any

from experiments import presets
from experiments.parts import PARTS
from experiments.rows import COLUMNS, PURIFIED, ROWS, STARTS, SURROGATES, row_of, with_variants
from madry_cifar import data
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, text, unknown
from madry_cifar.cli.settings import Settings, like, option, required
from madry_cifar.runs.run_folder import MAY_CHANGE, SCHEMA_VERSION
from madry_cifar.training import registry
from madry_cifar.training.construction import build
from madry_cifar.training.method import Defense
from madry_cifar.training.options import Options
from madry_cifar.training.settings import SECTIONS, DataSettings, LoopSettings, NetworkSettings
from rvs_tf import DEFENSES, RobustnessViaSynthesis
from rvs_tf.defense_gan.gan import GANOptions
from rvs_tf.defense_gan.purification import AT_ONCE, Purification
from rvs_tf.defense_gan.purified import RESTARTS, STEPS

HERE = pathlib.Path(__file__).parent
PROFILES = sorted(path.stem for path in (HERE / "profiles").glob("*.flags"))
DIAGNOSED = 1000  # images at most: then two standard errors are some two points
BEHIND_A_PURIFIER = [row.name for row in ROWS.values() if row.purified]


def defenses() -> dict[str, type[Defense]]:
    """Every defence by name, those of other installed packages too: the rows of Tables II and III."""
    return registry.installed() | {kind.name: kind for kind in (RobustnessViaSynthesis, *DEFENSES)}


class GridSettings(Settings):
    """What is trained, attacked and analysed."""

    work_dir: str = required("folder of runs, results and report; what is there is not done again", kind="path")
    profile: str = option(
        "full",
        f"settings of experiments/profiles that flags override: {', '.join(['full', *PROFILES])}",
        choices=("full", *PROFILES),
    )
    defenses: tuple[str, ...] = option(
        (), f"rows of Table II that are trained; also {', '.join(BEHIND_A_PURIFIER)} [{','.join(defenses())}]"
    )
    columns: str = option(
        "paper",
        "of Table II: paper; autoattack, which adds that; or extended, by that and other strong attacks, with a "
        "diagnosis of masked gradients for each run",
        choices=COLUMNS,
    )
    seeds: int = option(1, "trainings of each row, with seeds from 0; tables show mean ± std", minimum=1)
    images: int = option(0, "test images that are attacked, from the beginning; 0 is all", minimum=0)
    epsilons: tuple[int, ...] = option(tuple(range(21)), "of Figure 2, in grey levels", minimum=0, maximum=255)
    advgan_widths: tuple[int, ...] = option(
        (1, 8),
        "channels of AdvGAN's generators, in multiples of the published one; empty: no AdvGAN",
        minimum=1,
        maximum=255,
    )
    advgan_epochs: int = option(50, "of training each AdvGAN", minimum=1)
    gan_width: int = like(GANOptions, "width", help="of the GAN of a row behind a purifier (--defenses=…,defense_gan)")
    gan_iterations: int = like(GANOptions, "iterations", help="of its training")
    purify_restarts: int = like(
        Purification, "purify_restarts", default=RESTARTS, help="random starts of the search for a purified image"
    )
    purify_steps: int = like(
        Purification,
        "purify_steps",
        default=STEPS,
        help="of each search; an image costs starts times steps passes of the generator, each time",
    )
    purified_images: int = option(
        1000,
        "test images of such a row, each step of whose attacks takes a search; 0 is as many as of the others",
        minimum=0,
    )
    draws: int = option(100, "perturbations of each image in Figures 3 and 4", minimum=3)
    diversity_images: int = option(0, "test images of Figure 3; 0 is all", minimum=0)
    checkpoints: int = option(20, "kept of each training, evenly: Figure 3's points", minimum=1)
    attack_batch_size: int = option(200, "images attacked at once", minimum=1)
    plan: bool = option(False, "print what would be done, with an estimate of the time; nothing is trained or measured")
    unlock: bool = option(False, "release a lock that a killed command left")
    jobs: int = option(1, "commands run at once on this machine", minimum=1)
    memory_mb: int = option(8000, "of a job, for cluster executors", minimum=1)
    defense: str | None = option(
        None,
        "of a preset given by --flagfile: other rows get its ε, network, batch and steps, not its method's options; "
        "--defenses chooses the rows",
    )


class GridData(DataSettings):
    """The data sets, and what of them is trained on."""

    dataset: tuple[str, ...] = like(DataSettings, "dataset", default=("digits",), choices=data.NUM_CLASSES)


class TrainingSettings(NetworkSettings, DataSettings, LoopSettings):
    """The settings of any training, beside the options of its defence."""


class Request(GridSettings, GridData):
    """The settings of a command for tables and figures, beside those of each training."""


SMALLEST = {"depth": 10, "width": 1, "generator_width": 1, "attacker_width": 1}
SCHEDULE = {"steps", "learning_rates", "learning_rate_boundaries"}
OF_THE_DATA = {"dataset", "data_dir", "download"}
COMMON = {field.name for field in dataclasses.fields(TrainingSettings)} - OF_THE_DATA
# Never of one defence alone: rows are trained on the same images, and what one starts from the grid trains itself
OF_ALL = {"validation_size", "max_train_images", "starts_from"}
NETWORK = {field.name for field in dataclasses.fields(NetworkSettings)}
SHARED = {field.name for field in dataclasses.fields(Options)} | {"epsilon"}  # options that mean the same everywhere


def define_flags(**changes: Any) -> None:
    """The flags of the tables and figures, and of every training; `changes` as in `flags.define`."""
    flags.define("Grid", GridSettings)
    for section, settings in (SECTIONS | {"Data": GridData}).items():
        flags.define(section, settings, **changes)
    kinds = defenses()
    flags.define_option_flags(kinds)
    for name, kind in kinds.items():
        flags.define_for(name, _fields_of_one(kind))


def _fields_of_one(kind):
    """The settings that the rows of a defence may have for themselves."""
    fields = [*dataclasses.fields(TrainingSettings), *dataclasses.fields(kind.Options)]
    return [field for field in fields if field.name not in OF_THE_DATA | OF_ALL]


@dataclasses.dataclass(frozen=True)
class Given:
    """The settings of trainings that were given, as text by name; DEFENCE.NAME is for the rows of one defence alone.

    Attributes:
      typed: on the command line or in a file that stands there.
      profile: in the profile, and not typed.
    """

    typed: Mapping[str, str]
    profile: Mapping[str, str]

    def settings(self, defense: str, settable: Set[str]) -> dict[str, str]:
        """What of it the rows of a defence get, which may be given the `settable` ones of those for all rows.

        What is typed is before what the profile says, and what is for the defence alone before what is for all. Where a
        length or rates are typed, what the profile says of these for the defence alone is not mixed with them.
        """
        typed = {name: self.typed[name] for name in self.typed.keys() & settable} | self.alone(defense, self.typed)
        by_profile = {name: self.profile[name] for name in self.profile.keys() & settable}
        alone = self.alone(defense, self.profile)
        if typed.keys() & SCHEDULE:
            alone = {name: value for name, value in alone.items() if name not in SCHEDULE}
        return by_profile | alone | typed

    @staticmethod
    def alone(defense: str, given: Mapping[str, str]) -> dict[str, str]:
        """Of what is given that for the rows of a defence alone, by its names there."""
        start = f"{defense}."
        return {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}


def read_flags(**values: Any) -> tuple[Request, Given]:
    """For `main`: what the flags and the profile say, and those settings of a training that were given.

    Args:
      values: settings in place of flags, as in `flags.read`.

    Raises:
      UsageError: for a value that a flag does not take.
    """
    typed = _given()
    flags.give(_profile(flags.read(GridSettings, **values).profile))
    by_profile = {name: value for name, value in _given().items() if name not in typed}
    return flags.read(Request, **values), Given(typed, by_profile)


def _given():
    """The settings of trainings whose flags have values by now, as text."""
    given, kinds = {}, defenses()
    for settings in (*SECTIONS.values(), *(kind.Options for kind in kinds.values())):
        given |= flags.given(settings)
    for name, kind in kinds.items():
        given |= flags.given_for(name, _fields_of_one(kind))
    return {name: _as_text(given[name]) for name in given.keys() - OF_THE_DATA}


def _profile(name):
    """The flags of a profile by name, as text."""
    return {} if name == "full" else flags.read_flagfile(HERE / "profiles" / f"{name}.flags")


def _as_text(value):
    return text(value).lower() if isinstance(value, bool) else text(value)


def configuration(parts: list[str], request: Request, given: Given) -> dict[str, Any]:
    """The configuration for these tables and figures; what `layout.py` and the Snakefile read.

    Args:
      given: the settings of training that were given: each row gets those that its defence has.

    Raises:
      UsageError: for a value that cannot be used, before anything is run.
    """
    _check(parts, request, given)
    compared = with_variants(dict.fromkeys(request.defenses or defenses()))
    rows = {name: list(part.rows) or compared for name, part in PARTS.items()}
    rows["table3"] = [row for row in rows["table3"] if not row_of(row).purified]  # transfer is a purifier's grey box
    datasets = list(dict.fromkeys(request.dataset))
    attacks = {name: list(part.attacks) for name, part in PARTS.items() if part.attacks}
    attacks["table2"] += COLUMNS[request.columns]
    attacks["purified"] = list(PURIFIED)
    images, batch_size = f"--max_images={request.images}", f"--batch_size={request.attack_batch_size}"
    config = {
        "schema_version": SCHEMA_VERSION,
        "profile": request.profile,
        "parts": parts,
        "datasets": datasets,
        "data_dir": request.data_dir and str(pathlib.Path(request.data_dir).expanduser().absolute()),
        "download": request.download,
        "runs": _runs(parts, rows, datasets, request, given),
        "rows": rows,
        "surrogates": list(SURROGATES),
        "attacks": attacks,
        "attack_flags": ["--epsilon=8", "--step_size=2", images, batch_size],
        "images": request.images,
        "epsilons": list(dict.fromkeys(request.epsilons)),
        "advgan_widths": list(dict.fromkeys(request.advgan_widths)),
        "advgan_flags": [
            "--epsilon=8",
            f"--epochs={request.advgan_epochs}",
            f"--max_train_images={request.max_train_images}",
            f"--eval_images={request.images}",
        ],
        "gan_flags": _gan_flags(request),
        "purified_flags": [
            *(f"--{name}={getattr(request, name)}" for name in ("purify_restarts", "purify_steps")),
            f"--max_images={request.purified_images or request.images}",
            f"--batch_size={min(request.attack_batch_size, AT_ONCE)}",
        ],
        **request.pick("draws", "checkpoints", "diversity_images"),
        "mem_mb": request.memory_mb,
    }
    if request.columns == "extended":
        diagnosed = f"--max_images={min(request.images or DIAGNOSED, DIAGNOSED)}"
        config["diagnosis_flags"] = ["--epsilon=8", diagnosed, batch_size]
    return config


def _gan_flags(request):
    return [
        f"--width={request.gan_width}",
        f"--iterations={request.gan_iterations}",
        f"--max_train_images={request.max_train_images}",
    ]


def _check(parts, request, given):
    """Raises UsageError for a defence that there is not, for settings in which rows must not differ, and for what would
    fail only after the trainings."""
    for flag in ("dataset", "epsilons"):
        if not getattr(request, flag):
            raise UsageError(flag, "", "name at least one")
    if "figure4" in parts and request.checkpoints < 2:
        raise UsageError("checkpoints", request.checkpoints, "Figure 4 shows how features move: it takes at least 2")
    trained = list(defenses())
    for flag, names, known in (
        ("defense", [request.defense] if request.defense else [], trained),
        ("defenses", request.defenses, [*trained, *BEHIND_A_PURIFIER]),
    ):
        for name in names:
            if name not in known:
                raise unknown(flag, name, known)
    by_steps = {"epochs": "steps", "learning_rate_epochs": "learning_rate_boundaries"}
    for name, value in (given.profile | given.typed).items():
        owner, dot, setting = name.rpartition(".")
        if setting in by_steps and value not in ("0", ""):
            reason = f"the rows of a table are trained by steps; give --{owner}{dot}{by_steps[setting]}"
            raise UsageError(name, value, reason)


def _runs(parts, rows, datasets, request, given):
    """The trainings of these parts, with those of the surrogates. Raises UsageError for a setting that none has."""
    trained = [row for part in parts for row in [*rows[part], *(SURROGATES if part == "table3" else ())]]
    trained = list(dict.fromkeys(trained))
    runs = [run for dataset in datasets for row in trained for run in runs_of(dataset, row, request, given)]
    runs = list({run["id"]: run for run in itertools.chain(*map(_after_its_starts, runs))}.values())
    used = set().union(*(_settable(row_of(row).defense, request.defense) for row in trained))
    trained_for = {row_of(run["row"]).defense for run in runs}
    unused = {name for name in given.typed if name not in used and name.rpartition(".")[0] not in trained_for}
    if unused:
        raise UsageError(min(unused), given.typed[min(unused)], f"applies to none of {', '.join(trained)}")
    return runs


def _after_its_starts(run):
    """The runs that must be there before, and the run."""
    return [*itertools.chain(*map(_after_its_starts, run.pop("starts"))), run]


def _settable(defense, preset_of):
    """The settings that a row of this defence may be given; `preset_of`: the defence whose preset was given, or None.

    Of another method's preset these are the options alone that mean the same in every defence.
    """
    options = {field.name for field in dataclasses.fields(registry.find(defense).Options)}
    return COMMON | (options if preset_of in (None, defense) else options & SHARED)


def runs_of(dataset: str, row: str, request: Request, given: Given, **last: str) -> list[dict[str, Any]]:
    """The trainings of a row, one for each seed: their identities, and the flags of `rvs_tf.train` for them.

    "starts" are the runs that must be there before, as it starts from their weights or shares them; "needs" says which
    these are, "copy_of" which one it shares, "stochastic" that its outputs are random, "purified" that a GAN stands
    before it, if so.
    """
    defense, base = row_of(row).defense, row_of(row).trained_as
    settings = _settings_of(dataset, row, request, given) | last
    steps = int(settings.get("steps", registry.find(defense).Options().steps))
    settings = {"checkpoint_every": str(max(1, steps // request.checkpoints)), "keep": "0"} | settings
    starts = _starts_of(dataset, defense, settings, request, given)
    bases = runs_of(dataset, base, request, given) if base else []
    runs = []
    for seed in range(request.seeds):
        own = settings | ({"starts_from": f"runs/{starts[seed]['id']}"} if starts else {})
        of_first = settings | ({"starts_from": starts[0]["id"]} if starts else {})
        try:
            changed, stochastic = _changed(dataset, defense, of_first)
        except UsageError as error:
            raise _of_one(error, defense, given) from None
        changed |= {"gan": _gan_flags(request)} if row_of(row).purified else {}
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
        run = {"id": f"{dataset}/{row}-{digest}/seed-{seed}", "dataset": dataset, "row": row, "seed": seed}
        run["flags"] = [f"--defense={defense}", *(f"--{name}={value}" for name, value in sorted(own.items()))]
        if any(0 < float(own.get(name, 8)) < 1 for name in ("epsilon", "attack_step_size")):
            run["flags"].append(f"--{flags.SMALL}")
        run["needs"] = [other[seed]["id"] for other in (starts, bases) if other]
        run |= {"copy_of": bases[seed]["id"]} if bases else {}
        run |= {"stochastic": True} if stochastic else {}
        run |= {"purified": True} if row_of(row).purified else {}
        runs.append(run | {"starts": [*starts[seed : seed + 1], *bases[seed : seed + 1]]})
    return runs


def _settings_of(dataset, row, request, given):
    """The settings of a row, as text, each before the next: the preset of its defence for the data set; those given;
    what makes the row."""
    defense = row_of(row).defense
    chosen = given.settings(defense, _settable(defense, request.defense))
    if chosen.get("starts_from"):  # jobs run in the work folder
        folders = (_start(folder.strip(), request.work_dir) for folder in chosen["starts_from"].split(","))
        chosen |= {"starts_from": ",".join(folders)}
    return preset(dataset, defense) | chosen | row_of(row).settings


def _start(folder, work_dir):
    """The folder of a run as jobs find it, which run in the work folder: there, or else from where the command runs."""
    path = pathlib.Path(folder).expanduser()
    if (pathlib.Path(work_dir).expanduser() / path).is_dir():
        return folder if path.is_absolute() == pathlib.Path(folder).is_absolute() else str(path)
    if not path.is_dir():
        raise UsageError("starts_from", folder, "no such folder")
    return str(path.absolute())


def _of_one(error, defense, given):
    """An error in a row's settings: by the names that were typed where they are for its defence alone, else with it."""
    names = {name: f"{defense}.{name}" for name in given.alone(defense, given.typed)}
    if names and error.flag not in names:
        flags_of_it = ", ".join(f"--{name}" for name in names.values())
        return UsageError(error.flag, error.value, f"{error.reason} (in {defense}, with {flags_of_it})")
    if not names and error.flag in given.typed.keys() - COMMON:
        reason = f"{error.reason} (in {defense}; --DEFENCE.{error.flag} is for the rows of one defence alone)"
        return UsageError(error.flag, error.value, reason)
    return error.renamed(**names)


def _starts_of(dataset, defense, settings, request, given):
    """The trainings, by seed, whose weights a defence needs first: a row's, or with another network one not shown."""
    needed = registry.find(defense).starts_from
    if not needed:
        return []
    default = {name: _as_text(value) for name, value in vars(NetworkSettings()).items()}
    told = NETWORK & (settings.keys() | _settings_of(dataset, needed[0], request, given).keys())
    network = {name: settings.get(name, default[name]) for name in told}
    shown, own = (runs_of(dataset, needed[0], request, given, **last) for last in ({}, network))
    if [run["id"] for run in shown] == [run["id"] for run in own]:
        return shown
    return runs_of(dataset, STARTS[needed[0]], request, given, **network)


def preset(dataset: str, defense: str) -> dict[str, str]:
    """The flags, as text, of a defence's preset for a data set, if there is one.

    RvS's is that of the paper's text, and those of the methods beside it are on the same footing.
    """
    kinds = ["paper"] if defense == "rvs" else [f"{defense}_rvs", defense]
    values = next(filter(None, (presets.flags_of(dataset, kind) for kind in kinds)), {})
    own = {"keep", "validation_size", "eval_images"}  # of a run by itself: the rows of a table train on the same images
    return {name: value for name, value in values.items() if name not in own}


def _changed(dataset, defense, settings):
    """What of the settings differs from the defaults and decides what is trained; whether outputs are random.

    Raises:
      UsageError: for bad settings.
    """
    kind = registry.find(defense).Options
    common = TrainingSettings.parse({name: value for name, value in settings.items() if name in COMMON})
    options = kind.parse({name: value for name, value in settings.items() if name not in COMMON})
    data.check_crop(dataset, common.crop_padding, common.crop_fill)
    sizes = {*Options.__dataclass_fields__, *SMALLEST}  # no matter for whether outputs are random
    own = [(name, getattr(options, name)) for name in options.as_dict() if name not in sizes]
    stochastic = _is_stochastic(defense, data.NUM_CLASSES[dataset], tuple(own))
    chosen = {name: value for name, value in common.as_dict().items() if name not in MAY_CHANGE} | options.as_dict()
    default = TrainingSettings().as_dict() | kind().as_dict()
    return {name: value for name, value in chosen.items() if value != default[name]}, stochastic


@functools.cache
def _is_stochastic(defense, num_classes, options):
    """Whether its outputs are random; `options` are pairs. Raises UsageError for options that do not go together."""
    return build({"defense": defense, **dict(options), **SMALLEST, "num_classes": num_classes}).predictor().stochastic
