"""Where AutoAttack was before it moved to `madry_cifar.evaluation`; scripts that import it from here go on."""
