"""From flags to runs: which settings a row is trained with, and what its folder is called."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments import grid, layout, presets, table2
from experiments.rows import row_of
from madry_cifar import load_predictor
from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import option
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.training.registry import REGISTRY

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ("--depth=10", "--width=1", "--batch_size=8", "--steps=20", "--learning_rate_boundaries=10,15")


def settings(config, row):
    """The settings of a row's training by name, from its flags."""
    (run,) = (run for run in config["runs"] if run["row"] == row)
    return dict(flag.removeprefix("--").split("=", 1) for flag in run["flags"])


def test_rows_have_the_presets_of_their_defence(configure):
    config = configure("--dataset=cifar10")
    assert sorted(run["row"] for run in config["runs"]) == sorted([*REGISTRY, "direct_batch", "natural_start"])
    for name in sorted(REGISTRY.keys() - {"natural", "at", "rvs"}):  # on RvS's footing
        expected = {"defense": name, "depth": "28", "steps": "179000", "batch_size": "64"}
        assert settings(config, name).items() >= expected.items()
    assert (
        settings(config, "at").items()
        >= {"defense": "at", "depth": "34", "steps": "80000", "batch_size": "128"}.items()
    )
    expected = {"defense": "rvs", "depth": "28", "steps": "179000", "uniform_noise": "false", "latent_draws": "1"}
    assert settings(config, "rvs").items() >= expected.items()


def test_flags_go_to_the_rows_that_have_them(configure):
    config = configure(*SMALL, "--attack_steps=3", "--label_smoothing=0.25", "--nouniform_noise")
    for row in ("natural", "at", "rvs"):
        assert settings(config, row).items() >= {"depth": "10", "batch_size": "8", "steps": "20"}.items()
    assert [("attack_steps" in settings(config, row)) for row in ("natural", "at", "rvs")] == [False, True, False]
    assert settings(config, "rvs").items() >= {"label_smoothing": "0.25", "uniform_noise": "false"}.items()
    assert "label_smoothing" not in settings(config, "at")


def test_variants_of_table_4(configure):
    config = configure(*SMALL, parts=["table4"])
    assert [run["row"] for run in config["runs"]] == ["noreg_ot", "otreg_xent", "rvs", "paired"]
    plain = settings(config, "rvs")
    for row, difference in {
        "noreg_ot": {"ot_regularizer": "false"},
        "otreg_xent": {"generator_loss": "xent"},
        "paired": {"ot": "paired"},
    }.items():
        assert settings(config, row) == plain | difference
    assert len({run["id"] for run in config["runs"]}) == 4


def test_surrogates_are_trained_for_table_3_alone(configure):
    rows = {
        tuple(run["row"] for run in configure(*SMALL, "--defenses=rvs", parts=[part])["runs"])
        for part in ("table2", "table3")
    }
    assert rows == {("rvs",), ("rvs", "natural", "at")}


def test_seeds_and_data_sets_make_runs_of_their_own(configure):
    config = configure(*SMALL, "--seeds=3", "--dataset=digits,cifar10", "--defenses=at")
    places = [(run["dataset"], run["seed"]) for run in config["runs"]]
    assert sorted(places) == [(name, seed) for name in ("cifar10", "digits") for seed in range(3)]
    assert len({run["id"] for run in config["runs"]}) == 6


def names(config):
    return [run["id"] for run in config["runs"]]


def test_a_folder_is_named_by_what_decides_the_training(configure):
    before = names(configure(*SMALL))
    assert names(configure(*SMALL, "--images=7", "--eval_every=3", "--log_every=1", "--data_dir=elsewhere")) == before
    assert names(configure(*SMALL, "--label_smoothing=0.5")) == before  # the default, given
    for changed in ("--label_smoothing=0.4", "--epsilon=4", "--max_train_images=100"):
        after = names(configure(*SMALL, changed))
        assert after[2] != before[2]
    assert names(configure(*SMALL, "--label_smoothing=0.4"))[:2] == before[:2]  # natural and at know no smoothing


