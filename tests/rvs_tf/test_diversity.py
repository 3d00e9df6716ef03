"""Figure 3: the perturber against a plain loop in NumPy, what is measured, and the command from end to end."""

import json
import shutil
import signal
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf
from tiers import slow

import madry_cifar
import rvs_tf
from madry_cifar import WideResNet
from madry_cifar.predictor import as_predictor
from madry_cifar.runs import run_folder
from madry_cifar.runs.checkpoints import Checkpoints, saved_steps
from rvs_tf.analysis import diversity
from rvs_tf.analysis.perturber import Perturber
from rvs_tf.generator import Generator

EPSILON, GROUP, DRAWS, SEED = 8.0, 4, 3, 5


@pytest.fixture(scope="module")
def networks():
    """A classifier and a generator whose running statistics are not those of any batch."""
    classifier, generator = WideResNet(10, 1, 10), Generator(seed=1)
    for network in (classifier, generator):
        for index, variable in enumerate(network.non_trainable_variables):
            variable.assign(np.random.default_rng(index).uniform(0.5, 1.5, variable.shape))
    return classifier, generator


@pytest.fixture(scope="module")
def images(digits):
    """A whole group, and one of two."""
    return digits.test.images[:6]


def perturber(networks, **changes):
    settings = {"epsilon": EPSILON, "group_size": GROUP, "draws": DRAWS, "seed": SEED, "batch_size": 8} | changes
    return Perturber(*networks, **settings)


def seed_of(group, draw, purpose):
    seed = [SEED, zlib.crc32(f"analysis {purpose}".encode())]
    for number in (group, draw):
        seed = tf.random.fold_in(tf.constant(seed, tf.int64), tf.constant(number, tf.int64), alg="philox")
    return seed


@pytest.fixture(scope="module")
def by_hand(networks, images):
    """Images and features [draws, variants, N, …] of the perturbations, and natural features, one image at a time."""
    classifier, generator = networks

    def features(image):
        raw = classifier(image[np.newaxis].astype(np.float32)).features.numpy()[0].astype(np.float64)
        return raw / np.sqrt(np.sum(raw**2))

    adversarial = np.empty([DRAWS, 2, *images.shape])
    for group, first in enumerate(range(0, len(images), GROUP)):
        for draw in range(DRAWS):
            latent = tf.random.stateless_normal([GROUP, 640], seed_of(group, draw, "latent"), alg="philox")
            noise = tf.random.stateless_uniform([GROUP, 32, 32, 3], seed_of(group, draw, "noise"), alg="philox")
            delta = np.clip(generator(latent, batch_norm="frozen"), -EPSILON, EPSILON)
            for place, x in enumerate(images[first : first + GROUP].astype(np.float64)):
                start = np.clip(x + EPSILON * (2 * noise[place].numpy() - 1), 0, 255)
                noisy = np.clip(np.clip(start + delta[place], x - EPSILON, x + EPSILON), 0, 255)
                adversarial[draw, :, first + place] = noisy, np.clip(x + delta[place], 0, 255)
    natural = np.stack([features(image) for image in images])
    moved = np.stack([features(image) for image in adversarial.reshape(-1, 32, 32, 3)])
    return adversarial, natural, moved.reshape(DRAWS, 2, len(images), -1)


def test_perturbations_and_features_are_those_of_a_plain_loop(networks, images, by_hand):
    ours = perturber(networks)
    adversarial, natural, moved = by_hand
    for number, group in ours.groups(images):
        rows = slice(GROUP * number, GROUP * number + len(group))
        chunks = list(ours.adversarial(group, number))
        assert [len(chunk) for chunk in chunks] == [2, 1]  # draws, of two times four images at once
        np.testing.assert_allclose(np.concatenate(chunks), adversarial[:, :, rows], atol=1e-3)
        np.testing.assert_allclose(ours.features(group), natural[rows], atol=1e-5)
        np.testing.assert_allclose(ours.features(np.concatenate(chunks)), moved[:, :, rows], atol=1e-5)
    assert (number, len(group)) == (1, 2)


def test_the_generator_works_as_in_training(networks, images):
    """That is, with the statistics of a batch of the training's size: one of another size perturbs differently."""
    first, other = (
        next(perturber(networks, group_size=size).adversarial(images[:2].astype(np.float32), 0)) for size in (4, 5)
    )
    assert np.abs(first[0] - other[0]).max() > 0.1


