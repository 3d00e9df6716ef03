"""The training command with what the other defences need: another network, epochs, weight decay on everything."""

import json

import numpy as np

import rvs_tf.evaluate
import rvs_tf.train
from madry_cifar import load_classifier
from madry_cifar.runs import checkpoints

FLAGS = (
    "--defense=adv_vertex",
    "--attack_steps=2",
    "--depth=10",
    "--width=1",
    "--architecture=standard",
    "--input_scaling=signed",
    "--batch_norm_epsilon=1e-5",
    "--weight_decay_on=all",
    "--max_train_images=70",
    "--batch_size=32",
    "--epochs=2",
    "--learning_rates=0.05,0.01",
    "--learning_rate_epochs=1",
    "--eval_every=0",
    "--image_every=2",
    "--log_every=1",
)


def test_a_run_in_epochs_with_the_standard_network(invoke, digits, tmp_path, curves):
    folder = tmp_path / "run"
    status, out, err = invoke(rvs_tf.train.command, *FLAGS, f"--train_dir={folder}")
    assert status == 0, err
    settings = json.loads((folder / "flags.json").read_text())["flags"]
    expected = {"steps": 4, "learning_rate_boundaries": [1], "architecture": "standard", "input_scaling": "signed"}
    assert settings.items() >= expected.items()  # two batches of 70 images an epoch
    seen = curves(folder)
    assert [value for _, value in sorted(seen["learning_rate/classifier"])] == [
        np.float32(rate) for rate in (0.05, 0.05, 0.01, 0.01)
    ]
    status, out, err = invoke(rvs_tf.train.command, *FLAGS, f"--train_dir={folder}")
    assert (status, "already trained for 4 steps" in out) == (0, True), err
    assert invoke(rvs_tf.evaluate.command, f"--train_dir={folder}", "--attacks=natural", "--max_images=50")[0] == 0
    (file,) = (folder / "results").glob("*.json")
    classifier = load_classifier(folder)
    assert classifier.architecture == "standard"
    assert classifier.units[2].projection is not None
    found = classifier(digits.test.images[:50]).logits.numpy().argmax(axis=1)
    right = 100 * np.mean(found == digits.test.labels[:50])
    assert json.loads(file.read_text())["attacks"]["natural"]["accuracy"] == right
    assert checkpoints.find(folder, None)[0] == 4
