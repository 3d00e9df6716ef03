"""Trains what `rvs_tf.export --what=training` wrote, on whatever device JAX has: without TensorFlow.

  python train_xla.py FOLDER                     into FOLDER/run; the same command again goes on
  python train_xla.py FOLDER --seconds=3600      the whole schedule of learning rates within an hour
  python train_xla.py FOLDER --time=100          how long a step takes, and nothing else

Needs jax and numpy; for images that are stored as files Pillow, for curves in TensorBoard the package tensorboard.
Tried with JAX 0.10.2, 0.11.2 and 0.12.0, with 0.11.2 on an NVIDIA GPU, too; another one works if one of the two ways
to run a program does. On such a GPU XLA_FLAGS=--xla_gpu_enable_command_buffer=+while,+conditional makes it faster.

--seconds: 200 updates are timed, then only so many more are made as the time allows, and the number of the step that
decides learning rates and random draws advances by more than one an update, so that the drops come where the schedule
has them and the rest is left out evenly. When updates become slower (transport between better features takes more
iterations), what is left is shared out anew. What was decided is kept in plan.json and holds when the run goes on.

Brought home by: python -m madry_cifar.import_xla --folder=FOLDER/run --train_dir=runs/NAME
"""

import argparse
import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import signal
import sys
import time
import zipfile

import jax
import numpy as np

TIMED = 200  # updates, to know how many more there is time for
PREPARED = 0.25  # the share of --seconds after which timing ends at the latest


class Stop(Exception):
    """Ends the program with a line; `status` is its exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


# Programs


def load_program(folder, name, about):
    """A program as a function of its inputs by name, which are used up where they are variables that it replaces.

    It returns its results and the new values of variables, by name.
    """
    described = about["programs"][name]
    inputs, outputs = described["inputs"], described["outputs"]
    replaced = [output["replaces"] for output in outputs if "replaces" in output]
    code, failed = (folder / f"{name}.stablehlo").read_bytes(), []
    for way in (_as_exported, _by_the_backend):
        try:
            run = way(code, inputs, outputs, replaced)
            break
        except Exception as error:  # of names that this JAX does not have, and others
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            failed.append(f"{way.__name__.strip('_')}: {type(error).__name__} {error}".splitlines()[0][:200])
    else:
        raise Stop(f"jax {jax.__version__} runs {name}.stablehlo in none of the ways known: {'; '.join(failed)}")

    def call(**given):
        arrays = [given[entry["name"]] for entry in inputs]
        return dict(zip([entry["name"] for entry in outputs], run(arrays), strict=True))

    return call


def _as_exported(code, inputs, outputs, replaced):
    """By `jax.export`: the program takes the place of another one with the same inputs and outputs."""
    from jax import export

    def like_it(*arrays):
        return [jax.numpy.zeros(output["shape"], output["dtype"]) for output in outputs]

    specs = [jax.ShapeDtypeStruct(entry["shape"], np.dtype(entry["dtype"])) for entry in inputs]
    exported = export.export(jax.jit(like_it, keep_unused=True))(*specs)
    exported = dataclasses.replace(exported, mlir_module_serialized=code)
    run = jax.jit(exported.call, donate_argnums=tuple(replaced)).lower(*specs).compile()
    return lambda arrays: run(*arrays)


def _by_the_backend(code, inputs, outputs, replaced):
    from jax.extend import backend
    from jaxlib import _jax

    devices = _jax.DeviceList(tuple(jax.devices()[:1]))
    program = backend.get_backend().compile_and_load(code, devices, backend.get_compile_options(1, 1))
    return lambda arrays: program.execute([jax.device_put(array) for array in arrays])


# Files

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what NumPy raises of a damaged file


@contextlib.contextmanager
def replacing(path):
    """A temporary name, which becomes `path` after the block: whole, or not there."""
    temporary = path.with_name(f".writing-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Stop(f"{path} cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path, arrays):
    """Writes an .npz."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def write_json(path, content):
    """Writes JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path):
    """What is in a file. Raises Stop."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Stop(f"{path} cannot be read ({error}); is it what rvs_tf.export --what=training wrote?", 2) from None


@contextlib.contextmanager
def alone(folder):
    """Keeps other processes out of the folder."""
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop(f"another process trains into {folder}; wait for it, or give another --output", 2) from None
        yield


