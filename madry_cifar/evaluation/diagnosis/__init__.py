"""Signs of masked gradients: whether the accuracy that PGD leaves can be believed.

    diagnose    all checks on a network, from its gradients' zeros to Square against APGD
    CHECKS      what they ask; each module of this package tells what it judges, and what is tolerated

The signs are those of Athalye et al., "Obfuscated gradients give a false sense of security", ICML 2018, and Carlini
et al., "On evaluating adversarial robustness", 2019. No sign is no proof: AutoAttack's accuracy is what to report.
"""

from madry_cifar.evaluation.diagnosis.checks import CHECKS, Diagnosis, diagnose
from madry_cifar.evaluation.diagnosis.verdicts import Check, overall

__all__ = ["CHECKS", "Check", "Diagnosis", "diagnose", "overall"]
