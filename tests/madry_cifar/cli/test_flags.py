import io
import sys
import types

import pytest
import tensorflow as tf
from rich import box
from rich.console import Console
from rich.table import Table

from madry_cifar.cli import flags
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.cli.settings import Settings, option, required
from madry_cifar.training.options import Options


class First(Settings):
    count: int = option(3, "how many", minimum=1)
    text: str | None = option(None, "what")


class Second(Settings):
    download: bool = option(False, "get it")
    sizes: tuple[float, ...] = option((1.0, 0.5), "which", maximum=2)


class Both(Second, First):
    pass


class Named(Settings):
    name: str = required("what it is called")


class SomeOptions(Options):
    epsilon: float = option(8.0, "radius", minimum=0, kind="radius")
    step_size: float = option(2.0, "step", kind="step")
    noisy: bool = option(True, "add noise")
    mode: str = option("a", "what to do", choices=("a", "b"))


SOME = types.SimpleNamespace(name="some", Options=SomeOptions)
PLAIN = types.SimpleNamespace(name="plain", Options=Options)


def define():
    flags.define("First", First)
    flags.define("Second", Second)
    flags.define_option_flags({"plain": PLAIN, "some": SOME})


@pytest.fixture
def command(invoke):
    """command(main, *arguments) runs a command with the flags above."""

    def command(main, *arguments):
        def entry():
            define()
            flags.run(main, "What it does.\n\n  python -m it")

        return invoke(entry, *arguments)

    return command


@pytest.fixture
def options(command):
    """options(defense, *arguments) are what the flags give the defence, or the line on stderr."""

    def options(defense, *arguments):
        given = []
        status, _, err = command(lambda: given.append(flags.given_options(defense)), *arguments)
        assert status == (0 if given else 2)
        return given[0] if given else err

    return options


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("a", 1, "no"), 2, "error: --a=1: no\n"),
        (RunError("it broke"), 1, "error: it broke\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "error: /x: No such file or directory\n"),
        (OSError("full"), 1, "error: input/output: full\n"),
    ],
)
def test_an_expected_error_is_a_line_and_a_status(command, error, status, line):
    assert command(raising(error)) == (status, "", line)


def test_a_run_ended_by_a_signal(command):
    error = RunError("stopped")
    error.number = 15
    assert command(raising(error)) == (143, "", "error: stopped\n")


def test_out_of_disk_space_is_not_out_of_memory(command):
    full = tf.errors.ResourceExhaustedError(
        None, None, "{{function_node a_b}} /x/ckpt; No space left on device [Op:SaveV2]"
    )
    assert command(raising(full)) == (1, "", "error: out of disk space: /x/ckpt; No space left on device\n")
    memory = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
    assert "; a smaller --batch_size needs less memory\n" in command(raising(memory))[2]


def test_who_interrupts_is_told_that_it_resumes(invoke):
    status, _, err = invoke(lambda: flags.run(raising(KeyboardInterrupt()), "It.", resumes=True))
    assert (status, err) == (130, "error: interrupted; the same command goes on after the last batch\n")


def test_an_error_of_the_program_is_not_hidden(command):
    with pytest.raises(ZeroDivisionError):
        command(lambda: 1 / 0)


def test_settings_are_what_was_given_or_the_defaults(command):
    seen = []

    def main():
        seen.extend([flags.read(Both), flags.read(First, count=7), flags.given(Both), flags.given(First)])

    assert command(main, "--count=5", "--download", "--text=a b") == (0, "", "")
    assert seen == [
        Both(count=5, text="a b", download=True, sizes=(1.0, 0.5)),
        First(count=7, text="a b"),
        {"count": 5, "text": "a b", "download": True},
        {"count": 5, "text": "a b"},
    ]


def test_several_values(command):
    seen = []
    assert command(lambda: seen.append(flags.read(Second).sizes), "--sizes=1,,.25") == (0, "", "")
    assert command(lambda: seen.append(flags.read(Second).sizes), "--sizes=") == (0, "", "")
    assert seen == [(1.0, 0.25), ()]


