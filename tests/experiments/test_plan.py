"""The estimate of a plan: how much work each job is, with the steps' times given."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from experiments import plan, rows
from experiments.parts import PARTS
from experiments.rows import COLUMNS
from madry_cifar import WideResNet, attacks
from madry_cifar.evaluation.diagnosis import CHECKS
from madry_cifar.networks.architectures import network_of
from madry_cifar.randomness import Draws
from madry_cifar.training.settings import NetworkSettings
from rvs_tf import Purified
from rvs_tf.defense_gan.gan import GANOptions
from rvs_tf.defense_gan.networks import GANGenerator
from rvs_tf.defenses import Learn2Perturb

FLAGS = [
    "--defense=rvs",
    "--depth=10",
    "--width=1",
    "--steps=100",
    "--batch_size=8",
    "--learning_rates=0.1",
    "--learning_rate_boundaries=",
    "--ot=paired",
]
RUN = {"id": "digits/rvs-0/seed-0", "dataset": "digits", "row": "rvs", "seed": 0, "flags": FLAGS}
PURIFIED = RUN | {"id": "digits/defense_gan-0/seed-0", "row": "defense_gan", "purified": True}
CONFIG = {
    "runs": [RUN, PURIFIED],
    "attacks": {name: part.attacks for name, part in PARTS.items()} | {"purified": list(rows.PURIFIED)},
    "images": 0,
    "epsilons": [0, 8, 16],
    "draws": 10,
    "checkpoints": 4,
    "diversity_images": 50,
    "diagnosis_flags": ["--max_images=50"],
    "advgan_flags": ["--epochs=3", "--max_train_images=1000"],
    "gan_flags": ["--width=4", "--iterations=70"],
    "purified_flags": ["--purify_restarts=2", "--purify_steps=5", "--max_images=30"],
}


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """A clock for which a training step takes 2 s an image, one of an attack 0.3, of a GAN 0.4 and of a search 0.04."""
    monkeypatch.setattr(plan, "_training_step", lambda *_: 2.0)
    monkeypatch.setattr(plan, "_attack_step", lambda *_: 0.3)
    monkeypatch.setattr(plan, "_gan_step", lambda options: 0.1 * options.width)
    monkeypatch.setattr(plan, "_search_step", lambda width: 0.01 * width)
    return plan.Clock(CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("kind", "file", "seconds"),
    [
        ("train", "runs/{}/trained", 100 * 8 * 2),
        ("train_advgan", "advgan/{}/x8/trained", 3 * 1000 * 2),
        ("evaluate", "results/{}/white-box-table4.json", 359 * (1 + 20 * 3 + 1 + 20 * 3 + 1) * 0.1),
        ("transfer", "results/{}/from-at.json", 359 * (2 * (20 + 100) * 3 + 4) * 0.1),
        ("attack_over_epsilon", "results/{}/epsilons.json", 3 * 359 * 61 * 0.1),
        ("diversity", "results/{}/diversity.json", 4 * 2 * 50 * 10 * 0.1),
        ("latent_space", "results/{}/latent.npz", 2 * 10 * 10 * 0.1),
        ("diagnose", "results/{}/diagnosis.json", 50 * 2400 * 0.3),
        ("table2", "report/table2.md", 0),
    ],
)
def test_work_of_a_job(clock, kind, file, seconds):
    assert clock.seconds(kind, file.format(RUN["id"])) == pytest.approx(seconds)


def test_work_behind_a_purifier(clock):
    """Attacks that need 0, 20 × 10 draws and 1 searches, and after each an image is judged by eleven."""
    assert clock.seconds("train_gan", f"gan/{PURIFIED['id']}/trained") == pytest.approx(70 * 0.4)
    seconds = 30 * (2 * 5 * 0.04) * (11 + 211 + 12)
    assert clock.seconds("evaluate", f"results/{PURIFIED['id']}/white-box-table2.json") == pytest.approx(seconds)


class Counted(Purified):
    """A purifier that counts the images that it is given."""

    def reconstruct(self, images, draw=0):
        self.count.assign_add(len(images))
        return super().reconstruct(images, draw)


@pytest.mark.parametrize("name", rows.PURIFIED)
def test_an_attack_purifies_as_often_as_the_plan_counts(name):
    purified = Counted(WideResNet(depth=10, width=1), GANGenerator(width=1), restarts=1, steps=1)
    purified.count = tf.Variable(0)
    attack, zeros = attacks.attack(name), tf.zeros([2], tf.int64)
    images, draws = tf.fill([1, 32, 32, 3], 100.0), Draws(zeros, zeros[:1])
    tf.function(lambda: attack.run(purified, images, [3], draws, **attack.settings))()
    assert purified.count.numpy() == rows.PURIFIED[name]


def test_what_is_trained_already_is_not_counted(clock, tmp_path):
    checkpoint = tmp_path / "runs" / RUN["id"] / "checkpoints" / "ckpt-60.index"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert clock.seconds("train", f"runs/{RUN['id']}/trained") == pytest.approx(40 * 8 * 2)
    checkpoint = tmp_path / "gan" / PURIFIED["id"] / "checkpoints" / "ckpt-100.index"  # of 5 steps an iteration
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert clock.seconds("train_gan", f"gan/{PURIFIED['id']}/trained") == pytest.approx((70 - 20) * 0.4)


@pytest.mark.parametrize(
    ("name", "thirds"),
    [
        ("natural", 1),
        ("pgd-100", 3 * 100 + 1),
        ("pgd-100x10", 3 * 100 * 10 + 1),
        ("apgd-ce", 3 * 100 + 1),
        ("apgd-t", 3 * 100 * 9 + 1),
        ("fab-t", 3 * 100 * 9 + 1),
        ("multitargeted", 3 * 100 * 9 + 1),
        ("square", 5000 + 1),
        ("cw-l2-100", 3 * 9 * 100 + 1),  # nine constants
        ("autoattack", 3 * (100 + 900 + 900) + 5000 + 4),
        ("autoattack-rand", 2 * (3 * 100 * 20 + 1)),  # gradients averaged over 20 passes
    ],
)
def test_gradients_of_an_attack(name, thirds):
    assert plan.gradients(attacks.attack(name)) == pytest.approx(thirds / 3)


def test_stages_that_are_columns_are_not_counted_twice():
    names = COLUMNS["extended"]
    assert plan.gradients(attacks.attack("autoattack"), known=names) == 0
    assert plan.gradients(attacks.attack("autoattack"), known=["square"]) == pytest.approx(1901)
    each = sum(plan.gradients(attacks.attack(name)) for name in names if name != "autoattack")
    assert sum(plan.gradients(attacks.attack(name), known=names) for name in names) == pytest.approx(each)


def test_the_diagnosis_is_counted_as_it_counts_itself():
    case = SimpleNamespace(epsilon=8.0, has_surrogate=True, logits=np.zeros([1, 10]))
    trials = {}
    for question in CHECKS.values():
        trials |= question.trials(case)
    assert pytest.approx(sum(trial.cost for trial in trials.values()), rel=0.05) == plan.DIAGNOSIS


def test_steps_are_measured():
    assert 0 < plan._attack_step(NetworkSettings(depth=10, width=1), 10) < 10
    assert 0 < plan._gan_step(GANOptions(width=2, batch_size=4)) < 10
    assert 0 < plan._search_step(2) < 1


def test_a_late_step_is_timed(monkeypatch):
    """Learn2Perturb attacks from its 20th epoch of 350 on; the step that is timed does."""
    options, attacked = Learn2Perturb.Options(batch_size=2, steps=100, attack_steps=1), []
    attack = Learn2Perturb.attack

    def noting(self, images, labels, step):
        attacked.append(tf.get_static_value(step))
        return attack(self, images, labels, step)

    monkeypatch.setattr(Learn2Perturb, "attack", noting)
    assert plan._training_step(Learn2Perturb, options, NetworkSettings(depth=10, width=1), 10) > 0
    assert attacked == [99]


def test_a_training_that_is_another_runs_takes_no_time(clock):
    assert clock._train(RUN, None) > 0
    assert clock._train(RUN | {"copy_of": "digits/direct-0/seed-0"}, None) == 0


def test_the_network_that_is_timed_is_that_of_the_run(tmp_path):
    """Of another architecture and precision too; a flag without a value is no setting of it."""
    flags = ["--defense=at", "--depth=20", "--width=1", "--architecture=resnet_pad", "--precision=bfloat16"]
    clock = plan.Clock(CONFIG, tmp_path)
    network, classes = clock._network(RUN | {"flags": [*flags, "--epsilon=0.5", "--below_one_grey_level"]})
    assert network == NetworkSettings(depth=20, width=1, architecture="resnet_pad", precision="bfloat16")
    built = plan.classifier(network, classes)
    expected = network_of({"architecture": "resnet_pad", "depth": 20, "width": 1, "num_classes": 10})
    assert [tuple(v.shape) for v in built.trainable_variables] == [tuple(v.shape) for v in expected.trainable_variables]
    assert built.dtype_policy.name == "mixed_bfloat16"
    attacked, _ = clock._attacked(RUN | {"flags": flags})
    assert attacked == NetworkSettings(depth=20, width=1, architecture="resnet_pad", precision="float32")
