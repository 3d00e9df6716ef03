"""What the grid's work folder holds, and what is cleared away so that it is made again."""

import shutil

import numpy as np
import pytest

from experiments import layout

RUNS = [
    {"id": f"digits/{row}-0/seed-{seed}", "dataset": "digits", "row": row, "seed": seed}
    for row in ("natural", "at", "rvs")
    for seed in (0, 1)
]
CONFIG = {
    "runs": RUNS,
    "rows": {"table2": ["natural", "at", "rvs"], "table3": ["at", "rvs"], "figure2": ["rvs", "at"], "figure4": ["rvs"]},
    "surrogates": ["natural", "at"],
}


def test_files_of_a_table_and_a_figure():
    assert len(layout.measured(CONFIG, "table2")) == 6
    assert "results/digits/rvs-0/seed-1/from-at.json" in layout.measured(CONFIG, "table3")
    assert "results/digits/at-0/seed-1/from-at.json" not in layout.measured(CONFIG, "table3")  # that is white-box
    assert layout.measured(CONFIG, "figure4") == [f"results/digits/rvs-0/seed-{seed}/latent.npz" for seed in (0, 1)]


def test_diagnoses_go_with_the_extended_table():
    assert layout.diagnoses(CONFIG | {"parts": ["table2"]}) == []
    extended = CONFIG | {"parts": ["table2"], "diagnosis_flags": []}
    files = layout.diagnoses(extended)
    assert len(files) == 2 * 6
    assert "results/digits/rvs-0/seed-1/diagnosis.png" in files
    assert layout.diagnoses(extended | {"parts": ["table3"]}) == []


def test_a_diagnosis_has_another_run_of_the_same_seed_as_surrogate():
    surrogates = {run["id"]: layout.diagnosis_surrogate(CONFIG, run) for run in RUNS}
    assert surrogates["digits/rvs-0/seed-1"] == "digits/at-0/seed-1"
    assert surrogates["digits/natural-0/seed-0"] == "digits/at-0/seed-0"
    assert surrogates["digits/at-0/seed-0"] == "digits/natural-0/seed-0"
    assert layout.diagnosis_surrogate({"runs": RUNS[4:]}, RUNS[4]) is None


def test_a_surrogate_has_the_same_seed():
    assert layout.surrogate_of(CONFIG, RUNS[5], "at")["id"] == "digits/at-0/seed-1"


TRAINED = ("runs/digits/at-0/seed-0", "advgan/digits/at-0/seed-0/x1", "gan/digits/at-0/seed-0")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A work folder with a trained run and whole results, as current directory."""
    monkeypatch.chdir(tmp_path)
    for kind in TRAINED:
        folder = tmp_path / kind
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "ckpt-5.index").touch()
        (folder / layout.TRAINED).touch()
    results = tmp_path / "results/digits/at-0/seed-0"
    results.mkdir(parents=True)
    (results / "white-box-table2.json").write_text('[{"schema_version": 1}]')
    np.savez(results / "latent.npz", x=np.arange(1000))
    return tmp_path


def test_what_is_whole_stays(work):
    before = sorted(path for path in work.rglob("*"))
    assert layout.mend(CONFIG) == []
    assert sorted(path for path in work.rglob("*")) == before


@pytest.mark.parametrize(
    "folder", ["runs/digits/at-0/seed-0", "advgan/digits/at-0/seed-0/x1", "gan/digits/at-0/seed-0"]
)
def test_a_training_whose_checkpoints_are_gone_is_done_again(work, folder):
    (work / folder / "checkpoints" / "ckpt-5.index").unlink()
    assert layout.mend(CONFIG)[-1] == f"{folder}: its checkpoints are gone; trained again"
    assert not (work / folder / layout.TRAINED).exists()
    assert layout.mend(CONFIG) == []


@pytest.mark.parametrize("all_of_it", [True, False])
def test_an_advgan_whose_network_is_gone_is_not_in_the_way(work, all_of_it):
    """Its training would refuse another network, again and again."""
    run, advgan = work / "runs/digits/at-0/seed-0", work / "advgan/digits/at-0/seed-0"
    for number in ("", "-2"):
        shutil.rmtree(run if all_of_it else run / "checkpoints")
        kept = f"advgan/digits/at-0/seed-0/of_lost_network_x1{number}"
        told = f"advgan/digits/at-0/seed-0/x1: the network that it was trained against is gone; kept as {kept}"
        assert layout.mend(CONFIG)[0] == told
        assert layout.mend(CONFIG) == []
        assert not (advgan / "x1").exists()
        assert [path.name for path in (work / kept).iterdir()] == ["checkpoints"]
        for folder in (run, advgan / "x1"):  # trained again
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "checkpoints" / "ckpt-5.index").touch()
            (folder / layout.TRAINED).touch()


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["white-box-table2.json", "latent.npz"])
def test_a_damaged_result_is_measured_again(work, name, content):
    file = work / "results/digits/at-0/seed-0" / name
    file.write_bytes(content)
    assert layout.mend(CONFIG) == [f"results/digits/at-0/seed-0/{name}: damaged, or of another version; measured again"]
    assert not file.exists()


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "[3]", "[{}]", '[{"schema_version": 99}]', '{"schema_version": 0}']
)
def test_a_result_of_another_version_or_of_nothing_is_measured_again(work, content):
    file = work / "results/digits/at-0/seed-0/white-box-table2.json"
    file.write_text(content)
    assert len(layout.mend(CONFIG)) == 1
    assert not file.exists()


def test_a_flipped_bit_in_the_arrays_is_seen(work):
    file = work / "results/digits/at-0/seed-0/latent.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert len(layout.mend(CONFIG)) == 1


def test_a_table_is_written_anew_when_it_shows_another_run_of_a_former_call():
    before = layout.shown(CONFIG, "table2")
    runs = [{"id": "digits/rvs-1/seed-1", "row": "rvs"}, {"id": "digits/gat-1/seed-1", "row": "gat"}]
    assert layout.shown(CONFIG | {"earlier_runs": runs}, "table2") == [*before, "digits/rvs-1/seed-1"]
    assert layout.shown(CONFIG | {"earlier_runs": runs[1:]}, "table2") == before
