"""Progress bars with the time left."""

import sys

from tqdm import tqdm


def progress_bar(total: int, unit: str, **kwargs) -> tqdm:
    """A tqdm bar on stderr; in a file or pipe it writes at most a line every ten seconds."""
    return tqdm(total=total, unit=unit, dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 10, **kwargs)
