"""For --help, which computes nothing: the modules that take seconds to load are absent.

The options of a defence stand beside its networks, so its module is imported to list them. What it takes from
TensorFlow meanwhile (classes to derive from, annotations, decorators) is an `Absent`. Where that is not enough, as may
be in the defence of another package, the command starts anew with the real modules (see `quiet`).
"""

import importlib.machinery
import sys
import types

LIBRARIES = ("tensorflow", "keras", "tensorboard")
NEVER = "MADRY_CIFAR_LOADS_TENSORFLOW"  # the variable of the environment by which all is loaded, even for --help


class Absent(types.ModuleType):
    """A module, and whatever is taken from it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        return self

    __getitem__ = __or__ = __ror__ = __call__

    def __mro_entries__(self, bases):
        return ()


class _Finder:
    """Finds and makes them."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in LIBRARIES:
            return importlib.machinery.ModuleSpec(name, cls, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return Absent(spec.name)

    @staticmethod
    def exec_module(module):
        pass


def installed() -> bool:
    """Whether they are."""
    return _Finder in sys.meta_path


def install() -> None:
    """From here on, `LIBRARIES` are absent."""
    sys.meta_path.insert(0, _Finder)