class Checkpoints:
    """All variables after an update, in `checkpoint-UPDATE.npz`; the latest few are kept."""

    def __init__(self, folder, keep):
        self.folder, self.keep, self.saved = folder, keep, None

    def files(self):
        """By update."""
        numbers = {path: path.stem.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*.npz")}
        return dict(sorted((int(number), path) for path, number in numbers.items() if number.isdecimal()))

    def latest(self):
        """What is in the latest that can be read; None if there is none."""
        for path in reversed(self.files().values()):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    found = dict(stored)
                self.saved = int(found["update"])
                return found
            except UNREADABLE as error:
                print(f"warning: {path} cannot be read ({error}); going on from one before it", file=sys.stderr)
                path.rename(path.with_suffix(".damaged"))
        return None

    def save(self, variables, update, step):
        """Saves, unless that is saved already. Raises Stop for a variable that is not finite."""
        if update == self.saved:
            return
        arrays = {name: np.asarray(value) for name, value in variables.items()}
        for name, array in arrays.items():
            if not np.all(np.isfinite(array)):
                raise Stop(f"update {update}: {name} is not finite; not saved. The last good one: {self.last()}")
        write_arrays(self.folder / f"checkpoint-{update}.npz", arrays | {"update": update, "step": step})
        self.saved = update
        for path in [path for number, path in self.files().items() if number <= update][: -self.keep]:
            path.unlink(missing_ok=True)

    def last(self):
        """The name of the latest file."""
        return next((path.name for path in reversed(self.files().values())), "none")


class Log:
    """What is seen of the training: log.jsonl, one entry a line, and TensorBoard's curves where that is installed."""

    def __init__(self, folder, update, step):
        self.path, self.writer = folder / "log.jsonl", None
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _entry(line).get("update", 0) <= update]  # the rest is done again
        with replacing(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept))
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            print("no curves for TensorBoard: pip install tensorboard", file=sys.stderr)
            return
        again = any(folder.glob("events.*"))
        self.events, self.summaries, self.tensors = event_pb2, summary_pb2, tensor_pb2
        self.writer = EventFileWriter(str(folder))
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        for _ in range(2 if again else 0):  # the points after it count no more; the first one is no restart
            self.writer.add_event(event_pb2.Event(wall_time=time.time(), step=step and step + 1, session_log=started))

    def __call__(self, **entry):
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def curves(self, update, step, values):
        """A point of each curve; `step` is that of the schedule."""
        self(update=update, step=step, **{name: round(value, 6) for name, value in values.items()})
        if self.writer:
            summary = self.summaries.Summary(value=[self._point(*each) for each in values.items()])
            self.writer.add_event(self.events.Event(wall_time=time.time(), step=step, summary=summary))
            self.writer.flush()

    def _point(self, tag, value):
        kind = self.summaries.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = self.summaries.SummaryMetadata(plugin_data=kind, data_class=self.summaries.DATA_CLASS_SCALAR)
        tensor = self.tensors.TensorProto(dtype="DT_FLOAT", float_val=[value], tensor_shape={})
        return self.summaries.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _entry(line):
    try:
        return json.loads(line)
    except ValueError:  # half a line, of a process that was killed
        return {"update": float("inf")}


# Data and weights