FOLDERS = {  # of the first published version: their trainings must not be repeated
    ("--profile=smoke", "--dataset=digits"): {
        "natural": "eece3803",
        "bilateral": "eece3803",
        "rvs": "4c10aa36",
        "noreg_ot": "0f1703e2",
        "otreg_xent": "b3a60549",
        "paired": "643f5bec",
    },
    ("--profile=full", "--dataset=cifar10"): {"natural": "44136fa3", "bilateral": "b6250a28", "rvs": "0955a63e"},
    ("--dataset=cifar10", "--batch_norm_epsilon=1e-5", "--architecture=standard", "--input_scaling=signed"): {
        "natural": "c540ee03",
        "bilateral": "9c9ec75c",
        "otreg_xent": "11d37c1b",
    },
    (f"--flagfile={grid.HERE / 'presets' / 'cifar10_released.flags'}",): {"bilateral": "e4613599", "rvs": "5037b6ad"},
    ("--profile=smoke", f"--flagfile={grid.HERE / 'presets' / 'svhn_trades_rvs.flags'}"): {
        "bilateral": "5d13b860",
        "rvs": "8054bc01",
    },
}


@pytest.mark.parametrize("given", FOLDERS)
def test_folders_of_earlier_versions_keep_their_names(configure, given):
    config = configure(*given, "--defenses=natural,bilateral,trades", parts=("table2", "table4"))
    digests = {run["row"]: run["id"].split("/")[1].rpartition("-")[2] for run in config["runs"]}
    assert digests.items() >= FOLDERS[given].items()


def test_a_registered_defence_is_a_row_without_more(configure, monkeypatch):
    class Another(REGISTRY["at"]):
        name = "another"

    monkeypatch.setitem(REGISTRY, "another", Another)
    assert row_of("another").label == "another"
    rows = ("another", "natural", "at")
    config = configure(*SMALL, "--defenses=another", parts=["table3"])
    assert tuple(run["row"] for run in config["runs"]) == rows
    assert "--defense=another" in config["runs"][0]["flags"]
    assert config["rows"]["table3"] == ["another"]
    assert "another" in configure(*SMALL, "--dataset=digits")["rows"]["table2"]


def test_an_option_that_is_new_renames_no_folder(configure, monkeypatch):
    before = names(configure(*SMALL))
    kind = REGISTRY["rvs"]

    class Extended(kind.Options):
        novel: int = option(3, "a new option")

    monkeypatch.setattr(kind, "Options", Extended)
    assert names(configure(*SMALL)) == before
    assert names(configure(*SMALL, "--novel=4"))[2] != before[2]


def test_columns_of_table_2(configure):
    paper = configure(*SMALL, parts=["table2", "table3"])
    assert configure(*SMALL, "--columns=paper", parts=["table2", "table3"]) == paper
    assert paper["attacks"]["table3"] == ["pgd-20", "pgd-100", "cw-20", "cw-100"]
    assert "diagnosis_flags" not in paper
    extended = configure(*SMALL, "--columns=extended", "--images=300", parts=["table2", "table3"])
    assert extended["runs"] == paper["runs"]  # what is trained is the same
    added = [name for name in extended["attacks"]["table2"] if name not in paper["attacks"]["table2"]]
    assert added == ["pgd-100x10", "multitargeted", "apgd-ce", "apgd-t", "fab-t", "square", "cw-l2-100", "autoattack"]
    assert {**extended["attacks"], "table2": paper["attacks"]["table2"]} == paper["attacks"]
    strongest = configure(*SMALL, "--columns=autoattack", parts=["table2", "table3"])
    assert strongest == {**paper, "attacks": {**paper["attacks"], "table2": strongest["attacks"]["table2"]}}
    assert strongest["attacks"]["table2"] == [*paper["attacks"]["table2"], "autoattack"]


