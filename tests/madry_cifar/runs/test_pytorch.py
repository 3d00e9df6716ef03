"""PyTorch's weights: against the logits of the authors' code, and from file to run and back."""

import importlib
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from generative_code import ORIGINAL, batch, drawn, pytorch_weight

from madry_cifar import build, load_predictor
from madry_cifar.cli.errors import UsageError
from madry_cifar.import_torch import settings_of
from madry_cifar.runs import pytorch, run_folder, torch_files
from madry_cifar.runs.checkpoints import Checkpoints, flat_state


@pytest.fixture
def command(invoke):
    """command(module, *arguments) runs it in this process; returns its status, stdout and stderr."""
    return lambda module, *arguments: invoke(importlib.import_module(module).command, *arguments)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


# --- Against the authors' code; none of it needs PyTorch


def released_arrays(variables, prefix):
    """What a state_dict of the authors' code held when its numbers were computed."""
    lines = [str(line).split() for line in ORIGINAL[variables]]
    shapes = {name: tuple(map(int, shape)) for name, *shape in lines if name.startswith(prefix)}
    return {name: pytorch_weight(name, shape) for name, shape in shapes.items()}


def imported(arrays, **given):
    found = pytorch.recognize("weights.pt", arrays)
    defense = build(settings_of(found, given) | {"num_classes": found.num_classes}, dtype="float64")
    return found, defense, pytorch.assign(defense, found)


def draws(tag):
    """In place of Learn2Perturb's draws those of its authors' first pass."""
    return lambda step, forward, index, shape: tf.constant(
        drawn(index, "normal", (shape[-1], *shape[-3:-1]), tag), tf.float64
    )


@pytest.mark.parametrize(
    ("variables", "prefix", "given", "mode", "logits", "size"),
    [
        ("l2l/variables", "model.", {"defense": "l2l"}, "frozen", "l2l/grad_classifier_logits", ("standard", 34)),
        ("l2l_da/variables", "model.feature_extractor.", {}, "eval", "l2l_da/logits", ("resnet_pad", 8)),
        (  # after an update of the noise by 1e-4 of it
            *("learn2perturb/variables", "model.", {}, "frozen", "learn2perturb/iter0_logits"),
            ("resnet_append", 8),
        ),
        ("learn2perturb/v2_variables", "v2.", {}, "eval", "learn2perturb/v2_eval_logits", ("resnet18", 10)),
    ],
)
def test_logits_are_those_of_the_authors_code(variables, prefix, given, mode, logits, size):
    arrays = released_arrays(variables, prefix)
    found, defense, _ = imported(arrays, **given)
    assert (found.architecture, found.depth, found.width, found.num_classes, found.prefix) == (*size, 1, 10, prefix)
    images, _ = batch(0)
    if defense.name == "learn2perturb":
        defense.draw = draws("11/v2" if size[0] == "resnet18" else "11")
        values = defense.logits(images, 0, 0, batch_norm=mode)
    else:
        values = defense.classifier(images, batch_norm=mode).logits
    expected = ORIGINAL[logits].reshape([-1, 10])[:4]
    assert np.linalg.norm(values - expected) <= 1e-5 * np.linalg.norm(expected)

    ours = {flat: variable.numpy() for flat, variable in flat_state(defense.networks, {}).items()}
    back = pytorch.state_dict(ours, found.architecture, found.depth, unused=False)
    own = pytorch.LAYOUTS[found.architecture].prefix
    used = {name.removeprefix(prefix): value for name, value in arrays.items() if pytorch.UNUSED not in name}
    assert back.keys() == {own + name for name in used}
    assert all(np.array_equal(back[own + name], value) for name, value in used.items())


@pytest.mark.parametrize(
    ("architecture", "depth", "sigma", "name"),
    [
        ("resnet18", 18, 0, "cn1_sigma_map"),
        ("resnet18", 18, 4, "layer2.1.sigma_map"),
        ("resnet_append", 20, 3, "stage_1.2.sigma_map"),
        ("resnet_append", 20, 9, "stage_3.2.sigma_map"),
    ],
)
def test_maps_of_noise_are_counted_through_the_stages(architecture, depth, sigma, name):
    assert pytorch.name_of(f"noise.sigma_{sigma}", architecture, depth) == name


def test_what_a_file_holds_beside_the_network_is_told():
    arrays = released_arrays("l2l/variables", "")
    network = {name.removeprefix("model."): value for name, value in arrays.items() if name.startswith("model.")}
    attacker = {name: value for name, value in arrays.items() if name.startswith("attacker.")}
    content = {"epoch": 77, "state_dict": network, "attacker_state_dict": attacker}
    found, _, without = imported(content, defense="l2l")
    assert (found.left_out, without) == (["sub_block1 (never used)", "epoch", "attacker_state_dict"], ["attacker"])


