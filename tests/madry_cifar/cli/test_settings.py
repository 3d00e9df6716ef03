"""Settings: what is refused, and by which name; how a class takes over another's field; texts and JSON."""

import dataclasses
import importlib
import re

import pytest

from madry_cifar.cli.errors import UsageError
from madry_cifar.cli.settings import Settings, like, option, required


class Some(Settings):
    folder: str = required("where")
    count: int | None = option(None, "how many", minimum=1)
    share: float = option(0.5, "of all", minimum=0, maximum=1)
    mode: str = option("fast", "how", choices=("fast", "slow"))
    noisy: bool = option(True, "loudly")
    sizes: tuple[int, ...] = option((1, 2), "which", minimum=1)
    names: tuple[str, ...] = option((), "who")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folder": ""}, "--folder=: required: where"),
        ({"folder": None}, "--folder=: required: where"),
        ({"count": 0}, "--count=0: must be at least 1"),
        ({"share": 1.5}, "--share=1.5: must be at most 1"),
        ({"share": float("nan")}, "--share=nan: must be a finite number"),
        ({"mode": "slwo"}, "--mode=slwo: unknown; did you mean 'slow'? Known: fast, slow"),
        ({"sizes": (1, 0)}, "--sizes=0: must be at least 1"),
    ],
)
def test_a_value_that_is_refused_is_named(values, message):
    with pytest.raises(UsageError) as error:
        Some(**{"folder": "f"} | values)
    assert str(error.value) == message


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Some(folder="f").count = 3


def test_texts_as_on_a_command_line():
    texts = {"folder": "f", "count": "3", "share": "1", "noisy": "false", "sizes": "4,, 5", "names": "a, b"}
    expected = Some(folder="f", count=3, share=1.0, noisy=False, sizes=(4, 5), names=("a", "b"))
    assert Some.parse(texts) == expected
    assert Some.parse({"folder": "f", "sizes": ""}) == Some(folder="f", sizes=())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"count": "3.5"}, "--count=3.5: must be a whole number"),
        ({"sizes": "4,x"}, "--sizes=4,x: must be a whole number, or several with commas"),
        ({"noisy": "perhaps"}, "--noisy=perhaps: must be true or false"),
        ({"count": "0"}, "--count=0: must be at least 1"),
    ],
)
def test_a_text_that_is_no_value(text, message):
    with pytest.raises(UsageError) as error:
        Some.parse({"folder": "f"} | text)
    assert str(error.value).startswith(message)


class Sized(Settings):
    epsilon: tuple[float, ...] = option((8.0,), "radius", kind="radius")
    step_size: float = option(2.0, "step", kind="step")
    folders: tuple[str, ...] = option((), "where", kind="path")


def test_sizes_as_papers_write_them():
    assert Sized.parse({"epsilon": "8/255, 4/255.0,2", "step_size": "2/255"}) == Sized(epsilon=(8, 4, 2), step_size=2)
    assert Sized(epsilon=(0.5,)).epsilon == (0.5,)  # in Python, any
    with pytest.raises(UsageError, match=r"--step_size=2/256: must be a number"):
        Sized.parse({"step_size": "2/256"})


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert Sized.parse({"folders": "~/a,b/~,~"}).folders == ("/home/me/a", "b/~", "/home/me")


def test_every_flag_of_a_path_is_known_as_one():
    """By the names that there are: of folders, files and checkpoints."""
    importlib.import_module("experiments.all")
    for command in ("evaluate", "diagnose", "export", "train_advgan", "train_gan"):
        importlib.import_module(f"rvs_tf.{command}")
    for command in ("eval", "export_tf1", "import_tf1", "run_attack"):
        importlib.import_module(f"madry_cifar.{command}")
    classes, seen = [Settings], set()
    for each in classes:
        classes += each.__subclasses__()
        for field in dataclasses.fields(each) if each is not Settings else ():
            if each.__module__.startswith(("madry_cifar.", "rvs_tf.", "experiments.")):
                named = re.search(
                    r"_dir$|^output$|checkpoint$|^purify_with$|^attack$|^starts_from$|^model$|^data$|^runs$|^folder$",
                    field.name,
                )
                assert (field.metadata["kind"] == "path") == bool(named), (each, field.name)
                size = re.search(r"^epsilon$|step_size$", field.name)
                assert (field.metadata["kind"] in ("radius", "step")) == bool(size), (each, field.name)
                seen.add(field.name)
    assert {"work_dir", "target_dir", "surrogate_dir", "advgan_dir", "attack", "starts_from", "epsilon"} <= seen


def test_a_field_like_another_classs():
    class Other(Settings):
        share: float = like(Some, "share", default=0.25, help="of some")
        count: int | None = like(Some, "count")

    fields = {field.name: field for field in dataclasses.fields(Other)}
    assert (Other().share, fields["share"].metadata["help"], fields["share"].metadata["maximum"]) == (
        0.25,
        "of some",
        1,
    )
    with pytest.raises(UsageError, match="--count=0: must be at least 1"):
        Other(count=0)
    assert Some(folder="f").share == 0.5


def test_as_dict_is_ready_for_json():
    content = Some(folder="f").as_dict()
    assert content["sizes"] == [1, 2]
    assert list(content) == [field.name for field in dataclasses.fields(Some)]
