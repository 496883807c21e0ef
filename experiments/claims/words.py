"""Numbers of claims as page and board write them. Imports no torch."""

from typing import Any

from extrap.report.typesetting import number


def value(shown: float) -> str:
    """Three digits behind the point, or three significant ones: 1.005, 36.2, 292."""
    return f"{shown:.3f}" if abs(shown) < 10 else number(shown)


def bound(line: Any) -> str:
    """What a claim says of its quantity: a line of the table of verdicts."""
    return f"{'≤' if line.side == 'at most' else '≥'} {line.threshold:g}"
