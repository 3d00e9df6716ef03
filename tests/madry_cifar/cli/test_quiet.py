"""What an import of TensorFlow does to the garbage collector, to Keras's settings, and to who interrupts it."""

import gc
import importlib
import os
import pathlib
import signal
import subprocess
import sys

import keras
import pytest

from madry_cifar.cli import quiet
from madry_cifar.cli.quiet import hidden, without_garbage


@pytest.mark.parametrize("module", ["rvs_tf.train", "experiments.table2"])
def test_help_without_tensorflow_is_the_same(invoke, start, module):
    """Here TensorFlow is loaded, in the process it is not: that would take seconds of its CPU."""
    before = os.times()
    process = start(module, "--help")
    out, err = process.communicate()
    after = os.times()
    assert (process.returncode, err) == (0, "")
    assert out == invoke(importlib.import_module(module).command, "--help")[1]
    assert after.children_user - before.children_user < 2


def test_a_defence_that_needs_tensorflow_for_its_options(start, tmp_path):
    """One of another package, whose module computes while it is imported."""
    (tmp_path / "theirs.py").write_text(
        "import madry_cifar, tensorflow as tf\n"
        "assert 2 * tf.constant(1) == 2\n"
        "class Theirs(madry_cifar.Natural):\n    name = 'theirs'\n"
    )
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[madry_cifar.defenses]\ntheirs = theirs:Theirs\n")
    out, _ = start("rvs_tf.train", "--help", PYTHONPATH=str(tmp_path)).communicate()
    assert ", theirs" in out


def test_who_interrupts_the_imports_is_told_in_a_line(start, tiny, tmp_path):
    process = start("rvs_tf.train", f"--train_dir={tmp_path}", *tiny, "--steps=1")
    process.until(lambda: "tensorflow" in pathlib.Path(f"/proc/{process.pid}/maps").read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (-signal.SIGINT, "error: interrupted\n")


@pytest.mark.parametrize(
    ("program", "given", "command"),
    [
        ("-m", ["python", "-m", "rvs_tf.train", "--help"], True),
        ("/x/experiments/table2.py", ["python", "-X", "dev", "-m", "experiments.table2"], True),
        ("/usr/bin/rvs-train", ["python", "/usr/bin/rvs-train", "--help"], True),
        ("/x/pytest/__main__.py", ["python", "-m", "pytest", "--help"], False),
        ("mine.py", ["python", "mine.py", "--help"], False),
        ("mine.py", ["python", "mine.py", "-m", "rvs_tf.train"], False),
        ("mine.py", ["python", "mine.py", "-m"], False),
        ("", ["python"], False),
    ],
)
def test_whether_a_process_is_a_command(monkeypatch, program, given, command):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", given)
    assert quiet.is_command() == command


@pytest.fixture
def keras_settings():
    yield
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("name", "value"), [("floatx", "float64"), ("image_data_format", "channels_first")])
def test_the_users_settings_of_keras(monkeypatch, keras_settings, name, value):
    getattr(keras.config, f"set_{name}")(value)
    with pytest.raises(ImportError, match=f"Keras is set to {name}={value}, here or in keras.json; needed are"):
        quiet._import_keras()  # of somebody's program, whose settings are left as they are
    assert getattr(keras.config, name)() == value
    monkeypatch.setattr(quiet, "COMMAND", True)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    quiet._import_keras()
    assert (keras.config.floatx(), keras.config.image_data_format()) == ("float32", "channels_last")
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_not_looked_for_and_then_as_before(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with without_garbage():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), without_garbage():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_what_is_hidden_is_there_again_afterwards(monkeypatch, tmp_path):
    (tmp_path / "hidden_here.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with hidden("hidden_here", "keras"):  # Keras is loaded already
        import keras as loaded

        assert loaded is keras
        with pytest.raises(ImportError):
            import hidden_here
    import hidden_here

    assert hidden_here is sys.modules.pop("hidden_here")


def test_a_command_starts_without_what_keras_imports_and_nobody_uses():
    """A program of somebody's own has all of Keras."""
    program = (
        "import sys; sys.argv, sys.orig_argv = ['-m'], ['python', '-m', '{}']; import madry_cifar; print(*sys.modules)"
    )
    loaded = {}
    for module in ("rvs_tf.train", "theirs"):
        command = [sys.executable, "-c", program.format(module)]
        loaded[module] = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert {"tensorflow", "keras"} <= loaded[module]
    assert {"sklearn", "matplotlib"} <= loaded["theirs"]
    assert not {"sklearn", "matplotlib"} & loaded["rvs_tf.train"]
