"""The examples in docstrings run, and give what they show."""

import doctest

import pytest

import madry_cifar
import sinkhorn_tf


@pytest.mark.parametrize("example", [madry_cifar.attacks.pgd, madry_cifar.Defense, sinkhorn_tf.sinkhorn_distance])
def test_the_example_runs(example):
    runner = doctest.DocTestRunner()
    tests = [test for test in doctest.DocTestFinder(recurse=False).find(example, globs={}) if test.examples]
    assert tests
    for test in tests:
        assert runner.run(test).failed == 0
