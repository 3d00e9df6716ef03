"""Figure 4: the points and their embedding, the file, and what TensorBoard's projector makes of the run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from sklearn.manifold import trustworthiness
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector import ProjectorConfig
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

import madry_cifar
import rvs_tf
from madry_cifar import WideResNet, data
from madry_cifar.cli.errors import RunError
from madry_cifar.data.datasets import Split
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints
from rvs_tf.analysis import latent_space, projector
from rvs_tf.analysis.perturber import Perturber

DRAWS = 4
FLAGS = (f"--draws={DRAWS}", "--perplexity=6", "--seed=3")


@pytest.fixture
def copied_run(rvs_run, tmp_path):
    return shutil.copytree(rvs_run, tmp_path / "run")


@pytest.fixture
def flags(copied_run, tmp_path):
    return (f"--train_dir={copied_run}", f"--output={tmp_path}/l.npz", *FLAGS)


def load(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def analysed(run, rvs_run, tmp_path_factory):
    """A run after the command, and the content of the command's file."""
    folder = tmp_path_factory.mktemp("analysed")
    copy = shutil.copytree(rvs_run, folder / "run")
    status, out, err = run("rvs_tf.analysis.latent_space", f"--train_dir={copy}", f"--output={folder}/l.npz", *FLAGS)
    assert status == 0, err
    assert out.splitlines()[-1] == f"{folder}/l.npz"
    assert sorted(path.name for path in folder.iterdir()) == ["l.npz", "run"]
    return copy, load(folder / "l.npz")


@pytest.fixture(scope="module")
def rows(digits):
    """The first test image of each class."""
    return [digits.test.labels.tolist().index(label) for label in range(10)]


def test_the_file(analysed, digits):
    run, content = analysed
    count = 10 * (1 + DRAWS)
    assert {name: (array.shape, array.dtype.kind) for name, array in content.items()} == {
        "checkpoints": ((2,), "i"),
        "embedding": ((2, count, 2), "f"),
        "features": ((2, count, 64), "f"),
        "labels": ((count,), "i"),
        "natural": ((count,), "b"),
        "about": ((), "U"),
    }
    assert content["checkpoints"].tolist() == [25, 40]  # the first and the last kept
    assert content["labels"].reshape(10, 1 + DRAWS).tolist() == [[label] * (1 + DRAWS) for label in range(10)]
    assert content["natural"].reshape(10, 1 + DRAWS).tolist() == [[True] + [False] * DRAWS] * 10
    np.testing.assert_allclose(np.linalg.norm(content["features"], axis=-1), 1, rtol=1e-5)
    about = json.loads(str(content["about"]))
    settings = {
        "schema_version": 1,
        "numbers": "measured",
        "train_dir": str(run),
        "defense": "rvs",
        "images": 10,
        "network": "WRN-10-1",
        "draws": DRAWS,
        "seed": 3,
        "perplexity": 6,
        "variant": "noise",
        "epsilon": 8,
        "provenance": digits.provenance,
    }
    assert about | settings == about
    assert all(divergence > 0 for divergence in about["kl_divergence"])


def test_features_are_those_of_the_classifier(analysed, digits, rows):
    run, content = analysed
    for step, features in zip((25, 40), content["features"].reshape(2, 10, 1 + DRAWS, 64), strict=True):
        classifier, generator = madry_cifar.load_classifier(run, step), rvs_tf.load_generator(run, step)
        natural = digits.test.images[rows].astype(np.float32)
        ours = Perturber(classifier, generator, epsilon=8, group_size=8, draws=DRAWS, seed=3)
        for number, group in enumerate((natural[:8], natural[8:])):  # the batches of the training are of eight
            perturbed = np.concatenate([adversarial[:, 0] for adversarial in ours.adversarial(group, number)])
            for place, image in enumerate(group):
                images = np.concatenate([image[np.newaxis], perturbed[:, place]])
                raw = classifier(images).features.numpy()
                expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
                np.testing.assert_allclose(features[8 * number + place], expected, atol=1e-5)


def test_the_embedding_keeps_neighbours(analysed):
    _, content = analysed
    for features, embedding in zip(content["features"], content["embedding"], strict=True):
        assert trustworthiness(features, embedding, n_neighbors=4) > 0.9
        shuffled = np.random.default_rng(0).permutation(embedding)
        assert trustworthiness(features, shuffled, n_neighbors=4) < 0.7


def test_the_same_again_is_the_same_and_another_draw_is_not(analysed, invoke, flags, tmp_path):
    _, content = analysed
    assert invoke(latent_space.command, *flags)[0] == 0
    again = load(tmp_path / "l.npz")
    np.testing.assert_array_equal(again["embedding"], content["embedding"])
    assert invoke(latent_space.command, *flags, "--seed=4", "--batch_size=8", "--checkpoints=30,35,40")[0] == 0
    other = load(tmp_path / "l.npz")
    assert other["checkpoints"].tolist() == [30, 35, 40]
    differs = np.abs(other["features"][-1] - content["features"][-1]).max(axis=1) > 1e-6
    assert differs.tolist() == (~content["natural"]).tolist()