@pytest.mark.parametrize(("images", "diagnosed"), [(0, 1000), (300, 300), (5000, 1000)])
def test_a_thousand_images_are_diagnosed_at_most(configure, images, diagnosed):
    config = configure(*SMALL, "--columns=extended", f"--images={images}")
    assert f"--max_images={diagnosed}" in config["diagnosis_flags"]


def test_profile_is_overridden_by_flags(configure):
    config = configure("--profile=smoke", "--steps=30", "--learning_rate_boundaries=20")
    assert settings(config, "rvs").items() >= {"steps": "30", "width": "1", "learning_rate_boundaries": "20"}.items()
    assert (config["profile"], config["images"]) == ("smoke", 50)
    assert configure()["profile"] == "full"


def test_settings_of_one_defence_alone(configure):
    """They go to its rows and no others, whatever all rows are given."""
    rows = ("--defenses=natural,at,direct,gat", "--generator_width=8")
    plain = configure(*SMALL, *rows)
    config = configure(*SMALL, *rows, "--gat.generator_width=5", "--at.steps=30", "--at.epsilon=4")
    assert settings(config, "gat") == settings(plain, "gat") | {"generator_width": "5"}
    longer = {"steps": "30", "epsilon": "4.0", "checkpoint_every": "1"}
    assert settings(config, "at") == settings(plain, "at") | longer
    others = [[run for run in each["runs"] if run["row"] not in ("at", "gat")] for each in (config, plain)]
    assert others[0] == others[1] != []
    variants = configure(*SMALL, "--rvs.ot_weight=3", "--rvs.generator_loss=xent", parts=["table4"])
    assert all(settings(variants, row)["ot_weight"] == "3.0" for row in ("rvs", "noreg_ot", "otreg_xent", "paired"))
    assert settings(variants, "rvs")["generator_loss"] == "xent"


def test_settings_of_a_start_alone(configure):
    config = configure(*SMALL, "--dataset=cifar10", "--defenses=l2l_da", "--natural.steps=7")
    assert (settings(config, "natural")["steps"], settings(config, "l2l_da")["steps"]) == ("7", "20")


PROFILE = re.findall(r"^--(\w+)\.(\w+)=(.+)$", (grid.HERE / "profiles" / "reduced.flags").read_text(), re.M)


def test_what_a_profile_says_of_one_defence(configure):
    config = configure("--profile=reduced")
    assert len(PROFILE) > 5
    for defense, name, value in PROFILE:
        assert settings(config, defense)[name] == value
    assert [run["row"] for run in configure("--profile=reduced", "--defenses=natural")["runs"]] == ["natural"]


def test_what_is_typed_is_before_what_a_profile_says_of_one_defence(configure):
    rows = ("--profile=reduced", "--defenses=natural,direct,gat,l2l,l2l_da")
    config = configure(*rows, "--generator_width=9", "--gat.generator_width=3")
    assert [settings(config, row)["generator_width"] for row in ("direct", "gat", "l2l_da")] == ["9", "3", "9"]
    assert ("l2l", "attacker_width", settings(config, "l2l")["attacker_width"]) in PROFILE
    preset = grid.HERE / "presets" / "cifar10_gat_rvs.flags"  # what is typed with it is of GAT's rows alone
    config = configure(f"--flagfile={preset}", *rows, "--generator_width=9")
    assert settings(config, "gat")["generator_width"] == "9"
    assert ("direct", "generator_width", settings(config, "direct")["generator_width"]) in PROFILE


@pytest.mark.parametrize("given", [("--steps=3000",), ("--steps=3000", "--learning_rate_boundaries=2000,2500")])
def test_a_length_that_is_typed_is_not_mixed_with_a_profiles_rates(configure, given):
    """All rows that get the length get the same drops, too."""
    config = configure("--profile=reduced", "--defenses=natural,adt_exp,l2l_da", *given)
    schedules = [
        [settings(config, row)[name] for name in ("steps", "learning_rates", "learning_rate_boundaries")]
        for row in ("natural", "adt_exp", "l2l_da")
    ]
    assert schedules[0] == schedules[1] == schedules[2]
    assert schedules[0][0] == "3000"


