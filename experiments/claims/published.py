"""The published numbers that claims rest on: found in experiments/published.csv, and nowhere else. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from extrap.claims import Claim, Part, Published
from extrap.quantities import MEASURE, NEAR, Evidence, Missing, Term

PUBLISHED = Path(__file__).parents[1] / "published.csv"
METRICS = {"ppl": "perplexity", "train_words_per_s": "tokens/s"}  # what a quantity can be computed from


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
    rows = rows.assign(
        metric=rows["metric"].map(METRICS).fillna(rows["metric"]),
        protocol=where.protocol,
        experiment="",
        seed=0,
        n_tokens=0,
        log=np.log(rows["value"].where(rows["metric"].isin(list(METRICS)))),
    )
    return Evidence(rows[["metric", *MEASURE, "log", "n_tokens"]])


def published_values(claim: Claim, part: Part, published: pd.DataFrame) -> list[float]:
    """The part's quantity in every published series that has what it needs; a ratio may also be printed as such."""
    values = []
    for where in claim.published:
        for _, rows in of(where, published):
            if where.metric == "ratio":
                values += rows.loc[rows["scheme"] == str(part.quantity), "value"].astype(float).to_list()
            elif where.metric in METRICS:
                try:
                    values += part.shown(part.by_seed(evidence(rows, where)).to_numpy()).tolist()
                except Missing:
                    continue
    return values


def cited(claim: Claim, published: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The published rows that a claim's quantities are about, series by series."""
    found = []
    for where in claim.published:
        for name, rows in of(where, published):
            picked = [about(term, rows) for part in claim.parts for term in terms(part, rows, where)]
            picked.append(rows["scheme"].isin([str(part.quantity) for part in claim.parts]))
            chosen = rows[np.logical_or.reduce(picked)]
            if not chosen.empty:
                found.append((f"{where.source}, {name}", chosen))
    return found


def terms(part: Part, rows: pd.DataFrame, where: Published) -> Iterator[Term]:
    try:
        yield from list(part.quantity.terms(evidence(rows, where)))
    except Missing:
        yield from part.quantity.terms()


def about(term: Term, rows: pd.DataFrame) -> pd.Series:
    off = (rows["eval_len"] / (term.at * rows["train_len"]) - 1).abs()
    same = (rows["scheme"] == term.scheme) & rows["extension"].isin(["none", term.extension]) & (off <= NEAR)
    return same & (rows["objective"] == term.objective) & (off == off[same].min())
