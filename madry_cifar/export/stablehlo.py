"""Functions as StableHLO, the portable input of XLA: from TensorFlow, and back for a check."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from madry_cifar.cli.errors import UsageError

_ALIAS = re.compile(r"parameter_number = (\d+) : i64\}, output_index = array<i64: (\d+)>")


def lower(function: Callable, *args: tf.Tensor | tf.TensorSpec) -> tuple[bytes, dict[int, int]]:
    """A function that XLA compiles (`tf.function(jit_compile=True)`) as a StableHLO program for arguments of `args`.

    The program's inputs are the arguments, then the values of the variables that the function captures, in the order
    of `captured_inputs` of its concrete function. Its outputs are the function's results, flattened, then the new
    values of the variables that it assigns.

    Returns:
      The portable artifact, in the oldest version of the format, so that any reader knows it; and which input each
      output may overwrite, that is which variable it is the new value of.

    Raises:
      UsageError: when this TensorFlow has no StableHLO to give.
    """
    from tensorflow.compiler.mlir.stablehlo import stablehlo  # slow to import, and needed for this alone

    try:
        text = function.experimental_get_compiler_ir(*args)(stage="stablehlo")
    except ValueError as error:
        if "Invalid stage" not in str(error):
            raise
        message = f"--format=stablehlo: TensorFlow {tf.__version__} cannot write it; a newer one can, such as 2.21"
        raise UsageError(None, None, message) from None
    aliases = {int(output): int(number) for number, output in _ALIAS.findall(text.partition("func.func")[0])}
    # TensorFlow wraps the new values of variables in an operation of another dialect, of which a reader of StableHLO
    # need not know. The barrier is written alike, and is an identity too.
    text = text.replace("mhlo.copy", "stablehlo.optimization_barrier")
    return stablehlo.serialize_portable_artifact_str(text, stablehlo.get_minimum_version()), aliases


class Program(NamedTuple):
    """A StableHLO program and what goes in and comes out, in order.

    Attributes:
      code: the portable artifact.
      inputs: name, shape and dtype of each: the arguments, then the variables that it reads or assigns.
      outputs: the same of its results, then of variables' new values, which have the number of the input that they are
        the new value of as `replaces`.
    """

    code: bytes
    inputs: list[dict]
    outputs: list[dict]


def program(
    function: Callable, arguments: Mapping[str, tf.TensorSpec], variables: Mapping[str, tf.Variable]
) -> Program:
    """A function from `arguments` to a dictionary, compiled by XLA, that uses no other variables than these.

    Raises:
      UsageError: as `lower`.
    """
    code, replaces = lower(function, *arguments.values())
    concrete = function.get_concrete_function(*arguments.values())
    names = {id(variable.handle): name for name, variable in variables.items()}
    captured = [names[id(handle)] for handle in concrete.captured_inputs]
    inputs = [_described(name, spec) for name, spec in arguments.items()]
    inputs += [_described(name, variables[name]) for name in captured]
    results = sorted(concrete.structured_outputs.items())  # a dictionary's values come in the order of its keys
    outputs = [_described(name, result) for name, result in results]
    outputs += [inputs[replaces[output]] | {"replaces": replaces[output]} for output in sorted(replaces)]
    return Program(code, inputs, outputs)


def _described(name, value):
    return {"name": name, "shape": value.shape.as_list(), "dtype": value.dtype.name}


def load(program: bytes, results: Sequence[tf.TensorSpec]) -> Callable[..., list[tf.Tensor]]:
    """The program as a function of its inputs, in order, on the CPU; `results` are the types of its outputs.

    It is parsed and compiled from the bytes alone, by the operation through which TensorFlow runs what JAX exports.
    """
    from tensorflow.compiler.tf2xla.python import xla  # slow to import, and needed for this alone

    shapes, types = [spec.shape for spec in results], [spec.dtype for spec in results]
    version = 9  # of the calling convention

    @tf.function(autograph=False)
    def call(*inputs):
        return xla.call_module(inputs, version=version, module=program, Sout=shapes, Tout=types, platforms=["CPU"])

    return lambda *inputs: call(*(tf.convert_to_tensor(np.asarray(value)) for value in inputs))


def run(
    code: bytes, inputs: Sequence[Mapping], outputs: Sequence[Mapping], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the program makes of its inputs, both by name; `inputs` and `outputs` are those of its `Program`."""
    call = load(code, [tf.TensorSpec(output["shape"], output["dtype"]) for output in outputs])
    results = call(*(values[entry["name"]] for entry in inputs))
    return {entry["name"]: value.numpy() for entry, value in zip(outputs, results, strict=True)}
