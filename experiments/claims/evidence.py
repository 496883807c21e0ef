"""Rows as claims see them: logarithms of what was measured, over the floor where one is known. Imports no torch."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from extrap.stats.floor import UNFIT, against_floor
from extrap.stats.perplexity import perplexity

MEASURE = ["experiment", "objective", "protocol", "scheme", "extension", "train_len", "eval_len", "seed"]
LINE = ["metric", *MEASURE, "log", "floor", "guess", "unfit", "text"]
NO_FLOOR = {"floor": np.nan, "guess": np.nan, "unfit": ""}


class Missing(Exception):
    """What a quantity needs is not among the rows; says what."""


@dataclass(frozen=True)
class Evidence:
    """All that a claim sees.

    measures  a line a (metric, MEASURE): `log` is the natural logarithm of the metric, `text` stands for what was scored.
              Where a floor is known, `log` is over `floor`, `guess` is what a uniform guess has in its place, and `unfit`
              says why a scheme can decide nothing; elsewhere they are nan, nan and empty
    training  a line a (experiment, scheme, seed, step): the loss of that step's batch, in nats per token
    """

    measures: pd.DataFrame
    training: pd.DataFrame = field(default_factory=pd.DataFrame)


def measures(rows: pd.DataFrame) -> pd.DataFrame:
    """Log-perplexities of the schemes of one experiment, as evidence; over the floor where one is known (see over_floor)."""
    schemes = rows[rows["kind"] == "scheme"]
    scored = pd.util.hash_pandas_object(schemes[["data", "document", "segment", "n_tokens"]], index=False)
    text = scored.groupby([schemes[column] for column in MEASURE], sort=False).sum().rename("text").reset_index()
    lines = perplexity(schemes, MEASURE).rename(columns={"log_ppl": "log"}).merge(text, on=MEASURE)
    lines = lines.assign(metric="perplexity", **NO_FLOOR)
    return over_floor(lines, rows)[LINE]


def over_floor(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Lines with log-perplexities over that of the best predictor that looks back L tokens at most, where one is known.

    The floor of a source falls with the length of the context, and further beyond L: a ratio of perplexities at two lengths
    would mostly be its slope. Over that of a predictor that reads what training has shown, on the same tokens, a model that
    is blind beyond L and as good as ever is at 1 for all lengths; one that makes use of more context is below, one that
    breaks is above. At one length the floor cancels.
    """
    where = ["objective", "protocol", "train_len", "eval_len"]
    floors, guesses = (
        perplexity(rows[rows["kind"] == kind], where)[[*where, "log_ppl"]] for kind in ("window_floor", "unigram")
    )
    if floors.empty:
        return lines
    scheme = ["objective", "protocol", "train_len", "scheme", "extension"]
    verdicts = against_floor(rows)[[*scheme, "verdict"]].drop_duplicates()
    known = floors.merge(guesses, on=where, how="left", suffixes=("_floor", "_guess"))
    lines = lines.merge(known, on=where).merge(verdicts, on=scheme)
    return lines.assign(
        log=lines["log"] - lines["log_ppl_floor"],
        floor=lines["log_ppl_floor"],
        guess=lines["log_ppl_guess"] - lines["log_ppl_floor"],
        unfit=lines["verdict"].where(lines["verdict"].isin(UNFIT), ""),
    )
