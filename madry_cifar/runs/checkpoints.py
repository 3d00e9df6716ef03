"""Checkpoints of a run: every network's variables and what the optimizers keep under flat names, and the step.

A variable is called `NETWORK.PATH`, for instance `classifier.unit_1_0.conv1.kernel`, and its momentum
`NETWORK.PATH.momentum` (with Adam: `.m` and `.v`) where the optimizer has the network's name, else
`NETWORK.PATH.OPTIMIZER.momentum`; the number of Adam's updates is `OPTIMIZER.count`. So checkpoints do not depend on
how the objects are nested.
"""

import os
import pathlib
import shutil
import sys
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import RunError, UsageError, in_words
from madry_cifar.networks.layers import flat_variables, unambiguous
from madry_cifar.runs.files import naming, no_pattern, replacing
from madry_cifar.training.optimizers import Optimizer

BEST = "best"  # as a --checkpoint: see `selection`
PREFIX = "ckpt"
TEMPORARY = ".writing-"
ENDINGS = (".data-00000-of-00001", ".index")  # the index last: without it there is no checkpoint
_DAMAGED = (tf.errors.OpError, IndexError, RuntimeError, ValueError)  # what TensorFlow raises, by the kind of damage


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


class Damaged(RunError):
    """The files of a checkpoint are not whole."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"checkpoint {path}: damaged ({reason})")


class Checkpoints:
    """Saves and restores all that a run needs to go on bit for bit.

    Args:
      train_dir: the run's folder.
      networks, optimizers: by name, as in `Method`.
      keep: how many of the latest checkpoints to keep; 0 keeps all.
      writes: whether this process is the one that saves; no other may at the same time.

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
        self.train_dir, self.keep, self.step = train_dir, keep, tf.Variable(0, dtype=tf.int64, trainable=False)
        self.state, self.counts = flat_state(networks, optimizers), _counts(optimizers)
        self.kept = self.state.keys() - flat_state(networks, {}).keys()  # by optimizers
        self.saved = None  # after which step this is saved already
        if writes:
            remove_temporary(pathlib.Path(train_dir, "checkpoints"))

    def restore_latest(self) -> int:
        """Restores the latest checkpoint that is whole, if there is one; returns the number of steps done.

        It warns, on stderr, of those that it passes over: what a crash of the machine has left empty or cut.

        Raises:
          RunError: when it is not one of these networks, or none is whole.
        """
        steps, damaged = saved_steps(self.train_dir), []
        for step, path in reversed(steps.items()):
            try:
                self._restore(path)
            except Damaged as error:
                damaged.append(error)
                continue
            for error in damaged:
                print(f"warning: {error}; going on from one before it, after step {step}", file=sys.stderr)
            self.saved = step
            return step
        if damaged:
            raise damaged[0]
        return 0

    def _restore(self, path):
        stored = read(path)
        uncounted = self.counts.keys() - stored.keys()  # of an earlier version, whose optimizers all made one a step
        stored |= {name: stored["step"] for name in uncounted}
        state = self.state | {"step": self.step}
        if foreign := sorted(stored.keys() - state.keys()):
            raise RunError(f"checkpoint {path}: of another network (it also has {foreign[0]})")
        if self.kept and self.kept.isdisjoint(stored):
            raise RunError(
                f"checkpoint {path}: weights alone, without what optimizers keep, so it cannot be gone on with; "
                f"--starts_from={self.train_dir} begins another run with them"
            )
        assign(state, stored, path)

    def save(self, step: int) -> str:
        """Saves after `step` steps, unless that is saved already; returns the checkpoint's path.

        Older ones than `keep` are removed.
        """
        path = pathlib.Path(self.train_dir, "checkpoints", f"{PREFIX}-{step}")
        if step != self.saved:
            self.step.assign(step)
            write(path, self.state | {"step": self.step})
            self.saved = step
            whole = [old for earlier, old in saved_steps(self.train_dir).items() if earlier <= step]
            for old in whole[: -self.keep or 0]:
                for ending in ENDINGS[::-1]:
                    pathlib.Path(old + ending).unlink(missing_ok=True)
            _write_list(self.train_dir)
        return str(path)


