"""What the commands for tables and figures have in common: flags in, Snakemake run, the report shown."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from experiments import grid, layout, plan
from experiments.measured import Work
from experiments.report import GridReport, require
from madry_cifar import data, train
from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.runs.files import alone, write_json

OWNER = ".owner.json"  # which process works in a folder
# Ctrl-C while it is being imported ends it, without a traceback; job_log.py sees to it from then on.
SNAKEMAKE = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); from snakemake.cli import main; main()"
GAN_FLAGS = ("--gan_width", "--gan_iterations")
DOC = """{doc}

  python -m experiments.{name} --dataset=cifar10 --data_dir=DATA --work_dir=WORK
  python -m experiments.{name} --profile=smoke --work_dir=WORK      # on embedded digits: does it work?

Trains whatever network is missing in --work_dir, measures whatever result is missing, and writes the report there.
The same command again goes on after an interruption. --plan says what would be done and how long it would take.

A setting of the trainings is that of one defence's rows alone with its name before it: --l2l.attacker_width=4.
"""


def command_for(name: str, doc: str, parts: Sequence[str] = ()) -> Callable[[], None]:
    """The entry point of a command: it makes the table or figure of its name, or these parts; `doc`: what they are."""

    def command():
        grid.define_flags()
        flags.run(lambda: main([*parts] or [name]), DOC.format(doc=doc.strip(), name=name))

    return command


def main(parts: list[str]) -> None:
    """Trains, attacks and reports what is not there yet, or prints the plan."""
    request, given = grid.read_flags()
    require("jinja2", "matplotlib", "snakemake", what="the tables and figures need")
    config = grid.configuration(parts, request, given)
    for name in config["datasets"]:
        data.check_there(name, config["data_dir"], config["download"])
    work = pathlib.Path(request.work_dir).expanduser()
    with contextlib.nullcontext() if request.plan else _alone(work, request.unlock):
        before = _read_config(work)
        for line in _changes(work, before, config):
            print(f"note: {line}", flush=True)
        config |= _with_earlier(work, before, config)
        if request.plan:
            plan.show(plan.due(work, config, snakemake_command), work, config)
            return
        write_json(work / "config.json", config)
        _snakemake(work, request.jobs)
        report = GridReport(Work(work), parts)
        report.show()
    print(f"all of it, with figures and where each number is from: {report.folder / 'report.html'}")


def _read_config(work):
    """The configuration that a work folder was last used with; {} for one without, which is new or holds runs."""
    _check_folder(work)
    if not (work / "config.json").exists():
        return {}
    try:
        return Work(work).config
    except RunError as error:
        raise RunError(f"{error}; delete it, the runs are kept") from None


def _check_folder(work):
    """Raises UsageError for what is no folder, or holds something else than a grid's runs."""
    if work.exists() and not work.is_dir():
        raise UsageError("work_dir", work, "is not a folder")
    there = {path.name for path in work.glob("[!.]*")}
    if there - layout.FOLDERS and "config.json" not in there:
        raise UsageError("work_dir", work, "holds other files and no config.json; choose a new folder")


def _changes(work, before, config):
    """What is set otherwise than when the folder was last used."""
    if before.get("profile", config["profile"]) != config["profile"]:
        reason = f"holds the results of --profile={before['profile']}, which are not mixed with those of "
        raise UsageError("work_dir", work, f"{reason}--profile={config['profile']}; choose another folder")
    if before.get("checkpoints", config["checkpoints"]) != config["checkpoints"]:
        yield "trainings that are finished keep the checkpoints that they have, whatever --checkpoints says now"
    then, now = (_advgan_epochs(each) for each in (before, config))
    if then is not None and now is not None and now < then:
        yield f"AdvGANs that are finished keep their {then} epochs, of which the strongest counts: {now} are fewer"
    earlier = [*before.get("runs", ()), *before.get("earlier_runs", ())]
    earlier = {(run["dataset"], run["row"]): run for run in reversed(earlier)}
    for run in config["runs"]:
        other = earlier.pop((run["dataset"], run["row"]), run)
        if other["id"].split("/")[1] != run["id"].split("/")[1]:
            changed = {flag.partition("=")[0] for flag in {*other.get("flags", ())} ^ {*run["flags"]}}
            if run.get("purified"):
                of_gan = {*before.get("gan_flags", ())} ^ {*config["gan_flags"]}
                changed |= {flag.partition("=")[0].replace("--", "--gan_") for flag in of_gan} & {*GAN_FLAGS}
            yield (
                f"{run['dataset']} {run['row']} was trained with other settings here ({', '.join(sorted(changed))});"
                f" now it is trained in runs/{run['id']}, and nothing is deleted"
            )


def _advgan_epochs(config):
    told = [flag for flag in config.get("advgan_flags", ()) if flag.startswith("--epochs=")]
    return int(told[0].partition("=")[2]) if told else None


