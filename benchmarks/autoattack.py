"""Times AutoAttack (`standard`) beside ART's on one network: seconds, robust accuracy, forward and backward passes.

  python -m benchmarks.autoattack                                           # WRN-10-1, digits, 1,000 images
  python -m benchmarks.autoattack --train_dir=runs/at --images=200 --peers=ART,original,PyTorch
  python -m benchmarks.autoattack --images=100 --batch_size=50 --stages=apgd-ce,apgd-t --peers=PyTorch

The images are attacked in rounds, each its share of them, in which ours and the peers take turns. What is compiled, is
compiled in the first; seconds are of all rounds, the rate and the ratio medians of the rounds. A pass is counted for
each image of a batch that goes through the network, by a counter in its graph, and also where it only judges. ART's
AutoAttack is made as near to `standard` as it goes: what it runs is printed. `original` is the code of AutoAttack's
authors, as packaged by torchattacks, on a PyTorch wrapper of the network; `PyTorch` is the same code on the network
written out in PyTorch with our weights, channels last, with as many threads as TensorFlow has. --stages leaves out
others of `standard` on all sides. With --json, one JSON object on the last line.
"""

import statistics
import sys
import time
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from benchmarks import agreement, in_torch, machine, peers, report
from benchmarks import attacks as benchmark
from madry_cifar import attacks
from madry_cifar.attacks.autoattack import STAGES
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Seed, like, option
from madry_cifar.data.datasets import Dataset, Split
from madry_cifar.evaluation.evaluator import Evaluator

OURS = "ours"
PEERS = ("ART", "original", "PyTorch")


class Counted:
    """A network that counts the images that pass through it.

    Attributes:
      forward, backward: how many did, and for how many a gradient was passed back to the image.
    """

    def __init__(self, network: Callable):
        self._network = network
        self.forward, self.backward = (tf.Variable(0, trainable=False, dtype=tf.int64) for _ in range(2))

    def add(self, forward: int, backward: int) -> None:
        """Counts images that passed through a copy of the network."""
        self.forward.assign_add(forward)
        self.backward.assign_add(backward)

    def __call__(self, images):
        self.forward.assign_add(tf.shape(images, tf.int64)[0])
        return self._network(self._passed(images))

    def _passed(self, images):
        @tf.custom_gradient
        def passed(images):
            def gradient(upstream):
                count = self.backward.assign_add(tf.shape(upstream, tf.int64)[0])
                with tf.control_dependencies([count]):  # else it is pruned from the gradient of a compiled function
                    return tf.identity(upstream)

            return tf.identity(images), gradient

        return passed(images)

    def take(self) -> np.ndarray:
        """The two numbers since the last time."""
        counts = np.array([self.forward.numpy(), self.backward.numpy()])
        for counter in (self.forward, self.backward):
            counter.assign(0)
        return counts