def test_measures_are_means_over_images_of_mean_and_deviation_over_draws(networks, images, by_hand):
    _, natural, moved = by_hand
    expected = {}
    for index, variant in enumerate(("noise", "no_noise")):
        distances = np.sqrt(np.sum((moved[:, index] - natural) ** 2, axis=-1))  # [draws, N]
        means = [np.mean(distances[:, image]) for image in range(len(images))]
        deviations = [np.sqrt(np.mean((distances[:, i] - means[i]) ** 2)) for i in range(len(images))]
        expected[variant] = {"mean_distance": np.mean(means), "mean_standard_deviation": np.mean(deviations)}
    found = diversity.diversity(perturber(networks), images)
    for variant, values in expected.items():
        assert found[variant] == pytest.approx(values, rel=1e-3)
        assert min(values.values()) > 1e-5


@pytest.mark.parametrize("batch_size", [1, 12, 1000])
def test_the_numbers_do_not_depend_on_how_much_is_computed_at_once(networks, images, batch_size):
    first, second = (diversity.diversity(perturber(networks, batch_size=size), images) for size in (8, batch_size))
    for variant, values in first.items():
        assert second[variant] == pytest.approx(values, rel=1e-4)


def test_an_image_is_perturbed_the_same_among_others_and_in_more_draws(networks, images):
    def draws(count, **changes):
        ours = perturber(networks, **changes)
        [*_, (number, group)] = ours.groups(images[:count])
        return np.concatenate(list(ours.adversarial(group, number)))

    np.testing.assert_allclose(draws(6)[:, :, :1], draws(5), atol=1e-3)
    np.testing.assert_allclose(draws(6, draws=5)[:DRAWS], draws(6), atol=1e-3)
    for different in (draws(6, seed=6), draws(6)[::-1], draws(6)[:, :, ::-1]):
        differs = np.abs(different - draws(6)).reshape(DRAWS, 2, 2, -1).max(axis=-1) > 1
        assert differs[[0, 2]].all()  # in reverse order, the middle one of three is the same


def test_without_perturbation_there_is_no_distance(networks, images):
    zero = {"mean_distance": pytest.approx(0, abs=1e-6), "mean_standard_deviation": pytest.approx(0, abs=1e-6)}
    assert diversity.diversity(perturber(networks, epsilon=0.0), images) == {"noise": zero, "no_noise": zero}
    silent = Generator()
    silent.conv3.kernel.assign(np.zeros(silent.conv3.kernel.shape))
    found = diversity.diversity(perturber((networks[0], silent)), images)
    assert found["no_noise"] == zero
    assert found["noise"]["mean_distance"] > 1e-4  # of the noise


class Pixels:
    """A classifier whose features are pixels; counts how often it is called, that is traced."""

    def __init__(self):
        self.calls, self.scale = 0, tf.Variable([1.0, 1.0, 1.0])

    def __call__(self, images):
        self.calls += 1
        return types.SimpleNamespace(features=self.scale * images[:, 0, 0])


@pytest.mark.parametrize("count", [7, 23])
def test_little_is_in_memory_at_once_and_nothing_is_compiled_again(networks, digits, monkeypatch, count):
    classifier = Pixels()
    ours = perturber((classifier, networks[1]))
    sizes, compute, seen = [], ours._features, []
    monkeypatch.setattr(ours, "_features", lambda images: (sizes.append(len(images)), compute(images))[1])
    first = diversity.diversity(ours, digits.test.images[:count], seen.append)
    assert (max(sizes), sum(sizes)) == (2 * 8, count * (1 + 2 * DRAWS))  # whatever the number of images
    assert sum(seen) == count
    classifier.scale.assign([1.0, 2.0, 5.0])  # as another checkpoint does
    assert diversity.diversity(ours, digits.test.images[:count]) != first
    assert classifier.calls == 1
    assert ours._synthesize.experimental_get_tracing_count() == 1


# --- The command


@pytest.fixture
def copied_run(rvs_run, tmp_path):
    return shutil.copytree(rvs_run, tmp_path / "run")


@pytest.fixture
def flags(copied_run, tmp_path):
    return (f"--train_dir={copied_run}", f"--output={tmp_path}/new/d.json", "--draws=3", "--max_images=10")


def read(tmp_path):
    return json.loads((tmp_path / "new" / "d.json").read_text())


