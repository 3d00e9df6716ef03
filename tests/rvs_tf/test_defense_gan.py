"""Defense-GAN against its authors' own code; the purifying predictor, its stand-in and the attack in latent space."""

import zlib

import numpy as np
import pytest
import tensorflow as tf
from generative_code import IMAGES, tensorflow_weight
from released import DATA, normal, probe_distance, probe_error

from madry_cifar import attacks
from madry_cifar.cli.errors import UsageError
from madry_cifar.data.datasets import Split
from madry_cifar.evaluation import results
from madry_cifar.evaluation.benchmark import benchmark
from madry_cifar.evaluation.evaluator import Evaluator
from madry_cifar.evaluation.watching import Counting
from madry_cifar.predictor import Outputs, Predictor, WithXLA
from madry_cifar.randomness import Draws
from madry_cifar.runs.checkpoints import flat_state
from rvs_tf.defense_gan import GAN, Purified, reconstruct
from rvs_tf.defense_gan.gan import GREY
from rvs_tf.defense_gan.networks import Critic, GANGenerator

ORIGINAL = np.load(DATA / "defense_gan.npz")
BATCHES = [*IMAGES, ORIGINAL["images"]]
LAYERS = {
    "Generator.Input": "generator.dense",
    **{f"Generator.{place}": f"generator.deconv{k}" for k, place in enumerate((2, 3, 6), 1)},
    **{f"Discriminator.{k}": f"critic.conv{k}" for k in (1, 2, 3)},
    "Discriminator.Output": "critic.dense",
}
ENDS = {"W": "kernel", "Filters": "kernel", "b": "bias", "Biases": "bias"}


@pytest.fixture
def released():
    """A GAN with the released code's weights, and its variables by the names there."""
    gan, variables = GAN(GAN.Options(width=8), dtype="float64"), {}
    state = flat_state(gan.networks, {})
    for line in ORIGINAL["variables"]:
        name, *shape = str(line).split()
        layer, _, end = name.rpartition(".")
        variables[name] = state.pop(f"{LAYERS[layer]}.{ENDS[end]}")
        variables[name].assign(tensorflow_weight(name, tuple(map(int, shape))))
    assert not state  # none of ours is without a counterpart
    return gan, variables


def given(k):
    """Images, latent vectors and α of update k."""
    share = np.random.RandomState(zlib.crc32(f"11/alpha{k}".encode())).uniform(size=(4, 1, 1, 1))
    return map(tf.constant, (BATCHES[k].astype(np.float64), normal(f"11/latent{k}", (4, 128)), share))


def test_three_updates(released):
    """Changes are told by a projection, to 1e-5 of their norm."""
    gan, variables = released
    start = {name: variable.numpy() for name, variable in variables.items()}
    _, latent, _ = given(0)
    assert probe_error("fake", gan.generator(latent).numpy(), ORIGINAL["fake"]) < 1e-6
    np.testing.assert_allclose(gan.critic(BATCHES[0] / GREY - 1), ORIGINAL["real_score"], rtol=1e-6)
    np.testing.assert_allclose(gan.critic(gan.generator(latent)), ORIGINAL["fake_score"], rtol=1e-6)
    for k, network in enumerate(("critic", "generator", "critic")):
        images, latent, share = given(k)
        critic, generator, penalty, _ = ORIGINAL[f"step{k}_costs"]
        if network == "critic":
            losses = gan.update_critic(images, latent, share, tf.constant(k, tf.int64))
            found = [losses[name] for name in ("total", "generator", "penalty")]
            np.testing.assert_allclose(found, [critic, generator, penalty], rtol=1e-6)
        else:
            np.testing.assert_allclose(gan.update_generator(latent, tf.constant(k, tf.int64)), generator, rtol=1e-6)
        for name, probe in zip(start, ORIGINAL[f"step{k}_change"], strict=True):
            assert probe_distance(name, variables[name].numpy() - start[name], probe) <= 1e-5 * probe[1] + 1e-12, name
    assert [gan.optimizers[name].count.numpy() for name in ("critic", "generator")] == [2, 1]


