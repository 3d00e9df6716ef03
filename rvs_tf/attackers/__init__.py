"""Networks that perturb images, for the defences that train one."""

from rvs_tf.attackers.distribution import DistributionAttacker, LatentEncoder
from rvs_tf.attackers.plain import PlainAttacker
from rvs_tf.attackers.residual import ResidualAttacker
from rvs_tf.attackers.u_net import ConditionalUNet
from rvs_tf.attackers.wide import WideAttacker

__all__ = [
    "ConditionalUNet",
    "DistributionAttacker",
    "LatentEncoder",
    "PlainAttacker",
    "ResidualAttacker",
    "WideAttacker",
]