@pytest.mark.parametrize("own", ["--natural.input_scaling=unit", "--natural.width=4"])
def test_a_start_has_the_network_that_starts_from_it(configure, own):
    """And not what the row of its defence has for itself."""
    config = configure("--profile=reduced", "--dataset=cifar10", "--defenses=natural,l2l_da", own)
    plain = configure("--profile=reduced", "--dataset=cifar10", "--defenses=l2l_da")
    start, natural = settings(config, "natural_start"), settings(config, "natural")
    name, value = own.removeprefix("--natural.").split("=")
    assert (natural[name], start[name]) == (value, settings(plain, "natural").get(name, "standardize"))
    assert settings(config, "l2l_da")["starts_from"].startswith("runs/cifar10/natural_start-")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--l2l.attaker_width=4", "did you mean --l2l.attacker_width?"),
        ("--lsl.attacker_width=4", "did you mean --l2l.attacker_width?"),
        ("--natural.generator_width=4", "natural has no generator_width of its own"),
        ("--rvs.seeds=2", "rvs has no seeds of its own"),
        ("--rvs.max_train_images=100", "rvs has no max_train_images of its own"),
        ("--l2l_da.starts_from=runs/mine", "l2l_da has no starts_from of its own"),
        ("--noreg_ot.steps=9", "there is no noreg_ot with settings of its own; there are adt_exp, "),
        ("--lr=0.1", "did you mean --label_ratio, --learning_rate_boundaries, --learning_rate_epochs?"),
        ("--boundaries=9", "did you mean --learning_rate_boundaries?"),
    ],
)
def test_a_setting_of_one_defence_that_there_is_not(invoke, tmp_path, typed, said):
    status, out, err = invoke(table2.command, f"--work_dir={tmp_path}/work", typed)
    assert (status, out, err) == (2, "", f"error: {typed.split('=')[0]}: unknown; {said}{err.partition(said)[2]}")


@pytest.mark.parametrize("preset", ["cifar10_paper", "cifar10_smoke", "digits_smoke"])
def test_presets_can_be_given(configure, preset):
    path = grid.HERE / "presets" / f"{preset}.flags"
    config = configure(f"--flagfile={path}")
    written = [line for line in path.read_text().splitlines() if line.startswith("--")]
    assert config["datasets"] == [preset.split("_")[0]]
    for line in written:
        name, _, value = line.removeprefix("--").partition("=")
        if name.startswith("no"):
            name, value = name.removeprefix("no"), "false"
        if name not in ("dataset", "defense"):
            assert float_or_text(settings(config, "rvs")[name]) == float_or_text(value)


def test_a_preset_keeps_its_methods_options_to_itself(configure):
    """One step of 8 is Bilateral's; the others keep their own attacks."""
    before = configure("--dataset=cifar10")
    path = grid.HERE / "presets" / "cifar10_bilateral_rvs.flags"
    config = configure(f"--flagfile={path}", "--epsilon=4", "--label_ratio=5")
    assert settings(config, "bilateral").items() >= {"attack_steps": "1", "label_ratio": "5.0"}.items()
    for row in ("at", "adv_vertex", "featscatter", "rvs"):
        own = {field.name for field in dataclasses.fields(REGISTRY[row].Options)} & {
            *(
                "attack_steps",
                "attack_step_size",
                "attack_batch_norm",
                "label_smoothing",
                "vertex_scale",
                "uniform_noise",
            )
        }
        then, now = settings(before, row), settings(config, row)
        assert {name: now.get(name) for name in own} == {name: then.get(name) for name in own}, row
        assert now.items() >= {"epsilon": "4.0", "depth": "28", "steps": "179000"}.items()
    assert settings(configure("--attack_steps=3", "--defenses=at,bilateral"), "at")["attack_steps"] == "3"


