"""AutoAttack (Croce and Hein, ICML 2020) for L∞: APGD, FAB, Square, and its versions that combine them."""

from rvs_tf.attacks.autoattack.versions import Report, autoattack

__all__ = ["Report", "autoattack"]