def write(path: pathlib.Path, variables: Mapping[str, tf.Variable]) -> None:
    """Writes variables by their flat names as a checkpoint, whole or not at all. The folder is made if it is missing.

    Raises:
      OSError: naming the checkpoint, when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                tf.train.Checkpoint(**variables).write(str(temporary))
            except tf.errors.OpError as error:
                raise OSError(None, in_words(error)) from None
            for ending in ENDINGS:
                written = f"{temporary}{ending}"
                with open(written, "rb") as file:
                    os.fsync(file.fileno())  # before its name is there, even if the machine crashes
                os.replace(written, f"{path}{ending}")
    finally:
        remove_temporary(path.parent)


def remove_temporary(folder: pathlib.Path) -> None:
    """Removes what an unfinished `write`, or TensorFlow's in earlier versions, has left in a folder."""
    for pattern in (f"{TEMPORARY}{PREFIX}-*", f"{PREFIX}-*_temp"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _write_list(train_dir):
    """TensorFlow's own list of a folder's checkpoints, for other programs: here, the files themselves are looked at."""
    names = [os.path.basename(path) for path in saved_steps(train_dir).values()]
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    with replacing(pathlib.Path(train_dir, "checkpoints", "checkpoint")) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def assign(variables: Mapping[str, tf.Variable], stored: Mapping[str, np.ndarray], path: str) -> None:
    """Gives variables, by their flat names, the values that were read of the checkpoint at `path`: all, or none.

    Raises:
      RunError: when it does not hold them.
    """
    for name, variable in variables.items():
        if name not in stored:
            raise RunError(f"checkpoint {path}: of another network (it has no {name})")
        if stored[name].shape != tuple(variable.shape):
            there, here = list(stored[name].shape), list(variable.shape)
            raise RunError(f"checkpoint {path}: of another network ({name} {there} instead of {here})")
    for name, variable in variables.items():
        variable.assign(stored[name])


def saved_steps(train_dir: str | os.PathLike) -> dict[int, str]:
    """The paths of a run's checkpoints by their step, in order."""
    files = pathlib.Path(train_dir, "checkpoints").glob(f"{PREFIX}-*.index")
    names = {path: path.stem.removeprefix(f"{PREFIX}-") for path in files}
    return dict(sorted((int(name), str(path.with_suffix(""))) for path, name in names.items() if name.isdecimal()))


def find(train_dir: str | os.PathLike, checkpoint: int | str | None = None) -> tuple[int, str]:
    """The step and path of a run's checkpoint: of the given step or path, "best" (see `selection`), or the latest.

    Raises:
      UsageError: when there is none, or not that one (those there are, are named).
    """
    steps = saved_steps(train_dir)
    if not steps:
        raise UsageError("train_dir", train_dir, "holds no checkpoints yet")
    if checkpoint in (None, ""):
        return max(steps), steps[max(steps)]
    if checkpoint == BEST:
        from madry_cifar.runs import selection  # which reads checkpoints, too

        checkpoint, _ = selection.best(train_dir)
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
        with no_pattern(path) as plain:
            reader = tf.train.load_checkpoint(plain)
            stored = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    except _DAMAGED as error:
        raise Damaged(path, in_words(error)) from None
    values = {key.removesuffix(ending): value for key, value in stored.items() if key.endswith(ending)}
    values.pop("save_counter", None)  # TensorFlow's, in files of earlier versions
    return {name.replace("..", "."): np.asarray(value) for name, value in values.items()}  # it doubles a name's dots


def load(variables: Mapping[str, tf.Variable], train_dir: str | os.PathLike, checkpoint=None) -> None:
    """Gives variables, by their flat names, their values in a run's checkpoint (step or path; the latest by default).

    Raises:
      UsageError: when there is no such checkpoint.
      RunError: when it is damaged or does not hold them.
    """
    step, path = find(train_dir, checkpoint)
    try:
        stored = read(path)
    except Damaged as error:
        before = [earlier for earlier in saved_steps(train_dir) if earlier < step]
        raise RunError(f"{error}; the one before it: {before[-1] if before else 'none'}") from None
    assign(variables, stored, path)


def load_network(network: keras.Model, name: str, train_dir: str | os.PathLike, checkpoint=None) -> keras.Model:
    """Fills a network with the weights of the one called `name` in a run's checkpoint. Raises as `load`."""
    load(flat_variables(name, network), train_dir, checkpoint)
    return network
