"""Which images each of our attacks breaks, beside independent implementations on the same network, images and ε.

  python -m benchmarks.agreement --train_dir=runs/at --images=500
  python -m benchmarks.agreement --train_dir=runs/at --attacks=apgd-ce,apgd-t --peers=original,ART

The peers are the code of AutoAttack's authors as packaged by torchattacks (`original`, on a PyTorch wrapper of the
network), the Adversarial Robustness Toolbox (ART) and Foolbox, as far as they are installed. What each runs, and in
what it is known to differ from ours, is printed. `again` is our attack itself from other random numbers: as much
disagreement as chance makes.

An image is broken if the network is right about it, and wrong about what an attack returns within the ball. Both sides
are judged by the same compiled network in the same batches. A peer *agrees* if the robust accuracies differ by no more
than 0.5 points or 2 images (of 500 or more; of fewer nothing is said). *Chance* is how probable it is, were both
equally strong, that so few of the images on which they disagree, or fewer, are broken by ours (sign test); below
0.01 ours counts as *weaker*. With --json, one JSON object on the last line, in which are also the images on which they
disagree.
"""

import math
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import attacks as benchmark
from benchmarks import machine, peers, report
from benchmarks.batches import by_batch
from madry_cifar import attacks
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Seed, like, option
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation.evaluator import Evaluator, Task
from madry_cifar.evaluation.outcome import Outcome

ATTACKS = ("pgd-20", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "cw-l2-100", "autoattack")
AGAIN = "again"
PEERS = ("original", "ART", "Foolbox")  # others are the original's attacks on a copy of the network
ENOUGH, POINTS, IMAGES, LEVEL = 500, 0.5, 2, 0.01
ROUNDING = 1e-5  # of what a radius is exceeded by in another unit of pixels


class Judge:
    """Tells which images an attack broke.

    Args:
      network: as in `peers.Subject`.
      split: the images.
      batch_size: images per call.
    """

    def __init__(self, network: Callable, split: Split, batch_size: int):
        self.images, self.labels = split.images.astype(np.float32), split.labels
        logits = peers.Subject(network, 0).logits()
        self._predict = by_batch(lambda images, _: logits(images), batch_size)
        self.right = self._is_right(self.images)

    def broken(self, adversarial: np.ndarray, norm: str, radius: float) -> np.ndarray:
        """Whether each image [N] is broken by `adversarial` [N, H, W, C] in the "linf" or "l2" ball of a radius."""
        order = {"linf": np.inf, "l2": 2}[norm]
        changes = np.linalg.norm((adversarial - self.images).reshape(len(self.images), -1), ord=order, axis=1)
        return self.right & ~self._is_right(adversarial) & (changes <= radius * (1 + ROUNDING) + ROUNDING)

    def _is_right(self, images):
        return np.argmax(self._predict(images, self.labels), axis=1) == self.labels


def ours(evaluator: Evaluator, attack: attacks.Attack, split: Split, seed: int = 0) -> Outcome:
    """What an attack of ours does."""

    def measure(stage, part="", earlier=None):
        return evaluator.run(stage, split, seed=seed, earlier=earlier)

    (outcome,) = Task(attack).outcomes(measure).values()
    return outcome


def ball(protocol: dict) -> tuple[str, float]:
    """The norm and the radius within which an attack with this protocol counts."""
    return protocol["norm"], protocol["epsilon" if protocol["norm"] == "linf" else "radius"]


def compare(right: np.ndarray, ours: np.ndarray, peer: np.ndarray) -> dict:
    """The 2 × 2 table of what was broken [N] by ours and by a peer among the images that are `right`, and its tests."""
    count = len(right)
    only_ours, only_peer = int(np.sum(ours & ~peer)), int(np.sum(peer & ~ours))
    difference = only_peer - only_ours
    chance = chance_of(only_ours, only_ours + only_peer)
    return {
        "robust_accuracy": 100 * float(np.mean(right & ~ours)),
        "peers_robust_accuracy": 100 * float(np.mean(right & ~peer)),
        "broken_by_both": int(np.sum(ours & peer)),
        "only_by_ours": only_ours,
        "only_by_peer": only_peer,
        "by_neither": int(np.sum(right & ~ours & ~peer)),
        "agrees": abs(difference) <= max(IMAGES, POINTS / 100 * count) if count >= ENOUGH else None,
        "chance": chance,
        "weaker": chance < LEVEL,
    }


