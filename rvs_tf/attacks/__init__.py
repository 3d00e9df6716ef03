"""Every attack as a function on anybody's model; `rvs_tf.benchmark` runs several and tells the accuracies."""

from madry_cifar.attacks.pgd import fgsm, pgd
from madry_cifar.evaluation.functions import (
    apgd_ce,
    apgd_dlr,
    apgd_t,
    bpda_pgd,
    cw_l2,
    eot_pgd,
    fab_t,
    multitargeted,
    run,
    square,
)
from rvs_tf.attacks.autoattack import Report, autoattack

autoattack.autoattack, autoattack.Report = autoattack, Report  # for `import rvs_tf.attacks.autoattack`, once a module

__all__ = [
    "Report",
    "apgd_ce",
    "apgd_dlr",
    "apgd_t",
    "autoattack",
    "bpda_pgd",
    "cw_l2",
    "eot_pgd",
    "fab_t",
    "fgsm",
    "multitargeted",
    "pgd",
    "run",
    "square",
]
