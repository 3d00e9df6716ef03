"""The command that trains a GAN, and the evaluation of a run behind its generator, from end to end."""

import json
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

import rvs_tf.evaluate
from madry_cifar import WideResNet, load_classifier, run_attack
from madry_cifar.cli.errors import UsageError
from madry_cifar.evaluation.evaluator import JUDGED
from madry_cifar.evaluation.results import purified_by
from madry_cifar.predictor import as_predictor
from madry_cifar.randomness import Draws
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints, saved_steps
from rvs_tf import Purified, load_gan, train_gan

PRESETS = pathlib.Path(__file__).parents[1] / "experiments" / "presets" / "gan"
FLAGS = (
    *("--iterations=6", "--critic_updates=2", "--batch_size=8", "--max_train_images=50"),
    *("--width=2", "--latent_dim=8", "--log_every=4", "--image_every=6", "--checkpoint_every=5"),
)


@pytest.fixture(scope="module")
def gan(run, tmp_path_factory):
    """The folder of a GAN of twelve steps, made by the command. Not to be written to."""
    folder = tmp_path_factory.mktemp("gans") / "gan"
    status, out, err = run("rvs_tf.train_gan", f"--train_dir={folder}", *FLAGS)
    assert status == 0, err
    assert "50 training images, 6 iterations, 12 steps of 8" in out
    assert f"--purify_with={folder}" in out.splitlines()[-1]
    return folder


@pytest.fixture(scope="module")
def untrained(run, tmp_path_factory):
    """A GAN of one iteration, in which the critic alone is updated."""
    folder = tmp_path_factory.mktemp("gans") / "untrained"
    status, _, err = run("rvs_tf.train_gan", f"--train_dir={folder}", *FLAGS, "--iterations=1")
    assert status == 0, err
    return folder


@pytest.fixture(scope="module")
def network():
    return WideResNet(10, 1, 10, seed=1)


@pytest.fixture(scope="module")
def target(network, digits, tmp_path_factory):
    """A run's folder with a network as it begins. Its results are written to."""
    folder = tmp_path_factory.mktemp("target")
    settings = {"defense": "natural", "dataset": "digits", "validation_size": 0, "depth": 10, "width": 1}
    run_folder.create(folder, settings | {"num_classes": 10}, digits.provenance)
    Checkpoints(folder, {"classifier": network}, {}).save(7)
    return folder


def error_line(err):
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_what_is_written(gan, curves):
    assert list(saved_steps(gan)) == [5, 10, 12]
    names = {name.split(".")[0] for name in checkpoints.read(saved_steps(gan)[12])}
    assert names == {"step", "generator", "critic"}
    counts = [checkpoints.read(saved_steps(gan)[step])["generator.count"] for step in (5, 12)]
    assert counts == [2, 5]  # none in the first iteration
    seen = curves(gan)
    assert {tag for tag in seen if tag.startswith("loss/")} == {f"loss/{name}" for name in train_gan.GAN.losses}
    assert [step for step, _ in seen["loss/wasserstein"]] == [1, 4, 8, 12]
    assert not [tag for tag in seen if tag.startswith(("batch/", "evaluation/"))]
    pictures = {}
    for file in gan.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag.startswith("images/"):
                    pictures[event.step] = (value.tag, tf.io.decode_png(value.tensor.string_val[2]).shape)
    assert pictures == {step: ("images/generated", (4 * 96, 8 * 96, 3)) for step in (6, 12)}


