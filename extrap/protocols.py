"""Which tokens of a held-out segment are scored with how much context. Imports no torch.

A protocol cuts a segment of `seg_len` positions into windows of at most `eval_len` and says what each window scores.
At every eval_len the scored positions are the same; only the context around them differs.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from extrap.config import EvalConfig
from extrap.data.base import HeldOut, Source
from extrap.objectives import Batch, Objective

MASK_SEED = 0  # the same positions are hidden for every scheme, seed and length


class Window(NamedTuple):
    """The model reads [start, stop) and is scored on [score_start, score_stop), all positions of the segment."""

    start: int
    stop: int
    score_start: int
    score_stop: int


def nonoverlap(seg_len: int, eval_len: int, n_targets: int, causal: bool) -> list[Window]:
    """The segment cut into pieces of eval_len, every position scored; the last piece is what is left.

    The context of a token is eval_len / 2 on average, so perplexity falls with eval_len even for a model that uses
    nothing beyond the training length (the early-token curse, Press et al. 2022, appendix B).
    """
    starts = range(0, seg_len, eval_len)
    return [Window(a, min(a + eval_len, seg_len), a, min(a + eval_len, seg_len)) for a in starts]


def same_targets(seg_len: int, eval_len: int, n_targets: int, causal: bool) -> list[Window]:
    """The same n_targets positions at every length, each with the context that one window of eval_len gives.

    Causal: the last n_targets of the segment, context growing to the left. Otherwise the targets in the centre,
    context growing on both sides. The only protocol whose change with length is the value of context alone.
    """
    if causal:
        return [Window(seg_len - eval_len, seg_len, seg_len - n_targets, seg_len)]
    start, score_start = (seg_len - eval_len) // 2, (seg_len - n_targets) // 2
    return [Window(start, start + eval_len, score_start, score_start + n_targets)]


PROTOCOLS = {"nonoverlap": nonoverlap, "same_targets": same_targets}


def held_out_batch(source: Source, objective: Objective, config: EvalConfig) -> tuple[HeldOut, Batch]:
    """The held-out segments and, for the whole of each, what is hidden and what is scored."""
    held_out = source.held_out(max(config.lengths) + objective.extra_tokens, config.n_segments)
    return held_out, objective.batch(held_out.tokens, source.vocab_size, np.random.default_rng(MASK_SEED))


def windows(config: EvalConfig, protocol: str, eval_len: int, causal: bool) -> list[Window]:
    return PROTOCOLS[protocol](max(config.lengths), eval_len, config.n_targets, causal)


def rows_of(held_out: HeldOut, protocol: str, eval_len: int, nll_sum: np.ndarray, n_tokens: np.ndarray) -> pd.DataFrame:
    """One row a segment: nll_sum in nats, and what it is a sum over."""
    columns: dict[str, Any] = {
        "protocol": protocol,
        "eval_len": eval_len,
        "document": held_out.documents,
        "segment": held_out.segments,
        "nll_sum": nll_sum,
        "n_tokens": n_tokens,
        "n_bytes": n_tokens,  # a token is a byte
    }
    return pd.DataFrame(columns)