def test_the_penalty_by_images(released):
    gan, _ = released
    gan.options = GAN.Options(width=8, gradient_penalty="image")
    losses = gan.update_critic(*given(0), tf.constant(0, tf.int64))
    np.testing.assert_allclose(losses["penalty"], ORIGINAL["step0_costs"][3], rtol=1e-6)


def restored(gan, **settings):
    starts = normal("11/z0", (4, 3, 128)) / 128**0.5  # as [12, 128]: three of each image, one after another
    return reconstruct(gan.generator, tf.constant(BATCHES[0], tf.float64), tf.constant(starts), **settings)


def test_reconstruction(released):
    gan, _ = released
    found, chosen = restored(gan, steps=20), ORIGINAL["chosen"]
    np.testing.assert_array_equal(found.restart, chosen)
    expected = ORIGINAL["errors"][-1].reshape(4, 3)[range(4), chosen]
    np.testing.assert_allclose(found.errors, expected, rtol=1e-6)
    assert probe_error("reconstruction", found.images.numpy() / GREY - 1, ORIGINAL["reconstruction"]) < 1e-6
    for steps in (1, 7):  # the errors are those before each update, and the first of them of the starts
        errors = ORIGINAL["errors"][steps - 1].reshape(4, 3).min(axis=1)
        np.testing.assert_allclose(restored(gan, steps=steps).errors, errors, rtol=1e-6)


def test_what_is_returned_belongs_together(released):
    gan, _ = released
    found = restored(gan, steps=5)
    np.testing.assert_allclose(GREY * (gan.generator(found.latent) + 1), found.images)
    errors = np.mean(np.square(found.images - BATCHES[0]) / GREY**2, axis=(1, 2, 3))
    np.testing.assert_allclose(found.errors, errors)


def test_the_rate_drops_if_asked_to(released):
    """After 0.8 of ten steps: the image after the ninth update shows it for the first time."""
    gan, _ = released
    constant, dropping = (restored(gan, steps=10, rate_drop=drop).latent for drop in (False, True))
    assert np.abs(constant - dropping).max() > 1e-6
    before = restored(gan, steps=9).latent  # that after eight updates, at the full rate
    np.testing.assert_allclose(np.linalg.norm(dropping - before), 0.1 * np.linalg.norm(constant - before), rtol=1e-6)


def test_of_a_sum_of_squares_the_rate_would_be_too_large(released):
    gan, _ = released
    start = ORIGINAL["errors"][0].reshape(4, 3).min(axis=1)
    assert np.all(restored(gan, steps=20).errors < start)
    assert np.all(restored(gan, steps=20, rate=10 * 32 * 32 * 3).errors > start)


def test_first_weights():
    """Variances as the WGAN-GP code has them, of inputs and outputs (a stride of 2 has a quarter on one side)."""
    generator, critic = GANGenerator(16, 8), Critic(8)
    for kernel, inputs, outputs, gain in (
        (generator.dense.kernel, 16, 512, 2),
        (generator.deconvs[0].kernel, 32 * 25 / 4, 16 * 25, 4),
        (critic.convs[1].kernel, 8 * 25, 16 * 25 / 4, 4),
    ):
        bound = (3 * gain / (inputs + outputs)) ** 0.5
        assert 0.98 * bound < np.abs(kernel.numpy()).max() <= bound
    assert [network.count_params() for network in (GANGenerator(), Critic())] == [1_557_379, 1_033_345]


