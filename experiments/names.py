"""How data sets, defences and attacks are called where people read them."""

import re

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn_cropped": "SVHN"}
DEFENSES = {  # by row, as the paper calls them; what it calls "Ours" is RvS here, so that nobody takes it for ours
    "natural": "Natural",
    "at": "AT",
    "trades": "TRADES",
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
_ATTACKS = {  # that are not called by their name in capital letters; {} is the number at its end
    "natural": "Natural",
    "multitargeted": "MultiTargeted",
    "square": "Square",
    "cw-l2": "C&W L2 ({}), radius 127.5",  # RADIUS of rvs_tf/attacks/carlini_wagner.py, and not ε
    "autoattack-rand": "AutoAttack rand",
    "autoattack-plus": "AutoAttack plus",
    "autoattack": "AutoAttack",
}
# the paper's columns, in its order, then the others
_FAMILIES = (
    "natural",
    "fgsm",
    "fgsm-rs",
    "pgd",
    "cw",
    "advgan",
    "multitargeted",
    "apgd-ce",
    "apgd-dlr",
    "apgd-t",
    "fab-t",
    "square",
    "cw-l2",
    "autoattack-rand",
    "autoattack-plus",
    "autoattack",
)


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
    """PGD-20, PGD-100 ×10, AdvGAN ×8 final, ..."""
    if attack.startswith("advgan"):
        return re.sub(r"-x(\d+)", r" ×\1", attack.replace("advgan", "AdvGAN")).replace("-final", " final")
    family, number, restarts = _parts(attack)
    starts = f" ×{restarts}" if restarts > 1 else ""
    stem = attack.removesuffix(f"x{restarts}") if starts else attack
    return (_ATTACKS.get(family, "").format(number or 1000) or stem.upper()) + starts


def attack_order(attack: str) -> tuple:
    """The place of an attack among the others, for sorting: the paper's order, the wider AdvGAN last, then others."""
    if match := re.fullmatch(r"advgan(?:-x(\d+))?(-final)?", attack):
        return _FAMILIES.index("advgan"), int(match[1] or 1), bool(match[2]), attack
    family, number, restarts = _parts(attack)
    return _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES), number, restarts, attack


def is_of_paper(attack: str) -> bool:
    """Whether the paper has such an attack, with some number of steps."""
    return bool(re.fullmatch(r"natural|fgsm(-rs)?|(pgd|cw)-\d+|advgan.*", attack))


def _parts(attack):
    """pgd, 100 and 10 of pgd-100x10: family, steps (or 0) and restarts (or 1)."""
    family, number, restarts = re.fullmatch(r"(.*?)(?:-(\d+))?(?:x([2-9]|[1-9]\d+))?", attack, re.DOTALL).groups()
    return family, int(number or 0), int(restarts or 1)
