"""What should not be: attacks that get weaker as they get stronger, and numbers averaged that are not alike."""

import itertools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments import published
from experiments.measured import Measurement, Run, Work, binomial_error
from experiments.rows import WHITE_BOX, column_of, dataset_of, row_of, setting_label
from madry_cifar.runs.run_folder import MAY_CHANGE

# of a protocol: what differs from run to run
OF_A_RUN = ("accuracy_by_checkpoint", "accuracy_after", "checkpoint", "train_dir", "selection")
OF_A_RUN += ("generator_sha256",)
TOLERANCE = 0.3  # points by which accuracy may rise with steps or ε
NOISE = 2  # standard errors
ROUNDING = 1e-6  # of accuracies that are shares of whole images
SQUARE = "Square, which needs no gradients, is stronger ({} % left) than APGD-CE"
BLACK_BOX = "the black-box attack ({} % left) is stronger than the white-box one"
TOO_WEAK = ": the white-box attack is too weak, or gradients are masked"


@dataclass(frozen=True)
class Remark:
    """Something that a reader of the numbers has to know.

    Attributes:
      level: "warning", or "note" where it may be chance.
      numbers: which it is about: "measured" or "published".
      subject: the data set and row, and which of its numbers.
    """

    level: str
    numbers: str
    subject: str
    text: str


@dataclass(frozen=True)
class _Point:
    name: str
    accuracy: float
    images: int


def check_table(work: Work, part: str, groups: Sequence) -> list[Remark]:
    """What the numbers of a table, its `tables.Group`s, show."""
    checks = {
        "table2": (_steps_measured, _steps_published, _ladder),
        "table3": (_black_box_measured, _black_box_published, _surrogates),
    }
    remarks = [remark for group in groups for cell in group.cells() for remark in _seeds_unlike(group, cell)]
    for check in checks.get(part, ()):
        remarks += [remark for group in groups for remark in check(work, group)]
    return remarks


def check_epsilons(run: Run, measured: Sequence[Measurement], natural: Measurement | None) -> list[Remark]:
    """What accuracies of one run under one attack over ε show; `natural`: the run's accuracy without an attack."""
    series = sorted(measured, key=lambda m: m.epsilon)
    points = [_Point(f"ε = {m.epsilon:g}", m.accuracy, m.images) for m in series]
    remarks = list(_rises(_name(run), points, "measured", "ε"))
    for m in series:
        if m.epsilon == 0 and natural and _alike(m, natural) and abs(m.accuracy - natural.accuracy) > ROUNDING:
            text = f"{m.accuracy:.2f} % at ε = 0, but {natural.accuracy:.2f} % without an attack: they must be the same"
            remarks.append(Remark("warning", "measured", _name(run), text))
    return remarks


def check_diversity(subject: str, contents: Sequence[Mapping]) -> list[Remark]:
    """Seeds averaged in Figure 3, the contents of their `diversity.json`, that differ in more than the seed."""
    names = ("network", "provenance", "split", "images", "draws")
    return list(_unlike(subject, [{name: content[name] for name in names} for content in contents]))


def check_work(work: Work) -> list[Remark]:
    """Runs that were measured on different checkpoints, or before and after they were trained anew."""
    remarks = []
    for run in work.runs:
        sources = list(filter(None, [*(m.about for m in work.measurements(run)), work.diagnosis(run)]))
        checkpoints = sorted({about["checkpoint"] for about in sources})
        if len(checkpoints) > 1:
            text = f"its numbers are of different checkpoints: {', '.join(map(str, checkpoints))}"
            remarks.append(Remark("warning", "measured", _name(run), text))
        elif len({about["classifier_sha256"] for about in sources}) > 1:
            text = "its numbers are of different weights, as of two trainings; the command for all parts mends it"
            remarks.append(Remark("warning", "measured", _name(run), text))
    return remarks


def _alike(one, other):
    return one.images == other.images and one.about["classifier_sha256"] == other.about["classifier_sha256"]


