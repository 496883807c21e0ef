"""Which cases of a test wait for `make test-all`."""

import pytest


def slow(*cases):
    """Cases that a quick one stands for; of several values each is a tuple."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
