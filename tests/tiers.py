"""The two tiers of the tests: `make test-all` runs all of them, `make test` those that are not marked slow.

Slow are tests whose kind is in the other tier too: the same check of another defence, attack or file format, another
command that is killed and goes on. What has no like is never slow, however long it takes.
"""

import pytest

slow = pytest.mark.slow


def mostly_slow(cases, *quick):
    """The cases of a `pytest.mark.parametrize`, of which all but those in `quick` are slow."""
    assert set(quick) <= set(cases)
    each = [(case, case if isinstance(case, tuple) else (case,)) for case in cases]
    return [pytest.param(*values, marks=[] if case in quick else slow) for case, values in each]
