"""Draws Figures 2, 3 and 4 (matplotlib): colours of Okabe and Ito, which the colour-blind tell apart, and, so that they
can be told apart in grey, a marker and a line of its own for each curve and class."""

import pathlib
import textwrap

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from experiments.figures import Cloud, Figure, Panel, Series
from experiments.rows import dataset_of
from madry_cifar.runs.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999", "#882255", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
}
WATERMARK = {"rotation": 30, "fontsize": 34, "color": "#D55E00", "alpha": 0.15, "weight": "bold", "zorder": 10}
WATERMARK |= {"ha": "center", "va": "center"}
SIZE = (4.6, 3.6)  # of a panel, in inches
AXES = {"figure2": ("ε (of 255 grey levels)", "accuracy %"), "figure3": ("training step", "distance of features")}


def write(figure: Figure, folder: pathlib.Path) -> None:
    """Writes the figure's .png and .pdf into a folder."""
    with matplotlib.rc_context(STYLE):
        sheet = draw(figure)
        description = {"png": "Description", "pdf": "Subject"}
        for ending, name in description.items():
            about = {"Title": figure.title, name: figure.said}
            about |= {"CreationDate": None} if ending == "pdf" else {}  # the same numbers, the same file
            with replacing(folder / f"{figure.part}.{ending}") as temporary:
                sheet.savefig(temporary, dpi=200, metadata=about)


def draw(figure: Figure) -> Sheet:
    """The figure on a sheet of its own: a row of panels, in Figure 4 a row for each data set."""
    columns = 2 if figure.part == "figure4" else len(figure.panels)
    rows = -(-len(figure.panels) // max(columns, 1))
    sheet = Sheet(figsize=(SIZE[0] * max(columns, 1) + 0.8, SIZE[1] * max(rows, 1) + 0.7), layout="constrained")
    for place, panel in enumerate(figure.panels, start=1):
        axes = sheet.add_subplot(rows, columns, place)
        axes.set_title(panel.title)
        _draw_panel(axes, figure, panel)
        if panel.cloud and place % columns == 0:
            _add_classes(axes, panel.cloud, panel.dataset)
        if figure.statement.smoke:
            axes.text(0.5, 0.5, "SMOKE RUN", transform=axes.transAxes, **WATERMARK)
    letters = int(sheet.get_figwidth() * (13 if figure.statement.smoke else 19))
    text = "\n".join(textwrap.wrap(figure.said, letters, break_on_hyphens=False))
    if figure.statement.smoke:
        sheet.suptitle(text, color="#A03E00", weight="bold", fontsize=10)
    else:
        sheet.supxlabel(text, fontsize=7, color="#444444")
    return sheet


def _draw_panel(axes, figure, panel: Panel):
    if panel.cloud:
        _draw_cloud(axes, panel.cloud)
    elif panel.series:
        {"figure2": _draw_accuracies, "figure3": _draw_distances}[figure.part](axes, panel.series)
        axes.set(xlabel=AXES[figure.part][0], ylabel=AXES[figure.part][1])
    if not panel.cloud and not any(series.numbers == "measured" for series in panel.series):
        axes.text(0.5, 0.6, "not measured", transform=axes.transAxes, ha="center", color="#555555")


def _draw_accuracies(axes: Axes, curves: list[Series]):
    rows = list(dict.fromkeys(series.row for series in curves))
    handles = []
    for series in curves:
        number = rows.index(series.row)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        if series.numbers == "published":
            style |= {"markerfacecolor": "white", "markersize": 9, "markeredgewidth": 1.6, "linestyle": "none"}
            handles += axes.plot(series.x, series.y, zorder=3, **style)
        else:
            style |= {"markersize": 4, "linestyle": LINES[number % len(LINES)], "linewidth": 1.4}
            handles.append(axes.errorbar(series.x, series.y, series.error, capsize=2, **style))
    axes.legend(handles, [series.label for series in curves])  # in this order: each measured beside its published
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 10]))


def _draw_distances(axes: Axes, curves: list[Series]):
    for number, series in enumerate(curves):
        colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        style = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "linewidth": 1.4, "linestyle": line}
        axes.plot(series.x, series.y, color=colour, label=series.label, **style)
        low, high = zip(*((y - e, y + e) for y, e in zip(series.y, series.error, strict=True)), strict=True)
        axes.fill_between(series.x, low, high, color=colour, alpha=0.15, linewidth=0)
        for edge in (low, high):
            axes.plot(series.x, edge, color=colour, linewidth=0.5, linestyle=line)
    axes.legend()
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _draw_cloud(axes: Axes, cloud: Cloud):
    for style, members in _classes(cloud):
        axes.scatter(*cloud.positions[members & ~cloud.natural].T, s=14, alpha=0.6, linewidths=0, **style)
        hollow = {"facecolors": "none", "edgecolors": "black", "marker": style["marker"]}  # hides no perturbation
        axes.scatter(*cloud.positions[members & cloud.natural].T, s=130, linewidths=1.4, zorder=5, **hollow)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set_visible(True)


def _classes(cloud):
    for number, label in enumerate(sorted(set(cloud.labels.tolist()))):
        yield {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}, cloud.labels == label


def _add_classes(axes: Axes, cloud: Cloud, dataset: str):
    """The legend, beside the right one of two panels; of up to 20 classes."""
    labels = sorted(set(cloud.labels.tolist()))
    info = dataset_of(dataset)
    names = [info.class_label(label) if info.classes else f"class {label}" for label in labels]
    if len(names) <= 20:
        style = {"linestyle": "none", "markersize": 6}
        handles = [Line2D([], [], **style, **class_style) for class_style, _ in _classes(cloud)]
        handles.append(Line2D([], [], **style, marker="o", color="white", markeredgecolor="black", markeredgewidth=1.4))
        axes.legend(handles, [*names, "natural image"], loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
