"""Checkpoints of a run: every network's variables and what the optimizers keep under flat names, and the step.

A variable is called `NETWORK.PATH`, for instance `classifier.unit_1_0.conv1.kernel`, and its momentum
`NETWORK.PATH.momentum` (with Adam: `.m` and `.v`) where the optimizer has the network's name, else
`NETWORK.PATH.OPTIMIZER.momentum`; the number of Adam's updates is `OPTIMIZER.count`. So checkpoints do not depend on
how the objects are nested.
"""

import os
import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.layers import flat_variables, unambiguous
from madry_cifar.training.optimizers import Optimizer

PREFIX = "ckpt"
_DAMAGED = (tf.errors.OpError, IndexError, RuntimeError)  # what TensorFlow raises for damaged files, by their kind


def flat_state(networks: Mapping[str, keras.Model], optimizers: Mapping[str, Optimizer]) -> dict[str, tf.Variable]:
    """All variables of networks and optimizers, given by name as in `Method`, by their flat names.

    Raises:
      ValueError: when an optimizer updates what belongs to no network, or when not every variable has one name of its
        own, as where two optimizers share what they keep.
    """
    state = [item for name, network in networks.items() for item in flat_variables(name, network).items()]
    names = {id(variable): flat for flat, variable in state}
    for name, optimizer in optimizers.items():
        for variable, *slots in zip(optimizer.variables, *optimizer.state.values(), strict=True):
            if id(variable) not in names:
                raise ValueError(f"optimizer {name!r} updates {variable.name} of none of the networks {list(networks)}")
            flat = names[id(variable)]
            owner = flat if flat.startswith(f"{name}.") else f"{flat}.{name}"
            state += [(f"{owner}.{kept}", slot) for kept, slot in zip(optimizer.state, slots, strict=True)]
    return unambiguous([*state, *_counts(optimizers).items()])


def _counts(optimizers):
    return {f"{name}.count": made.count for name, made in optimizers.items() if made.count is not None}


class Checkpoints:
    """Saves and restores all that a run needs to go on bit for bit.

    Args:
      train_dir: the run's folder.
      networks, optimizers: by name, as in `Method`.
      keep: how many of the latest checkpoints to keep; 0 keeps all.
      writes: whether this process is the one that saves.

    Raises:
      ValueError: when these cannot all be saved; see `flat_state`.
    """

    def __init__(
        self,
        train_dir,
        networks: Mapping[str, keras.Model],
        optimizers: Mapping[str, Optimizer],
        keep=3,
        *,
        writes: bool = True,
    ):
        self.train_dir, self.step = train_dir, tf.Variable(0, dtype=tf.int64, trainable=False)
        self.state, self.counts = flat_state(networks, optimizers), _counts(optimizers)
        self.checkpoint = tf.train.Checkpoint(step=self.step, **self.state)
        folder = str(pathlib.Path(train_dir) / "checkpoints")
        if writes:
            _mend_list(folder, list(saved_steps(train_dir).values()))
        self.manager = tf.train.CheckpointManager(self.checkpoint, folder, keep or None, checkpoint_name=PREFIX)

    def restore_latest(self) -> int:
        """Restores the latest checkpoint, if there is one; returns the number of steps done.

        Raises:
          RunError: when it is damaged, or not one of these networks.
        """
        steps = saved_steps(self.train_dir)
        if not steps:
            return 0
        path, checkpoint = steps[max(steps)], self.checkpoint
        uncounted = self.counts.keys() - read(path).keys() if self.counts else set()
        if uncounted:  # of an earlier version, whose optimizers all made one update a step
            kept = {name: variable for name, variable in self.state.items() if name not in uncounted}
            checkpoint = tf.train.Checkpoint(step=self.step, **kept)
        _restore(checkpoint, path)
        for name in uncounted:
            self.counts[name].assign(self.step)
        return int(self.step)

    def save(self, step: int) -> str:
        """Saves after `step` steps, unless that is saved already; returns the checkpoint's path."""
        if step not in saved_steps(self.train_dir):
            self.step.assign(step)
            self.manager.save(checkpoint_number=step)
        return saved_steps(self.train_dir)[step]