def test_a_step_updates_the_generator_before_every_fifth_update_of_the_critic():
    gan = GAN(GAN.Options(width=1, latent_dim=4, batch_size=2, iterations=3))
    images, counts = tf.constant(IMAGES[0][:2], tf.float32), []
    for number in range(11):
        gan.train_step(images, tf.zeros([2], tf.int32), tf.constant(number, tf.int64))
        counts.append(tuple(int(gan.optimizers[name].count) for name in ("critic", "generator")))
    assert counts == [(k + 1, k // 5) for k in range(11)]
    assert gan.steps(0) == 15


# --- The predictor


class Linear(Predictor):
    """Three classes by a fixed projection of the pixels."""

    num_classes, image_shape = 3, (32, 32, 3)
    weights = tf.constant(normal("weights", (3072, 3)), tf.float32)

    def __call__(self, images, draw=0):
        return Outputs(None, tf.reshape(images, [-1, 3072]) @ self.weights / 255)


@pytest.fixture(scope="module")
def purified():
    return Purified(Linear(), GANGenerator(8, 2, seed=3), restarts=2, steps=4)


@pytest.fixture(scope="module")
def pictures(purified):
    """Eight images that the generator makes."""
    latent = tf.constant(normal("pictures", (8, 8)), tf.float32)
    return (GREY * (purified.generator(latent) + 1)).numpy()


def test_what_an_image_becomes_depends_on_its_draw_alone(purified, pictures):
    draws = tf.range(10, 18, dtype=tf.int64)
    together = purified(pictures, draws).logits.numpy()
    for row in (0, 5):
        alone = purified(pictures[row : row + 1], draws[row : row + 1]).logits
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-4)
    assert np.abs(purified(pictures, draws + 100).logits - together).max() > 1e-3


def test_there_is_no_gradient_but_that_of_the_stand_in(purified, pictures):
    images, draw = tf.constant(pictures), tf.constant(5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        scores, smooth = (each(images, draw).logits for each in (purified, purified.differentiable()))
        first = smooth[:, 1]
    np.testing.assert_array_equal(scores, smooth)
    assert tape.gradient(scores, images) is None
    expected = np.broadcast_to(Linear.weights[:, 1].numpy().reshape(32, 32, 3) / 255, images.shape)
    np.testing.assert_allclose(tape.gradient(first, images), expected, rtol=1e-6)


def test_an_image_that_the_gan_cannot_make_has_a_larger_error():
    purified = Purified(Linear(), GANGenerator(8, 2, seed=3), restarts=2, steps=60)
    own = GREY * (purified.generator(tf.constant(normal("own", (4, 8)) / 8**0.5, tf.float32)) + 1)
    checks = np.indices((32, 32)).sum(axis=0) % 2 * np.ones([4, 3, 1, 1])
    errors = [purified.reconstruct(images).errors for images in (own, 255 * checks.transpose(0, 2, 3, 1))]
    assert np.max(errors[0]) < np.min(errors[1])


def test_its_fingerprint_knows_all_that_takes_part(purified):
    def of(scale=1, seed=3, **settings):
        predictor, given = Linear(), {"restarts": 2, "steps": 4} | settings
        predictor.weights *= scale
        return Purified(predictor, GANGenerator(8, 2, seed=seed), **given).fingerprint()

    others = [of(2), of(seed=4), of(steps=5), of(restarts=3), of(rate=1.0), of(rate_drop=True)]
    assert of() == purified.fingerprint()
    assert len({of(), *others}) == 7


@pytest.mark.parametrize("settings", [{"restarts": 0}, {"steps": 0}])
def test_less_than_one_is_refused(settings):
    (name,) = settings
    with pytest.raises(UsageError, match=f"{name} must be at least 1"):
        Purified(Linear(), GANGenerator(8, 1), **settings)


@pytest.mark.parametrize("rate", [0.0, -10.0, float("nan"), float("inf")])
def test_a_rate_that_does_not_descend_is_refused(rate):
    with pytest.raises(UsageError, match="rate must be a number above 0"):
        Purified(Linear(), GANGenerator(8, 1), rate=rate)


def test_results_from_python_say_that_images_are_purified(purified, pictures):
    content = benchmark(purified, pictures, np.arange(8) % 3, "natural", progress=False).content
    assert content["purification"] == {"restarts": 2, "steps": 4, "rate": 10.0, "rate_drop": False}
    assert "purified by a GAN, 2 × 4 steps at rate 10" in results.subject(content)
    assert content["attacks"]["natural"]["reconstruction_error"]["mean"] > 0


def test_what_wraps_a_predictor_is_put_around_another(purified, pictures):
    """XLA, and the count by which a bar moves: also around what the attack in latent space asks."""
    count = tf.Variable(0, dtype=tf.int64)
    wrapped = Counting(WithXLA(purified), count)
    inner = wrapped.wrapping(purified.predictor)
    assert (type(inner), type(inner.predictor), inner.predictor.predictor) == (Counting, WithXLA, purified.predictor)
    labels, draws = np.zeros(8, np.int32), Draws((0, 0), np.arange(8))
    attacks.attack("latent-5").run(wrapped, pictures, labels, draws, epsilon=8.0, steps=5)
    assert count.numpy() == 5 * 8
    there, here = wrapped(pictures), purified(pictures)
    np.testing.assert_allclose(there.reconstruction_error, here.reconstruction_error, rtol=1e-3)
    np.testing.assert_allclose(there.logits, here.logits, rtol=1e-3, atol=1e-3)


def test_images_that_are_skipped_keep_their_errors(purified, pictures):
    """Of natural images, as their predictions."""
    labels = np.argmax(purified(pictures).logits, axis=1).astype(np.int32)
    labels[::2] = (labels[::2] + 1) % 3
    evaluator = Evaluator(purified, [attacks.attack("bpda-pgd-1")], batch_size=8)
    natural = evaluator.run(attacks.attack("natural"), Split(pictures, labels))
    (attacked,) = evaluator(Split(pictures, labels), skip_misclassified=True).values()
    wrong = natural.predictions != labels
    same = attacked.reconstruction_errors == natural.reconstruction_errors
    assert (list(same[wrong]), any(same[~wrong])) == ([True] * wrong.sum(), False)


def test_a_classifier_of_other_images_is_refused():
    small = Linear()
    small.image_shape = (28, 28, 1)
    with pytest.raises(UsageError, match=r"the GAN makes images \[32, 32, 3\], and the classifier takes \[28, 28, 1\]"):
        Purified(small, GANGenerator(8, 1))


# --- Attacks


def evaluated(evaluator, name, pictures, labels, **sizes):
    return evaluator.run(attacks.attack(name, **sizes), Split(pictures, labels), seed=1)


def test_bpda_goes_along_the_gradient_at_the_purified_image(purified, pictures):
    """One step of ε from a random start: each pixel is on the side of the second class, the nearest."""
    order = np.argsort(np.stack([purified(pictures, draw).logits for draw in range(3)]), axis=2)
    rows = np.flatnonzero((order == order[0]).all(axis=(0, 2)))  # whatever is drawn
    labels, second = order[0, :, 2].astype(np.int32), order[0, :, 1]
    evaluator = Evaluator(purified, batch_size=8, keep_adversarial=True)
    moved = evaluated(evaluator, "bpda-cw-1", pictures, labels, epsilon=4, step_size=4).adversarial
    towards = np.sign(Linear.weights.numpy().T[second] - Linear.weights.numpy().T[labels]).reshape(pictures.shape)
    assert len(rows) > 3
    assert np.mean(((moved - pictures) * towards)[rows] >= -1e-4) > 0.99


def test_the_attack_in_latent_space_finds_errors_that_the_gan_makes(pictures):
    """Of images that it makes, with room enough: the classifier is wrong, and so it is once they are purified."""
    purified = Purified(Linear(), GANGenerator(8, 2, seed=3), restarts=2, steps=40)
    evaluator = Evaluator(purified, batch_size=8, keep_adversarial=True)
    labels = np.argmax(purified(pictures).logits, axis=1).astype(np.int32)
    outcome = evaluated(evaluator, "latent-60", pictures, labels, epsilon=255)
    assert outcome.accuracy <= 25
    assert np.mean(np.argmax(Linear()(outcome.adversarial).logits, axis=1) == labels) <= 0.25
    errors = purified.reconstruct(outcome.adversarial).errors
    assert np.mean(errors) < 0.1 * np.var(outcome.adversarial / GREY)
    within = evaluated(evaluator, "latent-3", pictures, labels, epsilon=6)  # the evaluator refuses what leaves the ball
    assert 0 < within.linf <= 6 + 1e-3


@pytest.mark.parametrize(
    ("name", "reason"),
    [("latent-3", "has none; give --purify_with=GAN"), ("bpda-pgd-3", "no stand-in for it: use pgd-N")],
)
def test_what_has_no_purifier_is_refused(pictures, name, reason):
    with pytest.raises(UsageError, match=f"--attacks={name}: .*{reason}"):
        evaluated(Evaluator(Linear(), batch_size=8), name, pictures, np.zeros(8, np.int32))
