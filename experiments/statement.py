"""What a report has to say of itself wherever a number of it stands: profile, network, steps, images, data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from experiments.measured import Measurement, Work
from experiments.rows import WHITE_BOX, dataset_of, row_of
from madry_cifar.evaluation.results import purified_by

SMOKE = "smoke run: shows that the machinery works; these are not results"
ON_ALL, NOT_PURIFIED = "on all training images", "not purified"
PAPER_NETWORKS = ("WRN-28-10", "WRN-34-10")  # the paper's text, its released code


@dataclass(frozen=True)
class Statement:
    """What stands above every table and figure.

    Attributes:
      profile: of the grid: full, reduced, smoke, ...
      short: what the numbers are, in a few words.
      facts: what was measured on what, a line for each data set.
      caveat: in what it is not the paper's experiment, or "".
    """

    profile: str
    short: str
    facts: tuple[str, ...]
    caveat: str = ""

    @property
    def smoke(self) -> bool:
        """Whether the numbers are no results at all."""
        return self.profile == "smoke"

    @property
    def text(self) -> str:
        """The line to be shown: what the numbers are, and what they were measured on."""
        return self.with_facts(self.facts)

    def with_facts(self, facts: Iterable[str]) -> str:
        """The same line, with what some of the numbers were measured on."""
        return self.short if self.smoke else f"{self.profile} run: {'; '.join(facts)}. {self.caveat}".strip()


def build(work: Work) -> Statement:
    """The statement of a work folder, from its profile and from what its result files say."""
    measured = [m for run in work.runs for m in work.measurements(run) if m.setting == WHITE_BOX]
    facts, deviations = [], []
    for dataset in work.datasets:
        on_dataset = [m for m in measured if m.run.dataset == dataset]
        facts.append(f"{dataset_of(dataset).label}: {about(on_dataset)}")
        deviations.extend(_deviations(dataset_of(dataset), on_dataset))
    caveat = ""
    if deviations:
        caveat = (
            f"Not the paper's experiment: {', '.join(dict.fromkeys(deviations))}. A difference to a published "
            "number does not judge the paper."
        )
    if work.profile == "smoke":
        return Statement(work.profile, SMOKE, tuple(facts), caveat)
    short = f"{work.profile} run" + (", not the paper's experiment" if deviations else "")
    return Statement(work.profile, short, tuple(facts), caveat)


def about(measured: Iterable[Measurement], labels: Mapping[str, str] = MappingProxyType({})) -> str:
    """Networks, steps, images and data of these measurements, in words, and the rows for which something is otherwise.

    Args:
      labels: what rows are called, by name, where it is not what they are called everywhere.
    """
    of_rows: dict[str, list[Measurement]] = {}
    for m in measured:
        of_rows.setdefault(labels.get(m.run.row, row_of(m.run.row).label), []).append(m)
    if not of_rows:
        return "nothing measured yet"
    facts = {label: _facts(of_row) for label, of_row in of_rows.items()}
    usual = [Counter(kind).most_common(1)[0][0] for kind in zip(*facts.values(), strict=True)]
    others: dict[str, list[str]] = {}
    for label, own in facts.items():
        if differing := " ".join(fact for fact, of_most in zip(own, usual, strict=True) if fact != of_most):
            others.setdefault(differing, []).append(label)
    network, steps, training, images, data, purified = usual
    text = f"{network.removeprefix('with ')} {steps}" + f" {training}" * (training != ON_ALL)
    text += f"; {images.removeprefix('on ')} {data}"
    text += f", {purified}" * (purified != NOT_PURIFIED)
    exceptions = "; ".join(f"{', '.join(names)} {differing}" for differing, names in others.items())
    return text + f" (but {exceptions})" * bool(others)


def _facts(measured):
    """Network, length of training and its images, images, data and purification of a row's measurements, in words."""
    networks = dict.fromkeys(m.about["network"] for m in measured)
    steps = sorted({m.about["checkpoint"] for m in measured})
    subsets = sorted({size for m in measured if (size := m.about["training_flags"].get("max_train_images"))})
    images = dict.fromkeys(f"{m.images:,} {m.about['split']} images" for m in measured)
    data = dict.fromkeys(m.about["provenance"] for m in measured)
    searches = [told | {"gan": "a GAN"} for m in measured if (told := m.about.get("purification"))]  # in any folder
    purifiers = dict.fromkeys(purified_by({"purification": told}) for told in searches)
    return (
        f"with {' / '.join(networks)}",
        f"after {_list(steps)} steps",
        f"on at most {_list(subsets)} training images" if subsets else ON_ALL,
        f"on {' and '.join(images)}",
        f"of {' and '.join(data)}",
        f"purified by {' and '.join(purifiers)}" if purifiers else NOT_PURIFIED,
    )


def _list(numbers):
    return " / ".join(f"{number:,}" for number in numbers)


def _deviations(dataset, measured):
    """In what this differs from the paper's experiment, in words about the paper's."""
    if not measured:
        return
    if any(m.about["network"] not in PAPER_NETWORKS for m in measured):
        yield "its network is WRN-28-10"
    if dataset.rvs_steps is None:
        yield f"it has no {dataset.label}"
        return
    steps = [m.about["checkpoint"] for m in measured if row_of(m.run.row).defense == "rvs"]
    if any(step < dataset.rvs_steps for step in steps):
        yield f"it trains RvS for {dataset.rvs_steps:,} steps"
    if any(m.about["training_flags"].get("max_train_images") for m in measured):
        yield "it trains on the whole training set"
    if any(m.images < dataset.test for m in measured):
        yield "it tests on the whole test set"
    if any("JPEG" in str(m.about["provenance"]) for m in measured):
        yield "its images are not JPEG-recompressed"
