"""Networks that perturb images, for the defences that train one."""

from rvs_tf.attackers.residual import ResidualAttacker
from rvs_tf.attackers.u_net import ConditionalUNet
from rvs_tf.attackers.wide import WideAttacker

__all__ = ["ConditionalUNet", "ResidualAttacker", "WideAttacker"]