# --- Wrong content


SMALL = {"architecture": "standard", "depth": 10, "width": 1, "num_classes": 10}


@pytest.fixture(scope="module")
def small():
    """The arrays of a WRN-10-1 by the names of TRADES's code."""
    state = flat_state(build({"defense": "natural"} | SMALL).networks, {})
    return pytorch.state_dict({flat: variable.numpy() for flat, variable in state.items()}, "standard", 10, unused=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block2.layer.0.bn2.bias": None}, "1 missing: block2.layer.0.bn2.bias"),
        (
            {"block2.layer.0.conv3.weight": np.ones(3), "mean": np.ones(3)},
            r"2 unmatched: block2.layer.0.conv3.weight, mean",
        ),
        ({"bn1.weight": np.ones(32)}, r"1 of another shape: bn1.weight \[32\] instead of \[64\]"),
        ({"bn1.weight": "text"}, r"1 of another shape: bn1.weight \[0\] instead of \[64\]"),
        ({"bn1.bias": None, "more": np.ones(3)}, "1 missing: bn1.bias; 1 unmatched: more"),
        ({"fc.weight": None}, "without the matrix fc.weight"),
        ({"fc.weight": np.ones([10, 32])}, "no network of standard .*--width=0"),
        ({"conv1.weight": np.ones([16, 3, 5, 5])}, r"conv1.weight \[16, 3, 5, 5\] instead of \[16, 3, 3, 3\]"),
        ({"block1.layer.0.conv1.weight": None}, "none of these networks"),
        ({"ema.block1.layer.0.conv1.weight": np.ones(3)}, r"several networks: .*ema\.\*"),
    ],
)
def test_a_state_dict_of_something_else_is_refused_by_name(small, change, message):
    arrays = {name: value for name, value in (small | change).items() if value is not None}
    with pytest.raises(UsageError, match=message):
        imported(arrays, defense="trades")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {}}, {1: {2: 3}}])
def test_content_without_a_network_is_refused(content):
    with pytest.raises(UsageError, match="holds no"):
        pytorch.recognize("weights.pt", content)


# --- The commands


@pytest.mark.parametrize(
    ("defense", "scaling", "wrap", "zipped"),
    [
        ("trades", "unit", lambda state: state, True),
        ("featscatter", "signed", lambda state: {"net": {f"module.basic_net.{n}": v for n, v in state.items()}}, False),
    ],
)
def test_from_a_file_to_a_run_and_back(torch, command, digits, tmp_path, defense, scaling, wrap, zipped):
    from benchmarks.torch_network import WideResNet

    torch.manual_seed(0)
    settings = {"input_scaling": scaling, "unused": defense == "trades"}
    network, images = WideResNet(10, 2, **settings), digits.test.images[:16]
    for _ in range(3):  # so that its statistics are not the first ones
        network(torch.rand(8, 3, 32, 32))
    network, pixels = network.eval(), torch.tensor(images).permute(0, 3, 1, 2) / 255
    logits = network(pixels).detach().numpy()
    torch.save(wrap(network.state_dict()), tmp_path / "weights", _use_new_zipfile_serialization=zipped)
    run = f"--train_dir={tmp_path / 'run'}"
    arguments = (f"--checkpoint={tmp_path / 'weights'}", run, f"--defense={defense}", "--dataset=digits")
    status, out, err = command("madry_cifar.import_torch", *arguments)
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    assert f"standard WRN-10-2, 10 classes, pixels scaled by {scaling}: now step 0 of a run of --defense=" in out
    assert ("left out: sub_block1 (never used)" in out) == (defense == "trades")
    ours = load_predictor(tmp_path / "run")(images).logits
    assert np.linalg.norm(ours - logits) <= 1e-5 * np.linalg.norm(logits)

    status, out, err = command("madry_cifar.export_torch", run, f"--output={tmp_path / 'back.pt'}")
    assert (status, err) == (0, "")
    again = WideResNet(10, 2, **settings).eval()
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))  # strict: neither more nor less
    assert np.array_equal(again(pixels).detach().numpy(), logits)
    assert zipfile.is_zipfile(tmp_path / "back.pt")

    if defense == "trades":
        attacks = ("--attacks=natural,pgd-2", "--max_images=8", f"--output={tmp_path / 'results.json'}")
        status, _, err = command("rvs_tf.evaluate", run, *attacks)
        assert status == 0, err
        [results] = json.loads((tmp_path / "results.json").read_text())
        right = (logits.argmax(axis=1) == digits.test.labels[:16])[:8].mean()
        assert results["attacks"]["natural"]["accuracy"] == 100 * right
        assert results["attacks"]["pgd-2"]["accuracy"] <= 100 * right


