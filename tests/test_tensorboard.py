"""What TensorBoard itself, as a server, finds in a run."""

import json
import re
import socket
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

HPARAMS_REQUEST = {
    "experimentName": "",
    "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
    "colParams": [],
    "startIndex": 0,
    "sliceSize": 10,
}


@pytest.fixture(scope="module")
def ask(start, rvs_run):
    """ask(path, **query) is what a TensorBoard server, started on the folder above the run, answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = (f"--logdir={rvs_run.parent}", "--host=127.0.0.1", f"--port={port}")
    server = start("tensorboard.main", *place, "--load_fast=false")

    def ask(path, **query):
        url = f"http://127.0.0.1:{port}/data/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url) as answer:
            content = answer.read()
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content

    def loaded():
        try:
            return "evaluation/natural" in ask("plugin/scalars/tags")["rvs"]
        except (KeyError, OSError):
            return False

    try:
        server.until(loaded)
        yield ask
    finally:
        server.terminate()
        server.communicate()


def test_curves(ask, rvs_run, curves):
    assert ask("runs") == ["rvs"]
    written = curves(rvs_run)
    assert (
        set(ask("plugin/scalars/tags")["rvs"])
        == set(written)
        == {
            *(f"loss/{name}" for name in ("total", "cross_entropy", "optimal_transport", "weight_decay", "generator")),
            *("batch/natural_accuracy", "batch/own_perturbation_accuracy"),
            *("perturbation/mean_absolute", "perturbation/percent_at_epsilon"),
            *("learning_rate/classifier", "learning_rate/generator", "speed/images_per_second"),
            *("evaluation/natural", "evaluation/pgd-2", "training_images/natural", "training_images/pgd-2"),
        }
    )
    for tag, points in written.items():
        answer = ask("plugin/scalars/scalars", run="rvs", tag=tag)
        assert [step for _, step, _ in answer] == [step for step, _ in points]
        np.testing.assert_allclose([value for _, _, value in answer], [value for _, value in points], rtol=1e-6)


def test_the_steps_and_values_of_the_curves(ask):
    def points(tag):
        return {step: value for _, step, value in ask("plugin/scalars/scalars", run="rvs", tag=tag)}

    assert set(points("loss/optimal_transport")) == {1, *range(2, 41, 2)}
    assert set(points("evaluation/natural")) == {20, 40}
    for network, rate in (("classifier", 0.1), ("generator", 0.01)):
        assert list(points(f"learning_rate/{network}").values()) == pytest.approx([rate] * 21)
    assert all(value >= 0 for value in points("loss/optimal_transport").values())
    assert all(0 < value <= 8 for value in points("perturbation/mean_absolute").values())
    distance, generator = points("loss/optimal_transport"), points("loss/generator")
    assert all(generator[step] < 0 for step in distance)  # what the generator minimises is −D


def test_every_scalar_and_image_is_described(ask):
    described = ask("plugin/scalars/tags")["rvs"] | ask("plugin/images/tags")["rvs"]
    assert all(about["description"] for about in described.values())
    own = described["batch/own_perturbation_accuracy"]["description"]
    assert "as the method itself perturbs it" in own
    assert "<code>evaluation/pgd-N</code>" in own
    assert "Distance D" in described["loss/optimal_transport"]["description"]


def test_one_chart_has_the_accuracies_of_held_out_and_of_training_images(ask, rvs_run, curves):
    [category] = ask("plugin/custom_scalars/layout")["category"]
    [chart] = category["chart"]
    shown = {tag for tag in curves(rvs_run) for line in chart["multiline"]["tag"] if re.search(line, tag)}
    assert shown == {
        f"{images}/{name}" for images in ("evaluation", "training_images") for name in ("natural", "pgd-2")
    }


def test_images(ask):
    tag = "images/natural, perturbation, adversarial"
    assert list(ask("plugin/images/tags")["rvs"]) == [tag]
    shown = ask("plugin/images/images", run="rvs", tag=tag, sample=0)
    assert [image["step"] for image in shown] == [20, 40]
    png = ask(f"plugin/images/individualImage?{shown[-1]['query']}")
    words, enlarged = 14, 3 * 32
    picture = tf.io.decode_png(png).numpy().astype(int)
    assert picture.shape == (3 * (words + enlarged), 8 * enlarged, 3)
    starts = [words, 2 * words + enlarged, 2 * (words + enlarged)]
    natural, perturbation, adversarial = (picture[start : start + enlarged : 3, ::3] for start in starts)
    assert np.abs(natural - adversarial).max() in range(7, 11)  # ε = 8, and rounding
    size = np.abs(perturbation - 127.5).max()
    assert size > 126  # stretched: the largest is black or white
    sure = np.abs(natural - adversarial) > 2
    assert np.all(np.sign(adversarial - natural)[sure] == np.sign(perturbation - 127.5)[sure])


def test_settings_are_shown(ask, rvs_run):
    [tag] = [tag for tag in ask("plugin/text/tags")["rvs"] if tag.startswith("flags")]
    [shown] = ask("plugin/text/text", run="rvs", tag=tag)
    expected = {"defense": "rvs", "steps": 40, "ot_regularizer": True}
    for name, value in expected.items():
        assert f"<td>{name}</td>\n<td>{value}</td>" in shown["text"]
    [group] = ask("plugin/hparams/session_groups", request=json.dumps(HPARAMS_REQUEST))["sessionGroups"]
    assert group["hparams"] | expected == group["hparams"]
    assert group["name"] == str(rvs_run)


def test_hparams_compares_runs_by_accuracy_under_the_same_attacks(ask, rvs_run, curves):
    experiment = ask("plugin/hparams/experiment", request=json.dumps({"experimentName": ""}))
    names = [column["name"] for column in experiment["hparamInfos"]]
    assert names[:5] == ["attack", "defense", "epsilon", "seed", "steps"]  # the five that are shown
    assert {"ot_regularizer", "attack_steps", "beta"} < set(names)  # RvS's, AT's and TRADES's
    metrics = [(metric["name"]["group"], metric["name"]["tag"]) for metric in experiment["metricInfos"]]
    attacks = ("natural", "pgd-20", "pgd-2")
    assert metrics == [
        *(("evaluation", f"evaluation/{name}") for name in attacks),
        *(("", f"evaluation/{name}") for name in ("natural", "pgd-2")),
    ]
    [group] = ask("plugin/hparams/session_groups", request=json.dumps(HPARAMS_REQUEST))["sessionGroups"]
    values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
    written = curves(rvs_run)
    assert values == {f"evaluation/{name}": written[f"evaluation/{name}"][-1][1] for name in ("natural", "pgd-2")}