def test_texts_for_flags_that_were_not_given(command):
    seen = []

    def main():
        flags.give({"count": "5", "sizes": "2"})
        seen.extend([flags.read(Both), flags.given(Both)])

    assert command(main, "--count=4") == (0, "", "")
    assert seen == [Both(count=4, sizes=(2.0,)), {"count": 4, "sizes": (2.0,)}]


def test_a_value_that_is_required(invoke):
    def entry():
        flags.define("First", Named, name={"help": "its name"})
        flags.run(lambda: flags.read(Named), "It.")

    assert "  --name: its name (required)" in invoke(entry, "--help")[1].splitlines()
    assert invoke(entry) == (2, "", "error: --name=: required: what it is called\n")
    assert invoke(entry, "--name=") == (2, "", "error: --name=: required: what it is called\n")
    assert invoke(entry, "--name=x") == (0, "", "")


def test_a_commands_own_default(invoke):
    seen = []

    def entry():
        flags.define("First", First, count={"default": 8}, text={"default": "a"})
        flags.run(lambda: seen.append(flags.read(First)), "It.")

    assert "  --text: what [a]" in invoke(entry, "--help")[1].splitlines()
    assert invoke(entry, "--count=9") == (0, "", "")
    assert seen == [First(count=9, text="a")]


def test_a_flagfile_that_is_no_text(command, tmp_path):
    (tmp_path / "binary.flags").write_bytes(b"\xff\xfe\x00")
    status, _, err = command(raising(AssertionError), f"--flagfile={tmp_path / 'binary.flags'}")
    assert (status, err) == (2, "error: a --flagfile is not a text file\n")


def test_flagfile(command, tmp_path):
    (tmp_path / "some.flags").write_text("# a comment\n--count=7\n--download\n--nonoisy\n")
    seen = []

    def main():
        seen.extend([flags.given(Both), flags.read_flagfile(tmp_path / "some.flags")])

    assert command(main, f"--flagfile={tmp_path / 'some.flags'}") == (0, "", "")
    assert seen == [{"count": 7, "download": True}, {"count": "7", "download": "true", "noisy": "false"}]


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--cuont=5", "--cuont: unknown; did you mean --count?"),
        ("--bs=5", "--bs: unknown; did you mean --batch_size?"),
        ("--lr=5", "--lr: unknown; did you mean --learning_rate_boundaries, --learning_rate_epochs, --learning_rates?"),
        ("--nothing_like_it=5", "--nothing_like_it: unknown; --help lists the flags"),
        ("--count=five", "--count=five: must be a whole number"),
        ("--count=0", "--count=0"),
        ("--count=2.5", "--count=2.5: must be a whole number"),
        ("--count", "count"),
        ("--sizes=1,b", "--sizes=1,b: must be a number"),
        ("--sizes=1,3", "--sizes=3.0: must be at most 2"),
        ("--epsilon=a", "--epsilon=a: must be a number"),
        ("--download=perhaps", "--download=perhaps: must be true or false"),
        ("--flagfile=/none.flags", "--flagfile=/none.flags: No such file or directory"),
        ("stray", "unexpected argument 'stray'"),
    ],
)
def test_what_is_typed_wrong_is_named(command, argument, named):
    ran = []
    status, out, err = command(lambda: ran.append(flags.read(Both)), argument)
    assert (status, out, ran) == (2, "", [])
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert named in err
    for words in ("invalid literal", "could not convert", "Non-boolean", "Errno", "codec"):  # Python's own
        assert words not in err


@pytest.mark.parametrize("argument", ["--help", "-h", "-help", "--helpfull", "--helpshort"])
def test_help(command, argument):
    status, out, err = command(raising(AssertionError), argument)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["What it does.", "", "  python -m it"]
    for line in (
        *("First:", "  --count: how many [3]", "  --text: what"),
        *("Second:", "  --[no]download: get it [False]", "  --sizes: which [1.0,0.5]"),
        *("Defence:", "  --epsilon: radius [some: 8.0]", "  --[no]noisy: add noise [some: True]"),
        "  --batch_size: images per step [128]",
        "  --learning_rates: of the classifier, one after another [0.1,0.01,0.001]",
    ):
        assert line in lines


