"""Presets: every one is a command line that the training command takes, and says what it is."""

import csv
import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags as absl_flags

from experiments import grid, presets
from madry_cifar import import_torch, train
from madry_cifar.cli import flags
from madry_cifar.training import registry
from madry_cifar.training.options import Options

PRESETS = sorted((pathlib.Path(__file__).parents[2] / "experiments" / "presets").glob("*.flags"))
FLAGS = absl_flags.FLAGS


def parts(preset):
    """Data set, kind and defence of a preset's name: cifar10, trades_rvs and trades of cifar10_trades_rvs.flags."""
    data_set, _, kind = preset.stem.partition("_")
    name = re.sub("_(original|rvs)$", "", kind)
    return data_set, kind, "rvs" if name in ("paper", "released", "smoke") else name


@pytest.fixture
def training_flags():
    """The flags of the training command, removed again afterwards."""
    before = set(FLAGS)
    flags._sections.clear()
    train.define_flags("rvs")
    yield
    for name in set(FLAGS) - before:
        delattr(FLAGS, name)
    flags._sections.clear()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_what_it_is_and_is_taken(preset, training_flags):
    text = preset.read_text()
    for word in ("Command:", "Hardware:", "Expected:"):
        assert word in text
    (line,) = (line for line in text.splitlines() if "Command:" in line)
    given = shlex.split(line.split("Command:")[1])
    assert f"--flagfile=experiments/presets/{preset.name}" in given
    FLAGS(["train", f"--flagfile={preset}"])
    options = flags.given_options(registry.find(FLAGS.defense))
    data_set, kind, defense_name = parts(preset)
    assert FLAGS.dataset == {"svhn": "svhn_cropped"}.get(data_set, data_set)
    assert FLAGS.defense == defense_name
    if kind.endswith("_rvs"):  # on the footing of RvS's preset of the paper's text
        network = FLAGS.depth, FLAGS.width, FLAGS.architecture, FLAGS.input_scaling
        assert network == (28, 10, "madry", "standardize")
        given, paper = (flags.read_flagfile(preset.with_name(f"{data_set}_{name}.flags")) for name in (kind, "paper"))
        for name in ("steps", "batch_size", "epsilon", "learning_rates", "learning_rate_boundaries"):
            assert given[name] == paper[name], name
    if kind == "paper":
        assert (FLAGS.depth, FLAGS.width) == (28, 10)
        assert (options.uniform_noise, options.latent_draws) == (False, 1)
    if kind == "released":
        assert (FLAGS.depth, FLAGS.width) == (34, 10)
        assert (options.uniform_noise, options.latent_draws) == (True, 2)
    if kind in ("paper", "released"):
        assert options.batch_size == 64
        assert options.generator_learning_rate == (0.0001 if data_set == "svhn" else 0.01)
        assert options.learning_rates[0] == (0.01 if data_set == "svhn" else 0.1)


ADT = ("adt_exp", "adt_expam", "adt_impam")
ORIGINAL = {  # of each method's code: network, scaling, batch norm, crop, batch, schedule, decay
    "trades": ("standard", 34, "unit", "1e-5", "4", "128", "76", "74,89,99", "all"),
    "bilateral": ("madry", 34, "signed", None, "4", "128", "201", "100,150", None),
    "featscatter": ("standard", 28, "signed", "1e-5", "4", "60", "200", "60,90", "all"),
    "adv_interp": ("standard", 28, "signed", "1e-5", "4", "128", "200", "59,89", "all"),
    "adv_vertex": ("madry", 34, None, "1e-5", None, "128", None, None, None),
    **dict.fromkeys(ADT, ("standard", 28, "unit", "1e-5", "4", "64", "76", "74", "all")),
}


METHODS = {  # what is trained on, of each method's code (`adv_vertex`: of its text for CIFAR-10)
    "trades": {"attack_steps": 10, "beta": 6},  # ε and step: below
    "bilateral": {
        "epsilon": 8,
        "attack_steps": 1,
        "attack_step_size": 8,
        "target": "mc",
        "label_ratio": 9,
        "label_gamma": 0.01,
    },
    "featscatter": {"epsilon": 8, "attack_steps": 1, "attack_step_size": 8, "label_smoothing": 0.5},
    "adv_interp": {"epsilon": 8, "label_share": 0.5},
    "adv_vertex": {
        "epsilon": 8,
        "attack_steps": 10,
        "attack_step_size": 2,
        "attack_batch_norm": "frozen",
        "vertex_scale": 2,
        "lambda1": 1,
        "lambda2": 0.1,
    },
    "adt_exp": {"inner_steps": 7, "inner_samples": 5, "inner_learning_rate": 0.3, "entropy_weight": 0.01},
    "adt_expam": {"entropy_weight": 0.01, "generator_learning_rate": "2e-4"},
    "adt_impam": {
        "entropy_weight": 1,
        "entropy_threshold": 0.9,
        "generator_learning_rate": "2e-4",
        "encoder_learning_rate": "2e-4",
    },
    "gat": {
        "epsilon": 8,
        "generator_updates": 1,
        "generator_learning_rate": "2e-4",
        "penalty_weight": 0.03,
        "natural_weight": 0.5,
    },
}