def _with_earlier(work, before, config):
    """What the report shows of former calls too: parts, the rows of each, and runs that something was measured of, the
    latest first."""
    ids = {run["id"] for run in config["runs"]}
    runs = [*before.get("runs", ()), *before.get("earlier_runs", ())]
    kept = [run for run in runs if run["id"] not in ids and _is_measured(work / "results" / run["id"])]
    parts = {*before.get("parts", ()), *before.get("earlier_parts", ())} - {*config["parts"]}
    then, now = _shown(before), _shown(config)
    shown = {part: list(dict.fromkeys([*then.get(part, ()), *now.get(part, ())])) for part in then | now}
    return {"earlier_runs": kept, "earlier_parts": sorted(parts), "shown": shown}


def _is_measured(folder):
    return any(folder.glob("*.json")) or any(folder.glob("*.npz"))


def _shown(config):
    """The rows of each part that a configuration, or one before it, asked for."""
    parts = [*config.get("parts", ()), *config.get("earlier_parts", ())]
    return config.get("shown") or {part: config["rows"][part] for part in parts if part in config.get("rows", {})}


def snakemake_command(work: pathlib.Path, config: pathlib.Path, *arguments: str, jobs: int = 1) -> list[str]:
    """Snakemake's command line for the grid of a configuration in a work folder."""
    gpu = ["--resources", "gpu=1"] if train.gpus() else []  # one job at a time on it
    command = [sys.executable, "-c", SNAKEMAKE, "--snakefile", str(grid.HERE / "Snakefile")]
    command += ["--directory", str(work), "--configfile", str(config.absolute()), "--cores", str(jobs), *gpu]
    return [*command, "--rerun-incomplete", "--nocolor", *arguments]


def _snakemake(work, jobs):
    """Runs the grid to its end.

    Raises:
      RunError: when a job failed; its own line stands above.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment["TQDM_DISABLE"] = "1"  # bars of several jobs would overwrite one another
    told = ("--quiet", "rules", "host", "reason", "--config", "log=rows")  # by job_log.py, in the tables' words
    arguments = snakemake_command(work, work / "config.json", *told, jobs=jobs)
    status, received = _run(arguments, environment, lambda process: _own(work, process))  # it may outlive us
    if received:
        raise GridInterrupted(received[0])
    if status:
        raise RunError(f"not finished: see above. The same command goes on where it stopped ({work})")


class GridInterrupted(RunError):
    """A signal ended the grid; its jobs have saved what they had. `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on where it stopped")
        self.number = number


def _run(command, environment, started):
    """The status with which a command ends, and the signals received meanwhile; `started` is given its process.

    SIGINT and SIGTERM are passed on to it and its jobs as Ctrl-C. They are handled before it starts: it would inherit
    that SIGINT is ignored, as in what a script starts in the background.
    """
    received, processes = [], []

    def stop():
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # at SIGTERM Snakemake would wait for its jobs to finish

    def note(number, _):
        received.append(number)
        stop()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        if received:  # while it was being started
            stop()
        started(processes[0].pid)
        return processes[0].wait(), received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _alone(work, unlock):
    """Nobody else works in the folder meanwhile; a lock of Snakemake that a killed command left is released.

    Raises:
      UsageError: when another command works there, or may; for a folder that is another's.
    """
    _check_folder(work)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(work, ".grid.lock", wait=False))
            if list(work.glob(".snakemake/locks/*")):
                _release(work, unlock)
            _own(work, os.getpid())
        except BlockingIOError:
            raise UsageError("work_dir", work, "another command works there; wait for it or choose another") from None
        except OSError as error:
            raise UsageError("work_dir", work, f"cannot be written ({error.strerror})") from None
        stack.callback((work / OWNER).unlink, missing_ok=True)
        yield


def _own(work, process):
    write_json(work / OWNER, {"process": process, "host": socket.gethostname()})


def _release(work, unlock):
    """Releases Snakemake's lock, if whoever took it is known to have ended."""
    owner = {}
    with contextlib.suppress(OSError, ValueError):
        owner = json.loads((work / OWNER).read_text())
    on_this_host = owner.get("host") == socket.gethostname()
    if on_this_host and not unlock and owner["process"] != os.getpid() and _runs(owner["process"]):  # numbers recur
        reason = f"in use by process {owner['process']}; wait for it or choose another; if that process is no command "
        raise UsageError("work_dir", work, f"{reason}of this kind, add --unlock")
    if not on_this_host and not unlock:
        reason = "locked by Snakemake: another command works there, or one was killed; if none does, add --unlock"
        raise UsageError("work_dir", work, reason)
    for path in work.glob(".snakemake/locks/*"):
        path.unlink(missing_ok=True)  # as Snakemake's --unlock does, which needs a whole config.json


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
