"""Files of torch.save: only tensors are read from them, with `weights_only`, and nothing in them is run."""

import pathlib
import re
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from madry_cifar.cli.errors import UsageError
from madry_cifar.runs.files import replacing


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError:
        remedy = "pip install 'robustness-via-synthesis[torch]'"
        raise UsageError(None, None, f"PyTorch reads and writes these files, and is not installed: {remedy}") from None
    return torch


def load(path: str) -> Any:
    """What a file of torch.save holds, in either of its formats: the tensors in it as float32 arrays.

    Raises:
      UsageError: without PyTorch, or for a file that cannot be read without running code.
    """
    torch = _torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bare pickles
            content = torch.load(path, map_location="cpu", weights_only=True)
        return _as_arrays(content, torch.Tensor)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UsageError("checkpoint", path, f"cannot be read ({error.strerror})") from None
    except Exception as error:  # a file may hold anything, and PyTorch's reader then raise anything
        raise UsageError("checkpoint", path, _refusal(" ".join(str(error).split()))) from None


def _as_arrays(content, tensor):
    if isinstance(content, Mapping):
        return {name: _as_arrays(value, tensor) for name, value in content.items()}
    return content.detach().float().numpy() if isinstance(content, tensor) else content


def _refusal(message):
    """Why a file is not read, from what PyTorch's reader says."""
    if "TorchScript" in message:
        return "a TorchScript program, which is not run: save its weights, torch.save(model.state_dict(), FILE)"
    if code := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"pickles {code[1]}, code that would be run, beside weights: not read; if it is a whole model, save its "
            "weights where its code is, torch.save(model.state_dict(), FILE)"
        )
    detail = "" if "Unpickler" in message or len(message) < 10 else f" ({message[:80]})"
    return f"not written by torch.save, or damaged{detail}; a bare pickle is never read"


def save(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as tensors, a state_dict.

    Raises:
      UsageError: without PyTorch, or where the file cannot be written.
    """
    torch = _torch()
    try:
        with replacing(pathlib.Path(path)) as temporary:
            torch.save({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, temporary)
    except (OSError, RuntimeError) as error:
        raise UsageError("output", path, f"cannot be written ({getattr(error, 'strerror', None) or error})") from None
