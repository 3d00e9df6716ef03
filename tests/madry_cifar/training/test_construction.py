"""Networks that begin with the weights of another run."""

import numpy as np
import pytest

from madry_cifar import WideResNet
from madry_cifar.cli.errors import UsageError
from madry_cifar.networks.architectures import network_of
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from madry_cifar.training.adversarial import Natural
from madry_cifar.training.construction import start_from

PLAIN = {"depth": 10, "width": 1, "num_classes": 10}


def saved(folder, settings):
    """A run with a checkpoint; its network."""
    run_folder.create(folder, {"defense": "natural"} | settings)
    network = network_of(settings, seed=5)
    Checkpoints(folder, {"classifier": network}, {}).save(3)
    return network


@pytest.mark.parametrize("told", [True, False])
def test_the_weights_of_the_run(tmp_path, told):
    """Of an old one, too, whose settings do not tell what was the same in all."""
    more = {"architecture": "madry", "input_scaling": "standardize", "batch_norm_epsilon": 1e-3} if told else {}
    theirs, subject = saved(tmp_path, PLAIN | more), Natural(WideResNet(10, 1, 10), Natural.Options())
    start_from(subject, [str(tmp_path)])
    for ours, expected in zip(subject.classifier.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "other",
    [
        {"depth": 16},
        {"width": 2},
        {"architecture": "standard"},
        {"input_scaling": "unit"},
        {"batch_norm_epsilon": 1e-5},
    ],
)
def test_another_network(tmp_path, other):
    """A deeper one has all variables of ours in the same shapes; of another architecture one has no others either."""
    saved(tmp_path, PLAIN | other)
    subject = Natural(WideResNet(10, 1, 10), Natural.Options())
    before = [variable.numpy() for variable in subject.classifier.variables]
    ((name, value),) = other.items()
    with pytest.raises(UsageError, match=rf"^--starts_from=\S+: its network is another one \(--{name}={value}\)$"):
        start_from(subject, [str(tmp_path)])
    for variable, same in zip(subject.classifier.variables, before, strict=True):
        np.testing.assert_array_equal(variable, same)
