"""Writes tables, figures and the report of a work folder from what its grid has measured so far.

  python -m experiments.report --work_dir=WORK                       every part that the grid was asked for, and html
  python -m experiments.report --work_dir=WORK --parts=table2,figure2
  python -m experiments.report --runs=runs/rvs,runs/at               runs made by hand: runs.html, runs.csv, plots

The tables (.md, .csv, .tex, .json), figures (.png, .pdf, .csv) and report.html go into WORK/report; nothing is
trained or measured. The part html gathers the parts that are there, writes each run's RobustBench model_info, and
attacks six images of each row whose checkpoint is there, for its gallery: seconds a row, and only once.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from experiments import figures, layout, model_info, statement, tables, writers
from experiments.measured import Work
from experiments.parts import PARTS
from experiments.run_report import RunReport
from madry_cifar.cli import flags
from madry_cifar.cli.errors import UsageError, text
from madry_cifar.cli.settings import Settings, option

ALL = (*PARTS, "html")
EXTRA = 'pip install -e ".[experiments]"'


class ReportSettings(Settings):
    """What to report on."""

    work_dir: str | None = option(None, "work folder of the grid", kind="path")
    runs: tuple[str, ...] = option(
        (), "in its place, folders of runs made by hand: a report on their results", kind="path"
    )
    output: str | None = option(None, "folder for the report on --runs [report]", kind="path")
    parts: tuple[str, ...] = option(
        (),
        f"what to write: {', '.join(ALL)} [what the grid was asked for, and html]",
        choices=ALL,
    )

    def __post_init__(self):
        super().__post_init__()
        if not (self.work_dir or self.runs):
            raise UsageError("work_dir", "", "required: work folder of the grid; or --runs: folders of runs")
        if self.runs and (self.work_dir or self.parts):
            name = "work_dir" if self.work_dir else "parts"
            raise UsageError(name, text(getattr(self, name)), "is of a grid; leave it out with --runs")
        if self.output and not self.runs:
            raise UsageError("output", self.output, "is for --runs; a grid's report goes into its --work_dir")


def main() -> None:
    """Writes what the flags say."""
    settings = flags.read(ReportSettings)
    if settings.runs:
        require("jinja2", "matplotlib", what="--runs needs")
        of_runs = RunReport(settings.runs)
        written = of_runs.write(pathlib.Path(settings.output or "report"))
        of_runs.show()
        _end(of_runs.problems, written)
        return
    work = Work(settings.work_dir)
    report = GridReport(work, settings.parts or [*work.parts, "html"])
    written = report.write()
    report.show()
    _end([], written)


def _end(problems, written):
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    for path in written:
        print(path)


class GridReport:
    """Parts of a work folder's report: its tables and figures, each built once.

    Attributes:
      parts: what is asked for, in the paper's order, with "html" last: it gathers the others.
      contents: each table and figure by its part; for "html", those that were written before too.
    """

    def __init__(self, work: Work, parts: Iterable[str]):
        self.work, self.folder = work, work.folder / "report"
        self.parts = sorted(set(parts), key=ALL.index)
        self.statement = statement.build(work)
        self.contents: dict[str, tables.Table | figures.Figure] = {}
        for part in PARTS:
            earlier = "html" in self.parts and (self.folder / layout.REPORT_FILES[part][0]).exists()
            if part in self.parts or earlier:
                build = tables.build if PARTS[part].is_table else figures.build
                self.contents[part] = build(work, part, self.statement)

    def write(self) -> list[pathlib.Path]:
        """Writes the parts; returns the main file of each.

        With "html", the parts that were written before are written again, so that the page and its files agree.

        Raises:
          UsageError: when a package is missing that a part needs.
        """
        for part in sorted({*self.parts, *self.contents}, key=ALL.index):
            if part == "html":
                require("jinja2", what="--parts=html needs")
                from experiments import gallery, page

                gallery.write(self.work, self.folder / "gallery")
                model_info.write(self.work, self.statement, self.folder / "model_info")
                page.write(self.work, self.statement, self.contents, self.folder)
            elif PARTS[part].is_table:
                writers.write(self.contents[part], self.folder)
            else:
                require("matplotlib", what=f"--parts={part} needs")
                from experiments import plots

                plots.write(self.contents[part], self.folder)
                writers.write_file(self.folder / f"{part}.csv", figures.tidy_csv(self.contents[part]))
        return [self.folder / layout.REPORT_FILES.get(part, ["report.html"])[0] for part in self.parts]

    def show(self) -> None:
        """Prints the tables among the parts, and, on stderr, what could not be used."""
        console = Console(highlight=False)
        console.print(f"[bold]{escape(self.statement.text)}[/bold]")
        for part in self.parts:
            if part in PARTS and PARTS[part].is_table:
                writers.show(self.contents[part], console)
        for problem in self.work.problems:
            print(f"warning: {problem}", file=sys.stderr)


def require(*packages: str, what: str) -> None:
    """Raises UsageError unless the packages are installed that something needs: `what` says so, with its verb."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(None, None, f"{package} is not installed, which {what}: {EXTRA}")


def command() -> None:
    """Entry point."""
    flags.define("Report", ReportSettings)
    flags.run(main, __doc__)


if __name__ == "__main__":
    command()
