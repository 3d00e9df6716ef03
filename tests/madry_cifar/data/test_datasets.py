import collections
import io
import pathlib
import re
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from sklearn.datasets import load_digits

from madry_cifar import data
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.data.images import load_tfds
from madry_cifar.data.stored import stored_files

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn_cropped": 10}
ROOT = pathlib.Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "tfds"


# --- The embedded digits


def test_digits_are_scikit_learns_enlarged(digits):
    small, labels = load_digits(return_X_y=True)
    grid = np.stack(np.meshgrid(*[(np.arange(32) + 0.5) / 4 - 0.5] * 2, indexing="ij"))
    large = [ndimage.map_coordinates(image, grid, order=1, mode="nearest") for image in small.reshape(-1, 8, 8)]
    expected = np.stack(large)[..., np.newaxis] * 255 / 16
    is_test = np.arange(1797) % 5 == 4
    for split, rows in ((digits.train, ~is_test), (digits.test, is_test)):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert split.images.shape == (rows.sum(), 32, 32, 3)
        assert np.array_equal(split.labels, labels[rows])
        assert np.max(np.abs(split.images - expected[rows])) <= 0.501
    assert digits.train.images.max() == 255
    assert (digits.num_classes, digits.augmented, digits.validation) == (10, False, None)
    assert "1,797" in digits.provenance


def test_held_out_images_are_the_same_ones_always_and_no_longer_in_train(digits):
    first, second = (data.load("digits", validation_size=200) for _ in range(2))
    assert np.array_equal(first.validation.images, second.validation.images)
    assert (len(first.train), len(first.validation)) == (len(digits.train) - 200, 200)
    assert counted(first.train, first.validation) == counted(digits.train)
    assert counted(first.test) == counted(digits.test)
    assert len(np.unique(first.validation.labels)) == 10  # not one end of the data


@pytest.mark.parametrize("size", [1438, 5000, -1])
def test_more_held_out_than_there_is(size):
    with pytest.raises(UsageError, match=f"--validation_size={size}: digits has 1438 training images"):
        data.load("digits", validation_size=size)


def test_unknown_data_set():
    with pytest.raises(UsageError, match="--dataset=cifar-10: unknown; did you mean 'cifar10'"):
        data.load("cifar-10")


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range(label):
    labels = np.array([3, 9, 0, label, label])
    with pytest.raises(RunError, match=rf"here: label {label} of image 3 is out of range for 10 classes \(2 such"):
        data.check_labels(labels, 10, "here")
    data.check_labels(labels[:3], 10, "here")


def counted(*splits):
    """How often each image with its label is in the splits."""
    return collections.Counter(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels)  # noqa: B905
    )


# --- From tensorflow-datasets, in files of its own format, written here by its own builders


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


@pytest.fixture
def written(name, tmp_path):
    """Small data called `name`, in three files per split under `tmp_path`: what was given to be written."""
    splits = {"train": random_split(25, CLASSES[name]), "test": random_split(7, CLASSES[name])}
    write(name, tmp_path, splits)
    return splits


def random_split(size, num_classes):
    rng = np.random.default_rng(size)
    return data.Split(rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, num_classes, size, np.int32))


def examples(builder, split, encode=np.asarray):
    """What the builder would find in the original files."""
    for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        all_features = {"image": encode(image), "label": int(label), "id": str(i), "coarse_label": 0}
        yield i, {feature: all_features[feature] for feature in builder.info.features}


def write(name, folder, splits, **kwargs):
    builder = tfds.builder(name, data_dir=folder)
    builder._split_generators = lambda _: {key: examples(builder, split, **kwargs) for key, split in splits.items()}
    builder._make_download_manager = lambda **_: types.SimpleNamespace(downloaded_size=0)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))


def records(folder, name, split):
    """The files of a split, in order."""
    return sorted(folder.glob(f"{name}/*/{name}-{split}.tfrecord*"))


