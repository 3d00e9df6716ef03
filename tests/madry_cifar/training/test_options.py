"""The hyper-parameters: what is refused, and that the message names the flag."""

import json

import pytest

from madry_cifar.cli.errors import UsageError
from madry_cifar.training.adversarial import AdversarialTrainingOptions
from madry_cifar.training.options import Options
from rvs_tf.defense import RvSOptions

REFUSED = [
    (Options, {"batch_size": 0}, "--batch_size=0: must be at least 1"),
    (Options, {"steps": -1}, "--steps=-1: must be at least 0"),
    (Options, {"momentum": -0.1}, "--momentum=-0.1: must be at least 0"),
    (Options, {"momentum": float("nan")}, "--momentum=nan: must be a finite number"),
    (Options, {"weight_decay": float("inf")}, "--weight_decay=inf: must be a finite number"),
    (Options, {"learning_rates": (0.1, -0.2, 0.1)}, "--learning_rates=-0.2: must be at least 0"),
    (Options, {"learning_rates": (0.1, float("nan"), 0.1)}, "--learning_rates=nan: must be a finite number"),
    (
        Options,
        {"learning_rates": (0.1,)},
        "--learning_rates=0.1: with .*=40000,60000: 1 learning rates need 0",
    ),
    (Options, {"learning_rate_boundaries": (5,)}, "--learning_rate_boundaries=5: 3 learning rates need 2 boundaries"),
    (Options, {"learning_rate_epochs": (5,)}, "with --learning_rate_epochs=5: 3 learning rates need 2"),
    (Options, {"weight_decay_on": "biases"}, "--weight_decay_on=biases: unknown; Known: all, kernels"),
    (Options, {"learning_rate_boundaries": (5, 5)}, "--learning_rate_boundaries=5,5: .* must rise"),
    (AdversarialTrainingOptions, {"epsilon": -1.0}, "--epsilon=-1.0: must be at least 0"),
    (AdversarialTrainingOptions, {"attack_steps": -1}, "--attack_steps=-1: must be at least 0"),
    (
        AdversarialTrainingOptions,
        {"attack_batch_norm": "test"},
        "--attack_batch_norm=test: unknown; Known: eval, frozen, train",
    ),
    (RvSOptions, {"epsilon": float("nan")}, "--epsilon=nan: must be a finite number"),
    (RvSOptions, {"generator_loss": "kl"}, "--generator_loss=kl: unknown; Known: ot, xent"),
    (RvSOptions, {"latent_draws": 3}, "--latent_draws=3: unknown; Known: 1, 2"),
    (RvSOptions, {"generator_learning_rate": -0.1}, "--generator_learning_rate=-0.1: must be at least 0"),
    (RvSOptions, {"sinkhorn_iterations": 0}, "--sinkhorn_iterations=0: must be at least 1"),
    (RvSOptions, {"sinkhorn_regularization": 0.0}, "--sinkhorn_regularization=0.0: must be"),
    (RvSOptions, {"sinkhorn_regularization": -1.0}, "--sinkhorn_regularization=-1.0: must be"),
    (RvSOptions, {"label_smoothing": -0.5}, "--label_smoothing=-0.5: must be at least 0"),
    (RvSOptions, {"label_smoothing": 1.5}, "--label_smoothing=1.5: must be"),
]


@pytest.mark.parametrize(("options", "values", "message"), REFUSED, ids=[str(values) for _, values, _ in REFUSED])
def test_values_that_are_refused_are_named(options, values, message):
    with pytest.raises(UsageError, match=message):
        options(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 1, "steps": 0, "momentum": 0.0, "weight_decay": 0.0},
        {"learning_rates": (0.0,), "learning_rate_boundaries": ()},
        {"learning_rates": (0.1, 0.2), "learning_rate_boundaries": (7,)},
    ],
)
def test_values_at_the_bounds_are_taken(values):
    options = Options(**values)
    assert {name: getattr(options, name) for name in values} == values


def test_schedule_is_of_the_given_rates():
    schedule = Options(learning_rates=(0.3, 0.2), learning_rate_boundaries=(7,)).schedule()
    assert [schedule(step) for step in (0, 7, 8)] == [0.3, 0.3, 0.2]


def test_defaults_of_rvs_are_those_of_the_released_code():
    """For CIFAR-10, from the paper's section on experiments and the released configuration."""
    expected = {
        "batch_size": 64,
        "learning_rates": [0.1, 0.01, 0.001],
        "learning_rate_boundaries": [60_000, 90_000],
        "generator_learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "epsilon": 8.0,
        "label_smoothing": 0.5,
        "sinkhorn_regularization": 0.01,
        "sinkhorn_iterations": 100,
        "uniform_noise": True,
        "latent_draws": 2,
    }
    assert expected.items() <= RvSOptions().as_dict().items()


@pytest.mark.parametrize("options", [Options, AdversarialTrainingOptions, RvSOptions])
def test_options_survive_json(options):
    content = options().as_dict()
    assert json.loads(json.dumps(content)) == content
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    assert options(**tuples) == options()


def test_epochs_are_counted_in_steps():
    """As PyTorch's scripts do it: at the first step of epoch 60, counted from 0, the rate is the second one."""
    given = Options(epochs=200, learning_rate_epochs=(60, 90))
    with pytest.raises(ValueError, match="must first be counted in steps"):
        given.schedule()
    options = given.in_steps(390)
    assert options.steps == 78_000
    schedule = options.schedule()
    rates = [schedule(step) for step in (0, 60 * 390 - 1, 60 * 390, 90 * 390 - 1, 90 * 390)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001]
    assert options.in_steps(390) == options
    assert Options().in_steps(390) == Options()