def test_help_is_wrapped_to_the_terminal(monkeypatch):
    text = "What it does.\n\n  --[no]download: " + 30 * "word " + "[False]\n\nEnd."
    monkeypatch.setenv("COLUMNS", "60")
    assert flags._wrapped(text) == text  # in a file or a pipe
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    first, blank, *option, last, end = flags._wrapped(text).splitlines()
    assert (first, blank, last, end) == ("What it does.", "", "", "End.")
    assert max(map(len, option)) <= 60
    assert [line[:7] for line in option] == ["  --[no", *["      w"] * (len(option) - 2), "      ["]
    assert " ".join(" ".join(option).split()) == text.splitlines()[2].strip()


def test_a_terminal_that_has_not_all_letters(monkeypatch):
    def main():
        print("ε = 8")
        Console().print(Table("± ε", title="attacks", box=box.SIMPLE))

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as end:
        flags.run(main, "It.")
    stream.flush()
    assert end.value.code in (0, None)
    assert stream.buffer.getvalue().startswith(b"? = 8\n")


def test_options_are_the_defaults_unless_given(options):
    assert options(SOME) == SomeOptions()
    given = options(
        SOME,
        "--epsilon=4",
        "--nonoisy",
        "--mode=b",
        "--learning_rates=1,.5",
        "--batch_size=2",
        "--learning_rate_boundaries=7",
    )
    assert given == SomeOptions(
        epsilon=4.0, noisy=False, mode="b", learning_rates=(1.0, 0.5), batch_size=2, learning_rate_boundaries=(7,)
    )
    one_rate = options(PLAIN, "--learning_rates=0.1", "--learning_rate_boundaries=")
    assert (one_rate.learning_rates, one_rate.learning_rate_boundaries) == ((0.1,), ())


def test_sizes_of_less_than_a_grey_level_may_be_meant(options):
    assert options(SOME, "--epsilon=8/255", "--step_size=2/255").epsilon == 8
    meant = options(SOME, "--epsilon=0.5", "--step_size=0.1", "--below_one_grey_level")
    assert (meant.epsilon, meant.step_size) == (0.5, 0.1)
    assert options(SOME, "--epsilon=0").epsilon == 0


@pytest.mark.parametrize(
    ("defense", "argument", "line"),
    [
        (PLAIN, "--epsilon=4", "--epsilon=4.0: does not apply to --defense=plain"),
        (PLAIN, "--nonoisy", "--noisy=False: does not apply to --defense=plain"),
        (SOME, "--epsilon=-1", "--epsilon=-1.0: must be at least 0"),
        (
            SOME,
            "--epsilon=0.031",
            "--epsilon=0.031: less than one grey level of 255: 8/255 is --epsilon=8 (if it is meant,",
        ),
        (SOME, "--step_size=.007", "--step_size=0.007: less than one grey level of 255: 8/255 is --step_size=8"),
        (SOME, "--step_size=0", "--step_size=0: an attack that takes no step"),
        (SOME, "--epsilon=nan", "--epsilon=nan: must be a finite number"),
        (SOME, "--mode=c", "--mode=c: unknown; Known: a, b"),
        (SOME, "--learning_rates=0.1,x,1", "--learning_rates=0.1,x,1: must be a number, or several with commas"),
        (
            SOME,
            "--learning_rates=0.1",
            "with --learning_rate_boundaries=40000,60000: 1 learning rates need 0 bound",
        ),
        (SOME, "--learning_rate_boundaries=9,5", "the boundaries of the learning rates must rise: [9, 5]"),
    ],
)
def test_options_that_there_are_not(options, defense, argument, line):
    assert line in options(defense, argument)