def test_a_training_stopped_and_continued_ends_as_one_never_stopped(signalled, invoke, gan, tmp_path):
    folder, step = tmp_path / "stopped", "madry_cifar.training.steps:Steps.train"
    err = signalled(signal.SIGTERM, step, 7, "rvs_tf.train_gan", f"--train_dir={folder}", *FLAGS)
    assert "stopped by SIGTERM after step 7, saved" in error_line(err)
    status, out, err = invoke(train_gan.command, f"--train_dir={folder}", *FLAGS)
    assert (status, "going on after step 7\n" in out) == (0, True), err
    ours, expected = (checkpoints.read(saved_steps(place)[12]) for place in (folder, gan))
    assert set(ours) == set(expected)
    assert [name for name in expected if not np.array_equal(ours[name], expected[name])] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--train_dir=", "--train_dir=: required"),
        ("--batch_size=51", "--batch_size=51: there are 50 training images"),
        ("--critic_updates=0", "--critic_updates=0: must be at least 1"),
        ("--gradient_penalty=columns", "--gradient_penalty=columns: unknown; Known: image, released"),
        ("--dataset=mnist", "--dataset=mnist: unknown"),
        ("--train_dir={target}", "holds the training of a classifier, not of a GAN"),
        ("--train_dir={gan} --width=3", "--width (there 2, now 3); use another folder"),
    ],
)
def test_what_is_typed_wrong(invoke, gan, target, tmp_path, arguments, named):
    given = arguments.format(gan=gan, target=target).split()
    status, out, err = invoke(train_gan.command, f"--train_dir={tmp_path}/gan", *FLAGS, *given)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named in error_line(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.flags")), ids=lambda path: path.stem)
def test_a_preset_is_taken(invoke, preset, tmp_path):
    for word in (f"--flagfile=experiments/presets/gan/{preset.name}", "Hardware:", "Expected:"):
        assert word in preset.read_text()
    given = ("--iterations=1", "--width=1", "--critic_updates=1", "--checkpoint_every=0", f"--train_dir={tmp_path}/gan")
    status, _, err = invoke(train_gan.command, f"--flagfile={preset}", *given, "--dataset=digits")
    assert status == 0, err
    chosen = run_folder.read_flags(tmp_path / "gan")
    expected = {"cifar10_original": ("released", 50), "digits_smoke": ("released", 50)}[preset.stem]
    assert (chosen["gradient_penalty"], chosen["batch_size"]) == expected


# --- Evaluation


SEARCH = ("--purify_restarts=2", "--purify_steps=3", "--max_images=8", "--batch_size=4")


def test_results_behind_the_purifier_are_kept_apart(invoke, gan, target, network, curves):
    """Natural images, BPDA and the latent attack in one file, images made on the bare classifier in another."""
    bare = (f"--train_dir={target}", "--attacks=natural,pgd-2", "--max_images=8", "--batch_size=4")
    assert invoke(rvs_tf.evaluate.command, *bare)[0] == 0
    (plain,) = (target / "results").glob("*.json")
    before = plain.read_bytes()
    behind = (f"--train_dir={target}", f"--purify_with={gan}", *SEARCH)
    status, out, err = invoke(rvs_tf.evaluate.command, *behind, "--attacks=natural,bpda-pgd-1,latent-2")
    assert status == 0, err
    told = " ".join(out.split()).replace("- ", "-")
    assert f"purified by {gan}, step 12, 2 × 3 steps at rate 10" in told
    assert "gradients, where an attack follows them, of a stand-in (BPDA)" in told
    assert "worst of these" not in told  # of columns that are not to be mixed
    status, _, err = invoke(rvs_tf.evaluate.command, *behind, "--attacks=pgd-2", f"--surrogate_dir={target}")
    assert status == 0, err
    assert plain.read_bytes() == before
    others = sorted((target / "results").glob("*_purified-*.json"), key=lambda path: len(path.name))
    contents = [json.loads(path.read_text()) for path in others]
    assert [set(content["attacks"]) for content in contents] == [{"natural", "bpda-pgd-1", "latent-2"}, {"pgd-2"}]
    settings = {"gan": str(gan), "checkpoint": 12, "restarts": 2, "steps": 3, "rate": 10.0, "rate_drop": False}
    assert [content["purification"] for content in contents] == [settings] * 2
    purified = Purified(network, load_gan(gan), restarts=2, steps=3)
    assert {content["classifier_sha256"] for content in contents} == {purified.fingerprint()}
    assert [content.get("gradients") for content in contents] == ["of a stand-in (BPDA)", None]
    assert contents[1]["surrogate"]["classifier_sha256"] == json.loads(before)["classifier_sha256"]
    of = f"purified-{purified.fingerprint()[:8]}"
    expected = {"natural", "pgd-2", f"natural_{of}", f"bpda-pgd-1_{of}", f"latent-2_{of}"}
    tags = {tag.removeprefix("evaluation/") for tag in curves(target / "evaluation")}
    assert tags == expected | {f"pgd-2_{of}_from-natural"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--purify_with=/none", "--purify_with=/none: no such folder"),
        ("--purify_with={target}", "--purify_with={target}: holds no GAN; rvs_tf.train_gan trains one"),
        ("--purify_with={gan} --purify_checkpoint=7", "--purify_checkpoint=7: not among those of {gan}"),
        ("--purify_with={gan} --purify_restarts=0", "--purify_restarts=0: must be at least 1"),
        ("--purify_with={gan} --purify_steps=0", "--purify_steps=0: must be at least 1"),
        ("--purify_steps=5", "--purify_steps=5: needs --purify_with"),
        ("--purify_restarts=10", "--purify_restarts=10: needs --purify_with"),  # its default, typed all the same
        ("--purify_with={untrained}", "--purify_with={untrained}: at step 2 its generator is as it was drawn"),
        (
            "--purify_with={untrained} --purify_checkpoint=2",
            "--purify_checkpoint=2: at step 2 its generator is as it was drawn, and is first trained at step 3",
        ),
        (
            "--purify_with={gan} --surrogate_dir={target} --checkpoint=99",
            "--checkpoint=99: not among those of {target}",
        ),
        ("--purify_with=", "--purify_with=: names no folder; leave it out"),
        ("--attacks=eot-pgd-3", "--attacks=eot-pgd-3: the model's outputs are not random"),
        ("--purify_with={tmp}", "--purify_with={tmp}: was trained on other data (cifar10) than --train_dir={target}"),
        ("--train_dir={gan}", "--train_dir={gan}: holds a GAN that was trained, and no classifier"),
        (
            "--attacks=latent-3",
            "--attacks=latent-3: searches the latent space of a purifier, and what is attacked has none",
        ),
        ("--attacks=bpda-pgd-3", "--attacks=bpda-pgd-3: the model has a gradient of its own"),
        (
            "--attacks=bpda-pgd-3x2",
            "--attacks=bpda-pgd-3x2: bpda-pgd-3 cannot be repeated from other starts, as pgd-N can",
        ),
        ("--attacks=latent-0", "--attacks=latent-0: N in latent-N is a whole number of steps from 1 on"),
    ],
)
def test_an_evaluation_that_is_typed_wrong(invoke, gan, target, untrained, tmp_path, arguments, named):
    if "{tmp}" in arguments:
        shutil.copytree(gan, tmp_path, dirs_exist_ok=True)
        content = json.loads((tmp_path / "flags.json").read_text())
        content["flags"]["dataset"] = "cifar10"
        (tmp_path / "flags.json").write_text(json.dumps(content))
    places = {"gan": gan, "target": target, "tmp": tmp_path, "untrained": untrained}
    given = (f"--train_dir={target}", "--attacks=natural", f"--results_dir={tmp_path}/results")
    status, out, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH[2:], *arguments.format(**places).split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in error_line(err)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("rate", "warned"), [("1e30", True), ("10", False)])
