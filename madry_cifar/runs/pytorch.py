"""Checkpoints of the PyTorch code of several defences' authors, to and from ours.

A convolution is [out, in, k, k] there, a dense layer [out, in], a noise map [C, H, W].
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from madry_cifar.cli.errors import UsageError
from madry_cifar.networks import resnet
from madry_cifar.networks.architectures import check_size
from madry_cifar.runs import torch_files
from madry_cifar.runs.checkpoints import flat_state
from madry_cifar.runs.foreign import differences
from madry_cifar.training.method import Defense


class Layout(NamedTuple):
    """How the authors of an architecture call its layers.

    Attributes:
      ends: theirs outside the residual units, by ours.
      unit: theirs of a unit, to be filled with its stage and its place there.
      parts: theirs inside a unit, by ours.
      noise: whether there are maps of the noise's deviation after the first layer and in each unit.
      prefix: of all names, where the authors' class for evaluation wraps the network.
    """

    ends: Mapping[str, str]
    unit: str
    parts: Mapping[str, str]
    noise: bool = False
    prefix: str = ""


_PARTS = {"conv1": "conv1", "norm1": "bn1", "conv2": "conv2", "norm2": "bn2"}
_FIRST = {"init_conv": "conv1", "norm_first": "bn1"}
LAYOUTS = {  # by architecture
    "standard": Layout(  # TRADES and, from it, L2L and ADT; FeatScatter, Adv-interp
        {"init_conv": "conv1", "norm_last": "bn1", "logits": "fc"},
        "block{}.layer.{}",
        _PARTS | {"shortcut": "convShortcut"},
    ),
    "resnet_pad": Layout(_FIRST | {"logits": "linear"}, "layer{}.{}", _PARTS, prefix="feature_extractor."),  # L2L-DA
    "resnet_append": Layout(  # Learn2Perturb's V1
        {"init_conv": "conv_1_3x3", "norm_first": "bn_1", "logits": "classifier"},
        "stage_{}.{}",
        {"conv1": "conv_a", "norm1": "bn_a", "conv2": "conv_b", "norm2": "bn_b"},
        noise=True,
    ),
    "resnet18": Layout(  # its V2
        _FIRST | {"logits": "linear"},
        "layer{}.{}",
        _PARTS | {"shortcut": "shortcut.0", "norm_shortcut": "shortcut.1"},
        noise=True,
    ),
}
_LAST = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
UNUSED = "sub_block1"  # a second first stage in the wide ResNets of TRADES, L2L and ADT, which no forward pass uses
NOISE_ON = "noise.on"  # which a published network has by then
_ANCHOR = "classifier.unit_1_0.conv1.kernel"  # by which a layout is recognized


class Found(NamedTuple):
    """A network in a file: its size, its arrays by their names there, with a prefix, and what else the file holds."""

    path: str
    architecture: str
    depth: int
    width: int
    num_classes: int
    prefix: str
    arrays: dict[str, np.ndarray]
    left_out: list[str]


def name_of(flat: str, architecture: str, depth: int) -> str:
    """The authors' name of one of our variables, for instance of "classifier.unit_1_0.conv1.kernel".

    Raises:
      KeyError: when their code has no such variable.
    """
    layout = LAYOUTS[architecture]
    network, _, path = flat.partition(".")
    *places, last = path.split(".")
    if network == "noise" and layout.noise and not places and (sigma := re.fullmatch(r"sigma_(\d+)", last)):
        stage, unit = divmod(int(sigma[1]) - 1, _units(architecture, depth))
        return f"{layout.unit.format(stage + 1, unit)}.sigma_map" if int(sigma[1]) else "cn1_sigma_map"
    if network == "classifier" and len(places) == 1:
        return f"{layout.ends[places[0]]}.{_LAST[last]}"
    if network == "classifier" and len(places) == 2 and (unit := re.fullmatch(r"unit_(\d+)_(\d+)", places[0])):
        return f"{layout.unit.format(*unit.groups())}.{layout.parts[places[1]]}.{_LAST[last]}"
    raise KeyError(flat)


def _names(flats, architecture, depth):
    """The authors' names by ours, of those variables that they have."""
    names = {}
    for flat in flats:
        try:
            names[flat] = name_of(flat, architecture, depth)
        except KeyError:
            continue
    return names


def _filters(architecture):
    return resnet.KINDS[architecture].filters if architecture in resnet.KINDS else (16, 32, 64)


def _units(architecture, depth):
    """The number of units in a stage of a network of that depth."""
    stages = len(_filters(architecture))
    return (depth - 4) // (2 * stages) if architecture == "standard" else (depth - 2) // (2 * stages)


def to_pytorch(value: np.ndarray) -> np.ndarray:
    """An array of ours with PyTorch's axes."""
    axes = {2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1)}
    return np.ascontiguousarray(value.transpose(axes[value.ndim])) if value.ndim > 1 else value


def from_pytorch(value: np.ndarray) -> np.ndarray:
    """And back."""
    axes = {2: (1, 0), 3: (1, 2, 0), 4: (2, 3, 1, 0)}
    return value.transpose(axes[value.ndim]) if value.ndim > 1 else value


def read(path: str) -> Found:
    """Reads the one network in a file of torch.save.

    Raises:
      UsageError: without PyTorch, for a file that cannot be read without running it, or one of something else.
    """
    return recognize(path, torch_files.load(path))


