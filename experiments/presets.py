"""The settings of every training at full size in one table, and the files in presets/ that are written from it.

  python -m experiments.presets

writes experiments/presets/DATASET_KIND.flags, for --flagfile of `rvs_tf.train`. Of a method that RvS is compared with
there are two kinds: METHOD_original as its authors' code has it, and METHOD_rvs on RvS's footing, for the tables. Flags
stand here without dashes; what is in braces depends on the data set.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from experiments import published
from experiments.rows import DATASETS, WHITE_BOX, column_of
from madry_cifar.cli import flags
from madry_cifar.runs.files import replacing
from madry_cifar.training import registry

FOLDER = Path(__file__).with_name("presets")
DIRECT = {"direct": "learning_rates=0.1,0.01 weight_decay=1e-5 epsilon=7.96875"}
CIFAR = {"rates": "0.1,0.01,0.001", "fourth": "0.0001", "generator": "0.01", "adt": "8", **DIRECT}
DEPENDENT = {
    "cifar10": {**CIFAR, "released": "201000"},
    "cifar100": {**CIFAR, "released": "300000"},
    "svhn_cropped": {
        "rates": "0.01,0.001,0.0001",
        "fourth": "1e-05",
        "generator": "0.0001",
        "released": "179000",
        "adt": "4",
        "direct": "learning_rates=0.01,0.001 weight_decay=1e-4 epsilon=12.75",
    },
}
MADRYLAB = "depth=34 width=10 steps=80000 batch_size=128 learning_rates={rates} learning_rate_boundaries=40000,60000 "
RVS = "batch_size=64 learning_rates={rates} learning_rate_boundaries=60000,90000 epsilon=8 keep=0 "
FOOTING = "depth=28 width=10 steps={rvs_steps} " + RVS
GENERATOR = "generator_learning_rate={generator} label_smoothing=0.5"
PYTORCH = "architecture=standard batch_norm_epsilon=1e-5 weight_decay_on=all crop_padding=4 "  # no crops for SVHN
BILATERAL = "attack_steps=1 attack_step_size=8 target=mc label_ratio=9 label_gamma=0.01"
FEATSCATTER = "attack_steps=1 attack_step_size=8 label_smoothing=0.5"
ADV_VERTEX = "attack_steps=10 attack_step_size=2 attack_batch_norm=frozen vertex_scale=2 lambda1=1 lambda2=0.1"
L2L = "attacker_gradient=true attacker_steps=2"
L2L_DA = "attacker_steps=10 diversity_weight=0.5 clip_norm=1"
DIRECT_GAN = "generator_updates=5 gradient_term=released gradient_weight=0.01 finite_difference=0.01"
LEARN2PERTURB = "attack_steps=7 attack_step_size=2.55 noise_weight=1e-4"
ADT_EXP = "inner_steps=7 inner_samples=5 inner_learning_rate=0.3 entropy_weight=0.01"
ADT_EXPAM = "entropy_weight=0.01 generator_learning_rate=2e-4"
ADT_IMPAM = "entropy_weight=1 entropy_threshold=0.9 generator_learning_rate=2e-4 encoder_learning_rate=2e-4"
ADT_ORIGINAL = (
    PYTORCH + "depth=28 width=10 input_scaling=unit epochs=76 batch_size=64 learning_rates=0.1,0.01 "
    "learning_rate_epochs=74 epsilon={adt} weight_decay=2e-4 "
)
GAT = "generator_updates=1 generator_learning_rate=2e-4 penalty_weight=0.03 natural_weight=0.5"
RESNET = "batch_norm_epsilon=1e-5 depth=20 width=1 "
KINDS = {  # flags, and hours on an A100 for CIFAR-10, CIFAR-100 and SVHN
    "natural": (MADRYLAB, (2, 2, 2)),
    "at": (MADRYLAB + "epsilon=8 attack_steps=7 attack_step_size=2 attack_batch_norm=train", (10, 10, 10)),
    "paper": (
        FOOTING + "uniform_noise=false latent_draws=1 " + GENERATOR + " validation_size=1000 eval_images=0",
        (4, 7, 4),
    ),
    "released": (
        "depth=34 width=10 steps={released} " + RVS + "uniform_noise=true latent_draws=2 " + GENERATOR,
        (6, 9, 5),
    ),
    "trades_rvs": (FOOTING + "attack_steps=10 attack_step_size=2 beta=6", (15, 25, 15)),
    "trades_original": (
        PYTORCH + "depth=34 width=10 input_scaling=unit epochs=76 batch_size=128 learning_rates={rates},{fourth} "
        "learning_rate_epochs=74,89,99 epsilon=7.905 attack_steps=10 attack_step_size=1.785 beta=6",
        (6, 6, 9),
    ),
    "bilateral_rvs": (FOOTING + BILATERAL, (3, 5, 3)),
    "bilateral_original": (
        "architecture=madry crop_padding=4 crop_fill=128 depth=34 width=10 input_scaling=signed epochs=201 "
        "batch_size=128 learning_rates={rates} learning_rate_epochs=100,150 epsilon=8 " + BILATERAL,
        (4, 4, 5),
    ),
    "featscatter_rvs": (FOOTING + FEATSCATTER, (3, 5, 3)),
    "featscatter_original": (
        PYTORCH + "depth=28 width=10 input_scaling=signed epochs=200 batch_size=60 learning_rates={rates} "
        "learning_rate_epochs=60,90 epsilon=8 " + FEATSCATTER + " sinkhorn_floor=1e-6 statistics_every=10",
        (3, 3, 4),
    ),
    "adv_interp_rvs": (FOOTING + "label_share=0.5", (3, 5, 3)),
    "adv_interp_original": (
        PYTORCH + "depth=28 width=10 input_scaling=signed epochs=200 batch_size=128 learning_rates={rates} "
        "learning_rate_epochs=59,89 epsilon=8 label_share=0.5",
        (3, 3, 4),
    ),
    "adv_vertex_rvs": (FOOTING + ADV_VERTEX, (12, 21, 12)),
    "adv_vertex_original": (
        "architecture=madry batch_norm_epsilon=1e-5 " + MADRYLAB + "epsilon=8 " + ADV_VERTEX,
        (14, 14, 14),
    ),
    "l2l_rvs": (FOOTING + L2L, (10, 17, 10)),
    "l2l_original": (
        PYTORCH + "depth=34 width=10 input_scaling=unit epochs=76 batch_size=128 learning_rates={rates} "
        "learning_rate_epochs=29,59 epsilon=7.905 weight_decay=2e-4 " + L2L,
        (5, 5, 7),
    ),
    "l2l_da_rvs": (FOOTING + L2L_DA, (36, 60, 36)),
    "l2l_da_original": (
        "architecture=resnet_pad input_scaling=imagenet crop_padding=4 " + RESNET + "steps=100000 batch_size=100 "
        "learning_rates=0.01,0.001 learning_rate_boundaries=49998 epsilon=8 weight_decay=1e-5 " + L2L_DA,
        (2, 2, 2),
    ),
    "direct_rvs": (FOOTING + DIRECT_GAN, (12, 21, 12)),
    "direct_original": (
        "architecture=resnet_project input_scaling=signed crop_padding=2 " + RESNET + "steps=200000 batch_size=64 "
        "learning_rate_boundaries=99999 {direct} test_batch_norm=frozen " + DIRECT_GAN,
        (2, 2, 2),
    ),
    "learn2perturb_rvs": (FOOTING + LEARN2PERTURB, (13, 22, 13)),
    "learn2perturb_original": (
        "architecture=resnet18 input_scaling=cifar10 batch_norm_epsilon=1e-5 crop_padding=4 depth=18 width=1 "
        "epochs=350 batch_size=128 learning_rates={rates} learning_rate_epochs=150,250 epsilon=8 weight_decay=3e-4 "
        + LEARN2PERTURB,
        (3, 3, 4),
    ),
    "adt_exp_rvs": (FOOTING + ADT_EXP, (39, 65, 39)),
    "adt_exp_original": (ADT_ORIGINAL + ADT_EXP, (13, 13, 19)),
    "adt_expam_rvs": (FOOTING + ADT_EXPAM, (7, 12, 7)),
    "adt_expam_original": (ADT_ORIGINAL + ADT_EXPAM, (2, 2, 3)),
    "adt_impam_rvs": (FOOTING + ADT_IMPAM, (7, 12, 7)),
    "adt_impam_original": (ADT_ORIGINAL + ADT_IMPAM, (2, 2, 3)),
    "gat_rvs": (FOOTING + "perturbation=bounded " + GAT, (5, 9, 5)),
    "gat_original": (FOOTING + "perturbation=free " + GAT, (5, 9, 5)),
}
TITLES = {  # {} for the data set
    "natural": "Natural training on {} with MadryLab's settings",
    "at": "PGD adversarial training (AT) on {} with MadryLab's settings and seven steps, as the paper says",
    "paper": "RvS on {} as the paper's text has it: WRN-28-10, x + clip(G(z)) without noise, one z an iteration",
    "released": "RvS on {} as the released code does it: WRN-34-10, noise added first, new draws for the classifier",
    "trades": "TRADES on {}",
    "bilateral": "Bilateral adversarial training (R-MC-LA, ε = 8) on {}",
    "featscatter": "Feature Scattering on {}",
    "adv_interp": "Adversarial interpolation on {}",
    "adv_vertex": "Adversarial vertex mixup (AVmixup) on {}",
    "l2l": "L2L (two steps, without interpolation) on {}",
    "l2l_da": "L2L-DA on {}",
    "direct": "Direct on {}",
    "learn2perturb": "Learn2Perturb on {}",
    "adt_exp": "ADT-EXP on {}",
    "adt_expam": "ADT-EXP-AM on {}",
    "adt_impam": "ADT-IMP-AM on {}",
    "gat": "GAT on {}",
    "gat_original": "GAT on {} with a perturbation without a bound, as published; what its text does not tell is ours, "
    "and network, batch and steps are RvS's",
    "_original": " with the settings of its authors' code",
    "_rvs": " with RvS's network, batch, ε and number of steps, to be compared with it",
    "smoke": "A minute of RvS on {}, to see that everything works. Not a result",
}
REMARKS = {  # and the presets that they are about
    "The rates for SVHN are our choice.": "svhn_natural svhn_at",
    "201,000 steps, as its config.json; the text says 179,000, which was chosen afterwards.": "cifar10_released",
    "The released code has CIFAR-10 alone; the data set, its rates and steps are those of the text.": (
        "cifar100_released svhn_released"
    ),
    "Its code has CIFAR-10 alone: these settings are those.": (
        "cifar100_trades_original cifar100_adv_interp_original cifar100_adv_vertex_original"
    ),
    "Its code has CIFAR-10 alone: the rates for SVHN are our choice.": "svhn_trades_original svhn_adv_interp_original",
    "Its code has CIFAR-10 alone: the rates for SVHN are our choice, λ may not be its authors'.": (
        "svhn_adv_vertex_original"
    ),
    "The β of its authors for 100 classes is not known: 9 as for ten; 99 keeps the true class's label at .5 or more.": (
        "cifar100_bilateral_rvs cifar100_bilateral_original"
    ),
    "Its first rate for SVHN is 0.01 as the RvS paper says; its code crops and flips SVHN too, unlike this.": (
        "svhn_bilateral_original"
    ),
    "The first rate for SVHN is 0.01, as the RvS paper says.": "svhn_featscatter_original",
    "Its code trains on CIFAR-10 alone: these settings are those.": "cifar100_l2l_original cifar100_l2l_da_original",
    "Its code trains on CIFAR-10 alone: the rates for SVHN are our choice.": "svhn_l2l_original svhn_l2l_da_original",
    "Its code has no SVHN: the rates for it are our choice.": "svhn_learn2perturb_original",
    "Its code evaluates at this ε too, in steps of a quarter: rvs_tf.evaluate --epsilon=4 --step_size=1.": (
        "svhn_adt_exp_original svhn_adt_expam_original svhn_adt_impam_original"
    ),
    "Its code for CIFAR-100 is not public: these settings are those of CIFAR-10.": "cifar100_direct_original",
    "Its code for SVHN has other networks, another optimizer of the generator and more images: not repeated here.": (
        "svhn_direct_original"
    ),
    "Its authors report the 75th epoch's checkpoint: --checkpoint_every=STEPS_OF_AN_EPOCH --keep=0 keeps it.": " ".join(
        f"{dataset}_adt_{kind}_original" for dataset in ("cifar10", "svhn") for kind in ("exp", "expam", "impam")
    ),
    "Its code has CIFAR-10 and SVHN: these settings are CIFAR-10's.": (
        "cifar100_adt_exp_original cifar100_adt_expam_original cifar100_adt_impam_original"
    ),
    "Its authors' code is not public: c, α and both learning rates are choices of ours, after two public ports.": (
        "cifar10_gat_original cifar100_gat_original svhn_gat_original"
    ),
    "The paper reports the checkpoint of the most optimal robustness: here the best on 1,000 held-out images, by "
    "python -m rvs_tf.evaluate --checkpoint=best.": "cifar10_paper cifar100_paper svhn_paper",
    "RUN is a natural training of the same network: natural.flags of this data set with --depth, --width, "
    "--architecture, --input_scaling and --batch_norm_epsilon from below.": " ".join(
        f"{dataset}_l2l_da_{kind}" for dataset in ("cifar10", "cifar100", "svhn") for kind in ("original", "rvs")
    ),
}
GPU = "one GPU of 16 GiB or more; about {} h on an A100 ({})"
ESTIMATE = "estimate: FLOPs at 40 % of its 156 TFLOP/s in TF32; not measured"
PUBLISHED = "{}\n#            (published{}; not yet reached with this code)"
NO_ROW = {
    "cifar10_trades_original": PUBLISHED.format(
        "no row in Table II; 84.92 natural, 53.08 under AutoAttack with --epsilon=7.905",
        " by AutoAttack's authors for the network of TRADES's authors",
    )
}
SMOKE = "depth=10 width=1 learning_rates=0.1,0.01 eval_every=0 log_every=10 image_every=50 checkpoint_every=50 "
SMOKE_ON = {  # flags, hardware and what is expected
    "digits": (
        SMOKE + "steps=150 learning_rate_boundaries=100",
        "two CPU cores, about a minute; nothing is downloaded",
        "loss falling from 2.5 to about 1.9, natural accuracy of the batch above 90 %",
    ),
    **dict.fromkeys(
        DEPENDENT,
        (
            SMOKE + "steps=100 learning_rate_boundaries=80 eval_images=100",
            "two CPU cores, about a minute",
            "nothing worth a table: accuracy a little above chance",
        ),
    ),
}


def flags_of(dataset: str, kind: str) -> dict[str, str]:
    """The flags of a preset by name, as text, but --dataset; none where there is no such preset."""
    if dataset not in DEPENDENT or kind not in KINDS:
        return {}
    text = KINDS[kind][0].format(rvs_steps=DATASETS[dataset].rvs_steps, **DEPENDENT[dataset])
    return {name: value for name, value in _parse(text).items() if not (dataset == "svhn_cropped" and "crop" in name)}


def _parse(text):
    return dict(flag.split("=") for flag in text.split())


def files() -> Iterator[tuple[str, str]]:
    """Name and content of every file in presets/."""
    for kind, (_, hours) in KINDS.items():
        method, suffix = re.fullmatch("(.*?)(_original|_rvs)?", kind).groups(default="")
        defense = "rvs" if method in ("paper", "released") else method
        for dataset, on_a100 in zip(DEPENDENT, hours, strict=True):
            title = TITLES.get(kind) or TITLES[method] + TITLES.get(suffix, "")
            expected = _expected(dataset, kind, defense)
            yield _file(dataset, kind, title, GPU.format(on_a100, ESTIMATE), expected, defense, flags_of(dataset, kind))
    for dataset, (text, hardware, expected) in SMOKE_ON.items():
        yield _file(dataset, "smoke", TITLES["smoke"], hardware, expected, "rvs", _parse(text))


def _file(dataset, kind, title, hardware, expected, defense, values):
    preset = f"{dataset.removesuffix('_cropped')}_{kind}"
    remarks = [text for text, presets in REMARKS.items() if preset in presets.split()]
    download = "" if dataset == "digits" else "--download "
    start = "--starts_from=RUN " if registry.find(defense).starts_from else ""
    flagfile = f"--flagfile=experiments/presets/{preset}.flags"
    lines = [
        f"{title.format(DATASETS[dataset].label)}.",
        *remarks,
        f"Command:   python -m rvs_tf.train {flagfile} {download}{start}--train_dir=runs/{preset}",
        f"Hardware:  {hardware}",
        f"Expected:  {NO_ROW.get(preset, expected)}",
        "Written by python -m experiments.presets: changes belong into its table.",
    ]
    values = {"defense": defense, "dataset": dataset} | values
    content = [*(f"# {line}" for line in lines), *(f"--{name}={value}" for name, value in values.items())]
    return f"{preset}.flags", "\n".join(content) + "\n"


def _expected(dataset, kind, defense):
    """What Table II says of the method, in words: nat 94.17, FGSM 79.99, PGD-7/10 69.02/65.24, ..."""
    table = published.read().items()
    numbers = {column_of(key[-1]): n for key, n in table if key[:-1] == ("II", dataset, WHITE_BOX, defense)}
    if not numbers:
        return "not known: no row in Table II"
    words = []
    for family, columns in itertools.groupby(numbers, key=lambda column: column.family.name):
        columns = list(columns)
        name = {"natural": "nat", "advgan": "AdvGAN"}.get(family, family.upper())
        steps = "/".join(str(column.steps) for column in columns if column.steps)
        printed = [numbers[column].printed for column in columns]
        if not any(map(float, printed)):
            words.append(f"{name} 0")
        else:
            words.append(f"{name}{'-' * bool(steps)}{steps} {'/'.join(printed)}")
    words = ", ".join(words).replace("PGD 0, CW 0", "PGD and CW 0")
    starred = [column.label for column, number in numbers.items() if number.mark == "star"]
    return PUBLISHED.format(words, f": Table II{_source(kind, defense, starred)}")


def _source(kind, defense, starred):
    """Who measured the published numbers, and with which settings; `starred`: those by the RvS paper's authors."""
    if defense == "rvs":
        return " of the paper"
    if kind.endswith("_rvs"):
        return ", with its authors' settings and not these"
    if "Natural" in starred:
        return ", trained by the paper's authors" + "; recipe not stated, MadryLab's is used" * (kind == "natural")
    if starred:
        return f", as its authors reported it, {' and '.join(starred)} run by the RvS paper's authors"
    return ", not starred: as its authors reported it"


def main() -> None:
    """Writes the files."""
    for name, content in files():
        with replacing(FOLDER / name) as temporary:
            temporary.write_text(content)


def command() -> None:
    """Entry point."""
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