class Command:
    """What makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def refusals(torch, path):
    """Files that are no state_dict: how each is written, and what is said of it."""
    tensors, code = {"fc.weight": torch.ones(3, 2)}, Command(path.parent / "code-was-run")
    return {
        "none": (lambda: None, "cannot be read (No such file"),
        "text": (lambda: path.write_text("no checkpoint"), "not written by torch.save"),
        "empty": (lambda: path.write_bytes(b""), "not written by torch.save"),
        "zip": (lambda: zipfile.ZipFile(path, "w").writestr("a", "b"), "not written by torch.save"),
        "cut": (lambda: (torch.save(tensors, path), os.truncate(path, 500)), "or damaged"),
        "arrays": (lambda: path.write_bytes(pickle.dumps({"a": np.ones(3)})), "a bare pickle is never read"),
        "bare": (lambda: path.write_bytes(pickle.dumps(code)), "a bare pickle is never read"),
        "older": (lambda: path.write_bytes(pickle.dumps(code, 2)), "pickles posix.mkdir, code that"),
        "code": (lambda: torch.save({"net": tensors, "more": code}, path), "pickles posix.mkdir, code that"),
        "model": (lambda: torch.save(torch.nn.Linear(2, 3), path), "torch.save(model.state_dict(), FILE)"),
        "program": (lambda: torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(path), "a TorchScript program"),
        "other": (lambda: torch.save(tensors, path), "holds none of these networks"),
        "tensor": (lambda: torch.save(torch.ones(3), path), "holds no state_dict, but a"),
    }


def test_wrong_files_are_refused_in_one_line(torch, command, tmp_path):
    path = tmp_path / "weights.pt"
    cases = refusals(torch, path)
    for write, message in cases.values():
        path.unlink(missing_ok=True)
        write()
        arguments = (f"--checkpoint={path}", f"--train_dir={tmp_path / 'run'}", "--defense=trades")
        status, out, err = command("madry_cifar.import_torch", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err
        assert f"--checkpoint={path}: " in err
        assert not [each for each in tmp_path.iterdir() if each != path]  # neither a run nor what the code makes


def test_import_flags(torch, command, small, tmp_path):
    torch_files.save(str(tmp_path / "weights.pt"), small)
    target = (f"--checkpoint={tmp_path / 'weights.pt'}", f"--train_dir={tmp_path / 'run'}")
    for arguments, message in (
        ([], "--defense=: required: whose wide ResNet it is"),
        (["--defense=at"], "--input_scaling=: required with --defense=at"),
        (["--defense=trades", "--depth=34"], "--depth=34: the checkpoint's is 10"),
        (["--defense=trades", "--width=10"], "--width=10: the checkpoint's is 1"),
        (["--defense=trades", "--architecture=madry"], "--architecture=madry: the checkpoint's is standard"),
        (["--defense=trades", "--dataset=cifar100"], "--dataset=cifar100: not one with the checkpoint's 10 classes"),
        (["--defense=tradse"], "--defense=tradse: unknown; did you mean 'trades'"),
        (["--defense=trades", "--epochs=3"], "--epochs=3: not for an imported run"),
        (["--defense=learn2perturb", "--input_scaling=unit"], "of its authors has: noise.sigma_0"),
    ):
        status, out, err = command("madry_cifar.import_torch", *target, *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err
        assert not (tmp_path / "run").exists()


def test_without_pytorch_the_commands_say_how_to_get_it(command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    settings = {"defense": "natural", "batch_norm_epsilon": 1e-5, "input_scaling": "unit"} | SMALL
    save_run(tmp_path / "run", settings)
    for module, arguments in (
        ("import_torch", (f"--checkpoint={tmp_path / 'w.pt'}", f"--train_dir={tmp_path / 'new'}")),
        ("export_torch", (f"--train_dir={tmp_path / 'run'}", f"--output={tmp_path / 'w.pt'}")),
    ):
        status, out, err = command(f"madry_cifar.{module}", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert "pip install 'robustness-via-synthesis[torch]'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def save_run(folder, settings):
    defense = build(settings)
    run_folder.create(str(folder), settings)
    Checkpoints(folder, defense.networks, defense.optimizers).save(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "madry"}, "has --architecture=madry"),
        ({"batch_norm_epsilon": 1e-3}, "has --batch_norm_epsilon=0.001"),
    ],
)
def test_a_network_that_their_code_does_not_have_is_not_exported(command, tmp_path, settings, message):
    run_folder.create(str(tmp_path / "run"), {"defense": "at", "batch_norm_epsilon": 1e-5} | SMALL | settings)
    folders = (f"--train_dir={tmp_path / 'run'}", f"--output={tmp_path / 'back.pt'}")
    status, _, err = command("madry_cifar.export_torch", *folders)
    assert (status, len(err.splitlines())) == (2, 1)
    assert message in err
