"""Numbers as they are shown: losses as perplexity or in nats, with the same digits on every processor. Imports no torch."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from extrap.files import write_atomic
from extrap.results.rows import as_csv

DIGITS = 6  # of what is shown: what processors differ by is far below, and what is seen far above
P_DIGITS = 3  # of a p value: of differences near 0 much less is known


IN_NATS = ("rtd", "electra")  # objectives that predict no tokens: of them there is no perplexity
# what their columns are called in place of those of a perplexity; the others would say the same again, or nothing
NATS = {f"ppl{end}": f"nats{end}" for end in ("", "_low", "_high")} | {"beats_unigram": "beats_neighbours"}
NO_NATS = ("log_ppl", "log_ppl_half", "bpb")


def logarithm(objective: pd.Series, nats: pd.Series) -> Any:
    """Of what is shown of losses in nats per token: of perplexities these themselves, of nats their logarithms."""
    return nats.where(~objective.isin(IN_NATS), np.log(nats))


def by_measure(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of nats beside those of perplexities, or in their place."""
    if "objective" not in table or not (told := table["objective"].isin(IN_NATS)).any():
        return table.drop(columns="limit", errors="ignore")  # the same everywhere
    names, none = (NATS, NO_NATS) if "ppl" in table else ({"log_ppl": "nats"}, ("bpb",))
    if told.all():
        return table.drop(columns=[*none], errors="ignore").rename(columns=names)
    split = {new: table[old].where(told) for old, new in names.items() if old in table}
    return table.assign(**{old: table[old].where(~told) for old in (*names, *none) if old in table}, **split)


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
    return float(f"{value:.{P_DIGITS}g}" if is_p else f"{round(value, DIGITS):.{DIGITS}g}") + 0.0  # no -0


def save_table(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, shown_csv(table))


def shown_csv(table: pd.DataFrame) -> str:
    """CSV of numbers as they are shown (see rounded and by_measure)."""
    return as_csv(rounded(by_measure(table)), "%.10g")