def test_a_search_that_diverges_is_told(invoke, gan, target, tmp_path, rate, warned):
    given = (f"--train_dir={target}", f"--purify_with={gan}", f"--purify_rate={rate}", "--attacks=natural")
    status, _, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH, f"--results_dir={tmp_path}")
    assert status == 0
    assert ("warning: the purifier's search ends farther from the images" in err) == warned


def test_the_grey_box_of_a_checkpoint_is_made_on_that_checkpoint(invoke, gan, target, network, tmp_path):
    """And not on the latest of the run, which is another network."""
    shutil.copytree(target, tmp_path / "run")
    later = WideResNet(10, 1, 10, seed=2)
    Checkpoints(tmp_path / "run", {"classifier": later}, {}).save(9)
    given = (f"--train_dir={tmp_path}/run", "--checkpoint=7", f"--purify_with={gan}", *SEARCH, "--attacks=pgd-1")
    for chosen, of in (((), network), (("--surrogate_checkpoint=9",), later)):
        output = tmp_path / f"{len(chosen)}.json"
        same = (f"--surrogate_dir={tmp_path}/run/", f"--output={output}")
        status, _, err = invoke(rvs_tf.evaluate.command, *given, *same, *chosen)
        assert status == 0, err
        (content,) = json.loads(output.read_text())
        assert content["surrogate"]["classifier_sha256"] == as_predictor(of).fingerprint()


