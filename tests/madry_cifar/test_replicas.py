"""Training on several replicas: two virtual CPUs against one device, and two processes."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from tiers import mostly_slow

from madry_cifar.cli.errors import UsageError
from madry_cifar.runs import checkpoints
from madry_cifar.training import strategies

ROOT = pathlib.Path(__file__).parents[2]


TRAININGS = (
    "rvs",
    "rvs, five steps a call",
    "at",
    "featscatter",
    "adv_interp",
    "adv_vertex",
    "l2l",
    "l2l_da",
    "direct",
)
TRAININGS += ("learn2perturb", "adt_exp", "adt_impam", "gat", "adam")
ALWAYS = ("rvs", "rvs, five steps a call", "at")


@pytest.fixture(scope="module")
def compared(request):
    """What two_replicas.py prints of the trainings that are tested, which one process makes."""
    cases = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    more = [params["training"] for params in cases if params.get("training") not in (None, *ALWAYS)]
    command = [sys.executable, "-m", "tests.madry_cifar.two_replicas", "at", *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("training", mostly_slow(TRAININGS, *ALWAYS, "adam"))
def test_with_synchronized_batch_norm_replicas_train_as_one_device(compared, training):
    """The same images, draws, statistics, transport distance and updates: all but rounding, in float64."""
    assert compared[training]["losses"] < 1e-12
    assert compared[training]["variables"] < 1e-10
    assert compared[training]["between replicas"] == 0


def test_without_it_replicas_stay_together(compared):
    """Each normalises by its own images: another training, but one, in running statistics too."""
    alone = compared["at, statistics of each replica"]
    assert 1e-3 < alone["losses"] < 1
    assert alone["between replicas"] == 0


@pytest.fixture
def workers(start, tiny):
    """workers(folder) starts two processes that train together; the second may send itself a signal."""

    def workers(folder, number=None, steps=0):
        with socket.socket() as first, socket.socket() as second:
            for free in (first, second):
                free.bind(("localhost", 0))
            hosts = [f"localhost:{free.getsockname()[1]}" for free in (first, second)]
        every = ("--checkpoint_every=5", "--log_every=10", "--image_every=10", "--eval_every=10", "--eval_images=20")
        settings = (*tiny, "--steps=20", "--keep=0", *every, "--eval_attacks=natural", f"--train_dir={folder}")
        settings += ("--strategy=multiworker",)
        tasks = [{"type": "worker", "index": index} for index in range(2)]
        configs = [json.dumps({"cluster": {"worker": hosts}, "task": task}) for task in tasks]
        signalled = ("tests.signalled", number.name, "madry_cifar.training.steps:Steps.train", steps) if number else ()
        commands = [("rvs_tf.train", *settings), (*signalled, "rvs_tf.train", *settings)]
        return [start(*command, TF_CONFIG=config) for command, config in zip(commands, configs, strict=True)]

    return workers


def test_workers_killed_and_started_again_end_as_ones_never_killed(workers, tmp_path):
    for process in workers(tmp_path / "undisturbed"):
        _, err = process.communicate()
        assert process.returncode == 0, err

    chief, _ = workers(tmp_path / "run", signal.SIGKILL, 7)
    _, err = chief.communicate()
    assert chief.returncode == 1, err
    assert re.match(r"error: after step \d+: lost another worker", err.splitlines()[-1])
    assert list(checkpoints.saved_steps(tmp_path / "run")) == [5]

    for process in workers(tmp_path / "run", signal.SIGTERM, 7):  # one of them: all stop after the same step
        _, err = process.communicate()
        assert process.returncode == 128 + signal.SIGTERM, err
    assert "saved; run it again to go on" in err

    for process in workers(tmp_path / "run"):
        _, err = process.communicate()
        assert process.returncode == 0, err
    ended = [checkpoints.read(checkpoints.saved_steps(tmp_path / name)[20]) for name in ("undisturbed", "run")]
    assert ended[0].keys() == ended[1].keys()
    for name, value in ended[0].items():
        np.testing.assert_array_equal(value, ended[1][name], err_msg=name)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "set TF_CONFIG in the environment"),
        ("{", "TF_CONFIG={"),
        ('{"cluster": {"worker": ["a:1"]}}', "no 'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "its task is not among those"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "all of type chief or worker"),
    ],
)
def test_a_cluster_that_cannot_be_used(monkeypatch, text, named):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="TF_CONFIG") as error:
        strategies.make("multiworker")
    assert named in str(error.value)


def test_an_unknown_strategy():
    with pytest.raises(UsageError, match="did you mean 'mirrored'"):
        strategies.make("miror")
