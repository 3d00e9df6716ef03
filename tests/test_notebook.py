"""The example notebook, run from its first cell to its last."""

import json
import pathlib

import numpy as np
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "attack_your_model.ipynb"
SMALL = "EPOCHS, IMAGES, ATTACKS, EPSILON = 4, 24, 'natural,fgsm,pgd-20', 16"


@pytest.fixture
def notebook():
    return pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)


def test_it_runs_and_the_model_falls(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (sizes,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    sizes.source = SMALL
    client = nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises CellExecutionError where a cell fails
    found = json.loads((tmp_path / "results.json").read_text())
    accuracies = {name: entry["accuracy"] for name, entry in found["attacks"].items()}
    assert list(accuracies) == ["natural", "fgsm", "pgd-20"]
    assert found["images"] == 24
    assert accuracies["natural"] > 70
    assert max(accuracies["fgsm"], accuracies["pgd-20"]) < accuracies["natural"] - 20
    with np.load(tmp_path / "adversarial.npz") as kept:
        assert kept["images"].shape == (24, 32, 32, 3)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 1
    assert not [output for output in outputs if "\x1b" in output.get("text", "")]  # codes of a terminal


def test_it_is_kept_with_what_it_showed(notebook):
    """So that it reads well on a page; small, and of one run from top to bottom, in which nothing failed."""
    assert NOTEBOOK.stat().st_size < 150_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
