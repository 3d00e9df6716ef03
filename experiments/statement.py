"""What a report has to say of itself wherever a number of it stands: profile, network, steps, images, data."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.measured import Measurement, Work
from experiments.rows import dataset_of, row_of
from madry_cifar.evaluation.results import purified_by

SMOKE = "smoke run: shows that the machinery works; these are not results"
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
    measured = [m for run in work.runs for m in [*work.white_box(run), *work.epsilons(run)]]
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


def about(measured: Iterable[Measurement]) -> str:
    """Networks, steps, images and data of these measurements, in words, and the rows for which that is otherwise."""
    of_rows: dict[str, list[Measurement]] = {}
    for m in measured:
        of_rows.setdefault(row_of(m.run.row).label, []).append(m)
    if not of_rows:
        return "nothing measured yet"
    facts = {label: _facts(of_row) for label, of_row in of_rows.items()}
    usual, _ = Counter(facts.values()).most_common(1)[0]
    others: dict[str, list[str]] = {}
    for label, own in facts.items():
        pairs = zip(own, usual, strict=True)
        if differing := ", ".join(fact or "images not purified" for fact, of_most in pairs if fact != of_most):
            others.setdefault(differing, []).append(label)
    exceptions = "; ".join(f"{', '.join(labels)}: {differing}" for differing, labels in others.items())
    return "; ".join(filter(None, usual)) + f" (but {exceptions})" * bool(others)


def _facts(measured):
    """Training, images and purification of a row's measurements, in words; "" for no purification."""
    data = dict.fromkeys(f"{m.images:,} {m.about['split']} images of {m.about['provenance']}" for m in measured)
    networks = dict.fromkeys(m.about["network"] for m in measured)
    steps = sorted({m.about["checkpoint"] for m in measured})
    subsets = sorted({size for m in measured if (size := m.about["training_flags"].get("max_train_images"))})
    training = f" on at most {_list(subsets)} training images" if subsets else ""
    purifiers = dict.fromkeys(filter(None, (purified_by(m.about) for m in measured)))
    purified = f"images purified by {' and '.join(purifiers)}" if purifiers else ""
    return f"{' / '.join(networks)} after {_list(steps)} steps{training}", " and ".join(data), purified


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
