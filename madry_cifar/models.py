"""Models from elsewhere, by what a command line can name: a file, a folder or a Python function."""

import importlib
import inspect
import pathlib
import sys
import zipfile

import keras
import tensorflow as tf

from madry_cifar.cli.errors import UsageError

BY_FUNCTION = "give a function that returns it, --model=package.module:function"


def load_model(name: str):
    """The model called `name`, for `predictor`.

    Args:
      name: a Keras model's file (.keras, .h5), the folder of a SavedModel, or package.module:NAME of something that is
        called with images or, if it takes no argument, returns such a thing. Modules of the current folder count.

    Raises:
      UsageError: where there is none, or it cannot be loaded.
    """
    path = pathlib.Path(name).expanduser()
    module, given, attribute = name.partition(":")
    if given and not path.exists():
        return _from_module(name, module, attribute)
    if not path.exists():
        raise UsageError("model", name, "no such file or folder")
    if path.is_dir():
        return _from_folder(name, path)
    if path.suffix in (".keras", ".h5", ".hdf5"):
        return _from_keras(name, path)
    if path.suffix in (".pt", ".pth", ".tar", ".t7"):
        raise UsageError("model", name, "weights of PyTorch: make a run of them by python -m madry_cifar.import_torch")
    raise UsageError("model", name, "no model: FILE.keras, the folder of a SavedModel or package.module:function")


def _from_module(name, module, attribute):
    sys.path.insert(0, "")  # as for python -m
    try:
        model = getattr(importlib.import_module(module), attribute)
        takes_nothing = not isinstance(model, tf.Module) and callable(model) and not _required(model)
        return model() if takes_nothing else model
    except Exception as error:  # of somebody's code
        raise UsageError("model", name, f"cannot be had: {type(error).__name__}: {_line(error)}") from None
    finally:
        sys.path.remove("")


def _required(function):
    """The arguments that must be given; those that take any number count."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["unknown"]
    return [each for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]


def _from_folder(name, path):
    if (path / "flags.json").exists():
        raise UsageError("model", name, f"a run of this project: --train_dir={name}")
    if not (path / "saved_model.pb").exists():
        raise UsageError("model", name, "the folder holds no SavedModel (no saved_model.pb)")
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # arbitrary bytes may make it raise anything
        raise UsageError("model", name, f"the SavedModel cannot be loaded: {_line(error)}") from None


def _from_keras(name, path):
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # likewise
        if path.suffix == ".keras" and not zipfile.is_zipfile(path):
            reason = "no Keras model (a .keras file is an archive, and this is none)"
        elif path.suffix != ".keras":
            reason = (
                f"Keras {keras.__version__} cannot load this HDF5 file ({_line(error)}); load it with the Keras that "
                "wrote it (tf_keras, if that was Keras 2), and save it as a SavedModel by model.export"
            )
        else:
            reason = f"cannot be loaded ({_line(error)}); if it has classes of your own, {BY_FUNCTION}"
        raise UsageError("model", name, reason) from None


def _line(error):
    """The first line of an error's text, and not more of it than a terminal shows."""
    return " ".join(str(error).strip().split("\n")[0].split())[:150] or type(error).__name__
