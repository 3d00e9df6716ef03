"""Runs a command that is sent a signal by itself, at a certain call of one of its functions.

  python -m tests.signalled SIGTERM madry_cifar.training.steps:Steps.train 8 rvs_tf.train --train_dir=…

A signal from outside comes when the machine has the time for it, and the command may have ended by then. SIGKILL comes
at a random moment between that call and the next one.
"""

import itertools
import os
import pkgutil
import random
import runpy
import signal
import sys
import threading


def main(name, function, number, module, *arguments):
    owner, _, attribute = function.rpartition(".")
    owner, calls = pkgutil.resolve_name(owner), itertools.count(1 - int(number))
    original = getattr(owner, attribute)

    def send():
        os.kill(os.getpid(), signal.Signals[name])

    def signalled(*args, **kwargs):
        call = next(calls)
        if call == 0 and name == "SIGKILL":
            threading.Timer(random.uniform(0, 0.3), send).start()
        elif call == (name == "SIGKILL"):
            send()
        return original(*args, **kwargs)

    setattr(owner, attribute, signalled)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
