import foolbox
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from benchmarks import flops
from madry_cifar import WideResNet, attacks
from madry_cifar.attacks.registry import takes_restarts
from madry_cifar.cli.errors import UsageError
from madry_cifar.predictor import Outputs, Predictor, as_predictor
from madry_cifar.randomness import Draws

ROUNDING = 2 * np.spacing(np.float32(255))  # image ± ε is rounded once, and the difference to the image once more


class Linear(Predictor):
    """logits = flattened images · weights; counts its tracings."""

    def __init__(self, weights):
        self.weights, self.calls = tf.constant(weights, tf.float32), 0

    def __call__(self, images, draw=0):
        self.calls += not tf.executing_eagerly()
        return Outputs(None, tf.reshape(images, [tf.shape(images)[0], -1]) @ self.weights)


@pytest.fixture
def linear():
    return Linear(np.random.default_rng(0).normal(size=(12, 3)) / 100)


@pytest.fixture(scope="module")
def batch(digits):
    return digits.test.images[:120].astype(np.float32), digits.test.labels[:120]


@pytest.fixture(scope="module")
def accuracy(trained, batch):
    """accuracy(**settings) of the trained network under PGD, in percent."""
    images, labels = batch

    def accuracy(**settings):
        adversarial = attacks.pgd(trained, images, labels, **settings)
        return 100 * np.mean(np.argmax(trained(adversarial).logits, axis=1) == labels)

    return accuracy


@given(
    epsilon=st.floats(0, 255),
    step_size=st.floats(0, 500),
    steps=st.integers(0, 3),
    loss=st.sampled_from(["xent", "cw"]),
    random_start=st.booleans(),
    seed=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)),
)
@settings(max_examples=60)
def test_never_outside_the_ball_or_the_pixels(trained, epsilon, step_size, steps, loss, random_start, seed):
    images = np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    images[0], images[1, 16:] = 0, 255  # where one side of the ball is outside
    given = {"epsilon": epsilon, "random_start": random_start, "seed": seed}
    for adversarial in (
        attacks.pgd(trained, images, [0, 1, 2, 3], step_size=step_size, steps=steps, loss=loss, **given),
        attacks.fgsm(trained, images, [0, 1, 2, 3], **given),
    ):
        assert np.max(np.abs(adversarial - images)) <= epsilon + ROUNDING
        assert np.min(adversarial) >= 0
        assert np.max(adversarial) <= 255


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("loss", ["xent", "cw"])
def test_epsilon_0_changes_nothing(trained, batch, loss, random_start):
    images, labels = (part[:4] for part in batch)
    settings = {"epsilon": 0, "random_start": random_start, "steps": 2, "loss": loss}
    assert np.array_equal(attacks.pgd(trained, images, labels, **settings), images)


def test_accuracy_falls_with_epsilon(accuracy):
    accuracies = [accuracy(epsilon=e, step_size=max(e, 1) / 4, steps=7) for e in (0, 2, 4, 8, 16)]
    assert accuracies[0] > 85
    assert np.all(np.diff(accuracies) <= 1), accuracies
    assert accuracies[3] < accuracies[0] - 30
    assert accuracies[4] < 20


@pytest.mark.parametrize("loss", ["xent", "cw"])
def test_accuracy_falls_with_steps(accuracy, loss):
    accuracies = [accuracy(epsilon=8, step_size=1, steps=n, loss=loss) for n in (0, 1, 4, 12)]
    assert accuracies[0] > 85
    assert np.all(np.diff(accuracies) <= 1), accuracies
    assert accuracies[3] < accuracies[1] - 20


def test_an_unbounded_attack_always_wins(accuracy):
    assert accuracy(epsilon=255, step_size=32, steps=12) <= 1


@pytest.mark.parametrize("sizes", [{"abs_stepsize": 2.0}, {"rel_stepsize": 0.25}])
def test_pgd_goes_where_foolbox_goes(trained, batch, sizes):
    images, labels = (tf.constant(part[:60]) for part in batch)
    attack = foolbox.attacks.LinfPGD(**sizes, steps=5, random_start=False)
    theirs, _, success = attack(foolbox_model(trained), images, tf.cast(labels, tf.int64), epsilons=8.0)
    ours = attacks.pgd(trained, images, labels, epsilon=8, step_size=2, steps=5, random_start=False)
    assert np.mean(np.abs(ours - theirs) > 1e-3) < 0.002
    assert np.mean(wrong(trained, ours, labels) != success) <= 0.02
    assert 0.2 < np.mean(success) < 1


