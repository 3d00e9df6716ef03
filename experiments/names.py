"""How data sets, defences and attacks are called where people read them."""

import re

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn_cropped": "SVHN"}
DEFENSES = {  # by row, as the paper calls them; what it calls "Ours" is RvS here, so that nobody takes it for ours
    "natural": "Natural",
    "at": "AT",
    "bilateral": "Bilateral",
    "featscatter": "FeatScatter",
    "adv_interp": "Adv-interp",
    "adv_vertex": "Adv-vertex",
    "l2l_da": "L2L-DA",
    "l2l": "L2L",
    "direct": "Direct",
    "learn2perturb": "Learn2Perturb",
    "rvs": "RvS",
}
ABLATIONS = {  # Table IV, and what we add to it
    "noreg_ot": "noReg + OT",
    "otreg_xent": "OT-Reg + Xent",
    "rvs": "OT-Reg + OT (RvS)",
    "paired": "OT-Reg + paired distance (not in the paper)",
}
_FAMILIES = ("natural", "fgsm", "fgsm-rs", "pgd", "cw", "advgan", "autoattack")


def dataset_label(dataset: str) -> str:
    """CIFAR-10, SVHN, ...; any other as it is."""
    return DATASETS.get(dataset, dataset)


def row_label(row: str) -> str:
    """AT, RvS, noReg + OT, ...; any other as it is."""
    return (ABLATIONS | DEFENSES).get(row, row)


def setting_label(setting: str) -> str:
    """transfer from AT, ...: a setting of `published.csv` with the surrogate as the tables call it."""
    start, found, row = setting.partition("transfer from ")
    return f"{found}{row_label(row)}" if found else start


def attack_label(attack: str) -> str:
    """PGD-20, AdvGAN ×8 final, ..."""
    if attack.startswith("advgan"):
        return re.sub(r"-x(\d+)", r" ×\1", attack.replace("advgan", "AdvGAN")).replace("-final", " final")
    return {"natural": "Natural", "autoattack": "AutoAttack"}.get(attack, attack.upper())


def attack_order(attack: str) -> tuple:
    """The place of an attack among the others, for sorting: the paper's order, the wider AdvGAN last, then others."""
    if match := re.fullmatch(r"advgan(?:-x(\d+))?(-final)?", attack):
        return _FAMILIES.index("advgan"), int(match[1] or 1), bool(match[2]), attack
    stem, _, steps = attack.rpartition("-")
    family, number = (stem, int(steps)) if steps.isdigit() else (attack, 0)
    return _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES), number, False, attack