def recognize(path: str, content: Any) -> Found:
    """The one network among what a file holds: a state_dict of arrays, or a dictionary of it and other things.

    Raises:
      UsageError: where there is none that is known, or several.
    """
    places = [(place, tensors, *each) for place, tensors in _dictionaries(content) for each in _layouts(tensors)]
    if len(places) != 1:
        held = ", ".join(f"{place or 'a state_dict'} with {prefix}*" for place, _, prefix, _ in places)
        raise UsageError("checkpoint", path, f"holds several networks: {held}" if held else _nothing(content))
    place, tensors, prefix, architecture = places[0]
    others = [str(key) for key in content if key != place] if place else []
    tensors = {name: value for name, value in tensors.items() if not name.endswith(".num_batches_tracked")}
    if architecture == "standard" and any(name.startswith(f"{prefix}{UNUSED}.") for name in tensors):
        tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{prefix}{UNUSED}.")}
        others = [f"{UNUSED} (never used)", *others]
    nothing = np.empty(0, np.float32)  # for what is no tensor: of no weight's shape
    arrays = {name: value if isinstance(value, np.ndarray) else nothing for name, value in tensors.items()}
    return Found(path, architecture, *_size(path, architecture, prefix, arrays), prefix, arrays, others)


def _dictionaries(content) -> Iterator[tuple[Any, Mapping]]:
    """What may be a state_dict, and under which key: the content itself, or a value of it."""
    for place, value in [("", content), *(content.items() if isinstance(content, Mapping) else [])]:
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            yield place, value


def _layouts(tensors):
    """The prefix and architecture of each network in a state_dict."""
    for architecture, layout in LAYOUTS.items():
        anchor, stages = name_of(_ANCHOR, architecture, 0), len(_filters(architecture))
        for name in tensors:
            prefix = name.removesuffix(anchor)
            if name.endswith(anchor) and (not prefix or prefix.endswith(".")):
                fourth = any(each.startswith(prefix + layout.unit.format(4, 0)) for each in tensors)
                if fourth == (stages == 4):
                    yield prefix, architecture


def _nothing(content):
    if not isinstance(content, Mapping):
        return f"holds no state_dict, but a {type(content).__name__}"
    names = [name for _, each in _dictionaries(content) for name in each] or list(map(str, content))
    return f"holds none of these networks ({', '.join(LAYOUTS)}), but {', '.join(names[:3])}, …"


def _size(path, architecture, prefix, arrays):
    """Depth, width and number of classes, by the number of units and the shape of the last layer."""
    layout, filters = LAYOUTS[architecture], _filters(architecture)
    stage, kernel = len(filters), f"{layout.parts['conv1']}.weight"
    names = (f"{prefix}{layout.unit.format(stage, unit)}.{kernel}" for unit in itertools.count())
    units = sum(1 for _ in itertools.takewhile(arrays.__contains__, names))
    last = f"{prefix}{layout.ends['logits']}.weight"
    shape = arrays[last].shape if last in arrays else ()
    if len(shape) != 2:
        raise UsageError("checkpoint", path, f"without the matrix {last}, that of the last layer")
    depth = 2 * stage * units + (4 if architecture == "standard" else 2)
    size = (depth, shape[1] // filters[-1], shape[0])
    try:
        check_size(architecture, *size)
    except UsageError as error:
        raise UsageError("checkpoint", path, f"no network of {architecture} ({error})") from None
    return size


def assign(defense: Defense, found: Found) -> list[str]:
    """Gives the networks of a defence the weights that were found.

    Returns:
      The names of networks that the file has nothing of, none of which takes part in a prediction.

    Raises:
      UsageError: naming all that is missing, unmatched or of another shape.
    """
    state = flat_state(defense.networks, {})
    theirs = {flat: found.prefix + name for flat, name in _names(state, found.architecture, found.depth).items()}
    expected = {name: to_pytorch(state[flat].numpy()).shape for flat, name in theirs.items()}
    if listed := differences({name: value.shape for name, value in found.arrays.items()}, expected):
        raise UsageError("checkpoint", found.path, f"its tensors are not those of {found.architecture}: {listed}")
    if needed := sorted(defense.predictor().variables().keys() - theirs.keys() - {NOISE_ON}):
        reason = f"needs what no {found.architecture} of its authors has: {', '.join(needed)}"
        raise UsageError("defense", defense.name, reason)
    for flat, name in theirs.items():
        state[flat].assign(from_pytorch(found.arrays[name]))
    if NOISE_ON in state:
        state[NOISE_ON].assign(1.0)
    return sorted(defense.networks.keys() - {flat.split(".")[0] for flat in theirs})


def state_dict(values: Mapping[str, np.ndarray], architecture: str, depth: int, unused: bool) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint of ours by the authors' names; with `unused` the first stage's as `UNUSED` too.

    Momentum and what the authors' networks do not have is left out.
    """
    prefix = LAYOUTS[architecture].prefix
    names = _names(values, architecture, depth)
    result = {f"{prefix}{name}": to_pytorch(values[flat]) for flat, name in names.items()}
    if unused:
        first = {name: value for name, value in result.items() if name.startswith("block1.")}
        result |= {name.replace("block1", UNUSED, 1): value for name, value in first.items()}
    return result