def load_images(path, name, about):
    """Images [N, 32, 32, 3] uint8 and their labels [N]; `name` is "train" or "evaluated"."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels, provenance = stored[name], stored[f"{name}_labels"], str(stored["provenance"])
            ends = stored.get(f"{name}_ends")
    except UNREADABLE as error:
        raise Stop(f"{path}: no data ({error}); --data=FILE says where they are", 2) from None
    if (provenance, len(labels)) != (about["provenance"], about[f"{name}_images"]):
        wanted = f"{about[f'{name}_images']} of {about['provenance']}"
        raise Stop(f"{path}: {len(labels)} images of {provenance}; this training takes {wanted}", 2)
    if ends is None:
        return images, labels
    try:
        from PIL import Image
    except ImportError:
        raise Stop(f"{path} holds the images as stored files: pip install pillow", 2) from None
    files = images.tobytes()
    starts = [0, *ends[:-1]]
    pictures = [Image.open(io.BytesIO(files[start:end])) for start, end in zip(starts, ends, strict=True)]
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]), labels


def random_images(about):
    """As many as there are, to time on."""
    described = {entry["name"]: entry for entry in about["programs"]["train"]["inputs"]}
    draws, shape = np.random.default_rng(0), described["images"]["shape"]
    return draws.integers(0, 256, shape, np.uint8), draws.integers(0, 10, shape[0], np.int32)


def first_variables(folder, about):
    """What the variables begin as."""
    drawn = load_program(folder, "initial", about)(seeds=np.array(about["seeds"], np.int32).reshape(-1, 2))
    path, values = folder / "variables.npz", {}
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                values = dict(stored)
        except UNREADABLE as error:
            raise Stop(f"{path} cannot be read ({error}); copy it again", 2) from None
    for name, entry in about["variables"].items():
        if entry["start"] == "drawn":
            values[name] = drawn[name]
        elif entry["start"] != "stored":
            values[name] = np.full(entry["shape"], entry["start"], entry["dtype"])
        elif name not in values:
            raise Stop(f"{path}: no {name}", 2)
    return values


# Training


class Plan:
    """Which step of the schedule each update is: the same number, and after a decision so many steps further an update.

    `updates` is how many there are in all, `end` how many steps the schedule has. `parts` are what was decided: from
    which update and step on, by how many steps an update.
    """

    NAMES = ("end", "updates", "parts")

    def __init__(self, path, end, again=None):
        """`end` is that of a new one; of one that was decided it stays, and `again`, if given, must be the same."""
        self.path, self.decided = path, path.exists()
        known = read_json(path) if self.decided else {"end": end, "updates": end, "parts": [[0, 0, 1.0]]}
        self.end, self.updates, self.parts = (known[name] for name in self.NAMES)
        if again not in (None, self.end):
            raise Stop(f"--steps={again}: the time was shared out among {self.end} steps already; leave it out", 2)

    @property
    def latest(self):
        """The update at which it was decided last."""
        return self.parts[-1][0]

    @property
    def stride(self):
        """Steps an update, as was decided last."""
        return self.parts[-1][2]

    def done(self, update):
        """How many steps of the schedule so many updates are."""
        first, step, stride = next(part for part in reversed(self.parts) if part[0] <= update)
        return min(step + int((update - first) * stride + 1e-6), self.end)

    def step(self, update):
        """The number of the step that the update of this number takes, both counted from 0."""
        return min(self.done(update), self.end - 1)

    def reached(self, step):
        """How many updates are at least so many steps of the schedule."""
        first, begun, stride = next(part for part in reversed(self.parts) if part[1] <= step)
        update = first + int((step - begun) / stride)
        return next(number for number in (update, update + 1) if self.done(number) >= step)

    def decide(self, update, more):
        """After `update` updates there is time for `more`: the schedule ends with the last one."""
        step = self.done(update)
        left = self.end - step
        more = min(max(more, 1), left)
        self.parts = [*self.parts, [update, step, left / more]]
        self.updates, self.decided = update + more, True
        write_json(self.path, {name: getattr(self, name) for name in self.NAMES})


class Training:
    """The state of a training, on the device: `variables`, and how many `update`s were made."""

    def __init__(self, folder, about, data):
        self.about, self.flags = about, about["flags"]
        self.images, self.labels = map(jax.device_put, data)
        self.size, self.batch_size = len(data[1]), self.flags["batch_size"]
        self.at_once = about["steps_per_call"]
        self.program = load_program(folder, "train", about)
        self.variables, self.update, self._epoch = {}, 0, (-1, None)

    def start(self, variables, update):
        """From these variables on."""
        self.variables = {name: jax.device_put(variables[name]) for name in self.about["variables"]}
        self.update = update

    def rows(self, update):
        """The rows of the batch of an update: as the project's own training takes them."""
        epoch, place = divmod(update, self.size // self.batch_size)
        if self._epoch[0] != epoch:
            order = np.random.default_rng([self.flags["seed"], epoch]).permutation(self.size)
            self._epoch = epoch, order.astype(np.int32)
        return self._epoch[1][place * self.batch_size : (place + 1) * self.batch_size]

    def advance(self, count, step_of):
        """Makes so many updates at once; returns the losses of the last. Raises Stop for one that is not finite."""
        last = self.update + count - 1
        updates = [min(self.update + k, last) for k in range(self.at_once)]  # of one length; those after the last idle
        outputs = self.program(
            images=self.images,
            labels=self.labels,
            rows=np.stack([self.rows(update) for update in updates]),
            steps=np.array([step_of(update) for update in updates], np.int32),
            count=np.int32(count),
            **self.variables,
        )
        self.variables = {name: outputs.get(name, value) for name, value in self.variables.items()}
        losses = {name: float(value) for name, value in outputs.items() if name.startswith("loss/")}
        if not bool(outputs["finite"]):
            update = self.update + int(outputs["taken"]) - 1
            bad = ", ".join(f"{name} {value}" for name, value in losses.items() if not np.isfinite(value))
            remedy = "lower --learning_rates of the exported run usually help"
            raise Stop(f"update {update} (step {step_of(update)}): {bad}; {remedy}.")
        self.update += count
        return losses


class Evaluation:
    """The accuracies of the variables of a training, in percent. It is compiled when it is needed first."""

    def __init__(self, folder, about, data):
        self.program, self._load = None, lambda: load_program(folder, "evaluate", about)
        self.images, self.labels = data
        self.at_once, self.seed = about["evaluated_at_once"], np.int64(about["flags"]["seed"])

    def __call__(self, variables):
        self.program = self.program or self._load()
        right, count = {}, len(self.labels)
        for first in range(0, count, self.at_once):
            rows = np.minimum(np.arange(first, first + self.at_once), count - 1)
            given = {"images": self.images[rows], "labels": self.labels[rows]}
            outputs = self.program(**given, seed=self.seed, first=np.int64(first), **variables)
            for name, each in outputs.items():
                right[name] = right.get(name, 0) + int(np.asarray(each)[: count - first].sum())
        return {name.partition("/")[2]: 100 * number / count for name, number in right.items()}


class Progress:
    """One line of progress: redrawn on a terminal, else a new one every half a minute; speed is that of the latest."""

    WINDOW = 30  # seconds

    def __init__(self, batch_size, first):
        self.batch_size, self.terminal, self.shown = batch_size, sys.stderr.isatty(), 0.0
        self.begun = self.first = self.each = None
        self.restart(first)

    def restart(self, update):
        """Speed is measured from here on."""
        self.begun, self.first = time.monotonic(), update

    def speed(self, update):
        """Images a second."""
        if update > self.first:
            self.each = max(time.monotonic() - self.begun, 1e-9) / (update - self.first)
        return self.batch_size / self.each

    def __call__(self, update, updates, losses, end=False):
        now = time.monotonic()
        if update == self.first or (now - self.shown < (0.5 if self.terminal else 30) and not end):
            return
        self.shown, speed = now, self.speed(update)
        line = (
            f"update {update:,} of {updates:,} ({100 * update / updates:.0f} %), {speed:,.0f} images/s, "
            f"{_clock((updates - update) * self.each)} left, loss {losses['loss/total']:.4g}"
        )
        print(f"\r{line:<78}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr)
        if now - self.begun >= self.WINDOW:
            self.restart(update)

    def leave(self):
        """Ends the line, before something else is written."""
        if self.terminal and self.shown:
            print(file=sys.stderr)


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Run:
    """A training into a folder, from its latest checkpoint on."""

    def __init__(self, options, folder, out, about, started):
        self.options, self.out, self.about, self.started = options, out, about, started
        flags, data = about["flags"], pathlib.Path(options.data or folder / "data.npz")
        self.plan = Plan(out / "plan.json", options.steps or about["steps"], options.steps)
        self.checkpoints = Checkpoints(out, options.keep)
        known = self.checkpoints.latest()
        self.first = about["checkpoint"] if known is None else int(known["update"])
        if self.first > self.plan.updates or (known is not None and known["step"] != self.plan.done(self.first)):
            raise Stop(f"--steps={self.plan.end}: {self.first} updates were made of a longer schedule", 2)
        self.training = Training(folder, about, load_images(data, "train", about))
        self.evaluation = Evaluation(folder, about, load_images(data, "evaluated", about))
        self.every = {name: getattr(options, name) or flags[name] for name in ("checkpoint_every", "log_every")}
        self.training.start(first_variables(folder, about) if known is None else known, self.first)
        if known is not None:
            print(f"going on after update {self.first}", flush=True)
        self.log = Log(out, self.first, self.plan.done(self.first))
        device = {"device": jax.devices()[0].device_kind, "platform": jax.devices()[0].platform}
        with np.load(data, allow_pickle=False) as stored:
            device["decoded_difference"] = str(stored["decoded_difference"]) or None
        self.log(update=self.first, **device, jax=jax.__version__, end=self.plan.end)
        self.progress = Progress(self.training.batch_size, self.first)
        self.timed_from = None  # update and clock
        self.paused = self.evaluated_in = 0.0  # seconds: all evaluations, and the last

    def run(self):
        """Trains to the end. Raises Stop when a signal or the end of the time comes before, after saving."""
        losses, training = {}, self.training
        with _signals() as received:
            if self.first in self._marks() and not self._weights().exists():
                self._mark()  # it was killed in the middle of it
            while training.update < self.plan.updates:
                if received:
                    self._save()
                    name = signal.Signals(received[0]).name
                    raise Stop(f"stopped by {name}, saved; the same command goes on", 128 + received[0])
                if self._time_is_up():
                    self._save()
                    raise Stop(f"the time is up after update {training.update} of {self.plan.updates}, saved")
                losses = self._advance()
                self._keep_time()
                self.progress(training.update, self.plan.updates, losses)
                if training.update in self._marks():
                    self._mark()
            if losses:
                self.progress(training.update, self.plan.updates, losses, end=True)
            self._save()
        self.progress.leave()
        print(f"trained for {training.update} updates, {self.plan.end} steps of the schedule, in {self.out}")

    def _advance(self):
        """Updates until something is due."""
        training, first = self.training, self.training.update
        ends = [self.plan.updates, *(mark for mark in self._marks() if mark > first)]
        ends += [first + every - first % every for every in self.every.values() if every]
        count = 1 if first == self.first else min(training.at_once, min(ends) - first)
        try:
            losses = training.advance(count, self.plan.step)
        except Stop as error:
            raise Stop(f"{error} The last good checkpoint: {self.checkpoints.last()}") from None
        if first == self.first:
            self.progress.restart(training.update)  # the first one was compiled
        if self._due("log_every") or first == self.first:
            speed = {"speed/images_per_second": self.progress.speed(training.update)} if first > self.first else {}
            self.log.curves(training.update, self.plan.done(training.update), losses | speed)
        if self._due("checkpoint_every"):
            self._save()
        return losses

    def _due(self, event):
        return self.every[event] > 0 and self.training.update % self.every[event] == 0

    def _keep_time(self):
        """Shares out what is left of --seconds: once it is known how long an update takes, and when it takes longer."""
        seconds, update, plan = self.options.seconds, self.training.update, self.plan
        if self.timed_from is None:  # the first update was compiled
            self.timed_from = update, self._clock()
        since, begun = self.timed_from
        if not seconds or update == since or not plan.latest <= update < plan.updates:
            return
        if update - since < TIMED and (plan.decided or time.monotonic() - self.started < PREPARED * seconds):
            return
        each = (self._clock() - begun) / (update - since)
        if not plan.decided and self.options.snapshots:
            self._evaluate()
            self.evaluated_in = min(self.evaluated_in, 0.02 * seconds)  # it was compiled, too
        evaluating = self.evaluated_in * sum(mark > update for mark in self._marks())
        left = seconds - (time.monotonic() - self.started) - 5 - evaluating
        if not plan.decided or (plan.updates - update) * each > left:
            plan.decide(update, int(left / each / 1.03))
            self.log(update=update, ms_per_update=1e3 * each, updates=plan.updates, stride=plan.stride)
            self.progress.leave()
            print(
                f"{plan.updates} updates in all, {plan.stride:.3g} steps of the schedule each from now on", flush=True
            )
        self.timed_from = update, self._clock()

    def _clock(self):
        """Seconds without those of evaluations."""
        return time.monotonic() - self.paused

    def _time_is_up(self):
        return self.options.seconds and time.monotonic() - self.started > self.options.seconds - 3

    def _marks(self):
        """The updates after which the network is evaluated and its weights are kept."""
        plan, count = self.plan, self.options.snapshots
        begin = plan.parts[1][1] if plan.decided else self.about["checkpoint"]
        return {plan.reached(begin + (plan.end - begin) * (k + 1) // count) for k in range(count)}

    def _mark(self):
        """Saves, evaluates, and keeps the weights, which come last: they tell that all of it was done."""
        self._save()
        self._evaluate()
        self._keep_weights()

    def _weights(self):
        return self.out / f"weights-{self.training.update}.npz"

    def _evaluate(self):
        training, paused = self.training, time.monotonic()
        accuracies = self.evaluation(training.variables)
        step = self.plan.done(training.update)
        self.log.curves(training.update, step, {f"evaluation/{name}": value for name, value in accuracies.items()})
        shown = ", ".join(f"{name} {value:.1f}" for name, value in accuracies.items())
        self.progress.leave()
        print(f"after {training.update} updates (step {step}), percent right: {shown}", flush=True)
        self.evaluated_in = time.monotonic() - paused
        self.paused += self.evaluated_in
        self.progress.begun += self.evaluated_in

    def _keep_weights(self):
        """In half precision, but what is too large for it."""
        training, weights = self.training, {}
        for name in self.about["weights"]:
            value = np.asarray(training.variables[name])
            fits = np.abs(value).max(initial=0) <= np.finfo(np.float16).max
            weights[name] = value.astype(np.float16) if fits else value
        numbers = {"update": training.update, "step": self.plan.done(training.update)}
        write_arrays(self._weights(), weights | numbers)

    def _save(self):
        update = self.training.update
        self.checkpoints.save(self.training.variables, update, self.plan.done(update))


@contextlib.contextmanager
def _signals():
    """Collects SIGINT and SIGTERM instead of dying of them; a second one kills."""
    received = []

    def note(number, _):
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def time_steps(folder, about, count, data):
    """Prints how long a step takes: of the run's images, or random ones where they are not there."""
    there = data or (folder / "data.npz").exists()
    images = load_images(data or folder / "data.npz", "train", about) if there else random_images(about)
    training = Training(folder, about, images)
    training.start(first_variables(folder, about), about["checkpoint"])
    begun = time.monotonic()
    training.advance(training.at_once, int)
    first, begun, done = time.monotonic() - begun, time.monotonic(), 0
    while done < count:
        training.advance(training.at_once, int)
        done += training.at_once
    each = (time.monotonic() - begun) / done
    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    found = {"device": device.device_kind, "jax": jax.__version__, "network": about["network"], "steps": done}
    found |= {"ms_per_step": 1e3 * each, "images_per_second": training.batch_size / each}
    print(json.dumps(found | {"first_call_seconds": first, "peak_bytes": peak}))


def options_of(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="what rvs_tf.export --what=training wrote")
    parser.add_argument("--output", type=pathlib.Path, help="where the run is kept [FOLDER/run]")
    parser.add_argument("--data", type=pathlib.Path, help="data.npz, if it is elsewhere [FOLDER/data.npz]")
    parser.add_argument(
        "--steps",
        type=_natural,
        help="where the schedule ends [as the run has it; of an untrained "
        "run of --steps=0, as its defence has by default]",
    )
    parser.add_argument("--seconds", type=_natural, help="fit the whole schedule into this time")
    parser.add_argument("--snapshots", type=_count, default=5, help="evaluations, with weights in half precision [5]")
    parser.add_argument("--checkpoint_every", type=_natural, help="updates [as the run has it]")
    parser.add_argument("--log_every", type=_natural, help="updates [as the run has it]")
    parser.add_argument("--keep", type=_natural, default=2, help="the latest checkpoints to keep [2]")
    parser.add_argument("--time", type=_natural, help="only say how long a step takes, over so many")
    return parser.parse_args(arguments)


def _natural(text, least=1):
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, {least} or more")
    return int(text)


def _count(text):
    return _natural(text, least=0)


def main(arguments=None):
    """Trains as the command line says."""
    started, options = time.monotonic(), options_of(arguments)
    jax.config.update("jax_enable_x64", True)  # else what is stored in 64 bits loses half of them
    try:
        about = read_json(options.folder / "about.json")
        if about.get("what") != "training" or about.get("schema_version") != 1:
            raise Stop(f"{options.folder} is not what rvs_tf.export --what=training of this version wrote", 2)
        if options.time:
            return time_steps(options.folder, about, options.time, options.data)
        out = options.output or options.folder / "run"
        out.mkdir(parents=True, exist_ok=True)
        with alone(out):
            if not (out / "about.json").exists():
                write_json(out / "about.json", about)  # so that it can be brought home without the rest
            elif read_json(out / "about.json") != about:
                raise Stop(f"{out} holds the training of another export; give another --output", 2)
            print(f"{about['defense']}, {about['network']}, on {jax.devices()[0].device_kind}, into {out}", flush=True)
            Run(options, options.folder, out, about, started).run()
    except Stop as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except (OSError, RuntimeError) as error:  # of JAX, too: no memory, no device
        print("error:", " ".join(str(error).split())[:500], file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
