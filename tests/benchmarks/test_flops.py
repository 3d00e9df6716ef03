"""The count of operations, against the arithmetic of the layers."""

import tensorflow as tf

from benchmarks import flops
from madry_cifar import WideResNet
from madry_cifar.training.adversarial import AdversarialTraining, AdversarialTrainingOptions, Natural
from rvs_tf import RobustnessViaSynthesis
from rvs_tf.defense import RvSOptions

BATCH = 4


def forward_flops(width):
    """Two operations per weight and output position of WRN-10-w, for one image."""
    w = width
    convolutions = [(32, 3, 16), (32, 16, 16 * w), (32, 16 * w, 16 * w), (16, 16 * w, 32 * w)]
    convolutions += [(16, 32 * w, 32 * w), (8, 32 * w, 64 * w), (8, 64 * w, 64 * w)]
    return sum(2 * 9 * size**2 * a * b for size, a, b in convolutions) + 2 * 64 * w * 10


def count(function):
    return flops.count(tf.function(function, autograph=False).get_concrete_function())


def batch():
    return tf.zeros([BATCH, 32, 32, 3]), tf.zeros([BATCH], tf.int32), tf.constant(0, tf.int64)


def test_a_forward_pass():
    classifier = WideResNet(10, 2)
    assert count(lambda: classifier(batch()[0]).logits) == BATCH * forward_flops(2)


def test_natural_training_costs_three_forward_passes():
    step = Natural(WideResNet(10, 1)).train_step
    first_layer = 2 * 9 * 32**2 * 3 * 16  # no gradient is needed with respect to the images
    assert count(lambda: step(*batch())) == BATCH * (3 * forward_flops(1) - first_layer)


def test_adversarial_training_costs_two_more_for_each_step_of_the_attack():
    def cost(steps):
        step = AdversarialTraining(WideResNet(10, 1), AdversarialTrainingOptions(attack_steps=steps)).train_step
        return count(lambda: step(*batch()))

    assert cost(7) - cost(3) == 4 * 2 * BATCH * forward_flops(1)


def test_rvs_costs_eight_forward_passes_and_its_generator():
    """Three forward passes, the generator's gradient through one, and two full backward passes.

    With the paired distance, which takes no matrix product.
    """
    step = RobustnessViaSynthesis(WideResNet(10, 1), RvSOptions(ot="paired")).train_step
    dense, deconv1 = 2 * 640 * 4096, 2 * 8 * 8 * 64 * 16 * 32
    deconv2, conv3 = 2 * 16 * 16 * 32 * 16 * 16, 2 * 32 * 32 * 3 * 16 * 16
    first_layer = 2 * 9 * 32**2 * 3 * 16
    generator = 4 * (dense + deconv1 + deconv2 + conv3) - dense  # two forward, one backward; no gradient for z
    unused_logits = 5 * 2 * 64 * 10  # of two of the three forward passes, and their gradients
    per_image = 8 * forward_flops(1) - 2 * first_layer - unused_logits + generator
    assert count(lambda: step(*batch())) == BATCH * per_image


def test_of_two_branches_the_one_with_more_work_counts():
    """Four products where the condition holds, three of them in a loop, else one."""
    weights = tf.ones([4, 4])

    def much(values):
        start = (0, values @ weights)
        return tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v @ weights), start, maximum_iterations=3)[1]

    @tf.function(input_signature=[tf.TensorSpec([2, 4]), tf.TensorSpec([], tf.bool)], autograph=False)
    def choose(values, condition):
        return tf.cond(condition, lambda: much(values), lambda: values @ weights)

    assert flops.count(choose.get_concrete_function()) == 4 * 2 * 2 * 4 * 4
