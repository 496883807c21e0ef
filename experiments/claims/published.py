"""The published numbers that claims rest on: found in experiments/published.csv, and nowhere else. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims.claim import Claim, Part
from experiments.claims.evidence import LINE, PLAIN, Missing

PUBLISHED = Path(__file__).parents[1] / "published.csv"
# what claims rest on: name there -> the metric, and its logarithm where a quantity can be computed from it
METRICS: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
    "ppl": ("perplexity", np.log),
    "bpc": ("perplexity", lambda bits: bits * np.log(2)),  # of a character
    "train_words_per_s": ("tokens/s", np.log),
    "ratio": ("perplexity", lambda values: np.nan),
    "ndcg_at_10_percent": ("perplexity", lambda values: np.nan),
    "accuracy_percent": ("perplexity", lambda values: np.nan),
}
SERIES = ["source", "table", "corpus", "train_len", "metric"]


def load_published() -> pd.DataFrame:
    """One row a number; `scheme` is as ours are called, with its extension, or names a quantity where metric is ratio."""
    table = pd.read_csv(PUBLISHED, dtype={"table": str}, keep_default_na=False)
    named = table["scheme"].str.partition(" + ")
    plain = table["metric"] != "ratio"
    return table.assign(
        scheme=named[0].where(plain, table["scheme"]), extension=named[2].where(plain, "").replace("", "none")
    )


def series(claim: Claim, published: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, its rows, these as evidence of one seed) of each series of models behind a claim: ratios stay within."""
    rows = published[published["metric"].isin(METRICS)]
    for column, values in claim.words.get("published", {"source": []}).items():
        rows = rows[rows[column].isin(values)]
    # theirs stands for the protocol of ours that the claim asks about
    protocol = next((term.protocol for part in claim.parts for term in part.quantity.terms()), "")
    for (source, table, corpus, train_len, unit), part in rows.groupby(SERIES, sort=False):
        metric, log = METRICS[unit]
        name = ", ".join(filter(None, (source, f"table {table}", corpus, f"L = {train_len:,}")))
        told = PLAIN | {"metric": metric, "protocol": protocol, "seed": 0}
        told |= dict.fromkeys(("experiment", "data", "setting", "text"), "")
        yield name, part, part.assign(**told, log=log(part["value"]))[LINE]


def published_values(claim: Claim, part: Part, published: pd.DataFrame) -> list[float]:
    """The part's quantity in every published series that has what it needs, or where it is printed as a ratio itself."""
    values: list[float] = []
    theirs = part.theirs or part.quantity
    for _, rows, evidence in series(claim, published):
        values += rows.loc[rows["scheme"] == str(theirs), "value"].to_list()
        with suppress(Missing):
            values += theirs.shown(theirs.by_seed(evidence)).to_list()
    return values


def cited(claim: Claim, published: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The published rows that a claim's quantities are about, series by series."""
    found = []
    for name, rows, evidence in series(claim, published):
        picked = pd.Series(False, rows.index)
        for quantity in (part.theirs or part.quantity for part in claim.parts):
            picked |= rows["scheme"] == str(quantity)
            for term in quantity.terms(evidence):
                with suppress(Missing):
                    picked |= rows.index.isin(term.found(evidence).index)
        if picked.any():
            found.append((name, rows[picked]))
    return found
