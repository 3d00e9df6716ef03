"""The command rvs_tf.diagnose with five of its checks: one of each kind, cheap ones and those that attack."""

import functools

import rvs_tf.diagnose
from madry_cifar.evaluation import diagnosis

CHECKS = ("randomness", "loss-surface", "logit-scale", "black-box", "square")


def command():
    diagnosis.diagnose = functools.partial(diagnosis.diagnose, checks=CHECKS)
    rvs_tf.diagnose.command()


if __name__ == "__main__":
    command()