def float_or_text(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_checkpoints_are_spread_over_the_training_and_kept(configure):
    assert (
        settings(configure(*SMALL, "--checkpoints=4"), "rvs").items() >= {"checkpoint_every": "5", "keep": "0"}.items()
    )
    assert (
        settings(configure(*SMALL, "--checkpoint_every=3", "--keep=2"), "rvs").items()
        >= {
            "checkpoint_every": "3",
            "keep": "2",
        }.items()
    )


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn_cropped"])
def test_the_rows_of_a_table_train_on_the_same_images(dataset):
    """What the paper's preset holds out to choose a checkpoint by, it does for itself alone."""
    assert presets.flags_of(dataset, "paper")["validation_size"] == "1000"
    names = {name for defense in grid.defenses() for name in grid.preset(dataset, defense)}
    assert not names & {"validation_size", "max_train_images", "keep"}


def test_figure_4_takes_two_checkpoints(configure):
    configure(*SMALL, "--checkpoints=1", parts=["figure3"])
    with pytest.raises(UsageError, match="--checkpoints=1: Figure 4"):
        configure(*SMALL, "--checkpoints=1", parts=["figure4"])


def test_a_start_is_found_from_the_work_folder(configure, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    config = configure(*SMALL, "--defenses=natural", "--starts_from=mine")
    assert settings(config, "natural")["starts_from"] == str(tmp_path / "mine")
    (tmp_path / "somewhere" / "runs" / "a").mkdir(parents=True)  # in the work folder: as it was typed
    config = configure(*SMALL, "--defenses=natural", "--starts_from=runs/a")
    assert settings(config, "natural")["starts_from"] == "runs/a"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset=cifar"], "--dataset=cifar: unknown; did you mean 'cifar10'"),
        (["--defense=rsv"], "--defense=rsv: unknown; did you mean 'rvs'"),
        (["--epochs=3"], "--epochs=3: the rows of a table are trained by steps; give --steps"),
        (["--at.epochs=3"], "--at.epochs=3: the rows of a table are trained by steps; give --at.steps"),
        (["--at.steps=-1"], "--at.steps=-1: must be at least"),
        (["--at.epsilon=0.031"], "--at.epsilon=0.031: less than one grey level of 255: 8/255 is --at.epsilon=8"),
        (["--defenses=natural", "--at.steps=3"], "--at.steps=3: applies to none of natural"),
        (
            ["--profile=reduced", "--defenses=natural", "--l2l.attacker_width=8"],
            "--l2l.attacker_width=8: applies to none of natural",
        ),
        (
            ["--at.learning_rates=0.1,0.01,0.001,0.0001"],
            "--at.learning_rates=0.1,0.01,0.001,0.0001: with --learning_rate_boundaries=10,15: ",
        ),
        (["--at.learning_rate_boundaries=5"], "(in at, with --at.learning_rate_boundaries)"),
        (["--learning_rate_epochs=1,2"], "--learning_rate_epochs=1,2: the rows of a table"),
        (["--defenses=natural,rsv"], "--defenses=rsv: unknown; did you mean 'rvs'"),
        (["--columns=extendet"], "--columns=extendet: unknown; did you mean 'extended'"),
        (["--profile=smok"], "--profile=smok: unknown; did you mean 'smoke'"),
        (["--epsilons=0,-1"], "--epsilons=-1: must be at least 0"),
        (["--advgan_widths=0"], "--advgan_widths=0: must be at least 1"),
        (["--depth=11"], "--depth=11: "),
        (["--defenses=at", "--label_smoothing=0.1"], "--label_smoothing=0.1: applies to none of at"),
        (["--label_smoothing=2"], "--label_smoothing=2.0: must be at most 1"),
        (["--epsilon=-1"], "--epsilon=-1.0: must be at least 0"),
        (["--epsilon=0.031"], "--epsilon=0.031: less than one grey level of 255: 8/255 is --epsilon=8"),
        (["--architecture=madri"], "--architecture=madri: unknown; did you mean 'madry'"),
        (["--input_scaling=sign"], "--input_scaling=sign: unknown; did you mean 'signed'"),
        (["--precision=bf16"], "--precision=bf16: unknown; did you mean 'bfloat16'"),
        (["--dataset=cifar10,svhn_cropped", "--crop_padding=4"], "--crop_padding=4: images of svhn_cropped are not"),
        (["--defenses=featscatter", "--label_smoothing=0.9"], "--label_smoothing=0.9: must be below 0.9"),
        (["--defenses=adv_vertex", "--lambda2=0.05"], "--lambda2=0.05: must be at least 0.1"),
        (
            ["--defenses=l2l", "--label_share=0.4"],
            "(in l2l; --DEFENCE.label_share is for the rows of",
        ),
        (["--starts_from=nowhere"], "--starts_from=nowhere: no such folder"),
        (["--dataset="], "--dataset=: name at least one"),
        (["--epsilons="], "--epsilons=: name at least one"),
        (["--draws=2"], "--draws=2: must be at least 3"),
    ],
)
def test_bad_flags_are_told_before_anything_runs(configure, given, message):
    with pytest.raises(UsageError) as error:
        configure(*SMALL, *given)
    assert message in str(error.value)


