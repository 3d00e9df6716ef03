"""The commands from end to end: as processes of their own, or, where many are tried, in this one."""

import json
import pathlib
import random
import re
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tiers import slow

import madry_cifar
import rvs_tf.evaluate
import rvs_tf.train
from madry_cifar import eval as follow
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints, saved_steps

NEVER = ("--log_every=0", "--image_every=0", "--eval_every=0")


@pytest.fixture
def copied_run(rvs_run, tmp_path):
    return shutil.copytree(rvs_run, tmp_path / "copied")


def error_line(err):
    """The one line that tells what was wrong, beside progress bars."""
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


# --- Training


@pytest.fixture(scope="module")
def base_runs(start, tiny, tmp_path_factory):
    """Folder and output of natural and of adversarial training, by the base's command, side by side."""
    flags = (*tiny, "--steps=30", "--learning_rates=0.05", "--learning_rate_boundaries=", "--log_every=1")
    sizes = {"natural": (), "at": ("--epsilon=4", "--attack_steps=2", "--attack_step_size=3")}
    folders = {name: tmp_path_factory.mktemp("base") / name for name in sizes}
    processes = {
        name: start("madry_cifar.train", f"--defense={name}", f"--train_dir={folder}", *flags, *sizes[name])
        for name, folder in folders.items()
    }
    outputs = {name: process.communicate() for name, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0], outputs
    return folders, outputs


@pytest.mark.parametrize("name", ["natural", "at", "rvs"])
def test_the_loss_falls(name, rvs_run, base_runs, curves):
    seen = curves(rvs_run if name == "rvs" else base_runs[0][name])
    losses = [value for _, value in seen["loss/total"]]
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < np.mean(losses[:third])
    assert ("perturbation/mean_absolute" in seen) == (name != "natural")


def test_what_a_training_command_prints(base_runs):
    out, err = base_runs[1]["natural"]
    assert out.startswith("natural on scikit-learn's 1,797 handwritten digits")
    assert "1438 training images, WRN-10-1, 30 steps of 8" in out
    assert "30/30" in err


def test_the_perturbation_trained_on_is_within_epsilon(base_runs, rvs_run, curves):
    for folder, epsilon in ((base_runs[0]["at"], 4), (rvs_run, 8)):
        seen = curves(folder)
        assert all(0 < value <= epsilon for _, value in seen["perturbation/mean_absolute"])
        assert all(0 <= value <= 100 for _, value in seen["perturbation/percent_at_epsilon"])


def test_a_run_keeps_its_settings_and_checkpoints(rvs_run, rvs_flags):
    settings = json.loads((rvs_run / "flags.json").read_text())["flags"]
    for flag in rvs_flags:
        name, value = flag.removeprefix("--").split("=")
        assert str(settings[name]) == value
    for name, default in (("defense", "rvs"), ("dataset", "digits"), ("num_classes", 10), ("label_smoothing", 0.5)):
        assert settings[name] == default
    assert list(saved_steps(rvs_run)) == [25, 30, 35, 40]
    assert {path.name for path in rvs_run.iterdir() if path.name.startswith(".")} <= {".training.lock"}


def test_a_run_killed_and_resumed_ends_as_one_never_killed(signalled, run, rvs_run, rvs_flags, tmp_path):
    folder = tmp_path / "killed"
    arguments = ("rvs_tf.train", f"--train_dir={folder}", *rvs_flags)
    signalled(signal.SIGKILL, "madry_cifar.runs.checkpoints:Checkpoints.save", random.randrange(2, 8), *arguments)
    status, out, err = run(*arguments)
    assert status == 0, err
    assert int(re.search(r"going on after step (\d+)", out)[1]) in range(5, 40, 5)
    ours, expected = (tf.train.load_checkpoint(str(f / "checkpoints" / "ckpt-40")) for f in (folder, rvs_run))
    names = expected.get_variable_to_shape_map()
    assert ours.get_variable_to_shape_map() == names
    trained = [name for name in names if "momentum" in name]
    assert any("generator" in name for name in trained)
    assert any("classifier" in name for name in trained)
    assert any("moving_mean" in name for name in names)
    different = [
        n
        for n in names
        if n.startswith(("classifier", "generator", "step"))
        and not np.array_equal(ours.get_tensor(n), expected.get_tensor(n))
    ]
    assert different == [], out


