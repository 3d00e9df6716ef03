"""The tables and figures of the paper: what they are called, what they show, and what their captions say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A table or a figure of the paper.

    Attributes:
      number: the paper's, such as II.
      note: what its caption says of it alone.
      attacks: that it shows; AdvGAN comes from --advgan_widths.
      rows: that it shows, top to bottom; none: every defence that the grid is asked for.
    """

    name: str
    number: str
    subject: str
    note: str
    attacks: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @property
    def is_table(self) -> bool:
        """Whether it is a table."""
        return self.name.startswith("table")

    @property
    def label(self) -> str:
        """Table II, Figure 2, ..."""
        return f"{'Table' if self.is_table else 'Figure'} {self.number}"

    @property
    def title(self) -> str:
        """Number and subject."""
        return f"{self.label}. {self.subject}"


PARTS = {
    part.name: part
    for part in (
        Part(
            "table2",
            "II",
            "White-box attacks",
            "FGSM is one step of ε from the image; FGSM-RS, a second definition in use, one step after a random "
            "start. The paper does not say which it prints: its number stands beside the first. AdvGAN: the strongest "
            "of its checkpoints, chosen on these test images as the paper does; final: the last one; ×8: a generator "
            "eight times as wide. The published rows differ among themselves in network, step size and ε.",
            attacks=("natural", "fgsm", "fgsm-rs", "pgd-7", "pgd-10", "pgd-20", "pgd-100", "cw-20", "cw-100"),
        ),
        Part(
            "table3",
            "III",
            "Black-box attacks (transfer)",
            "Adversarial images are made on the surrogate, by the same attacks as in Table II, and shown to the row's "
            "network. The paper prints RvS as target only.",
            attacks=("pgd-20", "pgd-100", "cw-20", "cw-100"),
        ),
        Part(
            "table4",
            "IV",
            "Ablations",
            "noReg: the classifier pays for the cross-entropy alone; Xent: the generator maximises the cross-entropy "
            "instead of the transport distance. OT-Reg + OT is RvS as in Table II. The row with the paired distance "
            "is ours: nothing is published for it.",
            attacks=("natural", "pgd-20", "cw-20"),
            rows=("noreg_ot", "otreg_xent", "rvs", "paired"),
        ),
        Part(
            "figure2",
            "2",
            "Accuracy under PGD-20 over ε",
            "Steps of 2/255. Bars: ± standard error from the number of images, or, over several seeds, ± the standard "
            "deviation between them. Hollow marks: published, from Table II of the paper at ε = 8/255; its curves are "
            "not printed as numbers.",
            attacks=("pgd-20",),
            rows=("rvs", "at"),
        ),
        Part(
            "figure3",
            "3",
            "Diversity of the perturbations over the training",
            "Euclidean distance between the l2-normalised features of a test image and of its perturbations: the mean "
            "over the images, and, shaded, ± the mean of the standard deviations over an image's perturbations; with "
            "the uniform noise that training adds to the perturbation, and without. The paper prints no numbers for "
            "this figure.",
            rows=("rvs",),
        ),
        Part(
            "figure4",
            "4",
            "Natural images and their perturbations in the latent space",
            "t-SNE of the l2-normalised features of one test image of each class (large, outlined) and of its "
            "perturbations (small), at an early and a late checkpoint. Each panel is an embedding of its own: "
            "distances are not to be compared between panels. The paper prints no numbers for this figure.",
            rows=("rvs",),
        ),
    )
}
