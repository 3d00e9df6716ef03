"""What a check says: `Check`, its verdict, and when a difference between accuracies is larger than chance.

A difference is suspect if it is larger than its tolerance, which differs from check to check, and than two standard
errors. One that is larger than its tolerance, but not than two standard errors, is a "note": more images would tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

OK, NOTE, SUSPECT, NOT_MEASURED = "ok", "note", "suspect", "not measured"


class Finding(NamedTuple):
    """What a check has found: a verdict, one sentence of evidence, and the numbers behind it (for JSON).

    Some have more to plot: `curve`, lists of equal length by what they are, and `planes` [n, P, P] of losses.
    """

    verdict: str
    evidence: str
    numbers: Mapping[str, Any]
    curve: Mapping[str, list[float]] | None = None
    planes: np.ndarray | None = None


class Check(NamedTuple):
    """A check and what it has found. `question` is what the verdict answers; "suspect" is a sign of masked gradients
    or of an evaluation that fits the network badly."""

    name: str
    question: str
    verdict: str
    evidence: str
    numbers: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


class Difference(NamedTuple):
    """Between two outcomes on the same images: the first is wrong on `more` that the second gets right, and the other
    way round on `less`; of `images` altogether.

    As the images are the same, only those on which the two differ count. The standard error is that of Bonett and
    Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", 2012: one
    image is added to each of the two counts, so that few images do not pass for certainty.
    """

    more: int
    less: int
    images: int

    @property
    def points(self) -> float:
        """In percentage points."""
        return 100 * (self.more - self.less) / self.images

    @property
    def standard_error(self) -> float:
        """In percentage points."""
        total = self.images + 2
        more, less = (self.more + 1) / total, (self.less + 1) / total
        return 100 * ((more + less - (more - less) ** 2) / total) ** 0.5

    def verdict(self, tolerance: float) -> str:
        """Whether it is suspect, given a tolerance in percentage points."""
        if self.points <= tolerance:
            return OK
        return SUSPECT if self.points > 2 * self.standard_error else NOTE

    def __str__(self):
        return f"{self.points:.1f} ± {2 * self.standard_error:.1f} points".replace("-", "−")

    def numbers(self, tolerance: float) -> dict[str, float]:
        """For JSON."""
        return {
            "difference": self.points,
            "standard_error": self.standard_error,
            "tolerance": tolerance,
            "images": self.images,
            "more": self.more,
            "less": self.less,
        }


def worst(verdicts: Sequence[str]) -> str:
    """The most serious of several verdicts."""
    return max(verdicts, key=(NOT_MEASURED, OK, NOTE, SUSPECT).index)


def overall(checks: Sequence[Check]) -> str:
    """The checks' verdicts in one line."""
    by_verdict = {verdict: [check.name for check in checks if check.verdict == verdict] for verdict in (SUSPECT, NOTE)}
    measured = sum(check.verdict != NOT_MEASURED for check in checks)
    suspect, notes = by_verdict[SUSPECT], by_verdict[NOTE]
    if suspect:
        return (
            f"{len(suspect)} of {measured} checks {'is' if len(suspect) == 1 else 'are'} suspect "
            f"({', '.join(suspect)}): do not trust PGD's numbers alone; see autoattack"
        )
    line = f"no sign of masked gradients in {measured} checks"
    return line + (f"; not clear: {', '.join(notes)}" if notes else "")
