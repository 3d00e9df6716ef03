"""The demo from end to end, with trainings of two steps in place of hundreds, and few images."""

import json

from experiments import demo


def test_the_demo(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "TRAINING", dict.fromkeys(demo.TRAINING, "--steps=2 --learning_rate_boundaries=1"))
    monkeypatch.setattr(demo, "EVALUATION", "--attacks=natural,pgd-20 --max_images=20")
    folder = tmp_path / "a folder"
    status, out, err = invoke(demo.command, f"--work_dir={folder}")
    assert status == 0, err
    assert ["defence", "natural", "pgd-20"] in [line.split() for line in out.splitlines()]
    for defense in ("natural", "at", "rvs"):
        (file,) = (folder / defense / "results").glob("*.json")
        accuracies = [entry["accuracy"] for entry in json.loads(file.read_text())["attacks"].values()]
        (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == [defense])
        assert row[1:] == [f"{accuracy:.1f}" for accuracy in accuracies]
    assert "What it does not show" in out
    assert f"--logdir '{folder}'" in out


def test_a_folder_that_is_not_of_a_demo_is_left_alone(invoke, tmp_path):
    (tmp_path / "precious").touch()
    status, _, err = invoke(demo.command, f"--work_dir={tmp_path}")
    assert (status, err.count("\n")) == (2, 1)
    assert (tmp_path / "precious").exists()