def test_what_is_typed_with_a_surrogate_is_told_the_way_out(invoke, gan, target, tmp_path):
    """PGD in place of BPDA would be the optimistic column."""
    given = (f"--train_dir={target}", f"--purify_with={gan}", f"--surrogate_dir={target}", "--attacks=bpda-pgd-3")
    status, _, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH, f"--results_dir={tmp_path}")
    assert status == 2
    assert "where images are purified, attack what purifies them, without --surrogate_dir" in error_line(err)


def test_images_made_behind_a_purifier_are_not_scored_without_it(invoke, gan, target, tmp_path):
    given = (f"--train_dir={target}", f"--purify_with={gan}", "--attacks=bpda-pgd-1", f"--results_dir={tmp_path}")
    status, _, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH, "--save_adversarial")
    assert status == 0, err
    (kept,) = tmp_path.glob("*.npy")
    scored = (f"--train_dir={target}", f"--attack={kept}", "--max_images=8", f"--output={tmp_path}/pred.npy")
    status, out, err = invoke(run_attack.command, *scored)
    assert (status, out) == (2, "")
    assert f"error: --attack={kept}: was made behind a purifier" in err
    assert not (tmp_path / "pred.npy").exists()


def test_each_image_has_its_reconstruction_error(invoke, gan, target, network, digits, tmp_path):
    """Kept for detection, for each attack, whatever the batches; its mean is in the table."""
    given = (f"--train_dir={target}", f"--purify_with={gan}", "--attacks=natural,pgd-1", f"--results_dir={tmp_path}")
    status, out, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH[:2], "--max_images=24")
    assert status == 0, err
    assert f"warning: --purify_with={gan}" not in err  # it was trained to its end
    (file,) = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert content["batch_size"] == 20  # of its own accord
    with np.load(file.with_suffix(".npz")) as stored:
        errors = {name: stored[f"{name}.reconstruction_errors"] for name in ("natural", "pgd-1")}
    purified, draws = Purified(network, load_gan(gan), restarts=2, steps=3), Draws((0, 0), np.arange(24))
    expected = purified.reconstruct(digits.test.images[:24].astype(np.float32), draws.query(JUDGED)).errors
    np.testing.assert_allclose(errors["natural"], expected, rtol=1e-5)
    assert np.all(errors["natural"] != errors["pgd-1"])
    for name, told in content["attacks"].items():
        assert told["reconstruction_error"]["mean"] == pytest.approx(errors[name].mean(dtype=float))
        assert "below an attack: mean and standard deviation" in " ".join(out.split())
        assert f"reconstruction error {told['reconstruction_error']['mean']:.4f}" in " ".join(out.split())


