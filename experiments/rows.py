"""Rows, columns and data sets of the tables and figures: what each is called and what it is made of.

A registered defence is a row of Tables II and III without an entry here, which gives it the name that people read. No
TensorFlow is imported: the Snakefile reads this too.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Row:
    """A defence, or a variant of one.

    Attributes:
      name: in commands, folders and `published.csv`; of a defence, its --defense.
      label: what people read.
      title, authors, link: of the method's paper, for RobustBench's description of a model.
      ablation: the label in Table IV, where it is another.
      variant_of: the defence that it is a variant of, or "".
      settings: the flags of training that make the variant, as text.
      trained_as: the row whose trainings it shares, as it differs in its evaluation alone, or "".
      purified: whether images go through a GAN before they are classified; a row for those who name it.
    """

    name: str
    label: str
    title: str = ""
    authors: str | None = None
    link: str | None = None
    ablation: str = ""
    variant_of: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    trained_as: str = ""
    purified: bool = False

    @property
    def defense(self) -> str:
        """The defence that is trained for it."""
        return self.variant_of or self.name

    def variant(self, name: str, label: str, *, same_training: bool = False, **settings: str) -> "Row":
        """The row of a variant."""
        own = {"name": name, "label": label, "ablation": "", "variant_of": self.name, "settings": settings}
        return replace(self, **own, trained_as=self.name if same_training else "")


RVS = Row(  # what the paper calls "Ours" is RvS here, so that nobody takes it for ours
    "rvs",
    "RvS",
    title="Robustness-via-Synthesis: Robust Training with Generative Adversarial Perturbations",
    authors="İnci M. Baytaş, Debayan Deb",
    link="https://arxiv.org/abs/2108.09713",
    ablation="OT-Reg + OT (RvS)",
)
DIRECT = Row("direct", "Direct")
NATURAL = Row("natural", "Natural", title="Standardly trained model", authors="")
AT = Row(
    "at",
    "AT",
    title="Towards Deep Learning Models Resistant to Adversarial Attacks",
    authors="Aleksander Madry, Aleksandar Makelov, Ludwig Schmidt, Dimitris Tsipras, Adrian Vladu",
    link="https://arxiv.org/abs/1706.06083",
)
ROWS = {
    row.name: row
    for row in (
        NATURAL,
        NATURAL.variant("natural_start", "Natural (start of another training)"),
        AT,
        Row("trades", "TRADES"),
        Row("bilateral", "Bilateral"),
        Row("featscatter", "FeatScatter"),
        Row("adv_interp", "Adv-interp"),
        Row("adv_vertex", "Adv-vertex"),
        Row("l2l_da", "L2L-DA"),
        Row("l2l", "L2L"),
        DIRECT,
        DIRECT.variant(
            "direct_batch", "Direct (batch statistics at test)", same_training=True, test_batch_norm="frozen"
        ),
        Row("learn2perturb", "Learn2Perturb"),
        Row("adt_exp", "ADT-EXP"),
        Row("adt_expam", "ADT-EXP-AM"),
        Row("adt_impam", "ADT-IMP-AM"),
        Row("gat", "GAT"),
        Row(
            "defense_gan",
            "Defense-GAN",
            title="Defense-GAN: Protecting Classifiers Against Adversarial Attacks Using Generative Models",
            authors="Pouya Samangouei, Maya Kabkab, Rama Chellappa",
            link="https://arxiv.org/abs/1805.06605",
            variant_of="natural",
            trained_as="natural",
            purified=True,
        ),
        RVS,
        RVS.variant("noreg_ot", "noReg + OT", ot_regularizer="false"),
        RVS.variant("otreg_xent", "OT-Reg + Xent", generator_loss="xent"),
        RVS.variant("paired", "OT-Reg + paired distance (not in the paper)", ot="paired"),
    )
}
SURROGATES = ("natural", "at")  # rows whose networks the black-box attacks are made on


STARTS = {"natural": "natural_start"}  # rows of trainings that others start from, where no table shows them


def with_variants(names: Iterable[str]) -> list[str]:
    """The rows of these names, each followed by those that show the same trainings in another way."""
    shared = {row.name: row.trained_as for row in ROWS.values() if row.trained_as and not row.purified}
    return [each for name in names for each in (name, *(other for other, base in shared.items() if base == name))]


def row_of(name: str) -> Row:
    """The row called `name`; one without an entry is called by that name everywhere."""
    return ROWS.get(name) or Row(name, name)


@dataclass(frozen=True)
class Family:
    """Attacks that differ in the number of steps, of random starts or in the width of AdvGAN's generator alone.

    Attributes:
      label: what people read, {} for the number of steps; "": the name in capital letters.
      note: what the caption of a table says of them.
      linf: whether they stay in the L∞ ball of the tables.
      stops: whether they leave alone what is misclassified already (but where outputs are random).
    """

    name: str
    label: str = ""
    in_paper: bool = False
    note: str = ""
    linf: bool = True
    stops: bool = False


_ADAPTIVE = "APGD, FAB-T and Square choose their steps themselves."
FAMILIES = {
    family.name: family
    for family in (  # the paper's in its order, then the others
        Family("natural", "Natural", in_paper=True),
        Family("fgsm", in_paper=True),
        Family("fgsm-rs", in_paper=True),
        Family("pgd", in_paper=True),
        Family("cw", in_paper=True),
        Family(
            "eot-pgd",
            "EOT-PGD-{}",
            note="EOT-PGD: for rows whose outputs are random; each step follows the mean gradient of 20 draws. Their "
            "numbers under attacks without it count one draw a step, and are no match for those of other rows.",
        ),
        Family(
            "bpda-pgd",
            "BPDA-PGD-{}",
            note="BPDA-PGD: for rows behind a purifier; each step follows the gradient at the purified image, the mean "
            "of ten draws.",
        ),
        Family(
            "latent",
            "latent-{}",
            note="latent: for rows behind a purifier; Adam in its GAN's latent space, toward images within ε that it "
            "makes.",
        ),
        Family("advgan", "AdvGAN", in_paper=True),
        Family(
            "multitargeted",
            "MultiTargeted",
            note="MultiTargeted: PGD's steps of 2/255 toward each of nine classes.",
            stops=True,
        ),
        Family("apgd-ce", note=_ADAPTIVE, stops=True),
        Family("apgd-dlr", note=_ADAPTIVE, stops=True),
        Family("apgd-t", note=_ADAPTIVE, stops=True),
        Family("fab-t", note=_ADAPTIVE, stops=True),
        Family("square", "Square", note=_ADAPTIVE, stops=True),
        Family(
            "cw-l2",
            "C&W L2 ({}), radius 127.5",  # RADIUS of its module, and not ε
            note="C&W L2: Carlini and Wagner's own attack, whose ball is not the others': L2 with a radius of 127.5 "
            "grey levels, 0.5 of the pixels' range.",
            linf=False,
            stops=True,
        ),
        Family("autoattack-rand", "AutoAttack rand"),
        Family("autoattack-plus", "AutoAttack plus", stops=True),
        Family(
            "autoattack",
            "AutoAttack",
            note="AutoAttack: APGD-CE, APGD-T, FAB-T and Square, one after another.",
            stops=True,
        ),
    )
}
# The attacks on rows behind a purifier, whatever the others are attacked by; how often each purifies an image: BPDA for
# ten draws at each step
PURIFIED = {"natural": 0, "bpda-pgd-20": 200, "latent-100": 1}
COLUMNS = {  # of Table II beside the paper's
    "paper": (),
    "autoattack": ("autoattack",),
    "extended": ("pgd-100x10", "multitargeted", "apgd-ce", "apgd-t", "fab-t", "square", "cw-l2-100", "autoattack"),
}


@dataclass(frozen=True)
class Column:
    """An attack of a table, such as pgd-100x10: PGD of 100 steps from 10 random starts.

    Attributes:
      steps: their number, or 0 where the name has none.
      times: the random starts; of AdvGAN, how many times the published generator's channels.
      final: of AdvGAN, whether it is the last checkpoint and not the strongest.
    """

    name: str
    family: Family
    steps: int
    times: int
    final: bool

    @property
    def label(self) -> str:
        """PGD-20, PGD-100 ×10, AdvGAN ×8 final, ..."""
        stem = f"{self.family.name}-{self.steps}" if self.steps else self.family.name
        label = self.family.label.format(self.steps or 1000) or stem.upper()
        return label + f" ×{self.times}" * (self.times > 1) + " final" * self.final

    @property
    def order(self) -> tuple:
        """Its place among the others, for sorting: the paper's order, then the others', unknown ones last."""
        place = [*FAMILIES, self.family.name].index(self.family.name)
        return place, self.steps, self.times, self.final, self.name

    @property
    def in_paper(self) -> bool:
        """Whether the paper has such an attack, with some number of steps."""
        return self.family.in_paper and (self.times == 1 or self.family.name == "advgan")

    @property
    def stops(self) -> bool:
        """Whether it leaves alone what is misclassified already, as all with several starts do."""
        return self.family.stops or (self.times > 1 and self.family.name in ("pgd", "cw"))


def column_of(attack: str) -> Column:
    """The column of the attack with this name."""
    pattern = r"(.*?)(?:-(\d+))?(?:-?x([2-9]|[1-9]\d+))?(-final)?"
    name, steps, times, final = re.fullmatch(pattern, attack, re.DOTALL).groups()
    return Column(attack, FAMILIES.get(name) or Family(name), int(steps or 0), int(times or 1), bool(final))


@dataclass(frozen=True)
class DatasetInfo:
    """A data set: numbers of training and test images; `rvs_steps`: of RvS's training in the paper (Section IV-A);
    `classes`: their names, where they are no numbers."""

    label: str
    train: int = 0
    test: int = 0
    rvs_steps: int | None = None  # not in the paper
    classes: tuple[str, ...] = ()

    def class_label(self, number: int) -> str:
        """What people call a class."""
        return self.classes[number] if self.classes else str(number)


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATASETS = {
    "digits": DatasetInfo("digits", 1438, 359),
    "cifar10": DatasetInfo("CIFAR-10", 50_000, 10_000, rvs_steps=179_000, classes=CIFAR10),
    "cifar100": DatasetInfo("CIFAR-100", 50_000, 10_000, rvs_steps=300_000),
    "svhn_cropped": DatasetInfo("SVHN", 73_257, 26_032, rvs_steps=179_000),
}


def dataset_of(name: str) -> DatasetInfo:
    """The data set called `name`; one without an entry is called by that name everywhere."""
    return DATASETS.get(name) or DatasetInfo(name)


WHITE_BOX = "white-box"  # a setting, as `published.csv` names it


def transfer_from(surrogate: str) -> str:
    """The setting, as `published.csv` names it, of attacks made on the surrogate of this row."""
    return f"transfer from {surrogate}"


def setting_label(setting: str) -> str:
    """white-box, or transfer from AT, ...: a setting with the surrogate as the tables call it."""
    start, transfer, surrogate = setting.partition("transfer from ")
    return f"{transfer}{row_of(surrogate).label}" if transfer else start
