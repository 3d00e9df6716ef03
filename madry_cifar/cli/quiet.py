"""Imports TensorFlow without the lines that it writes to stderr while it loads, and in less time.

TensorFlow's C++ libraries log a handful of lines about oneDNN and CUDA before they read any setting
(TF_CPP_MIN_LOG_LEVEL included), so a command's one-line error would drown in them. They go to the file
descriptor itself, hence the redirection there, for the time of the import only; a failed import shows them.

A command whose --help is asked for does without (see `absent`); one that is interrupted meanwhile says so in a line.
Keras has settings of the user's own (keras.json, KERAS_BACKEND); what this package needs of them is seen to here.

Of the five seconds that a command takes to load TensorFlow and to end, Python spends two on looking for garbage among
the million objects that the import makes, of which none is: here while it loads, and in `flags.run` afterwards. Keras
spends another on scikit-learn and Matplotlib, where it finds them, for wrappers and galleries that no command uses.
"""

import contextlib
import gc
import os
import sys
import tempfile

from madry_cifar.cli import absent


@contextlib.contextmanager
def hold_back_stderr():
    """Keeps what is written to file descriptor 2; shows it only if the block raises."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all (a daemon, some notebooks): nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def without_garbage():
    """Collects no garbage meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def hidden(*names: str):
    """Packages that are not loaded yet cannot be imported meanwhile, as if they were not installed."""
    names = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # None: ModuleNotFoundError, which is an ImportError
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


PACKAGES, SCRIPTS = ("madry_cifar", "rvs_tf", "experiments"), ("madry-", "rvs-")
HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def is_command() -> bool:
    """Whether this process is a command of this package: `python -m PACKAGE.NAME`, or a script that was installed."""
    program, given = sys.argv[0], sys.orig_argv
    module = given[given.index("-m") + 1] if "-m" in given[:-1] else ""
    path = os.path.join(*module.split(".")) + ".py"
    run = module.split(".")[0] in PACKAGES and (program == "-m" or program.endswith(path))
    return run or os.path.basename(program).startswith(SCRIPTS)


def _end(kind, error, trace):
    """What a command does with an error that nothing has caught."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted", file=sys.stderr)
    elif absent.installed():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {absent.NEVER: "1"})
    else:
        sys.__excepthook__(kind, error, trace)


def _import_keras():
    """Imports Keras as this package needs it: for a command it is set so, for others' programs it must be."""
    needed = {"backend": "tensorflow", "floatx": "float32", "image_data_format": "channels_last"}
    if COMMAND:
        os.environ["KERAS_BACKEND"] = needed["backend"]
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ImportError(f"Keras, as set by KERAS_BACKEND or keras.json, needs {error.name}; {WANTED}") from None
    if COMMAND:
        keras.config.set_floatx(needed["floatx"])
        keras.config.set_image_data_format(needed["image_data_format"])
    for name, value in needed.items():
        if (there := getattr(keras.config, name)()) != value:
            raise ImportError(f"Keras is set to {name}={there}, here or in keras.json; {WANTED}")


WANTED = "needed are backend=tensorflow, floatx=float32 and image_data_format=channels_last"
OPTIONAL = ("sklearn", "matplotlib")  # that Keras imports where they are installed, and does without
COMMAND = is_command()
if COMMAND:
    sys.excepthook = _end
if COMMAND and not os.environ.get(absent.NEVER) and set(HELP) & set(sys.argv[1:]):
    absent.install()
else:
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # so that an evaluation fits beside a training
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as an exception too
        with hold_back_stderr(), without_garbage(), hidden(*(OPTIONAL if COMMAND else ())):
            import tensorflow  # noqa: F401
    _import_keras()