@pytest.mark.parametrize("data_set", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("name", sorted(ORIGINAL))
def test_original_presets_are_those_of_the_methods_code(name, data_set):
    values = presets.flags_of({"svhn": "svhn_cropped"}.get(data_set, data_set), f"{name}_original")
    names = (
        "architecture",
        "depth",
        "input_scaling",
        "batch_norm_epsilon",
        "crop_padding",
        "batch_size",
        "epochs",
        "learning_rate_epochs",
        "weight_decay_on",
    )
    expected = dict(zip(names, (value and str(value) for value in ORIGINAL[name]), strict=True))
    if data_set == "svhn":  # which is not cropped, and has RvS's first rate, but where the code has one
        expected["crop_padding"] = None
    assert {key: values.get(key) for key in names} == expected
    first = 0.01 if data_set == "svhn" and name not in ADT else 0.1
    rates = [float(rate) for rate in values["learning_rates"].split(",")]
    drops = {"trades": 4, **dict.fromkeys(ADT, 2)}.get(name, 3)
    np.testing.assert_allclose(rates, [first / 10**drop for drop in range(drops)])
    if name == "adv_vertex":  # counted in steps, as in MadryLab's code
        assert (values["steps"], values["learning_rate_boundaries"]) == ("80000", "40000,60000")


@pytest.mark.parametrize("kind", ["original", "rvs"])
@pytest.mark.parametrize("data_set", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_presets_train_on_the_methods_own_perturbations_and_labels(name, data_set, kind):
    values = presets.flags_of({"svhn": "svhn_cropped"}.get(data_set, data_set), f"{name}_{kind}")
    expected = dict(METHODS[name])
    if name == "trades":
        radius, step = (0.031 * 255, 0.007 * 255) if kind == "original" else (8, 2)
        expected |= {"epsilon": radius, "attack_step_size": step}
    if name == "featscatter" and kind == "original":
        expected |= {"sinkhorn_floor": "1e-6", "statistics_every": 10}
    if name in ADT:
        expected |= {"epsilon": 4 if (data_set, kind) == ("svhn", "original") else 8}
    if name == "gat":
        expected |= {"perturbation": "free" if kind == "original" else "bounded"}
    own = {field.name for field in dataclasses.fields(registry.find(name).Options)}
    own -= {field.name for field in dataclasses.fields(Options)}
    assert {key: value for key, value in values.items() if key in own} == {
        key: value if isinstance(value, str) else f"{value:g}" for key, value in expected.items()
    }


def published(data_set, defense):
    """The paper's numbers of Table II by attack, as printed there."""
    with PRESETS[0].parents[1].joinpath("published.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["table"], row["defense"]) == ("II", defense)]
    name = {"svhn": "svhn_cropped"}.get(data_set, data_set)
    return {row["attack"]: row["accuracy"] for row in rows if row["dataset"] == name}


@pytest.mark.parametrize("preset", [p for p in PRESETS if not p.stem.endswith("smoke")], ids=lambda path: path.stem)
def test_expected_numbers_are_the_published_ones(preset):
    data_set, kind, defense_name = parts(preset)
    numbers = published(data_set, defense_name)
    (line,) = (line.split("Expected:")[1] for line in preset.read_text().splitlines() if "Expected:" in line)
    told = {}
    for names, values in re.findall(r"(nat|FGSM|AdvGAN|PGD-[\d/]+|CW-[\d/]+) ([\d./]+)", line):
        stem, _, steps = names.lower().partition("-")
        attacks = [f"{stem}-{n}" for n in steps.split("/")] if steps else [{"nat": "natural"}.get(stem, stem)]
        told |= dict(zip(attacks, values.rstrip(",").split("/"), strict=True))
    assert told.items() <= numbers.items()
    zeros = {name for name, value in numbers.items() if name not in told}  # told as "PGD and CW 0"
    assert all(float(numbers[name]) == 0 for name in zeros)
    assert bool(zeros) == (kind == "natural")


def test_the_files_are_those_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    presets.main()
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in PRESETS}


OF_A_RUN = ("dataset", "defense", "keep", "validation_size", "eval_images")  # and of no row of a table


@pytest.mark.parametrize(("name", "kind"), [("rvs", "paper"), ("at", "at"), ("trades", "trades_rvs"), ("other", "")])
def test_rows_are_trained_as_the_files_say(name, kind, training_flags):
    for data_set in ("cifar10", "svhn"):
        values = flags.read_flagfile(PRESETS[0].with_name(f"{data_set}_{kind}.flags")) if kind else {}
        expected = {key: value for key, value in values.items() if key not in OF_A_RUN}
        assert grid.preset({"svhn": "svhn_cropped"}.get(data_set, data_set), name) == expected


def test_the_smoke_preset_runs(tmp_path):
    preset = PRESETS[0].with_name("digits_smoke.flags")
    command = [sys.executable, "-m", "rvs_tf.train", f"--flagfile={preset}", f"--train_dir={tmp_path}", "--steps=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "ckpt-3.index").exists()


@pytest.mark.parametrize(
    ("method", "scaling"),
    [*import_torch.WIDE_SCALINGS.items(), ("l2l_da", "imagenet"), ("learn2perturb", "cifar10")],
)
def test_imported_weights_have_the_network_of_the_preset(method, scaling):
    settings = presets.flags_of("cifar10", f"{method}_original")
    architecture = settings["architecture"]
    assert settings["input_scaling"] == scaling == import_torch.SCALINGS.get(architecture, scaling)
    assert import_torch.DEFENSES.get(architecture, method) == method
    assert float(settings["batch_norm_epsilon"]) == import_torch.EPSILON
