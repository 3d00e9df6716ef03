"""The picture of a training batch."""

import numpy as np

from madry_cifar.training.pictures import LINE, SCALE, Seen, Shown, picture

SIDE = 32 * SCALE


def batch(*predicted):
    return Seen(np.full((len(predicted), 32, 32, 3), 200, np.float32), np.array(predicted))


def test_it_tells_labels_and_predictions():
    """Two pictures differ where the words do; green is a right prediction, red a wrong one."""
    labels = np.array([7, 99])
    shown = picture(Shown(labels, batch(7, 3)))
    assert shown.shape == (2 * LINE + SIDE, 2 * SIDE, 3)
    assert (shown[LINE : LINE + SIDE] == 200).all()
    other = picture(Shown(labels, batch(7, 4)))
    changed = (shown != other).any(axis=2)
    assert changed[LINE + SIDE :, SIDE:].any()
    assert not changed[: LINE + SIDE].any()
    assert not changed[:, :SIDE].any()
    assert (shown[:LINE] != picture(Shown(np.array([7, 98]), batch(7, 3)))[:LINE]).any()
    right, wrong = (np.split(shown[LINE + SIDE :].astype(int), 2, axis=1)[column] for column in (0, 1))
    assert (right[..., 1] >= right[..., 0]).all()
    assert (wrong[..., 0] >= wrong[..., 1]).all()
    assert (right[..., 1] > right[..., 0]).any()
    assert (wrong[..., 0] > wrong[..., 1]).any()


def test_perturbed_images_have_predictions_of_their_own():
    natural = batch(*range(10))
    perturbed = Seen(natural.images + 8, np.arange(10) + 1)
    shown = picture(Shown(np.arange(10), natural, perturbed))
    assert shown.shape == (3 * LINE + 3 * SIDE, 8 * SIDE, 3)
    perturbation, adversarial = np.split(shown[2 * LINE + SIDE : 2 * LINE + 3 * SIDE], 2)
    assert (perturbation == 255).all()
    assert (adversarial == 208).all()
    last = shown[-LINE:].astype(int)
    assert (last[..., 0] >= last[..., 1]).all()  # all wrong


def test_grey_images():
    natural = Seen(np.zeros((2, 28, 28, 1), np.float32), np.zeros(2, int))
    assert picture(Shown(np.zeros(2, int), natural)).shape == (2 * LINE + 28 * SCALE, 2 * 28 * SCALE, 3)
