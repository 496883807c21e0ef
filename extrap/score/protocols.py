"""Which tokens of a held-out segment are scored with how much context. Imports no torch.

A protocol is a function (config, train_len, causal) -> {eval_len: windows}. It cuts a segment of max(config.lengths)
positions into windows and says what each of them scores. Under every protocol but `position` the scored positions are the
same at every eval_len; only the context around them differs.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.config.schema import EvalConfig
from extrap.data.base import HeldOut, Source
from extrap.objectives import MASK_SEED, Batch, Objective

SHORTEST_BIN = 16  # positions, of the first bin of `position`
PLACES = 16  # of targets in a segment
DECIMALS = 6  # of a sum of losses in nats: those of float32 know no more


class Window(NamedTuple):
    """The model reads [start, stop) and is scored on [score_start, score_stop), all positions of the segment."""

    start: int
    stop: int
    score_start: int
    score_stop: int


Plan = dict[int, list[Window]]  # by eval_len


def nonoverlap(config: EvalConfig, train_len: int, causal: bool) -> Plan:
    """The segment cut into pieces of eval_len, every position scored; the last piece is what is left.

    The context of a token is eval_len / 2 on average, so perplexity falls with eval_len even for a model that uses
    nothing beyond the training length (the early-token curse, Press et al. 2022, appendix B).
    """
    seg_len = max(config.lengths)
    ends = {n: [*range(0, seg_len, n), seg_len] for n in sorted(config.lengths)}
    return {n: [Window(a, b, a, b) for a, b in pairwise(ends[n])] for n in ends}


def same_targets(config: EvalConfig, train_len: int, causal: bool) -> Plan:
    """The same positions at every length, each with the context that one window of eval_len gives.

    Causal: the last n_targets of the segment, context growing to the left. Otherwise n_targets at each of 16 places, or as
    many as there is room for, spread over the middle three quarters of the segment; context grows on both sides. The only
    protocol whose change with length is the value of context alone.

    In an encoder a window of 8 n_targets or more, beyond 2 L, begins at a multiple of half its length, so that places, and
    other protocols, share it: a target has 3/16 of the window on either side, or all that the segment holds there. Shorter
    windows have their targets in the centre. From one doubling of L to the next each window lies within the longer one; from
    a length to one that is less than twice as long a target may lose context on one side for more on the other.
    """
    seg_len, n_targets = max(config.lengths), config.n_targets
    if causal:
        last = seg_len - n_targets
        return {n: [Window(seg_len - n, seg_len, last, seg_len)] for n in sorted(config.lengths)}
    room = 3 * seg_len // 4
    n_places = min(PLACES, max(1, room // n_targets))
    centres = [seg_len // 8 + (2 * place + 1) * room // (2 * n_places) for place in range(n_places)]
    firsts = [min(max(0, centre - n_targets // 2), seg_len - n_targets) for centre in centres]
    shared = (n >= 8 * n_targets and n > 2 * train_len for n in sorted(config.lengths))
    steps = {n: n // 2 if is_shared else 1 for n, is_shared in zip(sorted(config.lengths), shared, strict=True)}
    return {n: [_around(first, n_targets, n, seg_len, step) for first in firsts] for n, step in steps.items()}


def _around(first: int, n_targets: int, n: int, seg_len: int, step: int = 1) -> Window:
    """The window of n with these targets in its middle, or the nearest to it that begins at a multiple of `step`."""
    start = round((first - (n - n_targets + 1) // 2) / step) * step
    start = min(max(0, start), seg_len - n)
    return Window(start, start + n, first, first + n_targets)


def pseudo(config: EvalConfig, train_len: int, causal: bool) -> Plan:
    """n_targets in the centre of the segment, of which n_pseudo are masked, each of them alone."""
    seg_len, n_targets = max(config.lengths), config.n_targets
    return {n: [_around((seg_len - n_targets) // 2, n_targets, n, seg_len)] for n in sorted(config.lengths)}


def sliding(config: EvalConfig, train_len: int, causal: bool) -> Plan:
    """A window of eval_len at every `stride` positions, at each of config.windows; every position scored once.

    Causal: each window scores its last `stride` positions, the first all of them, so that a token beyond the first window
    has a context of eval_len - stride + 1 or more (Press et al. 2022, appendix B; Baevski and Auli 2019). Otherwise each
    scores `stride` positions in its middle, the first all up to there and the last all from there on. The last window
    ends with the segment and scores what is left.
    """
    seg_len, stride, plan = max(config.lengths), config.stride, {}
    for n in sorted(config.windows):
        after = 0 if causal else (n - stride) // 2  # what a window reads behind the positions that it scores
        ends = [stop - after for stop in range(n, seg_len, stride)] + [seg_len]
        stops = [min(seg_len, end + after) for end in ends]
        plan[n] = [Window(stop - n, stop, a, b) for stop, (a, b) in zip(stops, pairwise([0, *ends]), strict=True)]
    return plan


def position(config: EvalConfig, train_len: int, causal: bool) -> Plan:
    """The loss by position in one pass over the segment: eval_len n stands for the positions from the last bin up to n.

    Position p has p tokens to its left and counts as p + 1 (Chi et al. 2022, figure 5); in an encoder the nearer end
    counts. Bins end at 16, 24, 32, 48, 64, ... and at the training length. Each scores other tokens: curves over position
    are as rough as the text, and schemes are compared within a bin only.
    """
    seg_len = max(config.lengths)
    longest = seg_len if causal else seg_len // 2
    doublings = range((longest // SHORTEST_BIN).bit_length())
    ends = {SHORTEST_BIN * 2**k * half // 2 for k in doublings for half in (2, 3)} | {train_len, longest}
    plan: Plan = {}
    for a, b in pairwise([0, *sorted(end for end in ends if end <= longest)]):
        plan[b] = [Window(0, seg_len, a, b)]
        if not causal:
            plan[b].append(Window(0, seg_len, seg_len - b, seg_len - a))
    return plan


PROTOCOLS: dict[str, Callable[[EvalConfig, int, bool], Plan]] = {
    "nonoverlap": nonoverlap,
    "same_targets": same_targets,
    "sliding": sliding,
    "position": position,
    "pseudo": pseudo,
}
TARGETED = ("same_targets", "pseudo")  # they read around their targets, and every segment; the others read segments whole


def label(config: EvalConfig, protocol: str) -> str:
    """How rows name a protocol: with every number that its scores depend on beside eval_len."""
    return f"sliding(stride={config.stride})" if protocol == "sliding" else protocol


def held_out_batch(source: Source, objective: Objective, config: EvalConfig) -> tuple[HeldOut, Batch]:
    """The held-out segments and, for the whole of each, what is hidden and what is scored."""
    held_out = source.held_out(max(config.lengths) + objective.extra_tokens, config.n_segments)
    return held_out, objective.batch(held_out.tokens, source, np.random.default_rng(MASK_SEED))


def bytes_scored(held_out: HeldOut, source: Source, objective: Objective) -> np.ndarray:
    """(N, S): of the token that each position of the batch of the segments is scored on, its bytes."""
    n_bytes: np.ndarray = source.token_bytes[held_out.tokens[:, objective.span]]
    return n_bytes


def masked_alone(held_out: HeldOut, mask: int, config: EvalConfig) -> Batch:
    """(N * n_pseudo, S): each segment n_pseudo times, each time with another of its targets masked, and that alone.

    Scored one at a time, they are a sample of the pseudo-log-likelihood (Salazar et al. 2020, arXiv:1910.14659). The
    positions are spread evenly over the n_targets in the centre.
    """
    tokens = np.repeat(held_out.tokens, config.n_pseudo, axis=0)
    first = (tokens.shape[1] - config.n_targets) // 2
    places = first + np.arange(config.n_pseudo) * config.n_targets // config.n_pseudo
    scored = np.zeros(tokens.shape, dtype=bool)
    scored[np.arange(len(tokens)), np.tile(places, len(held_out.tokens))] = True
    return Batch(np.where(scored, mask, tokens), tokens, scored)


def every(config: EvalConfig, protocol: str) -> int:
    """k, for a protocol that reads segments 0, k, 2 k, ..."""
    return 1 if protocol in TARGETED else config.whole_every


def rows_of(held_out: HeldOut, protocol: str, eval_len: int, sums: np.ndarray) -> pd.DataFrame:
    """One row a segment; sums (3, N): nll_sum in nats, and the tokens that it is a sum over, and their bytes."""
    nll_sum, (n_tokens, n_bytes) = np.round(sums[0], DECIMALS), sums[1:].astype(np.int64)
    return pd.DataFrame({
        "extension": "none",
        "protocol": protocol,
        "eval_len": eval_len,
        "document": held_out.documents,
        "segment": held_out.segments,
        "nll_sum": nll_sum,
        "n_tokens": n_tokens,
        "n_bytes": n_bytes,
    })  # fmt: skip
