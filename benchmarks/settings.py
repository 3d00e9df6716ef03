"""What several benchmarks are told."""

import dataclasses

from madry_cifar.cli.settings import DataDir, Seed, Settings, TrainDir, like, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Settings):
    """Every benchmark."""

    json: bool = option(False, "print one JSON object on the last line")
    repeats: int = option(5, "rounds after the first, of an iteration each", minimum=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """The network that is built."""

    depth: int = option(10, "of the network, 6n + 4")
    width: int = option(2, "of the network", minimum=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iteration(Network):
    """A training iteration of it."""

    batch_size: int = option(64, "images per iteration", minimum=1)
    jit_compile: bool = option(False, "compile with XLA")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject(Network):
    """A network that is attacked: of a run, or trained for the benchmark."""

    train_dir: str | None = like(
        TrainDir,
        "train_dir",
        help="run whose latest network and test images are used, instead of the next three",
        required=False,
    )
    width: int = like(Network, "width", default=1)
    train_steps: int = option(60, "of natural training on digits; with 0, accuracies say nothing", minimum=0)
    data_dir: str | None = like(
        DataDir, "data_dir", help="where the data set of --train_dir is now [as the run was trained]"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacking(Subject):
    """Attacks on it."""

    epsilon: float = option(8.0, "radius of the L∞ ball, in grey levels of 255", minimum=0)
    batch_size: int = option(250, "images attacked at once", minimum=1)
    json: bool = like(Benchmark, "json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Attacking):
    """Attacks beside those of other packages."""

    seed: int = like(Seed, "seed", help="of the random numbers on both sides")