def test_images_and_labels_are_those_written(name, written, tmp_path):
    loaded = data.load(name, data_dir=tmp_path)
    assert counted(loaded.train) == counted(written["train"])
    assert counted(loaded.test) == counted(written["test"])
    assert (loaded.train.images.dtype, loaded.train.labels.dtype) == (np.uint8, np.int32)
    assert (loaded.name, loaded.num_classes) == (name, CLASSES[name])
    assert loaded.augmented == name.startswith("cifar")
    assert loaded.provenance.startswith(f"{name} {tfds.builder(name).version} ")
    assert "JPEG" not in loaded.provenance


@pytest.mark.parametrize("name", ["cifar10"])
@pytest.mark.parametrize("held_out", [0, 3])
def test_the_stored_files(name, held_out, written, tmp_path):
    """They are those of the images, in their order, also of images that are held out."""
    loaded = data.load(name, data_dir=tmp_path, validation_size=held_out)
    evaluated = (loaded.validation or loaded.test).take(slice(2))
    files, difference = stored_files(loaded, evaluated, tmp_path)
    assert difference is None
    for each, split in ((files["train"], loaded.train), (files["evaluated"], evaluated)):
        decoded = [np.asarray(Image.open(io.BytesIO(file))) for file in each]
        np.testing.assert_array_equal(decoded, split.images)


def test_stored_jpegs(tmp_path):
    """TensorFlow's pixels are not quite Pillow's."""
    splits = {split: random_split(5, 10) for split in ("train", "test")}
    write("cifar10", tmp_path, splits, encode=lambda image: tf.io.encode_jpeg(image).numpy())
    loaded = data.load("cifar10", data_dir=tmp_path)
    files, difference = stored_files(loaded, loaded.test, tmp_path)
    assert re.fullmatch(r"[\d.]+ grey levels on average, \d+ at most", difference)
    for file, image in zip(files["train"], loaded.train.images, strict=True):
        exact = tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(Image.open(io.BytesIO(file)), exact)
        assert np.abs(np.int16(exact) - image).mean() < 3


@pytest.mark.parametrize("name", ["cifar10"])
def test_the_order_is_that_of_the_files(name, written, tmp_path):
    files = records(tmp_path, name, "train")
    assert len(files) == 3
    features = {"label": tf.io.FixedLenFeature([], tf.int64), "image": tf.io.FixedLenFeature([], tf.string)}
    parsed = [tf.io.parse_single_example(r, features) for file in files for r in tf.data.TFRecordDataset(str(file))]
    for _ in range(2):
        train = data.load(name, data_dir=tmp_path).train
        assert np.array_equal(train.images, [tf.io.decode_png(example["image"]) for example in parsed])
        assert np.array_equal(train.labels, [example["label"] for example in parsed])


@pytest.mark.parametrize("name", ["cifar10"])
def test_only_what_is_asked_for_is_read(name, written, tmp_path):
    everything = data.load(name, data_dir=tmp_path)
    first = data.load(name, data_dir=tmp_path, max_train_images=12, validation_size=2)
    assert counted(first.train, first.validation) == counted(everything.train.take(slice(12)))
    assert len(data.load(name, data_dir=tmp_path, max_train_images=1000).train) == 25
    for file in records(tmp_path, name, "train"):
        file.unlink()
    for held_out in (0, 3):
        test_alone = data.load(name, data_dir=tmp_path, train=False, validation_size=held_out)
        assert (test_alone.train, test_alone.validation) == (None, None)
        assert np.array_equal(test_alone.test.images, everything.test.images)


def test_the_first_digits_alone(digits):
    first = data.load("digits", max_train_images=100)
    assert np.array_equal(first.train.images, digits.train.images[:100])
    assert len(first.test) == len(digits.test)


def test_jpeg_images_are_said_to_be_so(tmp_path):
    splits = {"train": random_split(5, 10), "test": random_split(4, 10)}
    write("cifar10", tmp_path, splits, encode=lambda image: tf.io.encode_jpeg(image).numpy())
    loaded = data.load("cifar10", data_dir=tmp_path)
    assert "JPEG-recompressed" in loaded.provenance
    through_jpeg = [tf.io.decode_jpeg(tf.io.encode_jpeg(image)) for image in splits["train"].images]
    expected = data.Split(np.array(through_jpeg), splits["train"].labels)
    assert counted(loaded.train) == counted(expected) != counted(splits["train"])


