"""The commands' flags: those that there were are there, each defined once, and none is read below `main`."""

import ast
import collections
import importlib
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORDED = json.loads((ROOT / "tests" / "data" / "flags.json").read_text())
OTHER_MEANINGS = {  # in each command, beside those of a training's options
    "batch_size",  # images attacked, perturbed or exported
    "checkpoint",  # of a run, or of TensorFlow 1
    "dataset",  # trained on, or that a model from elsewhere is evaluated on
    "epsilon",  # several, one, or what stored images may differ by
    "jit_compile",  # of a training's step, or of the passes of an evaluation
    "output",
}


def modules(*packages, word):
    """The modules of the packages in whose text there is a word, parsed, by path."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}
    return {path: ast.parse(text) for path, text in texts.items() if word in text}


def test_absls_flags_are_known_to_one_module_alone():
    readers = set()
    for path, tree in modules(
        "madry_cifar", "rvs_tf", "sinkhorn_tf", "experiments", "benchmarks", word="FLAGS"
    ).items():
        for node in ast.walk(tree):
            if "FLAGS" in [getattr(node, name, None) for name in ("id", "attr", "name", "asname")]:
                readers.add(path)
    assert readers == {"madry_cifar/cli/flags.py"}


def test_a_flag_is_defined_once():
    definitions = collections.defaultdict(list)
    for path, tree in modules("madry_cifar", "rvs_tf", word="Settings").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.endswith("Options"):
                for field in node.body:
                    called = getattr(getattr(field, "value", None), "func", None)
                    if isinstance(field, ast.AnnAssign) and getattr(called, "id", None) in ("option", "required"):
                        definitions[field.target.id].append(f"{path}: {node.name}")
    assert {"data_dir", "seed", "train_dir", "steps_per_call"} <= definitions.keys()
    several = {name: where for name, where in definitions.items() if len(where) > 1}
    assert several.keys() == OTHER_MEANINGS, several


@pytest.mark.parametrize("module", sorted(RECORDED))
def test_the_flags_that_there_were_are_there(invoke, module):
    """Names and, but for the options of methods, defaults as --help shows them: other people's scripts rely on them."""
    status, out, _ = invoke(importlib.import_module(module).command, "--help")
    shown = dict(re.findall(r"^  --(?:\[no\])?(\w+): (.*)$", out, re.MULTILINE))
    missing = RECORDED[module].keys() - shown.keys()
    assert (status, missing) == (0, set())
    for name, default in RECORDED[module].items():
        assert not default or shown[name].endswith(f" [{default}]"), name