def test_the_command(invoke, flags, copied_run, digits, curves, tmp_path):
    status, out, err = invoke(diversity.command, *flags, "--batch_size=20", "--seed=5")
    assert status == 0, err
    content = read(tmp_path)
    settings = {
        "schema_version": 1,
        "numbers": "measured",
        "defense": "rvs",
        "network": "WRN-10-1",
        "images": 10,
        "draws": 3,
        "seed": 5,
        "epsilon": 8,
        "dataset": "digits",
        "split": "test",
    }
    assert content | settings == content
    assert content["training_flags"]["steps"] == 40
    assert content["provenance"] == digits.provenance
    assert content["versions"]["tensorflow"] == tf.__version__
    assert [entry["checkpoint"] for entry in content["checkpoints"]] == [25, 30, 35, 40]
    for entry in content["checkpoints"]:
        step = entry["checkpoint"]
        networks = madry_cifar.load_classifier(copied_run, step), rvs_tf.load_generator(copied_run, step)
        expected = diversity.diversity(perturber(networks, group_size=8), digits.test.images[:10])
        for variant, values in expected.items():
            assert entry[variant] == pytest.approx(values, rel=1e-3)
        assert entry["classifier_sha256"] == as_predictor(networks[0]).fingerprint()
        assert f"{entry['noise']['mean_distance']:.4f}" in out
    assert out.splitlines()[-1] == f"{tmp_path}/new/d.json"
    assert "40/40" in err  # ten images, four checkpoints
    for variant in ("noise", "no_noise"):
        assert curves(copied_run / "analysis" / variant) == {
            f"diversity/{name}": [(e["checkpoint"], pytest.approx(e[variant][name])) for e in content["checkpoints"]]
            for name in ("mean_distance", "mean_standard_deviation")
        }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["d.json"]
    assert invoke(diversity.command, *flags, "--checkpoints=40, 30")[0] == 0  # the curves are not doubled
    assert [entry["checkpoint"] for entry in read(tmp_path)["checkpoints"]] == [30, 40]
    assert len(curves(copied_run / "analysis" / "noise")["diversity/mean_distance"]) == 2


@slow
def test_a_killed_command_goes_on(signalled, invoke, flags, curves, copied_run, tmp_path):
    partial = tmp_path / "new" / "d.partial.json"
    signalled(signal.SIGKILL, "rvs_tf.analysis.run_analysis:Analysis.load", 3, "rvs_tf.analysis.diversity", *flags)
    assert not (tmp_path / "new" / "d.json").exists()
    content = json.loads(partial.read_text())
    finished = len(content["checkpoints"])
    assert finished in (2, 3)  # while it measures the third, or right after
    for entry in content["checkpoints"]:
        entry["noise"]["mean_distance"] = 1234.5  # a mark
    partial.write_text(json.dumps(content))

    status, _, err = invoke(diversity.command, *flags)
    assert (status, "warning" in err) == (0, False)
    distances = [entry["noise"]["mean_distance"] for entry in read(tmp_path)["checkpoints"]]
    assert [distance == 1234.5 for distance in distances] == [True] * finished + [False] * (4 - finished)
    points = curves(copied_run / "analysis" / "noise")["diversity/mean_distance"]
    assert points == list(zip((25, 30, 35, 40), map(pytest.approx, distances), strict=True))
    assert not partial.exists()


ABOUT = {"schema_version": 1, "seed": 3, "training_flags": {"steps": 40}}
MEASURES = {"mean_distance": 9.0, "mean_standard_deviation": 9.0}
ENTRY = {"checkpoint": 40, "classifier_sha256": "of others", "noise": MEASURES, "no_noise": MEASURES}


@pytest.mark.parametrize(
    ("changes", "damage", "warning"),
    [
        ({"git_revision": "abc"}, str, None),
        ({"seed": 1}, str, "of other settings"),
        ({"schema_version": 2}, str, "of other settings"),
        ({"training_flags": {"steps": 41}}, str, "of other settings"),
        ({}, lambda text: text[:-40], "damaged"),
        ({}, lambda text: "", "damaged"),
        ({}, lambda text: f"[{text}]", "damaged"),
        ({}, lambda text: text.replace("9.0", "NaN"), "damaged"),
        ({}, lambda text: text.replace("9.0", '"far"'), "damaged"),
        ({"checkpoints": [{"checkpoint": 40}]}, str, "damaged"),
        ({"checkpoints": 40}, str, "damaged"),
    ],
)
def test_what_is_used_of_an_unfinished_result(capsys, tmp_path, changes, damage, warning):
    path = tmp_path / "d.partial.json"
    assert diversity.unfinished(path, ABOUT) == {}
    path.write_text(damage(json.dumps(ABOUT | {"checkpoints": [ENTRY]} | changes)))
    assert diversity.unfinished(path, ABOUT) == ({} if warning else {40: ENTRY})
    told = f"warning: {path}: {warning}; all checkpoints are measured anew\n" if warning else ""
    assert tuple(capsys.readouterr()) == ("", told)


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_damaged_or_of_other_weights_is_measured_anew(invoke, flags, tmp_path, whole):
    arguments = (*flags, "--checkpoints=40", "--max_images=2")
    assert invoke(diversity.command, *arguments)[0] == 0
    content, partial = read(tmp_path), tmp_path / "new" / "d.partial.json"
    partial.write_text(json.dumps(content | {"checkpoints": [ENTRY]}) if whole else "{")
    status, _, err = invoke(diversity.command, *arguments)
    assert (status, "warning: " in err) == (0, not whole)
    assert read(tmp_path) == content
    assert not partial.exists()