def test_without_noise_in_training_there_is_none_here(analysed, invoke, flags, copied_run, tmp_path):
    settings = copied_run / "flags.json"
    settings.write_text(settings.read_text().replace('"uniform_noise": true', '"uniform_noise": false'))
    assert invoke(latent_space.command, *flags)[0] == 0
    content = load(tmp_path / "l.npz")
    assert json.loads(str(content["about"]))["variant"] == "no_noise"
    differs = np.abs(content["features"][1] - analysed[1]["features"][1]).max(axis=1) > 1e-6
    assert differs.tolist() == (~content["natural"]).tolist()


# --- TensorBoard's projector


def test_the_projectors_files(analysed, digits, rows):
    run, content = analysed
    config = text_format.Parse((run / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [embedding.tensor_name for embedding in config.embeddings] == ["checkpoint-25", "checkpoint-40"]
    for embedding, features in zip(config.embeddings, content["features"], strict=True):
        stored = np.loadtxt(run / embedding.tensor_path, delimiter="\t")
        np.testing.assert_allclose(stored, features, rtol=1e-5)
        assert embedding.sprite.single_image_dim == [32, 32]
        sprite = tf.io.decode_png((run / embedding.sprite.image_path).read_bytes()).numpy().astype(int)
        assert sprite.shape == (8 * 32, 8 * 32, 3)  # eight times eight hold the 50 points
        for label, row in enumerate(rows):
            top, left = (32 * place for place in divmod(label * (1 + DRAWS), 8))
            tile = sprite[top : top + 32, left : left + 32]
            np.testing.assert_array_equal(tile, digits.test.images[row])
            top, left = (32 * place for place in divmod(label * (1 + DRAWS) + 1, 8))
            change = np.abs(sprite[top : top + 32, left : left + 32] - digits.test.images[row])
            assert 5 < change.max() <= 8
    lines = (run / config.embeddings[0].metadata_path).read_text().splitlines()
    assert lines[0].split("\t") == ["class", "kind", "draw", "image"]
    assert lines[1].split("\t") == ["0", "natural", "0", str(rows[0])]
    assert lines[-1].split("\t") == ["9", "perturbed", str(DRAWS), str(rows[9])]
    assert len(lines) == 1 + len(content["labels"])
    assert {path.name for path in run.iterdir() if path.name.startswith(".")} <= {".training.lock"}


@pytest.mark.parametrize("above", [False, True])
def test_tensorboard_serves_them(analysed, above):
    run, content = analysed
    logdir, name = (str(run.parent), run.name) if above else (str(run), ".")
    multiplexer = EventMultiplexer().AddRunsFromDirectory(logdir)
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, logdir)
    pages = ProjectorPlugin(TBContext(logdir=logdir, data_provider=provider)).get_plugin_apps()

    def ask(page, **query):
        answer = Client(pages[page]).get("/", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer

    assert ask("/runs").json == [name]
    shapes = {e["tensorName"]: e["tensorShape"] for e in ask("/info", run=name).json["embeddings"]}
    assert shapes == {f"checkpoint-{step}": [10 * (1 + DRAWS), 64] for step in (25, 40)}
    for tensor, features in zip(shapes, content["features"], strict=True):
        served = np.frombuffer(ask("/tensor", run=name, name=tensor).data, np.float32)
        np.testing.assert_allclose(served, features.ravel(), rtol=1e-5)
        assert len(ask("/metadata", run=name, name=tensor).text.splitlines()) == 1 + 10 * (1 + DRAWS)
        assert ask("/sprite_image", run=name, name=tensor).content_type == "image/png"


def test_other_checkpoints_replace_those_shown(invoke, flags, copied_run):
    assert invoke(latent_space.command, *flags)[0] == 0
    assert invoke(latent_space.command, *flags, "--checkpoints=25,30")[0] == 0
    names = {f"checkpoint-{step}.{ending}" for step in (25, 30) for ending in ("tsv", "png")}
    assert {path.name for path in (copied_run / "projector").iterdir()} == {*names, "metadata.tsv"}


@pytest.mark.parametrize(("count", "side"), [(1, 1), (4, 2), (5, 3), (10, 4)])
def test_a_sprite_is_a_square_of_the_images(count, side):
    images = np.random.default_rng(0).uniform(0, 255, (count, 2, 3, 3))
    sprite = projector.sprite(images)
    assert (sprite.shape, sprite.dtype) == ((2 * side, 3 * side, 3), np.uint8)
    for place in range(side**2):
        row, column = divmod(place, side)
        tile = sprite[2 * row : 2 * row + 2, 3 * column : 3 * column + 3].astype(float)
        np.testing.assert_allclose(tile, images[place] if place < count else 255, atol=0.5)


# --- What cannot be shown


def test_classes_without_images_are_left_out(invoke, flags, digits, monkeypatch, tmp_path):
    kept = np.isin(digits.test.labels, [3, 5, 8])
    few = Split(digits.test.images[kept], digits.test.labels[kept])
    monkeypatch.setattr(data, "load", lambda *arguments, **settings: dataclasses.replace(digits, test=few))
    assert invoke(latent_space.command, *flags)[0] == 0
    content = load(tmp_path / "l.npz")
    assert content["labels"][content["natural"]].tolist() == [3, 5, 8]
    assert json.loads(str(content["about"]))["images"] == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--train_dir=", "--train_dir=: required"),
        ("--output=", "--output=: required"),
        ("--output={tmp}/l.json", "--output={tmp}/l.json: must end in .npz"),
        ("--checkpoints=40", "an early and a late one are needed, not 40 alone"),
        ("--checkpoints=40,40", "an early and a late one are needed, not 40 alone"),
        ("--checkpoints=7,40", "--checkpoints=7: not among those of {run}: 25, 30, 35, 40"),
        ("--perplexity=50", "--perplexity=50: must be at least 1 and below the number of points, 50"),
        ("--perplexity=0", "--perplexity=0: must be at least 1"),
        ("--perplexity=nan", "--perplexity=nan: must be a finite number"),
        ("--perplexity=many", "--perplexity=many"),
        ("--draws=2 --perplexity=30", "--perplexity=30: must be at least 1 and below the number of points, 30"),
        ("--draws=0", "--draws=0"),
    ],
)
def test_flags(invoke, rvs_run, tmp_path, arguments, named):
    before = {path: path.stat().st_mtime_ns for path in rvs_run.iterdir()}
    places = {"run": rvs_run, "tmp": tmp_path}
    given = (f"--train_dir={rvs_run}", f"--output={tmp_path}/l.npz", *FLAGS, *arguments.format(**places).split())
    status, out, err = invoke(latent_space.command, *given)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in err
    assert {path: path.stat().st_mtime_ns for path in rvs_run.iterdir()} == before
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_one_checkpoint(invoke, flags, copied_run):
    for path in (copied_run / "checkpoints").glob("ckpt-[23]*"):
        path.unlink()
    status, _, err = invoke(latent_space.command, *flags)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "an early and a late one are needed, not 40 alone; a training with --keep=0 keeps all" in err


