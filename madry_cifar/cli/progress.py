"""Progress bars with the time left."""

import sys

from tqdm import tqdm

SHORTER = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
CELLS = 10  # of a bar that can be read


class ProgressBar(tqdm):
    """A bar that leaves out what does not fit into the row, the last of the values behind it first."""

    @staticmethod
    def format_meter(n, total, elapsed, ncols=None, *, bar_format=None, postfix=None, **others):
        """The row for these numbers; the arguments are tqdm's."""

        def row(form, values, columns=ncols):
            return tqdm.format_meter(n, total, elapsed, columns, bar_format=form, postfix=", ".join(values), **others)

        values = postfix.split(", ") if postfix else []
        if not ncols:  # a file, or a row of any length
            return row(bar_format, values)
        forms = [(bar_format or "{l_bar}{bar}{r_bar}", values)]
        forms += [(SHORTER, values[:kept]) for kept in range(len(values), -1, -1)]
        for form, kept in forms:
            if len(row(form.replace("{bar}", ""), kept, None)) + CELLS <= ncols:
                return row(form, kept)
        return row("{l_bar} {remaining} left", [])


def progress_bar(total: int, unit: str, *, disable: bool = False, **kwargs) -> ProgressBar:
    """A bar on stderr; in a file or pipe it writes at most a line every ten seconds, with TQDM_DISABLE=1 nothing."""
    kwargs |= {"disable": True} if disable else {}  # False would outdo TQDM_DISABLE
    interval = 0.2 if sys.stderr.isatty() else 10
    return ProgressBar(total=total, unit=unit, dynamic_ncols=True, mininterval=interval, **kwargs)
