"""Images of any size: from arrays, from pictures in folders, and from any set of tensorflow-datasets."""

import keras
import numpy as np
import pytest

from madry_cifar.cli.errors import UsageError
from madry_cifar.data.images import load_file

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8), np.array([0, 1, 0, 2, 1, 0])


@pytest.mark.parametrize("names", [("images", "labels"), ("x_test", "y_test")])
def test_arrays(tmp_path, names):
    np.savez(tmp_path / "own.npz", **dict(zip(names, (IMAGES, LABELS[:, np.newaxis]), strict=True)))
    dataset = load_file(str(tmp_path / "own.npz"), max_images=5)
    np.testing.assert_array_equal(dataset.test.images, IMAGES[:5])
    assert dataset.provenance.startswith("own.npz, 5 images of 4×5×3 (sha256 ")


@pytest.fixture
def pictures(tmp_path):
    """FOLDER/CLASS/PICTURE, two of a class."""
    for number, label in enumerate(("cat", "dog", "cat", "emu", "dog", "cat")):
        (tmp_path / label).mkdir(exist_ok=True)
        keras.utils.save_img(tmp_path / label / f"{number}.png", IMAGES[number], scale=False)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_classes_in_alphabetic_order_each_ones_first_then_each_ones_second(pictures):
    dataset = load_file(str(pictures))
    assert (dataset.test.labels.tolist(), dataset.num_classes) == ([0, 1, 2, 0, 1, 0], 3)
    np.testing.assert_array_equal(dataset.test.images, IMAGES[[0, 1, 3, 2, 4, 5]])
    assert load_file(str(pictures), max_images=3).test.labels.tolist() == [0, 1, 2]


def test_pictures_are_resized_to_what_the_model_takes(pictures):
    keras.utils.save_img(pictures / "dog" / "9.png", np.full((9, 9, 3), 77), scale=False)
    with pytest.raises(UsageError, match=r"images of 2 sizes, .*--image_size=H,W"):
        load_file(str(pictures))
    images = load_file(str(pictures), (4, 5, 3)).test.images
    assert images.shape == (7, 4, 5, 3)
    assert (images == 77).all(axis=(1, 2, 3)).sum() == 1
    assert load_file(str(pictures), (8, 8, 1)).test.images.shape == (7, 8, 8, 1)


def test_what_holds_no_images(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("wrong")
    np.savez(place / "others.npz", pixels=IMAGES)
    np.savez(place / "objects.npz", images=np.array([None, 1]), labels=LABELS[:2])
    np.save(place / "bare.npy", IMAGES)
    (place / "text.npz").write_text("text")
    (place / "one" / "class").mkdir(parents=True)
    keras.utils.save_img(place / "one" / "class" / "0.png", IMAGES[0], scale=False)
    (pictures / "emu" / "broken.png").write_text("text")
    for path, message in {
        "nothing": "no such file or folder",
        "others.npz": "must hold arrays images and labels; it holds pixels",
        "objects.npz": "no .npz archive of arrays of numbers",
        "bare.npy": "no .npz archive",
        "text.npz": "no .npz archive",
        "one": r"holds one folder \(class\)",
        "one/class": "must hold FOLDER/CLASS/PICTURE",
        str(pictures): r"--data=.*broken.png: no picture",
    }.items():
        with pytest.raises(UsageError, match=message):
            load_file(str(place / path))
