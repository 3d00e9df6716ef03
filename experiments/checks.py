"""What should not be: attacks that get weaker as they get stronger, and numbers put together that are not alike."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments import published
from experiments.measured import WHITE_BOX, Measurement, Run, Work, binomial_error
from experiments.names import attack_label, dataset_label, row_label, setting_label
from madry_cifar.runs.run_folder import MAY_CHANGE

TOLERANCE = 0.3  # points by which accuracy may rise with steps or ε
NOISE = 2  # standard errors
ROUNDING = 1e-6  # of accuracies that are shares of whole images


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the numbers has to know.

    Attributes:
      level: "warning", or "note" where it may be chance.
      numbers: of which it is found: "measured" or "published".
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


def of_table(work: Work, part: str, groups: Sequence) -> list[Finding]:
    """What the numbers of a table, its `tables.Group`s, show."""
    checks = {
        "table2": (_steps_measured, _steps_published, _ladder),
        "table3": (_black_box_measured, _black_box_published),
    }
    found = [finding for group in groups for cell in group.cells() for finding in _unlike(group, cell)]
    for check in checks.get(part, ()):
        found += [finding for group in groups for finding in check(work, group)]
    return found


def of_epsilons(run: Run, measured: Sequence[Measurement], natural: Measurement | None) -> list[Finding]:
    """What accuracies of one run under one attack over ε show; `natural`: the run's accuracy without an attack."""
    series = sorted(measured, key=lambda m: m.epsilon)
    points = [_Point(f"ε = {m.epsilon:g}", m.accuracy, m.images) for m in series]
    found = list(_rises(_name(run), points, "measured", "ε"))
    for m in series:
        if m.epsilon == 0 and natural and _alike(m, natural) and abs(m.accuracy - natural.accuracy) > ROUNDING:
            text = f"{m.accuracy:.2f} % at ε = 0, but {natural.accuracy:.2f} % without an attack: they must be the same"
            found.append(Finding("warning", "measured", _name(run), text))
    return found


def of_work(work: Work) -> list[Finding]:
    """Runs that were measured on different checkpoints."""
    found = []
    for run in work.runs:
        transfers = (work.transfer(run, name) for name in work.config.get("surrogates", ()))
        everything = itertools.chain(work.white_box(run), work.epsilons(run), *transfers)
        diagnosed = [work.diagnosis(run)] if work.diagnosis(run) else []
        checkpoints = sorted({about["checkpoint"] for about in [*(m.about for m in everything), *diagnosed]})
        if len(checkpoints) > 1:
            text = f"its numbers are of different checkpoints: {', '.join(map(str, checkpoints))}"
            found.append(Finding("warning", "measured", _name(run), text))
    return found


def _alike(one, other):
    return one.images == other.images and one.about["classifier_sha256"] == other.about["classifier_sha256"]


def _by_run(group):
    found = {}
    for m in (m for cell in group.cells() for m in cell.measured):
        found.setdefault(m.run, []).append(m)
    return found.items()


def _steps_measured(work, group):
    for run, measured in _by_run(group):
        for points in _families((m.attack, m.accuracy, m.images) for m in measured):
            yield from _rises(_name(run), points, "measured", "more steps")


def _steps_published(work, group):
    images = published.TEST_IMAGES.get(group.dataset)
    for row in group.rows:
        printed = [(a, cell.published.accuracy, images) for a, cell in row.cells.items() if cell.published]
        for points in _families(printed):
            yield from _rises(f"{group.name}, {row_label(row.name)}", points, "published", "more steps")


def _families(entries) -> Iterator[list[_Point]]:
    """PGD, and CW, by the number of steps."""
    found = {}
    for attack, accuracy, images in entries:
        if match := re.fullmatch(r"(pgd|cw)-(\d+)", attack):
            found.setdefault(match[1], []).append((int(match[2]), _Point(attack_label(attack), accuracy, images)))
    return ([point for _, point in sorted(points, key=lambda entry: entry[0])] for points in found.values())


def _ladder(work, group):
    """Attacks that are stronger than others by what they are: from more starts, or made of several."""
    for run, measured in _by_run(group):
        subject, by_attack = _name(run), {m.attack: m for m in measured if m.is_linf}
        for points in _restarts(by_attack.values()):
            yield from _rises(subject, points, "measured", "more random starts")
        for whole in (m for m in by_attack.values() if "stages" in m.protocol):
            yield from _not_the_strongest(subject, whole, by_attack)
        if {"square", "apgd-ce"} <= by_attack.keys():
            yield from _without_gradients(subject, by_attack["square"], by_attack["apgd-ce"])


def _restarts(measured) -> Iterator[list[_Point]]:
    """Attacks that differ in the number of random starts alone, by that number."""
    found = {}
    for m in measured:
        stem, starts = re.fullmatch(r"(.*?)(?:x(\d+))?", m.attack, re.DOTALL).groups()
        found.setdefault(stem, []).append((int(starts or 1), _Point(attack_label(m.attack), m.accuracy, m.images)))
    return ([point for _, point in sorted(points, key=lambda entry: entry[0])] for points in found.values())