def test_a_gan_that_is_not_at_its_end_is_told_of(invoke, gan, target, tmp_path):
    given = (f"--train_dir={target}", f"--purify_with={gan}", "--purify_checkpoint=5", f"--results_dir={tmp_path}")
    status, _, err = invoke(rvs_tf.evaluate.command, *given, "--attacks=natural", *SEARCH)
    assert status == 0
    assert err.splitlines()[0] == f"warning: --purify_with={gan}: what is evaluated is step 5 of the 12 of its training"


def test_a_gan_that_knows_the_images_held_out_is_refused(invoke, gan, target, tmp_path):
    shutil.copytree(target, tmp_path / "run", ignore=shutil.ignore_patterns("results", "evaluation"))
    content = json.loads((tmp_path / "run" / "flags.json").read_text())
    content["flags"]["validation_size"] = 30
    (tmp_path / "run" / "flags.json").write_text(json.dumps(content))
    given = (f"--train_dir={tmp_path}/run", "--split=validation", f"--purify_with={gan}", "--attacks=natural")
    status, out, err = invoke(rvs_tf.evaluate.command, *given)
    assert (status, out) == (2, "")
    expected = "was trained on the images that --split=validation is of; train it with --validation_size=30"
    assert error_line(err) == f"error: --purify_with={gan}: {expected}"


def test_a_gan_of_other_data_than_a_models_is_refused(invoke, gan, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import tensorflow as tf\nmodel = lambda images: images[:, 0, :10, 0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(gan, tmp_path / "gan")
    content = json.loads((tmp_path / "gan" / "flags.json").read_text())
    content["flags"]["dataset"] = "cifar10"
    (tmp_path / "gan" / "flags.json").write_text(json.dumps(content))
    given = ("--model=mine:model", "--dataset=digits", f"--purify_with={tmp_path}/gan", "--attacks=natural")
    status, out, err = invoke(rvs_tf.evaluate.command, *given, *SEARCH, f"--results_dir={tmp_path}/results")
    assert (status, out) == (2, "")
    assert "was trained on other data (cifar10) than --model=mine:model (digits)" in error_line(err)


def test_two_searches_are_called_differently():
    search = {"restarts": 2, "steps": 3, "rate": 10.0, "rate_drop": False}
    told = [search, search | {"rate": 3.0}, search | {"rate_drop": True}, search | {"gan": "g", "checkpoint": 4}]
    assert [purified_by({"purification": each}) for each in told] == [
        "a GAN, 2 × 3 steps at rate 10",
        "a GAN, 2 × 3 steps at rate 3",
        "a GAN, 2 × 3 steps at rate 10, which drops",
        "g, step 4, 2 × 3 steps at rate 10",
    ]


def test_a_model_of_other_images_is_refused(invoke, gan, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import keras\n"
        "model = lambda: keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])\n"
        "model = model()\n"
    )
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 28, 28, 1), np.uint8), labels=np.arange(4))
    monkeypatch.syspath_prepend(tmp_path)
    given = ("--model=own:model", f"--data={tmp_path}/images.npz", f"--purify_with={gan}", "--attacks=natural")
    status, out, err = invoke(rvs_tf.evaluate.command, *given, f"--results_dir={tmp_path}/results")
    assert (status, out) == (2, "")
    expected = "the GAN makes images [32, 32, 3], and the classifier takes [28, 28, 1]"
    assert error_line(err) == f"error: --purify_with={gan}: {expected}"


def test_a_gan_is_no_classifier(gan):
    with pytest.raises(UsageError, match="holds a GAN that was trained, and no classifier"):
        load_classifier(gan)


def test_help(invoke):
    for command, names in ((train_gan.command, ("gradient_penalty",)), (rvs_tf.evaluate.command, ("purify_with",))):
        status, out, err = invoke(command, "--help")
        assert (status, err) == (0, "")
        for name in names:
            assert re.search(rf"^  --{name}: \w", out, re.MULTILINE)
