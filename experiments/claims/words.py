"""Numbers of claims as page and board write them. Imports no torch."""

from extrap.report.typesetting import number

SIGNS = {"at most": "≤", "at least": "≥"}


def value(shown: float) -> str:
    """Three digits behind the point, or three significant ones: 1.005, 36.2, 292."""
    return f"{shown:.3f}" if abs(shown) < 10 else number(shown)