def test_not_prepared_and_no_download(name, tmp_path):
    with pytest.raises(UsageError, match=f"--dataset={name}: .*--data_dir={tmp_path}.* --download"):
        data.load(name, data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_download_prepares_once(name, tmp_path, monkeypatch):
    splits = {"train": random_split(25, CLASSES[name]), "test": random_split(7, CLASSES[name])}
    builder_class = type(tfds.builder(name, data_dir=tmp_path))
    generators = lambda self, _: {key: examples(self, split) for key, split in splits.items()}  # noqa: E731
    monkeypatch.setattr(builder_class, "_split_generators", generators)
    prepared = data.load(name, data_dir=tmp_path, download=True)
    monkeypatch.undo()
    assert counted(prepared.train) == counted(splits["train"])
    assert np.array_equal(data.load(name, data_dir=tmp_path, download=True).train.images, prepared.train.images)


def test_any_set_of_tensorflow_datasets_as_it_is_and_resized(name, written, tmp_path):
    expected = data.load(name, data_dir=str(tmp_path), train=False).test
    for wanted, shape in ((0, None), (3, None), (10**6, (16, 8, 3))):
        found = load_tfds(name, data_dir=str(tmp_path), max_images=wanted, shape=shape)
        count = min(wanted or len(expected), len(expected))
        assert found.test.labels.tolist() == expected.labels[:count].tolist()
        assert found.test.images.shape == (count, *(shape or (32, 32, 3)))
        if not shape:
            np.testing.assert_array_equal(found.test.images, expected.images[:count])
    with pytest.raises(UsageError, match=r"--split=validation: .* has "):
        load_tfds(name, data_dir=str(tmp_path), split="validation")


@pytest.mark.parametrize("error", [ConnectionError, tfds.download.DownloadError])
def test_a_failed_download(tmp_path, monkeypatch, error):
    def download_and_prepare(*_, **__):
        raise error("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(RunError, match=r"cifar10.*no route to host"):
        data.load("cifar10", data_dir=tmp_path, download=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["cifar10"])
@pytest.mark.parametrize("damage", [cut, flip_a_bit, pathlib.Path.unlink])
@pytest.mark.parametrize("split", ["train", "test"])
def test_damaged_files(name, written, damage, split, tmp_path):
    damage(records(tmp_path, name, split)[-1])
    with pytest.raises(RunError, match=f"{name} in .* cannot be read: .*; prepare it again") as error:
        data.load(name, data_dir=tmp_path)
    assert "{{" not in str(error.value)  # TensorFlow's names of places in its graph


@pytest.mark.parametrize(
    "change", [lambda text: "", lambda text: text[:50], lambda text: "[]", lambda text: '{"splits": 3}']
)
@pytest.mark.parametrize("name", ["cifar10"])
def test_a_damaged_description(name, written, change, tmp_path):
    (description,) = tmp_path.rglob("dataset_info.json")
    description.write_text(change(description.read_text()))
    with pytest.raises(RunError, match=f"{name} in --data_dir={tmp_path}: .*; prepare it again") as error:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cifar10"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_out_of_range_in_the_files(name, written, split, tmp_path):
    path = str(records(tmp_path, name, split)[0])
    stored = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(path)]
    stored[1].features.feature["label"].int64_list.value[:] = [10]
    with tf.io.TFRecordWriter(path) as writer:
        for example in stored:
            writer.write(example.SerializeToString())
    with pytest.raises(RunError, match="cifar10: label 10 of image 1 is out of range for 10 classes"):
        data.load(name, data_dir=tmp_path)


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="no prepared CIFAR-10 in ../shared/tfds")
def test_all_of_cifar10_in_a_minute_and_little_memory():
    source = """
        import resource, sys, time
        from madry_cifar import data

        started = time.process_time()  # on a busy machine a minute of work takes longer
        cifar = data.load("cifar10", data_dir=sys.argv[1])
        assert time.process_time() - started < 60
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2.5e6  # KiB
        assert cifar.train.images.shape == (50_000, 32, 32, 3)
        assert cifar.test.images.shape == (10_000, 32, 32, 3)
        assert [sum(cifar.train.labels == label) for label in range(10)] == [5000] * 10
    """
    command = [sys.executable, "-c", textwrap.dedent(source), str(REAL)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# --- Batches


@given(st.integers(1, 60), st.data(), st.integers(0, 2**40))
def test_an_epoch_is_a_permutation_without_its_end(size, draw, seed):
    batch_size = draw.draw(st.integers(1, size))
    batches = data.Batches(size, batch_size, seed)
    per_epoch = size // batch_size
    assert batches.steps_per_epoch == per_epoch
    for epoch in (0, 3):
        rows = [batches(step) for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)]
        assert {len(row) for row in rows} == {batch_size}
        seen = np.concatenate(rows)
        assert len(set(seen)) == per_epoch * batch_size
        assert set(seen) <= set(range(size))


