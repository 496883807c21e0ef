"""The early-token null: perplexity of who makes no use of context beyond the training length. Imports no torch."""

import re

import numpy as np
import pandas as pd

from extrap.results.rows import GROUP
from extrap.results.shown import logarithm
from extrap.stats.perplexity import CONDITION, over_seeds, perplexity

WEIGHTS = [*GROUP, "scheme", "seed"]  # extensions share them


def early_token_null(rows: pd.DataFrame) -> pd.DataFrame:
    """How far perplexity under nonoverlap is from what the same model would have, were it blind beyond the training length.

    Text cut into pieces of n tokens: the first L of a piece read 1, 2, ..., L tokens, as in a piece of L. The other n - L
    would read the last L, like every token under a sliding window. So, for n > L,

        null(n) = exp((L ln a + (n - L) ln b) / n),    excess(n) = ppl(n) / null(n),

    a = perplexity at L, b = perplexity with a full context of L; at n <= L the excess is 1. The null falls with n although
    nothing beyond L is used. For a segment of N tokens that n does not divide, L / n is replaced by E / N, E = (N // n) L +
    min(N mod n, L), the tokens among the first L of a piece. A last piece shorter than L counts as so many tokens of a whole
    one, for sums over segments do not tell them apart: the null is exact where L divides N and n leaves nothing or L or more
    over, else off by the excess of that piece, in a or at n (L = 64, N = 1,000: by 0.2 to 0.4 %).

    Two-sided: a model that looks L/2 to either side and no further. In a piece of n >= L tokens the first L/2 miss
    something on the left and nothing on the right (n - 1 - t >= L/2 for t < L/2), the last L/2 the other way round, and
    n - L miss nothing. At n = L there are the same L edge positions with the same contexts and no others, so the formula
    is the same, b being the perplexity with L/2 tokens on both sides.

    b comes from `sliding` at L, of the finest stride, whose tokens are those of nonoverlap. A segment of N read so is what
    a blind model makes of a piece of N: ln sliding = (L ln a + (N - L) ln b) / N, solved for b. A stride of S lets a token
    read L - S + 1 tokens or more, not L (S = 1 in an encoder: L/2 - 1 on one side): b is a little high and the excess a
    little low. Without such rows b comes from same_targets at L, which are other tokens, on half of a context or more:
    the null is then off by as much as that text is harder or easier, which no interval shows.
    Source: the early-token curse, Press et al. 2022 (arXiv:2108.12409), appendix B.

    One line a (condition, scheme, extension, eval_len); none without b. Computed for each seed, from its own a and b:
    null                              exp of the mean over seeds of ln null; in nats where losses are shown in nats: means of
                                      tokens, as the sums above are
    null_excess, *_low, *_high        exp of the mean over seeds of ln ppl - ln null and of its 95 % t interval
    full_context                      the protocol that b comes from
    """
    by_seed = perplexity(rows[rows["kind"] == "scheme"], [*CONDITION, "scheme", "extension", "eval_len", "seed"])
    pieces = by_seed[by_seed["protocol"] == "nonoverlap"]
    trained = by_seed[(by_seed["eval_len"] == by_seed["train_len"]) & (by_seed["extension"] == "none")]
    a = trained.loc[trained["protocol"] == "nonoverlap", [*WEIGHTS, "log_ppl"]].rename(columns={"log_ppl": "log_a"})
    b = trained.assign(stride=trained["protocol"].map(_stride)).dropna(subset="stride")
    b = b.sort_values("stride", kind="stable").drop_duplicates(WEIGHTS)
    b = b[[*WEIGHTS, "protocol", "log_ppl"]].rename(columns={"protocol": "full_context", "log_ppl": "log_full"})
    joined = pieces.merge(a, on=WEIGHTS).merge(b, on=WEIGHTS)
    log_null = _log_null(joined, _segment_lengths(rows))
    joined["log_null"], log_ppl = (logarithm(joined["objective"], nats) for nats in (log_null, joined["log_ppl"]))
    joined["log_excess"] = log_ppl - joined["log_null"]
    groups = joined.groupby([*CONDITION, "scheme", "extension", "eval_len"], sort=False)
    excess = over_seeds(groups["log_excess"]).exp()
    return pd.DataFrame({
        "n_seeds": excess.n, "null": np.exp(groups["log_null"].mean()), "null_excess": excess.mean,
        "null_excess_low": excess.low, "null_excess_high": excess.high, "full_context": groups["full_context"].first(),
    }).reset_index()  # fmt: skip


def _stride(protocol: str) -> float:
    """How far b's windows move on; without end for same_targets, nan for what gives no b."""
    found = re.fullmatch(r"sliding\(stride=(\d+)\)", protocol)
    return float(found[1]) if found else np.inf if protocol == "same_targets" else np.nan


def _segment_lengths(rows: pd.DataFrame) -> pd.Series:
    """A segment is as long as the longest length; one of published numbers, a whole corpus, is longer than any of them."""
    pieces = rows[rows["protocol"] == "nonoverlap"]
    return pieces.groupby(GROUP)[["eval_len", "n_tokens"]].max().max(axis=1).rename("seg_len")


def _log_null(joined: pd.DataFrame, seg_lens: pd.Series) -> pd.Series:
    segment = joined.join(seg_lens, on=list(seg_lens.index.names))["seg_len"]
    length, piece = joined["train_len"], joined["eval_len"]
    with np.errstate(invalid="ignore"):  # 0 / 0 where a segment is no longer than L; nothing is taken from there
        log_b = (segment * joined["log_full"] - length * joined["log_a"]) / (segment - length)
    log_b = log_b.where(joined["full_context"] != "same_targets", joined["log_full"])
    early = (segment // piece) * length + np.minimum(segment % piece, length)
    log_null = (early * joined["log_a"] + (segment - early) * log_b) / segment
    return log_null.where(piece > length, joined["log_ppl"])