def test_signals_save_and_end_and_the_run_goes_on(start, invoke, tiny, tmp_path):
    numbers = {signal.SIGINT: 130, signal.SIGTERM: 143}
    flags = ("--defense=natural", *tiny, "--checkpoint_every=5", *NEVER)
    processes = {}
    for number in numbers:
        processes[number] = start("rvs_tf.train", f"--train_dir={tmp_path / number.name}", "--steps=80000", *flags)
    for number, process in processes.items():
        saved = tmp_path / number.name / "checkpoints"  # its first ones may have been deleted meanwhile
        process.until(lambda: list(saved.glob("ckpt-*.index")))
        process.send_signal(number)
    for number, process in processes.items():
        _, err = process.communicate()
        assert process.returncode == numbers[number], err
        folder, last = tmp_path / number.name, max(saved_steps(tmp_path / number.name))
        assert error_line(err) == f"error: stopped by {number.name} after step {last}, saved; run it again to go on"
        arguments = (f"--train_dir={folder}", f"--steps={last + 3}", *flags)
        status, out, _ = invoke(rvs_tf.train.command, *arguments)
        assert (status, f"going on after step {last}\n" in out) == (0, True)
        assert max(saved_steps(folder)) == last + 3


def test_a_loss_that_is_not_finite_ends_the_run(run, tiny, tmp_path):
    rates = ("--learning_rates=0.1,1e30", "--learning_rate_boundaries=6", "--checkpoint_every=3")
    status, _, err = run("rvs_tf.train", "--defense=natural", f"--train_dir={tmp_path}", *tiny, *rates, *NEVER)
    assert status == 1
    assert re.search(r"step [78]: .*total loss (nan|inf)", error_line(err))
    assert str(tmp_path / "checkpoints" / "ckpt-6") in error_line(err)
    assert list(saved_steps(tmp_path)) == [3, 6]
    logits = madry_cifar.load_classifier(tmp_path)(tf.ones([1, 32, 32, 3])).logits
    assert np.all(np.isfinite(logits))


def test_a_finished_run_is_left_as_it_is_and_may_be_prolonged(invoke, copied_run, rvs_flags):
    before = modified(copied_run / "checkpoints")
    arguments = (f"--train_dir={copied_run}", *rvs_flags)
    status, out, _ = invoke(rvs_tf.train.command, *arguments)
    assert (status, "already trained for 40 steps" in out) == (0, True)
    assert out.splitlines()[-1] == f"next: python -m rvs_tf.evaluate --train_dir={copied_run} --attacks=natural,pgd-20"
    assert modified(copied_run / "checkpoints") == before
    status, out, _ = invoke(rvs_tf.train.command, *arguments, "--steps=41", "--keep=2", "--log_every=1")
    assert (status, "going on after step 40" in out) == (0, True)
    assert list(saved_steps(copied_run)) == [40, 41]


def test_another_configuration_in_the_same_folder_is_refused(invoke, rvs_run, rvs_flags):
    before = modified(rvs_run) | modified(rvs_run / "checkpoints")
    changes = ("--seed=1", "--width=2", "--label_smoothing=0.4", "--keep=9", "--steps=50")
    status, _, err = invoke(rvs_tf.train.command, f"--train_dir={rvs_run}", *rvs_flags, *changes)
    changed = "--label_smoothing (there 0.5, now 0.4), --seed (there 0, now 1), --width (there 1, now 2)"
    line = f"error: --train_dir={rvs_run}: holds a run with other settings: {changed}; use another folder\n"
    assert (status, err) == (2, line)
    assert modified(rvs_run) | modified(rvs_run / "checkpoints") == before


