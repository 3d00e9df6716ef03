"""Defences that other packages offer."""

from importlib import metadata

import pytest

from madry_cifar.cli.errors import UsageError
from madry_cifar.training import registry


def test_a_defence_that_is_offered_by_another_name_than_its_own(monkeypatch):
    """It would be two rows, one of which nothing finds."""
    offered = metadata.EntryPoint("mine", "madry_cifar.training.adversarial:Natural", registry.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: metadata.EntryPoints([offered]))
    for look in (registry.installed, lambda: registry.find("mine")):
        with pytest.raises(
            UsageError, match=r"^madry_cifar\S+:Natural, which is offered as the defence mine, calls it"
        ):
            look()
