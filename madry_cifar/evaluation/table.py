"""Results as a table for the terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from madry_cifar.evaluation.outcome import BESIDE
from madry_cifar.evaluation.results import subject


def table(contents: Sequence[Mapping]) -> Table:
    """The results, of one ε or of several, as a table for the terminal."""
    first = contents[0]
    chosen = f" ({first['selection']})" if "selection" in first else ""
    title = f"{subject(first)}{chosen}: "
    title += f"{first['images']} {first['split']} images of {first['provenance']}"
    if surrogate := first.get("surrogate"):
        title += f"; adversarial images made on {surrogate['train_dir']}, step {surrogate['checkpoint']}"
    if gradients := first.get("gradients"):
        title += f"; gradients, where an attack follows them, {gradients}"
    if any(entry["protocol"].get("skip_misclassified") for entry in first["attacks"].values()):
        title += "; those misclassified without an attack are not attacked"
    caption = "seconds: with compilation; images/s: those attacked, without the batches that compiled"
    if any(told in entry for entry in first["attacks"].values() for told in BESIDE.values()):
        caption += "; below an attack: mean and standard deviation"
    result = Table(
        title=title,
        caption=caption,
        box=box.SIMPLE,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    for column in ("attack", "accuracy %", "± std. error", "ε", "steps", "step size", "seconds", "images/s"):
        shape = {"justify": "left", "no_wrap": True} if column == "attack" else {"justify": "right"}
        result.add_column(column, **shape, min_width=max(map(len, column.split())))
    for content in contents:
        for name, entry in content["attacks"].items():
            if content is not first and "epsilon" not in entry["protocol"]:
                continue  # what has no ε is told once
            result.add_row(name, *_row(entry))
            if draws := entry.get("draws"):
                mean, deviation = f"{draws['mean']:.2f}", f"{draws['std']:.2f}"
                result.add_row(f"  {draws['number']} other draws, mean", mean, deviation, style="dim")
            if error := entry.get("reconstruction_error"):
                mean, deviation = f"{error['mean']:.4f}", f"{error['std']:.4f}"
                result.add_row("  reconstruction error", mean, deviation, style="dim")
            for stage, accuracy in entry["protocol"].get("accuracy_after", {}).items():
                result.add_row(f"  after {stage}", f"{accuracy:.2f}", style="dim")
        if worst := content.get("worst_case"):
            result.add_row("worst of these", *_row(worst | {"images": content["images"], "protocol": {}}))
    return result


def _row(entry):
    protocol, share = entry["protocol"], entry["accuracy"] / 100
    error = 100 * (share * (1 - share) / entry["images"]) ** 0.5
    sizes = [f"{protocol[key]:g}" if key in protocol else "" for key in ("epsilon", "steps", "step_size")]
    rate = entry.get("images_per_second")  # none where every batch compiled, or in a file of an earlier version
    speed = "–" if rate is None else f"{rate:.{0 if rate >= 10 else 2}f}"
    seconds = f"{entry['seconds']:.1f}" if "seconds" in entry else ""
    return f"{entry['accuracy']:.2f}", f"{error:.2f}", *sizes, seconds, speed
