"""The comparison of the transport distance with the paired one."""

import re

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import plan
from madry_cifar.runs import run_folder


def table(out):
    """The numbers of the table that was printed, by the first of each line."""
    lines = re.findall(r"^\| ([\d,.]+) \| (.*) \|$", out, re.M)
    return {first: [float(number) for number in rest.split(" | ")] for first, rest in lines}


def test_features_apart_and_together():
    """Far apart, only one's own is near: then the plan is the identity. In one place, it is spread evenly."""
    apart = tf.constant(10 * np.eye(5))
    seen = plan.compare(apart, apart + 0.1)
    assert seen == pytest.approx({"sinkhorn": 0.05, "paired": 0.05, "diagonal": 1.0, "others": 200.05})
    same = tf.zeros([5, 3], tf.float64)
    assert plan.compare(same, same)["diagonal"] == pytest.approx(1 / 5)


def test_a_run(invoke, rvs_run):
    status, out, err = invoke(plan.command, f"--train_dir={rvs_run}")
    assert (status, err) == (0, "")
    rows = table(out)
    assert list(rows) == ["25", "30", "35", "40"]
    for sinkhorn, paired, ratio, diagonal, _ in rows.values():
        assert sinkhorn / paired == pytest.approx(ratio, rel=1e-4)
        assert 1 / 8 <= diagonal <= 1 + 1e-9


def test_a_run_of_another_defence(invoke, tmp_path):
    run_folder.create(tmp_path, {"defense": "natural", "depth": 10, "width": 1, "num_classes": 10}, "digits")
    status, out, err = invoke(plan.command, f"--train_dir={tmp_path}")
    assert (status, out) == (2, "")
    assert err == f"error: --train_dir={tmp_path}: holds a run of --defense=natural, not rvs\n"