def test_an_rvs_run_is_needed(invoke, tmp_path):
    settings = {"depth": 10, "width": 1, "num_classes": 10, "defense": "natural"}
    run_folder.create(tmp_path / "natural", settings)
    status, _, err = invoke(latent_space.command, f"--train_dir={tmp_path}/natural", f"--output={tmp_path}/l.npz")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "a run of --defense=rvs is needed" in err


@pytest.mark.parametrize(("value", "named"), [(np.nan, "features that are not finite"), (0, "all features are")])
def test_features_that_cannot_be_embedded(invoke, flags, copied_run, tmp_path, value, named):
    """Not numbers; or all the same, where the last layer passes on its bias alone."""
    classifier = WideResNet(10, 1, 10)
    classifier.norm_last.gamma.assign(np.full(64, value))
    classifier.norm_last.beta.assign(np.ones(64))
    Checkpoints(copied_run, {"classifier": classifier, "generator": rvs_tf.Generator()}, {}).save(41)
    status, out, err = invoke(latent_space.command, *flags)
    assert (status, out) == (1, "")
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: checkpoint 41: {named}")
    assert not (tmp_path / "l.npz").exists()
    assert not (copied_run / "projector").exists()


@pytest.mark.parametrize("dimensions", [64, 640])
def test_features_that_are_the_same_but_for_rounding_are_not_embedded(dimensions):
    """How float32 rounds a norm depends on the processor, and on an image's place in its batch."""
    draws, eps = np.random.default_rng(0), np.finfo(np.float32).eps
    direction = draws.uniform(size=dimensions)
    same = np.tile((direction / np.linalg.norm(direction)).astype(np.float32), (20, 1))
    last_bits = draws.integers(-4, 5, (20, dimensions)).astype(np.float32) * eps
    rounded = same * (1 + last_bits)
    assert len(np.unique(rounded, axis=0)) == 20
    with pytest.raises(RunError, match="checkpoint 7: all features are the same; leave it out"):
        latent_space.embed(rounded, perplexity=5, seed=0, step=7)
    apart = same + draws.normal(scale=1e-3 / dimensions**0.5, size=same.shape).astype(np.float32)
    embedding, _ = latent_space.embed(apart, perplexity=5, seed=0, step=7)
    assert np.ptp(embedding, axis=0).min() > 1