def _not_the_strongest(subject, whole, by_attack):
    """AutoAttack where it leaves more than one of its stages, which cannot be, or than another attack."""
    others = {name: m for name, m in by_attack.items() if whole.accuracy - m.accuracy > ROUNDING}
    for name in (name for name in whole.protocol["stages"] if name in others):
        text = (
            f"{attack_label(whole.attack)} leaves {whole.accuracy:.2f} %, but {attack_label(name)}, a part of it, "
            f"{others.pop(name).accuracy:.2f} % by itself: they were not measured alike"
        )
        yield Finding("warning", "measured", subject, text)
    strongest = min(others.values(), key=lambda m: m.accuracy, default=whole)
    excess = whole.accuracy - strongest.accuracy
    if excess > TOLERANCE + ROUNDING:
        level, noise = _judge(excess, whole, strongest)
        text = (
            f"{attack_label(strongest.attack)} ({strongest.accuracy:.2f} % left) is stronger than "
            f"{attack_label(whole.attack)} ({whole.accuracy:.2f} %), by {excess:.2f} points, {noise}"
        )
        yield Finding(level, "measured", subject, text)


def _without_gradients(subject, square, apgd):
    """Square where it leaves less accuracy than APGD-CE."""
    excess = apgd.accuracy - square.accuracy
    if excess > ROUNDING:
        level, noise = _judge(excess, square, apgd)
        text = (
            f"Square, which needs no gradients, is stronger ({square.accuracy:.2f} % left) than APGD-CE "
            f"({apgd.accuracy:.2f} %), by {excess:.2f} points, {noise}"
        )
        yield Finding(level, "measured", subject, text + (": gradients are masked" if level == "warning" else ""))


def _rises(subject, points, numbers, cause):
    """The worst rise of a point above an earlier one, by more than `TOLERANCE`; points in the order of strength."""
    pairs = itertools.combinations(points, 2)
    rises = [(weak, strong) for weak, strong in pairs if strong.accuracy - weak.accuracy > TOLERANCE + ROUNDING]
    if rises:
        weak, strong = max(rises, key=lambda pair: (pair[1].accuracy - pair[0].accuracy) / max(_noise(*pair), 1e-9))
        level, noise = _judge(strong.accuracy - weak.accuracy, weak, strong)
        span = f"from {weak.accuracy:.2f} % ({weak.name}) to {strong.accuracy:.2f} % ({strong.name})"
        yield Finding(level, numbers, subject, f"accuracy rises with {cause}, {span}, {noise}")


def _black_box_measured(work, group):
    for m in (m for cell in group.cells() for m in cell.measured):
        subject = f"{_name(m.run)}, {attack_label(m.attack)}, {setting_label(group.setting)}"
        if m.surrogate.get("classifier_sha256") == m.about["classifier_sha256"]:
            yield Finding("note", "measured", subject, "the surrogate is the target itself: this is white-box")
            continue
        white = work.at_epsilon(m.run).get(m.attack)
        if white:
            yield from _stronger(subject, m, white, "measured")


def _black_box_published(work, group):
    images = published.TEST_IMAGES.get(group.dataset)
    for cell in (cell for cell in group.cells() if cell.published):
        white = published.find("II", group.dataset, WHITE_BOX, cell.row, cell.attack)
        if white:
            points = (_Point(cell.attack, number.accuracy, images) for number in (cell.published, white))
            subject = (
                f"{group.name}, {row_label(cell.row)}, {attack_label(cell.attack)}, {setting_label(group.setting)}"
            )
            yield from _stronger(subject, *points, "published")


def _stronger(subject, black, white, numbers):
    """A black-box attack that leaves less accuracy than the white-box one of the same name."""
    excess = white.accuracy - black.accuracy
    if excess > ROUNDING:
        level, noise = _judge(excess, black, white)
        text = (
            f"the black-box attack ({black.accuracy:.2f} % left) is stronger than the white-box one "
            f"({white.accuracy:.2f} %), by {excess:.2f} points, {noise}"
        )
        if level == "warning":
            text += ": the white-box attack is too weak, or gradients are masked"
        yield Finding(level, numbers, subject, text)


def _judge(excess, one, other):
    """Whether an excess in points is beyond chance, and words for it."""
    noise, images = _noise(one, other), min(one.images, other.images)
    words = f"the noise of {images:,} images ({NOISE} standard errors: {noise:.2f})"
    return ("warning", f"beyond {words}") if excess > noise else ("note", f"within {words}")


def _noise(one, other):
    """What two accuracies may differ by chance, in points, as if the images were different ones."""
    return NOISE * math.hypot(*(binomial_error(p.accuracy, p.images) for p in (one, other)))


def _unlike(group, cell):
    """Seeds of a cell that differ in more than the seed."""
    settings = [_settings(m) for m in cell.measured]
    for name in dict.fromkeys(name for of_run in settings for name in of_run):
        values = dict.fromkeys(str(of_run.get(name)) for of_run in settings)
        if len(values) > 1:
            text = f"the mean is over runs that differ in {name}: {', '.join(values)}"
            subject = f"{group.title}, {row_label(cell.row)}, {attack_label(cell.attack)}"
            yield Finding("warning", "measured", subject, text)


def _settings(m):
    about = {name: m.about[name] for name in ("network", "checkpoint", "provenance", "split")}
    flags = {f"--{name}": value for name, value in m.about["training_flags"].items()}
    return about | {"images": m.images} | {f: v for f, v in flags.items() if f[2:] not in {"seed", *MAY_CHANGE}}


def _name(run):
    return f"{dataset_label(run.dataset)}, {row_label(run.row)} (seed {run.seed})"
