"""The report on runs by their folders as one HTML file that needs nothing else."""

from experiments import page
from experiments.rows import column_of
from experiments.run_report import RunReport, cell


def render(report: RunReport) -> str:
    """The page: tables, and of each run its settings and pictures."""
    template = page.environment().get_template("runs.html.j2")
    labels = {attack: column_of(attack).label for table in report.tables for attack in table.attacks}
    pictures = {
        folder: [(path.name, *page.inline(path)) for path in run["pictures"]] for folder, run in report.runs.items()
    }
    return template.render(report=report, labels=labels, pictures=pictures, cell=cell)
