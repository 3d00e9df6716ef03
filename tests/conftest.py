"""What all tests share: a small trained network, a finished run, and commands run here or as processes of their own."""

import collections
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as the commands do; else JAX, where Keras finds it, sets another
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the same numbers with and without a GPU in the machine
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads only wait for each other
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import pytest
import tensorflow as tf
from absl import app
from absl.flags import FLAGS
from hypothesis import settings

from madry_cifar import WideResNet, data
from madry_cifar.cli import flags
from madry_cifar.training.adversarial import Natural
from madry_cifar.training.trainer import Schedule, Trainer

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = ("--depth=10", "--width=1", "--batch_size=8")
PATIENCE = 3600  # seconds after which a process hangs: far beyond what any takes on a slow and busy machine

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: commands would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.freeze()  # of the million objects of the imports none is garbage; looking for it takes a while, again and again

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")


# The files that take longest, the longest first: then workers, which take a file at a time, end at about the same time
LONGEST = (
    "experiments/test_smoke.py",
    "madry_cifar/test_replicas.py",
    "test_evaluate.py",
    "test_train_xla.py",
    "test_commands.py",
    "test_evaluate_ladder.py",
    "experiments/test_killed.py",
    "test_diagnose.py",
    "experiments/test_demo.py",
    "rvs_tf/defenses/test_all.py",
    "rvs_tf/defenses/test_generative.py",
    "rvs_tf/defenses/test_generative_code.py",
    "rvs_tf/defenses/test_adt_gat.py",
    "rvs_tf/defenses/test_adt_gat_code.py",
    "madry_cifar/attacks/test_apgd.py",
    "rvs_tf/test_golden.py",
    "rvs_tf/test_peers.py",
    "rvs_tf/test_diversity.py",
    "rvs_tf/test_latent_space.py",
    "test_export.py",
    "test_train_advgan.py",
    "sinkhorn_tf/test_distance.py",
)


def pytest_collection_modifyitems(items):
    """Sorts the files, and nothing within one."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def own_modules_of_a_test(tmp_path_factory):
    """A module that a test has written is forgotten after it: the next one of the same name is another."""
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(written):
            del sys.modules[name]


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory):
    """A WRN-10-1 after natural training: right on most digits, and easily attacked."""
    options = Natural.Options(batch_size=32, steps=100, learning_rates=(0.1, 0.01), learning_rate_boundaries=(75,))
    classifier = WideResNet(10, 1, 10)
    never = Schedule(checkpoint_every=0, log_every=0, image_every=0, eval_every=0)
    Trainer(Natural(classifier, options), digits, tmp_path_factory.mktemp("trained"), never).train()
    return classifier


@pytest.fixture(scope="session")
def curves():
    """curves(folder) reads the scalars from the TensorBoard files in a folder: the points (step, value) of each tag."""

    def curves(folder):
        points = collections.defaultdict(list)
        for file in sorted(folder.glob("events.*")):
            for event in tf.compat.v1.train.summary_iterator(str(file)):
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name == "scalars":
                        points[value.tag].append((event.step, tf.make_ndarray(value.tensor).item()))
        return points

    return curves


class Process(subprocess.Popen):
    """A command that runs, and is waited for with patience."""

    def communicate(self, input=None, timeout=PATIENCE):
        return super().communicate(input, timeout)

    def until(self, happened):
        """Waits until `happened()`, before which it must not end."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.poll() is None, self.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="session")
def start():
    """start(module, *arguments, **environment) starts `python -m module …`; it is killed after the tests."""
    processes = []

    def start(module, *arguments, **environment):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(Process(command, cwd=ROOT, env=os.environ | environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def run(start):
    """run(module, *arguments) runs a command to its end; returns its status, stdout and stderr."""

    def run(module, *arguments):
        process = start(module, *arguments)
        out, err = process.communicate()
        return process.returncode, out, err

    return run


@pytest.fixture(scope="session")
def signalled(start):
    """signalled(number, function, call, module, *arguments) runs a command until a signal ends it; returns its stderr.

    It sends itself the signal when it calls the function for the `call`-th time; see signalled.py.
    """

    def signalled(number, function, call, *command):
        process = start("tests.signalled", number.name, function, call, *command)
        _, err = process.communicate()
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), err
        return err

    return signalled


@pytest.fixture
def invoke(capsys, monkeypatch):
    """invoke(command, *arguments) does the same in this process, with the command's function."""
    app.define_help_flags()  # defined once and for all: not among what a command defines

    def invoke(command, *arguments):
        monkeypatch.setattr(flags, "_sections", {})
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        before, status = set(FLAGS), None
        try:
            command()
        except SystemExit as end:
            status = end.code
        finally:
            for name in set(FLAGS) - before:
                delattr(FLAGS, name)
            FLAGS.unparse_flags()
        return (status or 0, *capsys.readouterr())

    return invoke


@pytest.fixture(scope="session")
def tiny():
    """The flags of a network and batch that train in seconds."""
    return TINY


@pytest.fixture(scope="session")
def rvs_flags():
    """The flags of `rvs_run`, without its folder."""
    every = ("--checkpoint_every=5", "--log_every=2", "--image_every=20", "--eval_every=20", "--eval_images=20")
    return (*TINY, "--steps=40", "--keep=4", *every, "--eval_attacks=natural,pgd-2")


@pytest.fixture(scope="session")
def rvs_run(run, rvs_flags, tmp_path_factory):
    """The folder of an RvS run of 40 steps, made by the command. Not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "rvs"
    status, _, err = run("rvs_tf.train", f"--train_dir={folder}", *rvs_flags)
    assert status == 0, err
    return folder


@pytest.fixture
def configure(monkeypatch):
    """configure(*flags, parts=[…]) is the configuration of the grid of tables and figures for these flags."""
    from experiments import grid

    before = set(FLAGS)

    def clear():
        for name in set(FLAGS) - before:
            delattr(FLAGS, name)

    def configure(*given, parts=("table2",)):
        clear()
        monkeypatch.setattr(flags, "_sections", {})
        grid.define_flags()
        FLAGS([sys.argv[0], "--work_dir=somewhere", *given])
        return grid.configuration(list(parts), *grid.read_flags())

    yield configure
    clear()
    FLAGS.unparse_flags()