@given(st.permutations(range(12)), st.integers(0, 2**40))
def test_a_batch_depends_on_seed_and_step_alone(steps, seed):
    batches = data.Batches(20, 6, seed)
    for step in steps:
        assert np.array_equal(batches(step), data.Batches(20, 6, seed)(step))


def test_every_epoch_and_seed_has_its_own_order():
    orders = [data.Batches(50, 50, seed)(epoch) for seed in range(3) for epoch in range(3)]
    assert len({order.tobytes() for order in orders}) == 9


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_larger_than_the_data(batch_size):
    with pytest.raises(UsageError, match=f"--batch_size={batch_size}: there are 10 training images"):
        data.Batches(10, batch_size, 0)


# --- Augmentation


@pytest.fixture(scope="module")
def augmented():
    """Augmented copies of an image [3, 4, 2] of distinct pixels, and all that may become of it, [50, 3, 4, 2]."""
    image = np.arange(1, 25, dtype=np.uint8).reshape(3, 4, 2)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
    crops = [padded[row : row + 3, column : column + 4] for row in range(5) for column in range(5)]
    possible = np.array(crops + [crop[:, ::-1] for crop in crops])
    return data.augment(np.repeat(image[np.newaxis], 10_000, axis=0), 1, 2).numpy(), possible


def test_augmented_images_are_crops_and_flips_each_as_often_as_the_others(augmented):
    images, possible = augmented
    place = {image.tobytes(): i for i, image in enumerate(possible)}
    assert len(place) == 50
    counts = np.bincount([place[image.tobytes()] for image in images], minlength=50)  # KeyError: not a crop
    assert stats.chisquare(counts).pvalue > 1e-3


def test_augmentation_depends_on_seed_and_step(augmented):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)

    def result(seed, step):
        return data.augment(images, seed, step).numpy()

    assert np.array_equal(result(1, 2), result(1, 2))
    assert np.array_equal(result(1, 2), result(1, tf.constant(2, tf.int64)))
    for other in (result(1, 3), result(2, 2)):
        assert np.mean(np.any(result(1, 2) != other, axis=(1, 2, 3))) > 0.5


@pytest.mark.parametrize(("padding", "fill"), [(0, 0), (1, 7), (4, 128)])
def test_crops_of_other_paddings_and_fills(padding, fill):
    image = np.arange(1, 25, dtype=np.uint8).reshape(3, 4, 2)
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)], constant_values=fill)
    places = range(2 * padding + 1)
    crops = [padded[row : row + 3, column : column + 4] for row in places for column in places]
    possible = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    found = data.augment(np.repeat(image[np.newaxis], 4000, axis=0), 1, 2, padding, fill).numpy()
    assert {image.tobytes() for image in found} == possible


def test_a_padding_for_images_that_are_not_cropped():
    with pytest.raises(UsageError, match="--crop_padding=4: images of digits are not cropped; leave it out"):
        data.load("digits", crop_padding=4)
