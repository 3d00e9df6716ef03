"""The page of measurements: what is between its marks is made of JSON, the rest stays."""

import json

import pytest

from benchmarks import performance
from madry_cifar.cli.errors import RunError

PAGE = """# Title

Text that stays. <!-- a comment -->

<!-- sinkhorn -->
old
<!-- end -->

More | text.

<!-- step-gpu -->
<!-- end -->
<!-- attacks-small -->
<!-- end -->
last line
"""


def test_tables_are_written_and_text_stays(tmp_path):
    (tmp_path / "sinkhorn.json").write_text(json.dumps({"command": "python -m x", "rows": [{"n": 64}]}))
    page = performance.render(PAGE, tmp_path)
    assert (
        page
        == """# Title

Text that stays. <!-- a comment -->

<!-- sinkhorn -->

**Rows**

| n |
| --: |
| 64 |

`python -m x`

<!-- end -->

More | text.

<!-- step-gpu -->

*not measured: no GPU at hand*

<!-- end -->
<!-- attacks-small -->

*not measured: `python -m benchmarks.attacks`*

<!-- end -->
last line
"""
    )
    assert performance.render(page, tmp_path) == page


@pytest.mark.parametrize(
    ("page", "mark"),
    [
        ("<!-- sinkhorn -->\n", "sinkhorn"),
        ("<!-- end -->\n", "end"),
        ("<!-- sinkhorn -->\n<!-- scaling -->\n<!-- end -->\n", "scaling"),
        ("<!-- unheard-of -->\n<!-- end -->\n", "unheard-of"),
    ],
)
def test_marks_out_of_place(tmp_path, page, mark):
    with pytest.raises(RunError, match=f"<!-- {mark} -->"):
        performance.render(page, tmp_path)


def test_the_page_of_this_repository_shows_every_benchmark():
    page = (performance.ROOT / performance.PAGE).read_text()
    assert [name for name in performance.COMMANDS if f"<!-- {name} -->\n" not in page] == []
    assert performance.render(page, performance.ROOT / performance.KEPT) == page


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a page, in which a benchmark is started as this one: it prints its arguments in JSON."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "performance.md").write_text(PAGE)
    (tmp_path / "benchmarks").mkdir()
    echo = 'import json, sys\nprint("a table")\nprint(json.dumps({"arguments": [{"a": a} for a in sys.argv[1:]]}))\n'
    (tmp_path / "benchmarks" / "sinkhorn.py").write_text(echo)
    (tmp_path / "benchmarks" / "step.py").write_text(echo)
    (tmp_path / "benchmarks" / "autoattack.py").write_text(echo)
    (tmp_path / "benchmarks" / "attacks.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.setattr(performance, "ROOT", tmp_path)
    return tmp_path


def test_chosen_parts_are_measured_and_kept(invoke, checkout):
    reference = "--reference=/some/where"
    status, _, err = invoke(performance.command, "--only=sinkhorn,step-large,step-gpu", reference)
    assert status == 0, err
    kept = {path.name: json.loads(path.read_text()) for path in (checkout / "docs" / "performance").iterdir()}
    assert sorted(kept) == ["sinkhorn.json", "step-large.json"]
    assert "step-gpu: skipped, no GPU at hand" in err
    assert {"a": reference} in kept["step-large.json"]["arguments"]
    assert kept["step-large.json"]["arguments"][-1] == {"a": "--json"}
    assert kept["step-large.json"]["command"].endswith("--reference=DIR")  # nobody else has this folder
    assert "| --json |" in (checkout / "docs" / "performance.md").read_text()


def test_a_part_on_a_run(invoke, checkout):
    """It is skipped where none is given."""
    kept = checkout / "docs" / "performance" / "autoattack-run.json"
    status, _, err = invoke(performance.command, "--only=autoattack-run")
    assert (status, kept.exists()) == (0, False), err
    assert "autoattack-run: skipped, no --train_dir" in err
    status, _, err = invoke(performance.command, "--only=autoattack-run", "--train_dir=/some/run")
    assert status == 0, err
    result = json.loads(kept.read_text())
    assert {"a": "--train_dir=/some/run"} in result["arguments"]
    assert result["command"].endswith("--train_dir=DIR")


def test_without_running_only_the_page_is_written(invoke, checkout):
    status, _, err = invoke(performance.command, "--norun")
    assert status == 0, err
    assert not (checkout / "docs" / "performance").exists()
    assert "*not measured: `python -m benchmarks.sinkhorn`*" in (checkout / "docs" / "performance.md").read_text()


def test_a_failing_benchmark(invoke, checkout):
    status, _, err = invoke(performance.command, "--only=attacks")
    assert status == 1
    assert err.splitlines()[-1] == "error: benchmarks.attacks failed (status 3); see above"
    assert (checkout / "docs" / "performance.md").read_text() == PAGE


def test_unknown_part(invoke, checkout):
    status, _, err = invoke(performance.command, "--only=sinkhron")
    assert status == 2
    assert err.startswith("error: --only=sinkhron: unknown; did you mean 'sinkhorn'?")
