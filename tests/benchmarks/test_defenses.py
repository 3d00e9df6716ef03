"""The cost of a defence: passes counted from the graph, against counting them by hand."""

import json

import pytest

from benchmarks import defenses, flops, iteration

SIZE = {"depth": 10, "width": 1, "batch_size": 4, "precision": "float32", "jit_compile": False}
FORWARD = 2 * 9 * (32**2 * (3 * 16 + 2 * 16 * 16) + 16**2 * (16 * 32 + 32 * 32) + 8**2 * (32 * 64 + 64 * 64)) + 1280
FIRST = 2 * 9 * 32**2 * 3 * 16  # the first convolution has no gradient for the images where weights are updated


@pytest.mark.parametrize(
    ("name", "passes", "updates"),
    [
        ("natural", 3, 1),
        ("at", 17, 1),
        ("bilateral", 6, 1),
        ("featscatter", 6, 1),
        ("adv_interp", 6, 1),
        ("adv_vertex", 23, 1),
        ("trades", 28, 2),
        ("learn2perturb", 6 + 14, 2),
        ("adt_exp", 70 + 3, 1),
    ],
)
def test_passes_of_an_iteration(name, passes, updates):
    counted = flops.count(
        iteration.ours(SIZE | {"defense": name, "options": defenses.options_of(name)}).get_concrete_function()
    )
    logits = 2 * 64 * 10
    apart = {  # adv_interp looks at features, without logits, in three of its passes; trades passes once for statistics
        "adv_interp": -3 * logits,
        "trades": -logits,
        "featscatter": 2 * (2 * 4 * 10),  # the costs, and their gradient
    }
    assert counted / 4 == passes * FORWARD - updates * FIRST + apart.get(name, 0)


def test_options_are_those_of_the_preset():
    assert defenses.options_of("bilateral")["attack_steps"] == 1
    assert defenses.options_of("rvs")["uniform_noise"] is False
    assert defenses.options_of("at")["attack_batch_norm"] == "train"


def test_command(run):
    small = ("--width=1", "--batch_size=2", "--repeats=1")
    status, out, err = run("benchmarks.defenses", "--defenses=natural", *small, "--json")
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    (row,) = result["iterations"]
    assert (row["defense"], row["times_natural"]) == ("natural", 1)
    assert row["forward_passes"] == pytest.approx(3, rel=0.05)
    assert row["seconds"] > 0


@pytest.mark.parametrize(
    ("flag", "named"),
    [("--defenses=at,rsv", "--defenses=rsv: unknown; did you mean"), ("--depth=12", "--depth=12: must be")],
)
def test_flags_that_are_refused(invoke, flag, named):
    status, out, err = invoke(defenses.command, flag)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named in err