def test_a_network_that_has_diverged(invoke, flags, copied_run, tmp_path):
    classifier = madry_cifar.load_classifier(copied_run)
    classifier.norm_last.beta.assign(np.full(64, np.nan))
    Checkpoints(copied_run, {"classifier": classifier, "generator": Generator()}, {}).save(41)
    status, out, err = invoke(diversity.command, *flags, "--checkpoints=40,41")
    assert (status, out) == (1, "")
    assert "error: checkpoint 41: features that are not finite" in err
    kept = json.loads((tmp_path / "new" / "d.partial.json").read_text())["checkpoints"]
    assert [entry["checkpoint"] for entry in kept] == [40]


def test_an_rvs_run_is_needed(invoke, tmp_path):
    run_folder.create(tmp_path / "at", {"depth": 10, "width": 1, "num_classes": 10, "defense": "at"})
    status, out, err = invoke(diversity.command, f"--train_dir={tmp_path}/at", f"--output={tmp_path}/d.json")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert (
        err == f"error: --train_dir={tmp_path}/at: holds a run of --defense=at, without a generator; a run of "
        "--defense=rvs is needed\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["at"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--train_dir=", "--train_dir=: required"),
        ("--train_dir=/none", "--train_dir=/none: no such folder"),
        ("--output=", "--output=: required"),
        ("--output={tmp}/d.txt", "--output={tmp}/d.txt: must end in .json"),
        ("--output={tmp}/file/d.json", "--output={tmp}/file/d.json: cannot be written"),
        ("--output={tmp}/folder.json", "--output={tmp}/folder.json: cannot be a file there"),
        ("--checkpoints=25,7", "--checkpoints=7: not among those of {run}: 25, 30, 35, 40"),
        ("--checkpoints=,", "--checkpoints=,: not among"),
        ("--draws=0", "--draws=0"),
        ("--max_images=-1", "--max_images=-1"),
        ("--batch_size=0", "--batch_size=0"),
        ("--seed=-1", "--seed=-1"),
    ],
)
def test_flags(invoke, rvs_run, tmp_path, arguments, named):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    before = {path: path.stat().st_mtime_ns for path in rvs_run.iterdir()}
    places = {"run": rvs_run, "tmp": tmp_path}
    given = (f"--train_dir={rvs_run}", f"--output={tmp_path}/d.json", *arguments.format(**places).split())
    status, out, err = invoke(diversity.command, *given)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert named.format(**places) in err
    assert {path: path.stat().st_mtime_ns for path in rvs_run.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


def test_a_run_without_checkpoints(invoke, flags, copied_run):
    shutil.rmtree(copied_run / "checkpoints")
    status, _, err = invoke(diversity.command, *flags)
    assert (status, err) == (2, f"error: --train_dir={copied_run}: holds no checkpoints yet\n")
    assert saved_steps(copied_run) == {}


def test_the_table_shows_some_of_many_checkpoints():
    measures = {"mean_distance": 0.5, "mean_standard_deviation": 0.25}
    entries = [{"checkpoint": step, "noise": measures, "no_noise": measures} for step in range(1000, 175_000, 1000)]
    about = {"defense": "rvs", "network": "WRN-10-1", "draws": 100, "images": 10, "provenance": "digits"}
    shown = diversity.table(about, entries)
    steps = list(shown.columns[0].cells)
    assert (steps[0], steps[-1], len(set(steps))) == ("1000", "174000", 12)
    assert shown.caption == "12 of 174 checkpoints"
    assert next(iter(shown.columns[1].cells)) == "0.5000"
