"""The curves of growth: what is measured at their points, and how they are drawn."""

import json

import pytest

from benchmarks import iteration, scaling

SETTINGS = {"defense": "rvs", "depth": 10, "width": 2, "batch_size": 4, "precision": "float32", "jit_compile": False}


@pytest.fixture
def measured(monkeypatch):
    """Replaces the process of each point: time grows with the third power, memory not at all."""

    class Contender:
        def __init__(self, name, module, settings):
            assert settings["program"] in iteration.PROGRAMS
            chosen = settings["settings"]
            self.size = chosen.get("n") or chosen["width"] * chosen["batch_size"]
            self.seconds = []

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def turn(self):
            self.seconds.append(1e9 if not self.seconds else self.size**3)

        def end(self):
            return {"memory_gib": 0.25}

    monkeypatch.setattr(scaling, "Contender", Contender)


def test_one_size_varies_along_each_curve(measured):
    chosen = scaling.curves(SETTINGS, [1, 2], [3, 6], [5, 10, 20], 640)
    rows = scaling.measure(chosen, repeats=2)
    assert [row["seconds"] for row in rows["over_width"]] == [4**3, 8**3]
    assert [row["seconds"] for row in rows["over_batch_size"]] == [6**3, 12**3]
    assert [row["seconds"] for row in rows["over_n"]] == [5**3, 10**3, 20**3]
    for curve in rows.values():
        first, *others = curve
        assert first["growth_of_time"] is first["growth_of_memory"] is None
        for row in others:
            assert row["growth_of_time"] == pytest.approx(3)
            assert row["growth_of_memory"] == 0


def test_command_prints_and_plots(measured, invoke, tmp_path):
    sizes = "--widths=2,1", "--batch_sizes=4,8", "--points=16,32"
    status, out, err = invoke(scaling.command, *sizes, f"--plot={tmp_path / 'growth'}", "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    assert [row["width"] for row in result["over_width"]] == [1, 2]
    assert "**Over n**" in out
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "growth.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--points=64", "--points=64: must be two positive numbers or more, with commas"),
        ("--widths=0,1", "--widths=0: must be at least 1"),
        ("--batch_sizes=8,many", "--batch_sizes=8,many: must be a whole number, or several with commas"),
        ("--plot=/no/where/growth", "--plot=/no/where/growth: no folder /no/where"),
    ],
)
def test_wrong_flags(invoke, argument, message):
    status, _, err = invoke(scaling.command, argument)
    assert status == 2
    assert err == f"error: {message}\n"


def test_distance_that_is_timed_has_both_gradients():
    distance, gradients = iteration.sinkhorn({"n": 5, "dimensions": 3})(0)
    assert float(distance) > 0
    for gradient in gradients:
        assert gradient.shape == (5, 3)
        assert float(abs(gradient.numpy()).max()) > 0