def _mend_list(folder, paths):
    """Makes TensorFlow's list of a folder's checkpoints name those that are there.

    After a crash it may be damaged, lost or behind, and then `CheckpointManager` fails, or never deletes what it does
    not know.
    """
    paths = [os.path.abspath(path) for path in paths]
    try:
        state = tf.train.get_checkpoint_state(folder)
        listed = [] if state is None else [os.path.abspath(path) for path in state.all_model_checkpoint_paths]
    except ValueError:
        listed = None
        pathlib.Path(folder, "checkpoint").unlink()
    if paths and listed != paths:
        times = [os.path.getmtime(f"{path}.index") for path in paths]
        tf.compat.v1.train.update_checkpoint_state(folder, paths[-1], paths, all_model_checkpoint_timestamps=times)


def _restore(checkpoint, path, partial=False):
    try:
        status = checkpoint.restore(path)
        if partial:
            status.expect_partial().assert_existing_objects_matched()
        else:
            status.assert_consumed()
    except (*_DAMAGED, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "choose an older one, or delete its files"
        raise RunError(f"checkpoint {path}: damaged or of another network ({reason}); {remedy}") from None


def saved_steps(train_dir: str | os.PathLike) -> dict[int, str]:
    """The paths of a run's checkpoints by their step, in order."""
    files = pathlib.Path(train_dir, "checkpoints").glob(f"{PREFIX}-*.index")
    names = {path: path.stem.removeprefix(f"{PREFIX}-") for path in files}
    return dict(sorted((int(name), str(path.with_suffix(""))) for path, name in names.items() if name.isdecimal()))


def find(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> tuple[int, str]:
    """The step and path of a run's checkpoint: of the given step or path, or the latest.

    Raises:
      UsageError: when there is none, or not that one (those there are, are named).
    """
    steps = saved_steps(train_dir)
    if not steps:
        raise UsageError("train_dir", train_dir, "holds no checkpoints yet")
    if checkpoint in (None, ""):
        return max(steps), steps[max(steps)]
    for step, path in steps.items():
        named = str(checkpoint) in (str(step), f"{PREFIX}-{step}")
        if named or os.path.abspath(str(checkpoint)) == os.path.abspath(path):
            return step, path
    raise UsageError("checkpoint", checkpoint, f"not among those of {train_dir}: {', '.join(map(str, steps))}")


def read(path: str) -> dict[str, np.ndarray]:
    """All values of a checkpoint by their flat names, with "step".

    Raises:
      RunError: when it is damaged.
    """
    ending = "/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        reader = tf.train.load_checkpoint(path)
        stored = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except _DAMAGED as error:
        raise RunError(f"checkpoint {path}: damaged ({str(error).splitlines()[0]})") from None
    values = {name.removesuffix(ending): value for name, value in stored.items() if name.endswith(ending)}
    del values["save_counter"]
    return {name.replace("..", "."): value for name, value in values.items()}  # TensorFlow doubles a name's dots


def load(variables: Mapping[str, tf.Variable], train_dir: str | os.PathLike, checkpoint=None) -> None:
    """Gives variables, by their flat names, their values in a run's checkpoint (step or path; the latest by default).

    Raises:
      UsageError: when there is no such checkpoint.
      RunError: when it is damaged or does not hold them.
    """
    _restore(tf.train.Checkpoint(**variables), find(train_dir, checkpoint)[1], partial=True)


def load_network(network: keras.Model, name: str, train_dir: str | os.PathLike, checkpoint=None) -> keras.Model:
    """Fills a network with the weights of the one called `name` in a run's checkpoint. Raises as `load`."""
    load(flat_variables(name, network), train_dir, checkpoint)
    return network
