"""The published numbers that claims rest on: found in experiments/published.csv, and nowhere else. Imports no torch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims.claim import Claim, Part, Published
from experiments.claims.evidence import LINE, NO_FLOOR, Evidence, Missing
from experiments.claims.quantities import NEAR, Quantity, Term

PUBLISHED = Path(__file__).parents[1] / "published.csv"
# what a quantity can be computed from: the name of the metric there, and its logarithm
METRICS: dict[str, tuple[str, Callable[[pd.Series], pd.Series]]] = {
    "ppl": ("perplexity", np.log),
    "bpc": ("perplexity", lambda bits: bits * np.log(2)),  # of a character
    "train_words_per_s": ("tokens/s", np.log),
}


def load_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """One row a number; `scheme` is as ours are called, with its extension, or names a quantity where metric is ratio."""
    table = pd.read_csv(path, dtype={"table": str}, keep_default_na=False)
    named = table["scheme"].str.partition(" + ")
    plain = table["metric"] != "ratio"
    return table.assign(
        scheme=named[0].where(plain, table["scheme"]), extension=named[2].where(plain, "").replace("", "none")
    )


def of(where: Published, published: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(source, table, corpus and training length as text, its rows), one for each model series: ratios stay within."""
    rows = published[(published["source"] == where.source) & published["table"].isin(where.tables)]
    rows = rows[rows["metric"] == where.metric]
    if where.train_lens:
        rows = rows[rows["train_len"].isin(where.train_lens)]
    for (table, corpus, train_len), series in rows.groupby(["table", "corpus", "train_len"], sort=False):
        yield f"table {table}, {corpus}, L = {train_len:,}" if corpus else f"table {table}, L = {train_len:,}", series


def evidence(rows: pd.DataFrame, where: Published) -> Evidence:
    """Published rows as a claim sees ours: one seed, and none of our experiments."""
    name, log = METRICS.get(where.metric, (where.metric, None))
    logs = log(rows["value"]) if log else np.nan
    rows = rows.assign(metric=name, protocol=where.protocol, experiment="", seed=0, text=0, log=logs, **NO_FLOOR)
    return Evidence(rows[LINE])


def published_values(claim: Claim, part: Part, published: pd.DataFrame) -> list[float]:
    """The part's quantity in every published series that has what it needs; a ratio may also be printed as such."""
    values, theirs = [], part.theirs or part.quantity
    for where in claim.published:
        for _, rows in of(where, published):
            if where.metric == "ratio":
                values += rows.loc[rows["scheme"] == str(theirs), "value"].astype(float).to_list()
            elif where.metric in METRICS:
                try:
                    values += part.shown(theirs.by_seed(evidence(rows, where)).to_numpy()).tolist()
                except Missing:
                    continue
    return values


def cited(claim: Claim, published: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The published rows that a claim's quantities are about, series by series."""
    found = []
    for where in claim.published:
        for name, rows in of(where, published):
            theirs = [part.theirs or part.quantity for part in claim.parts]
            picked = [about(term, rows) for quantity in theirs for term in terms(quantity, rows, where)]
            picked.append(rows["scheme"].isin([str(quantity) for quantity in theirs]))
            chosen = rows[np.logical_or.reduce(picked)]
            if not chosen.empty:
                found.append((f"{where.source}, {name}", chosen))
    return found


def terms(quantity: Quantity, rows: pd.DataFrame, where: Published) -> Iterator[Term]:
    try:
        yield from list(quantity.terms(evidence(rows, where)))
    except Missing:
        yield from quantity.terms()


def about(term: Term, rows: pd.DataFrame) -> pd.Series:
    off = (rows["eval_len"] / (term.at * rows["train_len"]) - 1).abs()
    same = (rows["scheme"] == term.scheme) & rows["extension"].isin(["none", term.extension]) & (off <= NEAR)
    return same & (rows["objective"] == term.objective) & (off == off[same].min())