# --- Evaluation


def test_evaluation(run, invoke, copied_run, digits):
    flags = (f"--train_dir={copied_run}", "--max_images=60", "--batch_size=25", "--epsilon=6")
    status, out, err = run("rvs_tf.evaluate", *flags, "--attacks=natural,pgd-2,natural")
    assert status == 0, err
    [file] = (copied_run / "results").glob("*.json")
    assert out.splitlines()[-1] == str(file)
    content = json.loads(file.read_text())
    classifier = madry_cifar.load_classifier(copied_run)
    predicted = np.argmax(classifier(digits.test.images[:60].astype(np.float32)).logits, axis=1)
    accuracy = 100 * np.mean(predicted == digits.test.labels[:60])
    assert content["attacks"]["natural"]["accuracy"] == pytest.approx(accuracy)
    assert content["attacks"]["pgd-2"]["protocol"]["epsilon"] == 6
    assert 5.9 < content["attacks"]["pgd-2"]["linf"] < 6.001
    assert (content["checkpoint"], content["images"], content["split"]) == (40, 60, "test")
    assert content["training_flags"]["steps"] == 40
    assert re.search(rf"natural +{accuracy:.2f}", out)
    assert re.search(rf"pgd-2 +{content['attacks']['pgd-2']['accuracy']:.2f} .* 6 +2 +2 ", out)
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as stored:
        assert np.array_equal(stored["natural"], predicted)
        assert np.array_equal(stored["labels"], digits.test.labels[:60])

    assert invoke(rvs_tf.evaluate.command, *flags, "--attacks=fgsm")[0] == 0
    assert set(json.loads(file.read_text())["attacks"]) == {"natural", "pgd-2", "fgsm"}
    assert invoke(rvs_tf.evaluate.command, *flags, "--attacks=fgsm", "--checkpoint=30")[0] == 0
    assert len(list((copied_run / "results").glob("*.json"))) == 2


def test_held_out_images_may_be_evaluated(invoke, tiny, tmp_path):
    flags = ("--defense=natural", "--validation_size=40", "--steps=2", *tiny, *NEVER)
    assert invoke(rvs_tf.train.command, f"--train_dir={tmp_path}", *flags)[0] == 0
    arguments = (f"--train_dir={tmp_path}", "--split=validation", "--attacks=natural")
    assert invoke(rvs_tf.evaluate.command, *arguments)[0] == 0
    [file] = (tmp_path / "results").glob("*.json")
    assert json.loads(file.read_text())["images"] == 40


