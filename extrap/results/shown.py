"""Numbers as they are shown: drawn and written with the same digits on every processor. Imports no torch."""

import re
from pathlib import Path

import pandas as pd

from extrap.files import write_atomic
from extrap.results.rows import as_csv

DIGITS = 6  # of what is shown: what processors differ by is far below, and what is seen far above
P_DIGITS = 3  # of a p value: of differences near 0 much less is known


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Every number with the digits that are shown: six, and no more than six behind the point; three of a p value.

    Logarithms, exponentials and sums of vectors differ from processor to processor in the sixteenth digit, and differences
    of like numbers in earlier ones. What is drawn and written is rounded here, once.
    """
    return table.assign(**{
        column: [_rounded(value, is_p=re.fullmatch(r"(\w+_)?p(_holm)?", str(column)) is not None) for value in table[column]]
        for column in table.select_dtypes("float")
    })  # fmt: skip


def _rounded(value: float, is_p: bool) -> float:
    return float(f"{value:.{P_DIGITS}g}" if is_p else f"{round(value, DIGITS):.{DIGITS}g}")


def save_table(path: Path, table: pd.DataFrame) -> None:
    """CSV of numbers as they are shown (see rounded)."""
    write_atomic(path, as_csv(rounded(table), "%.10g"))
