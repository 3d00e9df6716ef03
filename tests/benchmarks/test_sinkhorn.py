"""The programs that are compared compute the same; the benchmark's rows and JSON."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import sinkhorn, sinkhorn_programs

SETTINGS = {"n": 6, "dimensions": 5, "scale": 0.1, "regularization": 0.01, "iterations": 20}
COMPARABLE = [name for name in sinkhorn_programs.PROGRAMS if name != "GeomLoss"]  # which computes something else


def results(program, **changed):
    settings = SETTINGS | changed
    x, y = sinkhorn_programs.points(*(settings[key] for key in ("n", "dimensions", "scale")))
    if not sinkhorn_programs.needed(program):
        x, y = tf.constant(x), tf.constant(y)
    function = sinkhorn_programs.PROGRAMS[program](settings["regularization"], settings["iterations"])
    return [np.asarray(each) for each in function(x, y)]


@pytest.mark.parametrize("program", COMPARABLE)
def test_programs_compute_the_same(program):
    if not sinkhorn_programs.installed(program):
        pytest.skip("not installed")
    changed = {"scale": 0.03, "iterations": 200 if program.endswith("implicit") else 20}
    if program.endswith("envelope"):
        changed = {"scale": 1.0}  # where it is right
    value, *gradients = results(program, **changed)
    expected = sinkhorn.exact(SETTINGS | changed)
    assert sinkhorn.relative_error([value], expected[:1]) < 1e-5
    assert sinkhorn.relative_error(gradients, expected[1:]) < 1e-4


def test_the_unrolled_iterations_are_in_the_graph():
    """Its operations grow with them; otherwise nothing would be compared."""

    def size(iterations):
        function = sinkhorn_programs.PROGRAMS["unrolled"](0.01, iterations)
        return len(function.get_concrete_function(*[tf.TensorSpec([4, 3])] * 2).graph.get_operations())

    assert size(12) - size(8) == size(8) - size(4) > 40


def test_gradients_are_compared_in_float64():
    rows = sinkhorn.gradients(SETTINGS)
    assert [row["scale"] for row in rows] == list(sinkhorn.GRADIENT_SCALES)
    assert rows[0]["implicit"] < 1e-10 < rows[0]["envelope"]  # a plan that is spread out and has converged
    assert rows[-1]["mass_on_the_diagonal"] == pytest.approx(1, abs=1e-15)
    assert rows[-1]["implicit"] == rows[-1]["envelope"] == 0  # a permutation


def test_what_is_not_installed_is_shown_as_such(monkeypatch):
    monkeypatch.setitem(sinkhorn_programs.NEEDED, "POT", ("no_such_module",))
    monkeypatch.setattr(sinkhorn, "Contender", None)  # nothing is started
    assert sinkhorn.memory(["POT"], SETTINGS) == [{"program": "POT (not installed)"}]


def test_command(run):
    small = ("--n=4", "--dimensions=3", "--iterations=3", "--scales=0.01", "--repeats=1", "--memory_n=8")
    status, out, err = run("benchmarks.sinkhorn", *small, "--programs=ours", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["settings"]["n"] == 4
    for name in ("features_of_scale_0.01", "memory"):
        (row,) = result[name]
        assert row.pop("program") == "ours"
        assert min(row.values()) > 0
    (row,) = result["features_of_scale_0.01"]
    assert max(row["error_of_value"], row["error_of_gradients"]) < 1e-5


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--programs=unroled", "error: --programs=unroled: unknown; did you mean 'unrolled'? Known:"),
        ("--scales=1,x", "error: --scales=1,x: must be a number, or several with commas"),
        ("--scales=0", "error: --scales=0.0: must be positive numbers with commas"),
    ],
)
def test_what_cannot_be_compared_is_refused(invoke, flag, message):
    status, _, err = invoke(sinkhorn.command, flag)
    assert (status, err.startswith(message), err.count("\n")) == (2, True, 1), err