def _by_run(group):
    by_run = {}
    for m in (m for cell in group.cells() for m in cell.measured):
        by_run.setdefault(m.run, []).append(m)
    return by_run.items()


def _steps_measured(work, group):
    for run, measured in _by_run(group):
        for points in _by_steps((m.attack, m.accuracy, m.images) for m in measured):
            yield from _rises(_name(run), points, "measured", "more steps")


def _steps_published(work, group):
    images = dataset_of(group.dataset).test
    for row in group.rows:
        printed = [(a, cell.published.accuracy, images) for a, cell in row.cells.items() if cell.published]
        for points in _by_steps(printed):
            yield from _rises(f"{group.name}, {row_of(row.name).label}", points, "published", "more steps")


def _by_steps(entries) -> Iterator[list[_Point]]:
    """PGD, and CW, by the number of steps."""
    points = [(column_of(attack), accuracy, images) for attack, accuracy, images in entries]
    points.sort(key=lambda point: point[0].steps)
    for name in ("pgd", "cw"):
        yield [_Point(c.label, *rest) for c, *rest in points if c.family.name == name and c.times == 1 and c.steps]


def _ladder(work, group):
    """Attacks that are stronger than others by what they are: from more starts, or made of several."""
    for run, measured in _by_run(group):
        subject, by_attack = _name(run), {m.attack: m for m in measured if m.is_linf}
        for points in _by_starts(by_attack.values()):
            yield from _rises(subject, points, "measured", "more random starts")
        for whole in (m for m in by_attack.values() if "stages" in m.protocol):
            yield from _not_the_strongest(subject, whole, by_attack)
        if {"square", "apgd-ce"} <= by_attack.keys():
            square, apgd = by_attack["square"], by_attack["apgd-ce"]
            yield from _stronger(subject, square, apgd, SQUARE, warning=": gradients are masked")


def _by_starts(measured) -> Iterator[list[_Point]]:
    """Attacks that differ in the number of random starts alone, by that number."""
    points = {}
    for m in sorted(measured, key=lambda m: column_of(m.attack).times):
        column = column_of(m.attack)
        if column.family.name != "advgan":
            same = column.family.name, column.steps
            points.setdefault(same, []).append(_Point(column.label, m.accuracy, m.images))
    return points.values()


def _not_the_strongest(subject, whole, by_attack):
    """AutoAttack where it leaves more than one of its stages, which cannot be, or than another attack."""
    label = column_of(whole.attack).label
    others = {name: m for name, m in by_attack.items() if whole.accuracy - m.accuracy > ROUNDING}
    for name in (name for name in whole.protocol["stages"] if name in others):
        text = f"{label} leaves {whole.accuracy:.2f} %, but {column_of(name).label}, a part of it, "
        text += f"{others.pop(name).accuracy:.2f} % by itself: they were not measured alike"
        yield Remark("warning", "measured", subject, text)
    strongest = min(others.values(), key=lambda m: m.accuracy, default=whole)
    words = f"{column_of(strongest.attack).label} ({{}} % left) is stronger than {label}"
    yield from _stronger(subject, strongest, whole, words, tolerance=TOLERANCE)


def _stronger(subject, attack, other, words, *, numbers="measured", tolerance=0.0, warning=""):
    """An attack that leaves less accuracy than another one, by more than the tolerance; {} in `words`: how much."""
    excess = other.accuracy - attack.accuracy
    if excess > tolerance + ROUNDING:
        level, noise = _judge(excess, attack, other)
        text = f"{words.format(f'{attack.accuracy:.2f}')} ({other.accuracy:.2f} %), by {excess:.2f} points, {noise}"
        yield Remark(level, numbers, subject, text + (warning if level == "warning" else ""))


def _rises(subject, points, numbers, cause):
    """The worst rise of a point above an earlier one, by more than `TOLERANCE`; points in the order of strength."""
    pairs = itertools.combinations(points, 2)
    rises = [(weak, strong) for weak, strong in pairs if strong.accuracy - weak.accuracy > TOLERANCE + ROUNDING]
    if rises:
        weak, strong = max(rises, key=lambda pair: (pair[1].accuracy - pair[0].accuracy) / max(_noise(*pair), 1e-9))
        level, noise = _judge(strong.accuracy - weak.accuracy, weak, strong)
        span = f"from {weak.accuracy:.2f} % ({weak.name}) to {strong.accuracy:.2f} % ({strong.name})"
        yield Remark(level, numbers, subject, f"accuracy rises with {cause}, {span}, {noise}")


