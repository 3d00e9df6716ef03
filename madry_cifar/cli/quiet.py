"""Imports TensorFlow without the lines that it writes to stderr while it loads, and in less time.

TensorFlow's C++ libraries log a handful of lines about oneDNN and CUDA before they read any setting
(TF_CPP_MIN_LOG_LEVEL included), so a command's one-line error would drown in them. They go to the file
descriptor itself, hence the redirection there, for the time of the import only; a failed import shows them.

Of the five seconds that a command takes to load TensorFlow and to end, Python spends two on looking for garbage among
the million objects that the import makes, of which none is: here while it loads, and in `flags.run` afterwards.
"""

import contextlib
import gc
import os
import sys
import tempfile


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
        except BaseException:
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


if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # so that an evaluation fits beside a training
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as an exception too
    with hold_back_stderr(), without_garbage():
        import tensorflow  # noqa: F401