def test_pgd_from_random_starts_does_as_much_harm_as_foolboxs(trained, batch):
    images, labels = map(tf.constant, batch)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=2.0, steps=7, random_start=True)
    tf.random.set_seed(0)
    _, _, success = attack(foolbox_model(trained), images, tf.cast(labels, tf.int64), epsilons=8.0)
    ours = attacks.pgd(trained, images, labels, epsilon=8, step_size=2, steps=7)
    # Over trainings that differ in rounding, two random starts of the same attack differ in 1 to 4 of 120 outcomes. Of
    # fewer than eight, a sign test cannot tell (at 1 %) that one attack is the weaker one.
    assert np.sum(wrong(trained, ours, labels) != success) < 8
    assert 0.2 < np.mean(success) < 1


def test_fgsm_is_foolboxs(trained, batch):
    images, labels = (tf.constant(part[:60]) for part in batch)
    attack = foolbox.attacks.FGSM()
    theirs, _, _ = attack(foolbox_model(trained), images, tf.cast(labels, tf.int64), epsilons=8.0)
    ours = attacks.fgsm(trained, images, labels, epsilon=8)
    assert np.mean(np.abs(ours - theirs) > 1e-3) < 0.001
    assert np.mean(np.abs(ours - images) > 0) > 0.3  # background pixels may go below 0, and so stay


def foolbox_model(classifier):
    return foolbox.TensorFlowModel(lambda images: classifier(images).logits, bounds=(0, 255), device="/CPU:0")