def _black_box_measured(work, group):
    for m in (m for cell in group.cells() for m in cell.measured):
        subject = f"{_name(m.run)}, {column_of(m.attack).label}, {setting_label(group.setting)}"
        white = work.at_epsilon(m.run, part="table3").get(m.attack)
        if m.surrogate.get("classifier_sha256") == m.about["classifier_sha256"]:
            yield Remark("note", "measured", subject, "the surrogate is the target itself: this is white-box")
        elif white:
            yield from _stronger(subject, m, white, BLACK_BOX, warning=TOO_WEAK)


def _black_box_published(work, group):
    images = dataset_of(group.dataset).test
    for cell in (cell for cell in group.cells() if cell.published):
        white = published.find("II", group.dataset, WHITE_BOX, cell.row, cell.attack)
        if white:
            points = (_Point(cell.attack, number.accuracy, images) for number in (cell.published, white))
            labels = group.name, row_of(cell.row).label, column_of(cell.attack).label, setting_label(group.setting)
            yield from _stronger(", ".join(labels), *points, BLACK_BOX, numbers="published", warning=TOO_WEAK)


def _judge(excess, one, other):
    """Whether an excess in points is beyond chance, and words for it."""
    noise, images = _noise(one, other), min(one.images, other.images)
    words = f"the noise of {images:,} images ({NOISE} standard errors: {noise:.2f})"
    return ("warning", f"beyond {words}") if excess > noise else ("note", f"within {words}")


def _noise(one, other):
    """What two accuracies may differ by chance, in points, as if the images were different ones."""
    return NOISE * math.hypot(*(binomial_error(p.accuracy, p.images) for p in (one, other)))


def _seeds_unlike(group, cell):
    """Seeds of a cell that differ in more than the seed."""
    subject = f"{group.title}, {row_of(cell.row).label}, {column_of(cell.attack).label}"
    yield from _unlike(subject, [_settings(m) for m in cell.measured])


def _unlike(subject, settings):
    """What differs between the settings that a mean is over."""
    for name in dict.fromkeys(itertools.chain(*settings)):
        values = dict.fromkeys(str(of_seed.get(name)) for of_seed in settings)
        if len(values) > 1:
            text = f"the mean is over runs that differ in {name}: {', '.join(values)}"
            yield Remark("warning", "measured", subject, text)


def _settings(m):
    about = {name: m.about[name] for name in ("network", "checkpoint", "provenance", "split")}
    flags = {f"--{name}": value for name, value in m.about["training_flags"].items()}
    flags = {f: v for f, v in flags.items() if f[2:] not in {"seed", "starts_from", *MAY_CHANGE}}
    attack = {f"the attack's {name}": value for name, value in m.protocol.items() if name not in OF_A_RUN}
    purifier = {f"the purifier's {name}": v for name, v in (m.about.get("purification") or {}).items() if name != "gan"}
    return about | {"images": m.images, "surrogate": _surrogate(m)} | flags | attack | purifier


def _surrogate(m):
    """The training that an attack was made on, but for its seed."""
    return pathlib.PurePath(m.surrogate["train_dir"]).parent.name if m.surrogate else None


def _surrogates(work, group):
    """Rows of a table that were attacked by images made on different trainings of its surrogate."""
    made_on = sorted({_surrogate(m) for cell in group.cells() for m in cell.measured if m.surrogate})
    if len(made_on) > 1:
        text = f"its rows are attacked on networks that differ in more than the seed: {', '.join(made_on)}"
        yield Remark("warning", "measured", group.title, text)


def _name(run):
    return f"{dataset_of(run.dataset).label}, {row_of(run.row).label} (seed {run.seed})"