def chance_of(successes: int, trials: int) -> float:
    """P(X ≤ successes) for X ~ Bin(trials, ½)."""
    return sum(math.comb(trials, number) for number in range(successes + 1)) / 2**trials


def measure(subject: peers.Subject, split: Split, names: list[str], packages: list[str]) -> dict:
    """`agreement`: a row for each attack of ours and peer; `peers`: what these ran; and the images in dispute."""
    judge = Judge(subject.network, split, subject.batch_size)
    evaluator = Evaluator(subject.network, batch_size=subject.batch_size, keep_adversarial=True)
    rows, compared, disputed = [], [], {}
    for name in names:
        attack = attacks.attack(name, epsilon=subject.epsilon, step_size=subject.step_size)
        against = [peer for peer in (*peers.find(name), _again(evaluator, attack, split)) if peer.package in packages]
        installed = [peer for peer in against if peer.package == AGAIN or peers.is_installed(peer.package)]
        rows += [
            _nothing() | {"attack": name, "peer": f"{peer.package}: not installed"}
            for peer in against
            if peer not in installed
        ]
        if not installed:
            continue
        mine, seconds = _timed(name, "ours", lambda: ours(evaluator, attack, split, subject.seed).adversarial)
        mine = judge.broken(mine, *ball(attack.protocol))
        for peer in installed:
            theirs, others = _timed(name, peer.package, lambda: peer.make(subject)(judge.images, judge.labels))
            theirs = judge.broken(theirs, *ball(attack.protocol))
            both = {"attack": name, "peer": peer.package}
            rows.append(both | compare(judge.right, mine, theirs) | {"seconds": seconds, "peers_seconds": others})
            compared.append(both | {"runs": peer.settings, "differs_from_ours": peer.differs or "nothing known"})
            sides = (("ours", mine & ~theirs), ("peer", theirs & ~mine))
            disputed[f"{name}, {peer.package}"] = {side: np.flatnonzero(which).tolist() for side, which in sides}
    return {"agreement": rows, "peers": compared, "disputed": disputed}


def _nothing():
    """A row without numbers."""
    none = np.zeros(1, bool)
    return dict.fromkeys(("attack", "peer", *compare(none, none, none), "seconds", "peers_seconds"))


def _timed(name, who, call):
    """What `call` returns, and how many seconds it took; a line on stderr tells that it begins."""
    print(f"{name}: {who}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    return call(), round(time.perf_counter() - started, 1)


def _again(evaluator, attack, split):
    def make(subject):
        return lambda images, labels: ours(evaluator, attack, split, subject.seed + 1).adversarial

    return peers.Peer(AGAIN, "ours, from the next seed", "", make)


class AgreementSettings(benchmark.SubjectSettings):
    """Which attacks are compared with which peers."""

    step_size: float = option(2.0, "of pgd-N, in grey levels", minimum=0)
    images: int = option(500, "of the test split that are attacked", minimum=1)
    seed: int = like(Seed, "seed", help="of the random numbers on both sides")
    attacks: tuple[str, ...] = option(ATTACKS, "of ours, with commas")
    peers: tuple[str, ...] = option(
        PEERS, f"with commas; `{AGAIN}` is ours from the next seed", choices=(*PEERS, AGAIN)
    )


def main() -> None:
    """Measures as the flags say, and prints."""
    settings = flags.read(AgreementSettings)
    names, chosen = settings.attacks, settings.peers
    for name in names:
        attacks.attack(name)  # what is mistyped ends here
        if not peers.find(name) and AGAIN not in chosen:
            raise UsageError("attacks", name, f"has no peer; with --peers={AGAIN} it is compared with itself")
    network, dataset = benchmark.subject(settings)
    if settings.images > len(dataset.test):
        raise UsageError("images", settings.images, f"{dataset.name} has {len(dataset.test)} test images")
    sizes = settings.pick("epsilon", "step_size", "batch_size", "seed")
    found = measure(peers.Subject(network, **sizes), dataset.test.take(slice(settings.images)), names, chosen)
    about = {
        "benchmark": "agreement",
        "machine": machine.describe(*(each for _, distributions in peers.PACKAGES.values() for each in distributions)),
        "settings": benchmark.trained(network, settings) | sizes | {"images": settings.images, "dataset": dataset.name},
    }
    report.show(about | found, settings.json)


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", AgreementSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
