"""The data sets' original files, written here as their publishers wrote them."""

import io
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from madry_cifar import data
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.data import original_files

RANDOM = np.random.default_rng(0)


def cifar_batch(size, classes, label):
    """A batch as pickled by CIFAR's authors: rows of 3,072 bytes, all red ones first, then green, then blue."""
    images = RANDOM.integers(0, 256, (size, 32, 32, 3), np.uint8)
    labels = RANDOM.integers(0, classes, size).tolist()
    rows = images.transpose(0, 3, 1, 2).reshape(size, 3072)
    return images, labels, {b"data": rows, label: labels, b"filenames": [b"a.png"] * size, b"batch_label": b"x"}


def write_cifar10(folder):
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        images, labels, content = cifar_batch(6, 10, b"labels")
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        written[name] = images, labels
    return written


@pytest.mark.parametrize("subfolder", [".", "cifar-10-batches-py", "cifar10_data"])
def test_cifar10(tmp_path, subfolder):
    written = write_cifar10(tmp_path / subfolder)
    dataset = data.load("cifar10", data_dir=str(tmp_path))
    assert np.array_equal(dataset.train.images, np.concatenate([written[f"data_batch_{k}"][0] for k in range(1, 6)]))
    assert dataset.train.labels.tolist() == [y for k in range(1, 6) for y in written[f"data_batch_{k}"][1]]
    assert np.array_equal(dataset.test.images, written["test_batch"][0])
    assert dataset.augmented
    assert "original files" in dataset.provenance


def test_cifar100(tmp_path):
    written = {}
    for name in ("train", "test"):
        images, labels, content = cifar_batch(7, 100, b"fine_labels")
        content[b"coarse_labels"] = [0] * 7
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
        written[name] = images, labels
    dataset = data.load("cifar100", data_dir=str(tmp_path))
    assert np.array_equal(dataset.test.images, written["test"][0])
    assert dataset.train.labels.tolist() == written["train"][1]


def test_svhn(tmp_path):
    images = RANDOM.integers(0, 256, (32, 32, 3, 12), np.uint8)
    labels = np.arange(12)[:, np.newaxis] % 10 + 1  # 1 … 10, 10 being the digit 0
    for name in ("train", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images, "y": labels})
    dataset = data.load("svhn_cropped", data_dir=str(tmp_path))
    assert dataset.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert np.array_equal(dataset.train.images[3], images[..., 3])
    assert not dataset.augmented


def test_a_partial_download_is_named(tmp_path):
    write_cifar10(tmp_path / "cifar10_data")
    (tmp_path / "cifar10_data" / "data_batch_3").unlink()
    with pytest.raises(UsageError, match="data_batch_3 missing"):
        data.load("cifar10", data_dir=str(tmp_path))


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran code')",))


@pytest.mark.parametrize("content", [Malicious(), {b"data": np.zeros((6, 3072), np.uint8), b"labels": Malicious()}])
def test_a_pickle_that_names_anything_else_is_not_run(tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(RunError, match=r"data_batch_2.*builtins\.exec|__builtin__\.exec"):
        data.load("cifar10", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["numpy.load", "numpy.core.multiarray.fromfile", "_codecs.lookup", "os.system"])
def test_the_unpickler_knows_arrays_only(name):
    module, _, function = name.rpartition(".")
    stream = io.BytesIO(b"\x80\x02c" + f"{module}\n{function}\n".encode() + b".")
    with pytest.raises(pickle.UnpicklingError, match=name):
        original_files._ArraysOnly(stream).load()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-200], lambda raw: b"", lambda raw: b"no pickle"])
def test_damaged_batches(tmp_path, damage):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_4"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="data_batch_4: not a batch of CIFAR"):
        data.load("cifar10", data_dir=str(tmp_path))


def test_images_and_labels_must_match(tmp_path):
    write_cifar10(tmp_path)
    content = {b"data": np.zeros((6, 3072), np.uint8), b"labels": [0] * 5}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(RunError, match="5 labels"):
        data.load("cifar10", data_dir=str(tmp_path))


def test_a_damaged_mat_file(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20)
    with pytest.raises(RunError, match="not a file of SVHN"):
        data.load("svhn_cropped", data_dir=str(tmp_path))