def test_a_run_is_followed(start, copied_run, rvs_run, curves):
    later = [path for path in (copied_run / "checkpoints").iterdir() if not path.name.startswith("ckpt-25.")]
    for path in later:
        path.unlink()
    arguments = (f"--train_dir={copied_run}", "--attacks=natural,fgsm", "--max_images=30")
    process = start("madry_cifar.eval", *arguments)
    [first] = [copied_run / "results" / "ckpt-25_test-30_eps-8_step-2_seed-0.json"]
    process.until(first.exists)
    for path in sorted(later, key=lambda path: path.suffix == ".index"):  # as when saved: the index comes last
        shutil.copy(rvs_run / "checkpoints" / path.name, path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    results = {
        step: json.loads(first.with_name(first.name.replace("25", str(step), 1)).read_text())
        for step in (25, 30, 35, 40)
    }
    seen = curves(copied_run / "evaluation")
    assert set(seen) == {"evaluation/natural", "evaluation/fgsm"}
    for name in ("natural", "fgsm"):
        expected = [(step, pytest.approx(content["attacks"][name]["accuracy"])) for step, content in results.items()]
        assert seen[f"evaluation/{name}"] == expected
    assert [line.split(":")[0] for line in out.splitlines()] == ["step 25", "step 30", "step 35", "step 40"]


def test_what_was_evaluated_is_not_evaluated_again(invoke, copied_run):
    flags = (f"--train_dir={copied_run}", "--attacks=natural", "--max_images=10")
    status, first, _ = invoke(follow.command, *flags)
    assert status == 0
    before = modified(copied_run / "results")
    assert invoke(follow.command, *flags)[:2] == (0, first)
    assert modified(copied_run / "results") == before


# --- What is typed wrong


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--dataset=cifar-10", "--dataset=cifar-10: unknown; did you mean 'cifar10'"),
        ("--dataset=CIFAR10", "--dataset=CIFAR10: unknown; did you mean 'cifar10'"),
        ("--epsilon=0.031", "--epsilon=0.031: less than one grey level of 255: 8/255 is --epsilon=8"),
        ("--defense=rsv", "--defense=rsv: unknown; did you mean 'rvs'"),
        ("--defense=featscater", "--defense=featscater: unknown; did you mean 'featscatter'"),
        ("--defense=bilateral --beta=3", "--beta=3.0: does not apply to --defense=bilateral"),
        ("--defense=bilateral --target=next", "--target=next: unknown; Known: mc, mix, mosa, random"),
        (
            "--defense=featscatter --label_smoothing=0.9",
            "--label_smoothing=0.9: must be below 0.9, or the true one of 10",
        ),
        ("--defense=adv_vertex --lambda2=0.05", "--lambda2=0.05: must be at least 0.1, or the true one of 10 classes"),
        ("--architecture=standrad", "--architecture=standrad: unknown; did you mean 'standard'"),
        ("--input_scaling=singed", "--input_scaling=singed: unknown; did you mean 'signed'"),
        ("--crop_padding=4", "--crop_padding=4: images of digits are not cropped; leave it out"),
        ("--epochs=2 --steps=3", "--epochs=2: in place of --steps, which is given too; leave one of them out"),
        (
            "--learning_rate_epochs=1",
            "--learning_rates=0.1,0.01,0.001: with --learning_rate_epochs=1: 3 learning rates need 2 boundaries",
        ),
        ("--eval_attacks=natural,pdg-7", "--eval_attacks=pdg-7: unknown; did you mean 'pgd-7'"),
        ("--eval_attacks=natural,autoattack", "--eval_attacks=autoattack: is several attacks in turn"),
        ("--depth=12", "--depth=12: must be 6n + 4"),
        ("--depth=4", "--depth=4: must be 6n + 4"),
        ("--width=0", "--width=0"),
        ("--batch_size=1439", "--batch_size=1439: there are 1438 training images"),
        ("--batch_size=0", "--batch_size=0: must be at least 1"),
        ("--validation_size=1438", "--validation_size=1438: digits has 1438 training images"),
        ("--epsilon=-1", "--epsilon=-1.0: must be at least 0"),
        ("--train_dir=", "--train_dir="),
        ("--flagfile=/none.flags", "/none.flags"),
        ("--defense=at --label_smoothing=0.5", "--label_smoothing=0.5: does not apply to --defense=at"),
        ("--stepz=3", "stepz"),
        ("steps=3", "'steps=3'"),
        ("--steps=many", "--steps=many"),
        ("--steps=-1", "--steps=-1: must be at least 0"),
        ("--seed=-1", "--seed=-1"),
        ("--seed=9223372036854775808", "--seed=9223372036854775808"),
        ("--momentum=3", "--momentum=3.0: must be at most 1"),
        ("--learning_rates=0.1", "--learning_rates"),
        ("--learning_rates=0.1,b,0.2", "--learning_rates=0.1,b,0.2"),
        ("--generator_loss=mse", "--generator_loss=mse: unknown; "),
        ("--latent_draws=3", "--latent_draws=3: unknown; Known: 1, 2"),
        ("--sinkhorn_regularization=0", "--sinkhorn_regularization=0"),
        ("--jit_compile=perhaps", "--jit_compile=perhaps: must be auto, true or false"),
        (
            "--jit_compile=true --strategy=mirrored",
            "--jit_compile=true: for one device alone; leave it out with --strategy=mirrored",
        ),
        ("--strategy=mirored", "--strategy=mirored: unknown; did you mean 'mirrored'"),
        ("--strategy=multiworker", "--strategy=multiworker: set TF_CONFIG"),
        ("--precision=bf16", "--precision=bf16: unknown; did you mean 'bfloat16'"),
        ("--steps_per_call=0", "--steps_per_call=0"),
        ("--profile_steps=7", "--profile_steps=7: must be two steps"),
        ("--profile_steps=7,5", "--profile_steps=7,5: must be two steps"),
    ],
)
def test_training_flags(invoke, tiny, tmp_path, arguments, named):
    status, out, err = invoke(rvs_tf.train.command, f"--train_dir={tmp_path}/run", *tiny, *arguments.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named in error_line(err)
    assert list(tmp_path.iterdir()) == []


def test_help_tells_which_defence_has_which_default(invoke):
    status, out, _ = invoke(rvs_tf.train.command, "--help")
    assert status == 0
    for line in (
        "--batch_size: images per step [128; rvs: 64]",
        "--learning_rates: of the classifier, one after another [0.1,0.01,0.001]",
        "--beta: factor of the divergence between natural and perturbed outputs [trades: 6.0]",
    ):
        assert f"  {line}\n" in out
    assert "[at, bilateral, learn2perturb: 7; adv_vertex, trades: 10; featscatter: 1]" in out


def test_a_folder_in_which_another_process_trains(invoke, copied_run, rvs_flags):
    before = modified(copied_run)
    with run_folder.trained_alone(copied_run):
        status, _, err = invoke(rvs_tf.train.command, f"--train_dir={copied_run}", *rvs_flags, "--steps=50")
    assert (status, err) == (
        2,
        f"error: --train_dir={copied_run}: another process trains here; wait for it, or stop it\n",
    )
    assert modified(copied_run) == before


def test_who_trains_without_flags_is_told_what_that_is(start, tmp_path):
    process = start("rvs_tf.train", f"--train_dir={tmp_path}/run")
    told = [process.stdout.readline() for _ in range(2)]
    process.kill()
    assert "WRN-34-10, 179000 steps of 64" in told[0]
    assert "the released code's settings, for hours on a GPU" in told[1]
    preset = pathlib.Path(told[1].split("--flagfile=")[1].strip())
    assert preset.read_text().startswith("# A minute of RvS on digits")


def test_data_that_are_not_prepared(invoke, tiny, tmp_path):
    (tmp_path / "data").mkdir()
    flags = (f"--train_dir={tmp_path}/run", "--dataset=cifar10", f"--data_dir={tmp_path}/data", *tiny)
    status, _, err = invoke(rvs_tf.train.command, *flags)
    assert (status, len(err.splitlines())) == (2, 1)
    for part in ("--dataset=cifar10: not prepared", f"--data_dir={tmp_path}/data", "--download"):
        assert part in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_cannot_be_written(invoke, tiny, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = invoke(rvs_tf.train.command, f"--train_dir={tmp_path}/file/run", *tiny)
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"--train_dir={tmp_path}/file/run: cannot be written" in error_line(err)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--train_dir=", "--train_dir="),
        ("--train_dir=/none", "--train_dir=/none: no such folder"),
        ("--train_dir={empty}", "--train_dir={empty}: holds no run"),
        ("--attacks=pdg-20", "--attacks=pdg-20: unknown; did you mean 'pgd-20'"),
        ("--attacks=PGD-20", "--attacks=PGD-20: unknown; did you mean 'pgd-20'?"),
        ("--attacks=pgd-0", "--attacks=pgd-0: N in pgd-N is a whole number of steps from 1 on, as in pgd-7"),
        ("--attacks=cw-abc", "--attacks=cw-abc: N in cw-N is a whole number of steps from 1 on, as in cw-20"),
        ("--steps=20", "--steps: unknown; the number of steps is a part of an attack's name: --attacks=pgd-20"),
        ("--epsilon=0.031", "--epsilon=0.031: less than one grey level of 255: 8/255 is --epsilon=8"),
        ("--step_size=0", "--step_size=0: an attack that takes no step"),
        ("--attacks=", "--attacks="),
        ("--epsilon=-8", "--epsilon=-8"),
        ("--step_size=-2", "--step_size=-2"),
        ("--epsilon=eight", "--epsilon=eight"),
        ("--checkpoint=7", "--checkpoint=7: not among those of {run}: 25, 30, 35, 40"),
        ("--checkpoint=/none/ckpt-7", "--checkpoint=/none/ckpt-7: not among"),
        ("--checkpoint=last", "--checkpoint=last: not among"),
        ("--split=train", "--split=train: must be test"),
        ("--split=validation", "--split=validation: must be test, or validation if"),
        ("--max_images=-1", "--max_images=-1"),
        ("--batch_size=0", "--batch_size=0"),
        ("--dataset=digits", "dataset"),
        ("more", "'more'"),
    ],
)
def test_evaluation_flags(invoke, rvs_run, tmp_path, arguments, named):
    places = {"run": rvs_run, "empty": tmp_path}
    before = modified(rvs_run)
    status, out, err = invoke(rvs_tf.evaluate.command, f"--train_dir={rvs_run}", *arguments.format(**places).split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in error_line(err)
    assert modified(rvs_run) == before


def test_a_run_without_checkpoints(invoke, copied_run):
    shutil.rmtree(copied_run / "checkpoints")
    status, _, err = invoke(rvs_tf.evaluate.command, f"--train_dir={copied_run}", "--attacks=natural")
    assert (status, err) == (2, f"error: --train_dir={copied_run}: holds no checkpoints yet\n")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("ending", ["index", pytest.param("data-00000-of-00001", marks=slow)])
@pytest.mark.parametrize("damage", [cut, pytest.param(empty, marks=slow)])
def test_a_damaged_checkpoint(invoke, copied_run, rvs_flags, ending, damage):
    damage(copied_run / "checkpoints" / f"ckpt-40.{ending}")
    run = f"--train_dir={copied_run}"
    status, _, err = invoke(rvs_tf.evaluate.command, run, "--attacks=natural", "--max_images=5")
    assert (status, len(err.splitlines())) == (1, 1)
    assert f"{copied_run}/checkpoints/ckpt-40: damaged" in error_line(err)
    assert err.endswith("; the one before it: 35\n")
    intact = ("--attacks=natural", "--max_images=5", "--checkpoint=35")
    assert invoke(rvs_tf.evaluate.command, run, *intact)[0] == 0
    status, out, err = invoke(rvs_tf.train.command, run, *rvs_flags)
    assert (status, "going on after step 35" in out) == (0, True)
    assert f"warning: checkpoint {copied_run}/checkpoints/ckpt-40: damaged" in err
    assert checkpoints.read(saved_steps(copied_run)[40])["step"] == 40  # written anew


def test_a_network_that_has_diverged(invoke, copied_run):
    classifier = madry_cifar.load_classifier(copied_run)
    classifier.logits.bias.assign([np.nan] * 10)
    Checkpoints(copied_run, {"classifier": classifier}, {}).save(41)
    flags = (f"--train_dir={copied_run}", "--attacks=natural", "--max_images=5")
    status, _, err = invoke(rvs_tf.evaluate.command, *flags)
    assert status == 1
    assert "natural: logits that are not finite at image 0" in error_line(err)
    assert not (copied_run / "results").exists()


def test_settings_of_another_network(invoke, copied_run):
    file = copied_run / "flags.json"
    for damaged, named in ((file.read_text().replace('"width": 1', '"width": 2'), "of another network"), ("{", "json")):
        file.write_text(damaged)
        status, _, err = invoke(rvs_tf.evaluate.command, f"--train_dir={copied_run}", "--attacks=natural")
        assert (status, len(err.splitlines())) == (1, 1)
        assert named in error_line(err)


def test_results_that_cannot_be_written_are_told_before_the_attacks(invoke, copied_run):
    (copied_run / "results").touch()  # where the folder should be
    status, out, err = invoke(rvs_tf.evaluate.command, f"--train_dir={copied_run}", "--attacks=natural")
    assert (status, out, len(err.splitlines())) == (2, "", 1)  # no progress bar: nothing was attacked
    assert f"results cannot be written to {copied_run}/results" in error_line(err)


def test_wrong_commands_as_processes(start, copied_run, rvs_flags, tiny, tmp_path):
    cut(copied_run / "checkpoints" / "ckpt-40.data-00000-of-00001")
    run = f"--train_dir={tmp_path}/run"
    cases = [
        ("madry_cifar.train --defense=rvs", (run, *tiny), 2, "--defense=rvs: unknown; Known: at, natural"),
        ("rvs_tf.train --flagfile=/none.flags", (run, *tiny), 2, "/none.flags"),
        (f"rvs_tf.train --dataset=cifar10 --data_dir={tmp_path}", (run, *tiny), 2, "--download"),
        ("rvs_tf.evaluate --attacks=natural", (f"--train_dir={copied_run}",), 1, "ckpt-40: damaged"),
    ]
    processes = [start(*command.split(), *arguments) for command, arguments, _, _ in cases]
    for process, (command, _, status, named) in zip(processes, cases, strict=True):
        _, err = process.communicate()
        assert (process.returncode, len(err.splitlines())) == (status, 1), (command, err)
        assert named in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["copied"]


@pytest.mark.parametrize("command", [rvs_tf.train.command, rvs_tf.evaluate.command, follow.command])
def test_help_without_a_terminal(invoke, command):
    status, out, err = invoke(command, "--help")
    assert (status, err) == (0, "")
    assert "  --train_dir: " in out
    assert "  --seed: " in out
    assert "--flagfile=FILE" in out


def test_help_names_every_setting_of_a_run(run, rvs_run):
    status, out, err = run("rvs_tf.train", "--help")
    assert (status, err) == (0, "")
    settings = json.loads((rvs_run / "flags.json").read_text())["flags"]
    for name in ("train_dir", *settings):
        assert re.search(rf"^  --(\[no\])?{name}: \w", out, re.MULTILINE) or name == "num_classes", name


def test_help_whose_reader_is_gone(start):
    process = start("madry_cifar.run_attack", "--help")
    process.stdout.close()
    process.stdout = None  # for the fixture, which reads what there is
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 141


@pytest.mark.parametrize("harm", ["weights alone", "damaged"])
def test_a_training_that_cannot_go_on_leaves_the_folder_as_it_was(invoke, copied_run, rvs_flags, harm):
    run = copied_run
    for path in run.glob("checkpoints/ckpt-*.index"):
        if harm == "damaged":
            path.write_bytes(b"")
        elif not path.name.endswith("-40.index"):
            path.unlink()
        else:
            kept = {name: tf.Variable(value) for name, value in checkpoints.read(str(path.with_suffix(""))).items()}
            slots = (".momentum", ".m", ".v", ".count")
            checkpoints.write(path.with_suffix(""), {n: v for n, v in kept.items() if not n.endswith(slots)})
    before = (run / "flags.json").read_bytes()
    status, _, err = invoke(rvs_tf.train.command, *rvs_flags, "--steps=50", f"--train_dir={run}")
    assert status == 1
    assert harm in err.splitlines()[-1]
    assert (run / "flags.json").read_bytes() == before
