"""The original AutoAttack on a `.keras` export of ours under Keras's torch backend.

It runs in a process of its own, this module, as a process has one backend.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import weakref

import keras
import numpy as np
import tensorflow as tf

from benchmarks import in_torch, machine, peers
from benchmarks.batches import Attacker
from madry_cifar.cli.errors import RunError
from madry_cifar.export import plain_keras

SETTINGS = ("epsilon", "batch_size", "seed", "stages")  # of the subject


def autoattack(subject) -> Attacker:
    """The subject's stages, by a process that lives as long as what is returned.

    Raises:
      UsageError: for a network that cannot be exported.
      RunError: here or when called, where the process has failed.
    """
    in_torch.check_written(subject.classifier, "Keras")
    folder = tempfile.TemporaryDirectory()
    plain_keras.plain(subject.classifier).save(_network(folder.name))
    settings = {name: getattr(subject, name) for name in SETTINGS}
    arguments = folder.name, json.dumps(settings), str(machine.threads())
    command = [sys.executable, "-m", "benchmarks.keras_in_torch", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"KERAS_BACKEND": "torch"}, **pipes)

    def attack(images, labels):
        np.savez(_images(folder.name), images=images, labels=labels)
        with contextlib.suppress(BrokenPipeError):
            print("go", file=process.stdin, flush=True)
        passes = _hear(process)
        if subject.count:
            subject.count(*passes)
        return np.load(_adversarial(folder.name))

    weakref.finalize(attack, _end, process)
    _hear(process)  # that it has begun: no part of the attack
    return attack


def _hear(process):
    """What the process says next, numbers of images that passed forward and backward."""
    if answer := process.stdout.readline():
        return json.loads(answer)
    raise RunError(f"benchmarks.keras_in_torch failed (status {process.wait()}); see above")


def _end(process):
    process.kill()
    process.communicate()


def _network(folder):
    return str(pathlib.Path(folder, "network.keras"))


def _images(folder):
    return str(pathlib.Path(folder, "images.npz"))


def _adversarial(folder):
    return str(pathlib.Path(folder, "adversarial.npy"))


def main(folder: str, settings: str, threads: str) -> None:
    """In the process: attacks the images in the folder each time it is told to, and answers with the passes."""
    import torch

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))  # PyTorch gets as many

    class Network(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            return self.model(255 * pixels.permute(0, 2, 3, 1), training=False)

    passes = np.zeros(2, int)

    def count(forward, backward):
        passes[:] += forward, backward

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        network = Network(keras.saving.load_model(_network(folder))).eval().requires_grad_(False)
        attack = in_torch.autoattack(peers.Subject(None, **json.loads(settings), count=count), network)
        print(json.dumps(passes.tolist()), file=answers, flush=True)
        for _ in sys.stdin:
            passes[:] = 0
            given = np.load(_images(folder))
            np.save(_adversarial(folder), attack(given["images"], given["labels"]))
            print(json.dumps(passes.tolist()), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