def pool(dataset: Dataset, count: int) -> Split:
    """The first `count` images, of the test split and then of the training split."""
    splits = [split for split in (dataset.test, dataset.train) if split is not None]
    together = Split(*(np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels")))
    if count > len(together):
        raise UsageError("images", count, f"{dataset.name} has {len(together)} images")
    return together.take(slice(count))


def measure(subject: peers.Subject, split: Split, packages: Collection[str], rounds: int) -> dict:
    """`attacks`: a row for ours and each peer; `accuracy_after` each stage of ours; `peers`: what these ran."""
    counted = Counted(subject.network)
    subject = subject._replace(network=counted, classifier=subject.network, count=counted.add)
    standard = attacks.attack("autoattack", epsilon=subject.epsilon)
    standard = standard._replace(stages=tuple(stage for stage in standard.stages if stage.name in subject.stages))
    evaluator = Evaluator(counted, batch_size=subject.batch_size, keep_adversarial=True)
    chosen = [peer for peer in peers.find(standard.name) if peer.package in packages]
    running = {peer.package: peer.make(subject) for peer in chosen if peers.is_installed(peer.package)}
    shares = [split.take(rows) for rows in np.array_split(np.arange(len(split)), rounds)]
    results = {name: [] for name in (OURS, *running)}
    after = []
    for number, share in enumerate(shares):
        judge = agreement.Judge(subject.network, share, subject.batch_size)
        for name, result in results.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            counted.take()
            started = time.perf_counter()
            if name == OURS:
                outcome = agreement.ours(evaluator, standard, share, subject.seed)
                adversarial = outcome.adversarial
                after.append(outcome.attack.protocol["accuracy_after"])
            else:
                adversarial = running[name](judge.images, judge.labels)
            seconds, passes = time.perf_counter() - started, counted.take()
            robust = judge.right & ~judge.broken(adversarial, *agreement.ball(standard.protocol))
            result.append((seconds, passes, robust))
    rows = [_row(name, result, results[OURS]) for name, result in results.items()]
    rows += [
        dict.fromkeys(rows[0]) | {"attack": f"{peer.package}: not installed"}
        for peer in chosen
        if peer.package not in running
    ]
    ran = [
        {"attack": peer.package, "runs": peer.settings, "differs_from_ours": peer.differs}
        for peer in chosen
        if peer.package in running
    ]
    weights = [len(share) for share in shares]
    means = {stage: float(np.average([each[stage] for each in after], weights=weights)) for stage in after[0]}
    return {"attacks": rows, "accuracy_after": [means], "peers": ran}


def _row(name, rounds, of_ours):
    seconds, passes, robust = zip(*rounds, strict=True)
    count = sum(map(len, robust))
    forward, backward = sum(passes) / count
    return {
        "attack": name,
        "seconds": sum(seconds),
        "images_per_second": statistics.median(len(part) / time for time, _, part in rounds),
        "times_ours": statistics.median(one / other for one, (other, *_) in zip(seconds, of_ours, strict=True)),
        "robust_accuracy": 100 * float(np.mean(np.concatenate(robust))),
        "forward_passes_per_image": float(forward),
        "backward_passes_per_image": float(backward),
    }


class AutoAttackSettings(benchmark.SubjectSettings):
    """How many images are attacked, and by which peers."""

    images: int = option(1000, "attacked: of the test split, then of the training split", minimum=1)
    seed: int = like(Seed, "seed", help="of the random numbers on both sides")
    rounds: int = option(2, "in which the images are attacked, each its share of them", minimum=1)
    stages: tuple[str, ...] = option((), "of `standard` that are run, with commas [all]", choices=STAGES["standard"])
    peers: tuple[str, ...] = option(("ART",), f"with commas: {', '.join(PEERS)}", choices=PEERS)

    def __post_init__(self):
        super().__post_init__()
        if self.rounds > self.images:
            raise UsageError("rounds", self.rounds, f"must be at most --images={self.images}")


def main() -> None:
    """Measures as the flags say, and prints."""
    settings = flags.read(AutoAttackSettings)
    network, dataset = benchmark.subject(settings)
    sizes, counts = settings.pick("epsilon", "batch_size", "seed"), settings.pick("images", "rounds")
    stages = settings.stages or STAGES["standard"]
    subject = peers.Subject(network, **sizes, stages=stages)
    found = measure(subject, pool(dataset, settings.images), settings.peers, settings.rounds)
    about = {
        "benchmark": "autoattack",
        "machine": machine.describe(
            *(each for _, distributions in map(peers.PACKAGES.get, settings.peers) for each in distributions)
        ),
        "settings": benchmark.trained(network, settings)
        | sizes
        | counts
        | {"stages": stages, "dataset": dataset.name}
        | in_torch.threads(),
    }
    note = {} if settings.train_dir or settings.train_steps else {"note": benchmark.RANDOM}
    report.show(about | note | found, settings.json)


def command() -> None:
    """Entry point."""
    flags.define("Benchmark", AutoAttackSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
