"""The report on runs by their folders as one HTML file that needs nothing else."""

from collections.abc import Mapping

from experiments import page
from experiments.rows import column_of
from experiments.run_report import RunReport, cell


def render(report: RunReport, plots: Mapping[str, bytes]) -> str:
    """The page: tables, the plots (PNG, by the file's name) that there are, each run's settings and pictures."""
    template = page.environment().get_template("runs.html.j2")
    labels = {attack: column_of(attack).label for table in report.tables for attack in table.attacks}
    pictures = {
        folder: [(path.name, *page.inline(path.read_bytes())) for path in run["pictures"]]
        for folder, run in report.runs.items()
    }
    over_steps = {name: page.inline(content) for name, content in plots.items()}
    return template.render(report=report, labels=labels, pictures=pictures, plots=over_steps, cell=cell)
