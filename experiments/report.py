"""Writes tables, figures and the report of a work folder from what its grid has measured so far.

  python -m experiments.report --work_dir=WORK                       every part that the grid was asked for, and html
  python -m experiments.report --work_dir=WORK --parts=table2,figure2

The tables (.md, .csv, .tex, .json), figures (.png, .pdf, .csv) and report.html are put into WORK/report; nothing is
trained or attacked. The part html gathers the parts that are there, and writes each run's RobustBench model_info too.
"""

import importlib
import pathlib
import sys

from rich.console import Console
from rich.markup import escape

from experiments import layout, statement, tables, writers
from experiments.measured import Work
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, unknown
from madry_cifar.cli.settings import Settings, option, required

FIGURES = tuple(part for part in layout.PARTS if part.startswith("figure"))
PARTS = (*layout.PARTS, "html")
EXTRA = 'pip install -e ".[experiments]"'


class ReportSettings(Settings):
    """What to report on."""

    work_dir: str = required("work folder of the grid")
    parts: tuple[str, ...] = option((), f"what to write: {', '.join(PARTS)} [what the grid was asked for, and html]")


def main() -> None:
    """Writes what the flags say."""
    settings = flags.read(ReportSettings)
    work = Work(settings.work_dir)
    parts = list(settings.parts) or [*work.parts, "html"]
    for part in parts:
        if part not in PARTS:
            raise unknown("parts", part, PARTS)
    written = write(work, parts)
    show(work.folder, parts, work)
    for path in written:
        print(path)


def write(work: Work, parts: list[str]) -> list[pathlib.Path]:
    """Writes parts of a work folder's report; returns the main file of each.

    Raises:
      UsageError: when a package is missing that a part needs.
    """
    folder, said = work.folder / "report", statement.of(work)
    written = []
    for part in sorted(dict.fromkeys(parts), key=PARTS.index):  # html last: it gathers the others
        if part in tables.TITLES:
            writers.write(tables.build(work, part, said), folder)
        elif part in FIGURES:
            figures, plots = _needing_extra("figures"), _needing_extra("plots")
            figure = figures.build(work, part, said)
            plots.write(figure, folder)
            writers.write_file(folder / f"{part}.csv", figures.tidy_csv(figure))
        else:
            page, model_info = _needing_extra("page"), _needing_extra("model_info")
            model_info.write(work, said, folder / "model_info")
            page.write(work, said, folder)
        written.append(folder / {"html": "report.html"}.get(part, f"{part}.{'png' if part in FIGURES else 'md'}"))
    return written


def show(folder: str | pathlib.Path, parts: list[str], work: Work | None = None) -> None:
    """Prints the tables among `parts`, and, on stderr, what could not be used."""
    work = work or Work(folder)
    said, console = statement.of(work), Console(highlight=False)
    console.print(f"[bold]{escape(said.text)}[/bold]")
    for part in parts:
        if part in tables.TITLES:
            writers.show(tables.build(work, part, said), console)
    for problem in work.problems:
        print(f"warning: {problem}", file=sys.stderr)


def _needing_extra(module):
    try:
        return importlib.import_module(f"experiments.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("matplotlib", "jinja2"):
            raise
        raise UsageError(None, None, f"{error.name} is not installed, which --parts={module} needs: {EXTRA}") from None


def command() -> None:
    """Entry point."""
    flags.define("Report", ReportSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
