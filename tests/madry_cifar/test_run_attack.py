"""Stored attacks: what is checked before they are scored."""

import numpy as np
import pytest

from madry_cifar import run_attack
from madry_cifar.cli.errors import RunError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def moved(by, index=(3, 1, 2, 0)):
    """The images as float32, one pixel moved inwards, so that it stays in the range of pixels."""
    adversarial = IMAGES.astype(np.float32)
    adversarial[index] += by if adversarial[index] < 128 else -by
    return adversarial


@pytest.mark.parametrize("adversarial", [IMAGES, moved(8.0), moved(8.0005), IMAGES.astype(np.float64)])
def test_allowed(adversarial):
    assert run_attack.check("attack.npy", adversarial, IMAGES, epsilon=8.0) is None


@pytest.mark.parametrize(
    ("adversarial", "message"),
    [
        (moved(8.01), r"attack.npy: what it made of image 3 leaves the ball of ε = 8 by 0\.0(1|099)"),
        (moved(np.nan), "image 3 is not finite"),
        (IMAGES[:4], r"shape \(4, 32, 32, 3\), the test images have \(5, 32, 32, 3\)"),
        (IMAGES[..., :1], r"shape \(5, 32, 32, 1\).*as many numbers for each image"),
        (IMAGES.transpose(0, 3, 1, 2), r"its channels come first; save np.transpose\(images, \(0, 2, 3, 1\)\)"),
        (IMAGES / np.float32(255), r"its numbers are from 0 to 1, .*save 255 \* images"),
        (IMAGES.astype(np.complex64), "complex64"),
        (np.where(np.arange(5).reshape(-1, 1, 1, 1) == 2, -0.002, IMAGES), r"image 2 leaves \[0, 255\] by 0.002"),
        (np.where(np.arange(5).reshape(-1, 1, 1, 1) == 2, 255.002, IMAGES), r"image 2 leaves \[0, 255\] by 0.002"),
    ],
)
def test_refused(adversarial, message):
    with pytest.raises(RunError, match=message):
        run_attack.check("attack.npy", adversarial, IMAGES, epsilon=8.0)


def test_unsigned_images_below_the_original_are_not_taken_for_far_above(tmp_path):
    path = tmp_path / "attack.npy"
    np.save(path, np.where(IMAGES > 4, IMAGES - 4, IMAGES))
    run_attack.check(str(path), run_attack.load(str(path)), IMAGES, epsilon=4.0)
    with pytest.raises(RunError, match="leaves the ball of ε = 3 by 1 grey levels"):
        run_attack.check(str(path), run_attack.load(str(path)), IMAGES, epsilon=3.0)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        run_attack.load(str(tmp_path / "none.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "archive.npz", IMAGES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "archive.npz").read_bytes()[:99])
    for name in ("objects.npy", "text.npy", "archive.npz", "cut.npz"):
        with pytest.raises(RunError, match=r"not a \.npy file of numbers"):
            run_attack.load(str(tmp_path / name))
