"""Checkpoints of the TensorFlow 1 code: MadryLab's cifar10_challenge and the RvS release, to and from ours.

A TensorFlow 1 variable corresponds to one of `checkpoints.flat_variables`; momentum adds "/Momentum" there and
".momentum" here, and `global_step` is our `step`.
"""

import os
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.wide_resnet import WideResNet, check_size
from madry_cifar.runs.checkpoints import flat_variables
from madry_cifar.runs.files import no_pattern
from madry_cifar.runs.foreign import differences

KINDS = {"madry": ("at", "natural"), "rvs": ("rvs",)}  # whose code wrote it → what it may have trained by
# Ours → theirs, the first pattern that matches.
_CLASSIFIER = (
    (r"(unit_1_0)\.norm1\.(\w+)", r"\1/shared_activation/BatchNorm/\2"),
    (r"(unit_\d+_\d+)\.norm1\.(\w+)", r"\1/residual_only_activation/BatchNorm/\2"),
    (r"(unit_\d+_\d+)\.norm2\.(\w+)", r"\1/sub2/BatchNorm/\2"),
    (r"(unit_\d+_\d+)\.conv(\d)\.kernel", r"\1/sub\2/conv\2/DW"),
    (r"norm_last\.(\w+)", r"unit_last/BatchNorm/\1"),
)
_ENDS = {  # the first and last layers, whose names differ between the two
    "madry": {"init_conv.kernel": "input/init_conv/DW", "logits.kernel": "logit/DW", "logits.bias": "logit/biases"},
    "rvs": {
        "init_conv.kernel": "init_conv/DW",
        "logits.kernel": "pre_softmax/DW",
        "logits.bias": "pre_softmax/pre_softmaxbiases",
    },
}
_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
_GENERATOR = {
    "dense.kernel": ("attack/DW", (640, 4096)),
    "dense.bias": ("attack/attackbiases", (4096,)),
    "deconv1.kernel": ("init_deconv/DW", (4, 4, 32, 64)),
    **{f"norm1.{name}": (f"BatchNorm/{name}", (32,)) for name in _STATISTICS},
    "deconv2.kernel": ("deconv2/DW", (4, 4, 16, 32)),
    **{f"norm2.{name}": (f"BatchNorm_1/{name}", (16,)) for name in _STATISTICS},
    "conv3.kernel": ("deconv3/DW", (4, 4, 16, 3)),
}


def name_of(flat: str, kind: str) -> str:
    """The TensorFlow 1 name of one of our variables, for instance of "classifier.unit_1_0.conv1.kernel".

    Raises:
      KeyError: when that code has no such variable.
    """
    if flat.endswith(".momentum"):
        return f"{name_of(flat.removesuffix('.momentum'), kind)}/Momentum"
    network, _, path = flat.partition(".")
    if network == "generator" and kind == "rvs":
        return f"attack_module/{_GENERATOR[path][0]}"
    if path in _ENDS[kind]:
        return _ENDS[kind][path]
    for pattern, theirs in _CLASSIFIER:
        match = re.fullmatch(pattern, path)
        if network == "classifier" and match:
            return match.expand(theirs)
    raise KeyError(f"{flat} has no counterpart in the {kind} code")


def read(prefix: str) -> tuple[str, WideResNet, dict[str, np.ndarray]]:
    """Reads a TensorFlow 1 checkpoint.

    Args:
      prefix: the checkpoint's path without ".index".

    Returns:
      Whose code wrote it (one of `KINDS`), a classifier of its size (whose weights are not set), and the values by
      our names, with "step". Without any momentum in the checkpoint there is none in the values.

    Raises:
      UsageError: no such checkpoint, or one of something else; missing and unmatched variables are named.
      RunError: when it is damaged.
    """
    try:
        with no_pattern(prefix) as plain:
            reader = tf.train.load_checkpoint(plain)
            shapes = reader.get_variable_to_shape_map()
            kind, classifier = _recognize(prefix, shapes)
            theirs = _expected(prefix, kind, classifier, shapes)
            return kind, classifier, {flat: reader.get_tensor(name) for flat, name in theirs.items()}
    except (tf.errors.NotFoundError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError("checkpoint", prefix, "no TensorFlow checkpoint (give its path without .index)") from None
    except (tf.errors.OpError, IndexError, RuntimeError) as error:
        raise RunError(f"checkpoint {prefix}: damaged ({str(error).splitlines()[0]})") from None


def _recognize(prefix, shapes):
    """The kind and size of the network, from the names and shapes of a checkpoint."""
    kinds = [kind for kind, names in _ENDS.items() if names["logits.kernel"] in shapes]
    if len(kinds) != 1:
        raise UsageError(
            "checkpoint",
            prefix,
            "holds neither MadryLab's network (logit/DW) nor the RvS release's "
            f"(pre_softmax/DW), but {', '.join(sorted(shapes)[:3])}, …",
        )
    features, num_classes = shapes[_ENDS[kinds[0]]["logits.kernel"]]
    units = sum(re.fullmatch(r"unit_3_\d+/sub1/conv1/DW", name) is not None for name in shapes)
    depth, width = 6 * units + 4, features // 64
    try:
        check_size(depth, width, num_classes)
    except ValueError as error:
        raise UsageError("checkpoint", prefix, f"not a wide residual network ({error})") from None
    return kinds[0], WideResNet(depth, width, num_classes)


def _expected(prefix, kind, classifier, shapes):
    """Their names of all variables by ours, after checking that the checkpoint has just these."""
    expected = {name: tuple(v.shape) for name, v in flat_variables("classifier", classifier).items()}
    if kind == "rvs":
        expected |= {f"generator.{path}": shape for path, (_, shape) in _GENERATOR.items()}
    if any(name.endswith("/Momentum") for name in shapes):
        trained = {name: shape for name, shape in expected.items() if not name.split(".")[-1].startswith("moving_")}
        expected |= {f"{name}.momentum": shape for name, shape in trained.items()}
    theirs = {flat: name_of(flat, kind) for flat in expected}
    if "init_conv/DW" in shapes:  # forks of MadryLab's code have the first layer outside the scope "input"
        theirs = {flat: name.removeprefix("input/") for flat, name in theirs.items()}
    found = {name: shape for name, shape in shapes.items() if name != "global_step"}
    if listed := differences(found, {name: expected[flat] for flat, name in theirs.items()}):
        raise UsageError(
            "checkpoint",
            prefix,
            f"its variables are not those of WRN-{classifier.depth}-{classifier.width}: {listed}",
        )
    return theirs | ({"step": "global_step"} if "global_step" in shapes else {})


def write(prefix: str, kind: str, values: Mapping[str, np.ndarray]) -> None:
    """Writes values by our names, with "step", as a TensorFlow 1 checkpoint (V2 format) of a kind's code.

    The folder's `checkpoint` file, by which that code finds its latest checkpoint, names it too.

    Raises:
      KeyError: for a variable that this code does not have.
    """
    names = ["global_step" if flat == "step" else name_of(flat, kind) for flat in values]
    tensors = [tf.convert_to_tensor(value) for value in values.values()]
    temporary = f"{prefix}.temporary"
    tf.raw_ops.SaveV2(prefix=temporary, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
    for ending in (".data-00000-of-00001", ".index"):  # the index last: without it there is no checkpoint
        os.replace(temporary + ending, prefix + ending)
    tf.compat.v1.train.update_checkpoint_state(os.path.dirname(prefix) or ".", prefix)
