"""What a measurement was taken on, and the memory of a process."""

import numpy as np

from benchmarks import machine


def test_description():
    about = machine.describe("numpy", "no-such-package")
    assert about["cores"] >= 1
    assert about["versions"]["numpy"] == np.__version__
    assert about["versions"]["no-such-package"] is None


def test_threads_are_as_many_as_cores_unless_told_otherwise(monkeypatch):
    told = machine.tf.config.threading
    monkeypatch.setattr(told, "get_intra_op_parallelism_threads", lambda: 0)
    assert machine.threads() == machine.describe()["cores"]
    monkeypatch.setattr(told, "get_intra_op_parallelism_threads", lambda: 7)
    assert machine.threads() == 7


def test_memory_and_its_peak():
    before = machine.resident()
    block = np.ones(2**27)  # 1 GiB
    assert 0.9 < machine.resident() - before < 1.2
    del block
    assert machine.resident() - before < 0.5
    assert machine.peak() - before > 0.9