def wrong(classifier, images, labels):
    return np.argmax(classifier(images).logits, axis=1) != labels


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-100, 100, width=32)),
    st.randoms(use_true_random=False),
)
def test_margin_is_the_formula(logits, random):
    labels = [random.randrange(logits.shape[1]) for _ in logits]
    expected = [-max(row[y] - max(np.delete(row, y)) + 50, 0) for row, y in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(attacks.margin(tf.constant(logits), labels), expected, rtol=1e-6, atol=1e-4)


def test_margin_of_two_classes():
    logits = tf.constant([[3.0, 1], [3, 1], [-60, 1], [10, -70]])
    assert attacks.margin(logits, [0, 1, 0, 0]).numpy().tolist() == [-52, -48, 0, -130]


def test_cross_entropy_is_the_formula():
    logits, labels = np.array([[1, -2, 0.5], [100, 0, -100]], np.float32), [2, 1]
    expected = special.logsumexp(logits, axis=1) - logits[[0, 1], labels]
    np.testing.assert_allclose(attacks.cross_entropy(logits, labels), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ["xent", "cw"])
def test_one_step_of_a_linear_model(linear, loss):
    images = np.random.default_rng(1).uniform(0, 255, (5, 2, 2, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    weights = linear.weights.numpy()
    logits = images.reshape(5, -1) @ weights
    if loss == "xent":
        slope = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[labels]) @ weights.T
    else:  # the best of the others minus the true class
        others = np.where(np.eye(3)[labels] == 1, -np.inf, logits)
        slope = (weights[:, others.argmax(axis=1)] - weights[:, labels]).T
    expected = np.clip(images + 3 * np.sign(slope).reshape(images.shape), 0, 255)
    adversarial = attacks.pgd(linear, images, labels, step_size=3, steps=1, loss=loss, random_start=False)
    np.testing.assert_allclose(adversarial, expected, atol=1e-4)


def test_many_steps_reach_the_worst_corner_of_a_linear_model(linear):
    images, label = np.full((1, 2, 2, 3), 100, np.float32), [0]
    two_classes = Linear(linear.weights[:, :2])
    corner = images + 8 * np.sign(linear.weights[:, 1] - linear.weights[:, 0]).reshape(images.shape)
    np.testing.assert_allclose(attacks.pgd(two_classes, images, label, steps=20), corner, atol=1e-4)


def test_the_start_is_uniform_in_the_ball_and_belongs_to_the_seed(linear):
    images = np.full((20_000, 2, 2, 3), 128, np.float32)
    labels = np.zeros(len(images), int)

    def start(seed):
        return attacks.pgd(linear, images, labels, epsilon=6, steps=0, seed=seed).numpy()

    first = start((1, 2))
    assert np.array_equal(first, start((1, 2)))
    assert stats.kstest((first - images).ravel(), stats.uniform(-6, 12).cdf).pvalue > 1e-4
    for other in ((1, 3), (2, 2)):
        assert abs(np.corrcoef(first.ravel(), start(other).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("name", ["pgd-2", "fgsm-rs", "pgd-2x3"])
def test_an_image_starts_where_it_does_in_any_batch(linear, name):
    attack, draws = attacks.attack(name), np.random.default_rng(0)
    images = tf.constant(draws.uniform(0, 255, (30, 2, 2, 3)), tf.float32)
    labels = tf.constant(draws.integers(0, 3, 30), tf.int32)

    def run(rows):
        places = Draws(tf.constant([4, 0], tf.int64), tf.constant(rows, tf.int64))
        return attack.run(linear, tf.gather(images, rows), tf.gather(labels, rows), places, **attack.settings)

    whole = run(range(30)).numpy()
    for rows in ([7], [0, 1], [29, 3, 3, 14], draws.permutation(30)):
        np.testing.assert_allclose(run(rows), whole[rows], atol=1e-4)


@pytest.mark.parametrize("steps", [1, 20])
def test_a_step_is_one_forward_pass_and_one_backward_pass_for_the_images_alone(steps):
    """As many operations each; the gradient with respect to the weights would be as many again."""
    network, images = WideResNet(10, 1), tf.TensorSpec([2, 32, 32, 3])
    labels = tf.constant([0, 1])
    attack = tf.function(lambda images: attacks.pgd(network, images, labels, steps=steps), autograph=False)
    forward = tf.function(lambda images: network(images).logits, autograph=False)
    work, once = (flops.count(function.get_concrete_function(images)) for function in (attack, forward))
    assert work == 2 * steps * once > 0


def test_other_settings_are_not_traced_anew(linear):
    images, labels = np.full((2, 2, 2, 3), 100, np.float32), [0, 1]
    attacks.pgd(linear, images, labels)
    traced = linear.calls
    assert traced > 0
    attacks.pgd(linear, images + 1, [1, 1], epsilon=3, step_size=1, steps=5, seed=(7, 8))
    attacks.fgsm(linear, images, labels, epsilon=1.5, random_start=True)
    assert linear.calls == traced
    attacks.pgd(linear, images, labels, loss="cw")
    assert linear.calls > traced


def test_integer_images_and_an_own_loss_inside_a_tf_function(linear):
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    attack = tf.function(lambda x: attacks.pgd(linear, x, [0], random_start=False, loss=lambda z, _: z[:, 1]))
    expected = images + 8 * np.sign(linear.weights[:, 1]).reshape(images.shape)
    np.testing.assert_allclose(attack(images), expected, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"loss": "ce"}, {"epsilon": -1}, {"step_size": -0.1}, {"steps": -1}, {"epsilon": float("nan")}]
)
def test_what_is_wrong_is_named(linear, wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        attacks.pgd(linear, np.zeros((1, 2, 2, 3), np.float32), [0], **wrong)


@pytest.mark.parametrize(
    ("name", "loss", "steps", "step_size", "random_start"),
    [
        ("pgd-7", "xent", 7, 1.5, True),
        ("cw-20", "cw", 20, 1.5, True),
        ("fgsm", "xent", 1, 6.0, False),
        ("fgsm-rs", "xent", 1, 6.0, True),
    ],
)
def test_an_attack_does_what_its_protocol_says(linear, name, loss, steps, step_size, random_start):
    attack = attacks.attack(name, epsilon=6.0, step_size=1.5)
    settings = {"epsilon": 6.0, "step_size": step_size, "steps": steps, "loss": loss, "random_start": random_start}
    images, labels = np.random.default_rng(3).uniform(0, 255, (4, 2, 2, 3)).astype(np.float32), [0, 1, 2, 0]
    expected = attacks.pgd(linear, images, labels, **settings, seed=(4, 5))
    draws = Draws(tf.constant([4, 5], tf.int64)).of(4)
    assert np.array_equal(
        attack.run(linear, tf.constant(images), tf.constant(labels), draws, **attack.settings), expected
    )
    fixed = {"norm": "linf", "pixel_range": [0.0, 255.0], "batch_norm": "eval", "restarts": 1}
    assert attack.name == name
    assert attack.protocol == settings | fixed


def test_natural_is_no_attack(linear):
    attack = attacks.attack("natural")
    images = np.ones((1, 2, 2, 3), np.float32)
    assert attack.run(linear, images, [0], None) is images
    assert attack.protocol == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pdg-20", "--attacks=pdg-20: unknown; did you mean 'pgd-20'"),
        ("naturel", "did you mean 'natural'"),
        ("pgd-0", "--attacks=pgd-0: N in pgd-N is a whole number of steps from 1 on, as in pgd-7"),
        ("pgd", "--attacks=pgd: unknown"),
        ("pgd-2.5", "--attacks=pgd-2.5: N in pgd-N"),
        ("xyz", "Known: .*cw-100, cw-20, .*fgsm, fgsm-rs, .*natural, pgd-100, pgd-100x10, pgd-20, pgd-7"),
        ("pgd-20x0", "--attacks=pgd-20x0: R in pgd-NxR is a whole number of starts from 1 on"),
        ("fgsmx2", "--attacks=fgsmx2: fgsm cannot be repeated from other starts"),
    ],
)
def test_unknown_attacks(name, message):
    with pytest.raises(UsageError, match=message):
        attacks.attack(name)


@pytest.mark.parametrize(("flag", "value"), [("epsilon", -1), ("step_size", -2.5), ("epsilon", 256)])
def test_sizes_that_no_attack_has(flag, value):
    with pytest.raises(UsageError, match=f"--{flag}={value}: must be from 0 to 255"):
        attacks.attack("pgd-7", **{flag: value})


@pytest.mark.parametrize(
    ("name", "restarts", "full"),
    [
        ("pgd-7", 1, "pgd-7"),
        ("pgd-7", 3, "pgd-7x3"),
        ("pgd-7x1", 3, "pgd-7"),
        ("cw-20x5", 1, "cw-20x5"),
        ("fgsm", 3, "fgsm"),
        ("natural", 3, "natural"),
    ],
)
def test_restarts_by_flag_and_by_name(name, restarts, full):
    attack = attacks.attack(name, restarts=restarts)
    times = int(full.partition("x")[2] or 1) if full.startswith(("pgd", "cw")) else 1
    assert (attack.name, attack.protocol.get("restarts", 1)) == (full, times)
    assert attack.protocol.get("stops_at_error", False) == (times > 1)
    assert takes_restarts(name) == (name == "pgd-7")


def test_restarts_are_those_of_as_many_single_starts(trained, digits):
    images, labels = digits.test.images[:32].astype(np.float32), digits.test.labels[:32]

    def is_wrong(adversarial):
        return np.argmax(trained(adversarial).logits, axis=1) != labels

    attack, draws = attacks.attack("pgd-3x3", epsilon=4.0), Draws(tf.constant([5, 0], tf.int64)).of(32)
    found = attack.run(as_predictor(trained), tf.constant(images), tf.constant(labels), draws, **attack.settings)
    starts = [(5 + (number << 31), 0) for number in range(3)]
    single = [attacks.pgd(trained, images, labels, epsilon=4.0, steps=3, seed=seed) for seed in starts]
    wrong = np.stack([is_wrong(images), *map(is_wrong, single)])
    np.testing.assert_array_equal(is_wrong(found), wrong.any(axis=0))
    first = np.where(wrong.any(axis=0), wrong.argmax(axis=0), 3)
    assert 0 < wrong.any(axis=0).sum() < 32
    assert len(set(first)) > 2
    for row, number in enumerate(first):  # packed, so rounded otherwise here and there
        np.testing.assert_allclose(found[row], [images, *single][number][row], atol=0.01)
