"""What the commands for tables and figures have in common: flags in, Snakemake run, the report shown."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

from absl import flags as absl_flags

from experiments import grid
from madry_cifar import flags, train
from madry_cifar.errors import RunError, UsageError
from madry_cifar.files import write_json

FLAGS = absl_flags.FLAGS
EXTRA = 'pip install -e ".[experiments]"'


def run(parts: list[str], doc: str) -> None:
    """The command that makes these tables and figures."""
    grid.define_flags()
    flags.run(lambda: main(parts), doc)


def main(parts: list[str]) -> None:
    """Trains, attacks and reports what is not there yet, or prints the plan."""
    if not FLAGS.work_dir:
        raise UsageError("--work_dir=: say in which folder runs and results are to be kept")
    _check_installed()
    grid.apply_profile()
    config = grid.configuration(parts)
    work = pathlib.Path(FLAGS.work_dir).expanduser()
    for line in _changes(work, _read_config(work), config):
        print(f"note: {line}", flush=True)
    if FLAGS.plan:
        from experiments import plan

        plan.show(plan.due(work, config, _snakemake_command), work, config)
        return
    from experiments import report

    with _alone(work):
        write_json(work / "config.json", config)
        _snakemake(work)
    report.show(work, parts)


def _check_installed():
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import pandas  # noqa: F401
        import snakemake  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed, which the tables and figures need: {EXTRA}") from None


def _read_config(work):
    """The configuration that a work folder was last used with; {} for a new one."""
    if not work.exists():
        return {}
    if not work.is_dir():
        raise UsageError(f"--work_dir={work}: is not a folder")
    try:
        return json.loads((work / "config.json").read_text())
    except FileNotFoundError:
        if any(work.iterdir()):
            raise UsageError(f"--work_dir={work}: holds other files and no config.json; choose a new folder") from None
        return {}
    except (ValueError, OSError) as error:
        raise RunError(f"{work / 'config.json'}: damaged ({error}); delete it, the runs are kept") from None


def _changes(work, before, config):
    """What is set otherwise than when the folder was last used."""
    if before.get("profile", config["profile"]) != config["profile"]:
        raise UsageError(f"--work_dir={work}: holds the results of --profile={before['profile']}, which are not mixed "
                         f"with those of --profile={config['profile']}; choose another folder")  # fmt: skip
    earlier = {(run["dataset"], run["row"]): run for run in before.get("runs", ())}
    for run in config["runs"]:
        other = earlier.pop((run["dataset"], run["row"]), run)
        if other["id"].split("/")[1] != run["id"].split("/")[1]:
            changed = {flag.partition("=")[0] for flag in {*other["flags"]} ^ {*run["flags"]}}
            yield (f"{run['dataset']} {run['row']} was trained with other settings here ({', '.join(sorted(changed))});"
                   f" now it is trained in runs/{run['id']}, and nothing is deleted")  # fmt: skip


def _snakemake_command(work: pathlib.Path, config: pathlib.Path, *arguments: str) -> list[str]:
    """Snakemake's command line for the grid of a configuration in a work folder."""
    gpu = ["--resources", "gpu=1"] if train.gpus() else []  # one job at a time on it
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(grid.HERE / "Snakefile")]
    command += ["--directory", str(work), "--configfile", str(config.absolute()), "--cores", str(FLAGS.jobs), *gpu]
    return [*command, "--rerun-incomplete", "--nocolor", *arguments]


def _snakemake(work):
    """Runs the grid to its end.

    Raises:
      RunError: when a job failed; its own line stands above.
    """
    environment = dict(os.environ)
    if FLAGS.jobs > 1:
        environment["TQDM_DISABLE"] = "1"  # bars of several jobs would overwrite one another
    arguments = _snakemake_command(work, work / "config.json", "--quiet", "rules", "host", "reason", "--", "report")
    process = subprocess.Popen(arguments, env=environment)
    with _passed_on(process):
        status = process.wait()
    if status:
        raise RunError(f"not finished: see above. The same command goes on where it stopped ({work})")


@contextlib.contextmanager
def _passed_on(process):
    """Ctrl-C reaches Snakemake by itself, SIGTERM through us; we wait until it has ended its jobs."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT,)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _alone(work):
    """Nobody else works in the folder meanwhile; a lock of Snakemake that a killed command left is released.

    Raises:
      UsageError: when another command works there, or may.
    """
    owner = work / ".owner.json"
    try:
        if list(work.glob(".snakemake/locks/*")):
            _release(work, _owner(owner))
        write_json(owner, {"process": os.getpid(), "host": socket.gethostname()})
    except PermissionError as error:
        raise UsageError(f"--work_dir={work}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)


def _owner(file):
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text())
    return {}


def _release(work, owner):
    here = owner.get("host") == socket.gethostname()
    if here and _runs(owner["process"]):
        raise UsageError(
            f"--work_dir={work}: in use by process {owner['process']}; wait for it, or choose another folder"
        )
    if not here and not FLAGS.unlock:
        raise UsageError(f"--work_dir={work}: locked by Snakemake: another command works there, or one was killed; if "
                         "none does, add --unlock")  # fmt: skip
    subprocess.run(_snakemake_command(work, work / "config.json", "--unlock"), check=False, capture_output=True)


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