def test_what_starts_from_another_training(configure):
    """L2L-DA from natural training with its own network: that of the tables where it is the same, or one not shown."""
    config = configure("--dataset=cifar10")
    (run,) = (run for run in config["runs"] if run["row"] == "l2l_da")
    (start,) = (run for run in config["runs"] if run["row"] == "natural_start")
    assert run["needs"] == [start["id"]]
    assert settings(config, "l2l_da")["starts_from"] == f"runs/{start['id']}"
    assert (settings(config, "natural")["depth"], settings(config, "natural_start")["depth"]) == ("34", "28")
    same = ("depth", "width", "architecture", "input_scaling", "batch_norm_epsilon")
    for name in same:
        assert settings(config, "natural_start").get(name) == settings(config, "l2l_da").get(name)
    assert all("natural_start" not in rows for rows in config["rows"].values())

    config = configure("--dataset=cifar10", "--depth=10", "--seeds=2")
    rows = [run["row"] for run in config["runs"]]
    assert "natural_start" not in rows
    runs = {(run["row"], run["seed"]): run for run in config["runs"]}
    for seed in range(2):
        assert runs["l2l_da", seed]["needs"] == [runs["natural", seed]["id"]]
    ids = [runs["l2l_da", seed]["id"] for seed in range(2)]
    assert ids[0].replace("seed-0", "") == ids[1].replace("seed-1", "")
    config = configure("--dataset=cifar10", "--depth=10", "--steps=100", "--learning_rate_boundaries=50,60")
    assert config["runs"][rows.index("l2l_da") // 2]["id"] not in ids  # another natural training


def test_a_row_that_shares_the_trainings_of_another(configure):
    config = configure("--dataset=cifar10", "--defenses=direct,rvs")
    assert config["rows"]["table2"] == ["direct", "direct_batch", "rvs"]
    (direct,) = (run for run in config["runs"] if run["row"] == "direct")
    (shared,) = (run for run in config["runs"] if run["row"] == "direct_batch")
    assert shared["copy_of"] == direct["id"]
    assert shared["needs"] == [direct["id"]]
    assert "copy_of" not in direct
    assert settings(config, "direct_batch") == settings(config, "direct") | {"test_batch_norm": "frozen"}


def test_a_row_behind_a_purifier(configure):
    """Natural training's network, and attacks of its own; for those who name it."""
    assert "defense_gan" not in configure("--dataset=cifar10")["rows"]["table2"]
    given = ("--dataset=cifar10", "--defenses=rvs,defense_gan", "--columns=extended")
    config = configure(*given, "--gan_width=4", "--purify_steps=9", parts=["table2", "table3"])
    assert config["rows"]["table2"] == ["rvs", "defense_gan"]
    assert config["rows"]["table3"] == ["rvs"]
    runs = {run["row"]: run for run in config["runs"]}
    assert runs["defense_gan"]["copy_of"] == runs["natural"]["id"]
    assert layout.attacks_on(config, runs["defense_gan"], "table2") == ["natural", "bpda-pgd-20", "latent-100"]
    assert all("defense_gan" not in file for file in layout.diagnoses(config))
    assert "--width=4" in config["gan_flags"]
    assert {"--purify_steps=9", "--max_images=1000"} <= set(config["purified_flags"])
    other = {run["row"]: run for run in configure(*given)["runs"]}  # with another GAN
    assert other["natural"]["id"] == runs["natural"]["id"]
    assert other["defense_gan"]["id"] != runs["defense_gan"]["id"]
    config = configure("--dataset=cifar10", "--defenses=defense_gan")  # alone: the network is trained all the same
    assert [run["row"] for run in config["runs"]] == ["natural", "defense_gan"]
    with pytest.raises(UsageError, match="--defense=defense_gan: unknown"):
        configure("--dataset=cifar10", "--defense=defense_gan")


def test_trainings_that_start_from_others_or_share_them(configure, tmp_path):
    """By Snakemake: natural training before L2L-DA's, Direct's before a row that shows its checkpoints otherwise, a GAN
    before the row that it purifies the images of."""
    config = configure(
        *("--work_dir=unused", "--profile=smoke", "--defenses=l2l_da,direct,defense_gan", "--steps=2"),
        *("--batch_size=8", "--learning_rate_boundaries=1", "--generator_width=2", "--attacker_steps=1"),
        *("--checkpoints=1", "--gan_width=2", "--gan_iterations=2", "--purify_restarts=1", "--purify_steps=2"),
        "--purified_images=2",
        parts=["table2"],
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    runs = {run["row"]: tmp_path / "runs" / run["id"] for run in config["runs"]}
    assert runs.keys() == {"natural", "l2l_da", "direct", "direct_batch", "defense_gan"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "experiments" / "Snakefile", "--cores", "2"]
    command += ["--directory", tmp_path, "--configfile", tmp_path / "config.json", "--"]
    marks = [str((runs[row] / "trained").relative_to(tmp_path)) for row in ("l2l_da", "direct_batch")]
    identity = runs["defense_gan"].relative_to(tmp_path / "runs")
    marks.append(f"results/{identity}/white-box-table2.json")
    done = subprocess.run([*command, *marks], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (runs["natural"] / "trained").exists()
    start = str(runs["natural"].relative_to(tmp_path))
    assert run_folder.read_flags(runs["l2l_da"])["starts_from"] == [start]
    states = [checkpoints.read(checkpoints.find(runs[row])[1]) for row in ("direct", "direct_batch")]
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)
    fingerprints = [load_predictor(runs[row]).fingerprint() for row in ("direct", "direct_batch")]
    assert fingerprints[0] != fingerprints[1]
    told = [json.loads((runs[row] / "flags.json").read_text()) for row in ("natural", "defense_gan")]
    assert told[0] == told[1]  # when, where and by which revision it was trained, too
    [purified] = json.loads((tmp_path / marks[-1]).read_text())
    assert purified["attacks"].keys() == {"natural", "bpda-pgd-20", "latent-100"}
    assert purified["images"] == 2
    assert purified["purification"]["gan"] == f"gan/{identity}"
    assert purified["purification"]["steps"] == 2


def test_a_row_with_random_outputs_is_attacked_by_what_averages_them(configure):
    config = configure("--dataset=cifar10", "--defenses=rvs,learn2perturb", "--columns=extended")
    runs = {run["row"]: run for run in config["runs"]}
    plain, noisy = (layout.attacks_on(config, runs[row], "table2") for row in ("rvs", "learn2perturb"))
    assert "autoattack" in plain
    assert not {"eot-pgd-20", "autoattack-rand"} & set(plain)
    assert set(noisy) == set(plain) - {"autoattack"} | {"eot-pgd-20", "autoattack-rand"}
    config["attacks"]["table4"] = ["pgd-20"]
    assert layout.attacks_on(config, runs["learn2perturb"], "table4") == ["pgd-20"]
