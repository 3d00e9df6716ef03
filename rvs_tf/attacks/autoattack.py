"""AutoAttack, under the name that it had first; it lives in `madry_cifar.evaluation.autoattack`."""

from madry_cifar.evaluation.autoattack import Report, autoattack

__all__ = ["Report", "autoattack"]
