"""Held-out text under every extension, protocol and length -> rows of sums and counts per segment."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from extrap.config.schema import EvalConfig
from extrap.data.base import HeldOut, Source
from extrap.extensions.base import extensions_of
from extrap.model.encoder import Encoder
from extrap.objectives import MASK_SEED, Objective
from extrap.positions.base import PositionScheme
from extrap.results.rows import NOT_A_NUMBER, SELECTION
from extrap.score.protocols import bytes_scored, rows_of
from extrap.score.reads import Read, Reader, Scoring, score, together
from extrap.train import distributed


class Missing(NamedTuple):
    """What has no rows, although the scheme reaches it."""

    extension: str
    protocol: str
    eval_len: int
    reason: str


OUT_OF_MEMORY = "out of memory"


class Evaluated(NamedTuple):
    rows: pd.DataFrame
    missing: list[Missing]


@torch.no_grad()
def evaluate(encoder: Encoder, source: Source, objective: Objective, config: EvalConfig) -> Evaluated:
    """Rows of (extension, protocol, eval_len, segment); none for lengths that the scheme, so extended, does not reach.

    Up to the training length extensions change nothing: their rows are copies of those of `none`, but for the protocol
    `position`, which is one pass of the longest input. Beyond it they are scored at config.extension_multiples of it. A
    length that does not fit into memory, or where a loss is not a number, has no rows and is told; the others are what they
    would be without it, but for rounding (see Reader.sums).
    A protocol that lacks the training length has no rows at all, for there is nothing to compare its lengths with.
    Computed in float32, whatever the precision of training; sums are float64. Several processes divide the forward passes
    of a single one among them, none of which changes: on one machine the rows are the same, bit for bit.
    """
    encoder.eval()
    reader = Reader(encoder, source, objective, config)
    scheme, train_len = encoder.scheme, encoder.scheme.geometry.train_len
    sums: dict[Read, np.ndarray] = {}
    frames: list[pd.DataFrame] = []
    missing: list[Missing] = []
    for name, extension in sorted(extensions_of(config.extensions).items(), key=lambda one: one[0] != "none"):
        reached: dict[Read, PositionScheme] = {}
        for read in reader.plan:
            if name != "none" and read.eval_len > train_len and not config.extended(read.eval_len, train_len):
                continue
            extended = extension(scheme, read.eval_len)
            if extended is not None and (extended.max_len is None or read.eval_len <= extended.max_len):
                reached[read] = extended
        sums |= reader.sums({read: to for read, to in reached.items() if name == "none" or read.eval_len > train_len})
        totals: dict[tuple[str, int], np.ndarray] = {}  # (protocol, eval_len) -> (3, N): see score
        segments: dict[tuple[str, int], HeldOut] = {}
        for read in reached:
            for scoring, part in zip(reader.plan[read], sums[read], strict=True):
                at = scoring.protocol, scoring.eval_len
                totals[at] = totals.get(at, 0.0) + part[:, :: scoring.every // reader.steps[read]]
                segments[at] = reader.held_out.thinned(scoring.every)
        reasons = {at: lack_of(*total[:2]) for at, total in totals.items()}
        for (protocol, eval_len), total in totals.items():
            if not reasons[protocol, eval_len] and (reason := reasons.get((protocol, train_len))):
                reasons[protocol, eval_len] = f"{reason} at the training length"
            if not reasons[protocol, eval_len]:
                rows = rows_of(segments[protocol, eval_len], protocol, eval_len, total)
                frames.append(rows.assign(extension=name))
        missing += [Missing(name, *at, reason) for at, reason in sorted(reasons.items()) if reason]
    nothing = rows_of(reader.held_out, "", 0, np.zeros((3, config.n_segments)))[:0]
    rows = pd.concat(frames or [nothing], ignore_index=True)
    return Evaluated(rows, missing)


@torch.no_grad()
def on_held_back(encoder: Encoder, held_back: HeldOut, objective: Objective, source: Source) -> pd.DataFrame:
    """One row: the sum over sequences as in training that were held back from it. None where a loss is not a number."""
    encoder.eval()
    tokens = held_back.tokens[:, : encoder.scheme.geometry.train_len + objective.extra_tokens]
    batch = objective.batch(tokens, source, np.random.default_rng(MASK_SEED))
    n_bytes = bytes_scored(held_back._replace(tokens=tokens), source, objective)
    length = batch.inputs.shape[1]
    whole = Read(0, length, length, alone=False), [Scoring(SELECTION, length, slice(0, length), every=1)], 0
    parts = distributed.gathered(partial(score, encoder, batch, n_bytes, *whole))
    (sums,) = together(parts, len(held_back.tokens))
    total = HeldOut(held_back.tokens[:1], ["held back"], [0])
    row = rows_of(total, SELECTION, length, sums.sum(axis=1, keepdims=True))
    return row if np.isfinite(sums).all() else row[:0]


def lack_of(nll_sum: np.ndarray, n_tokens: np.ndarray) -> str:
    """Why sums are no rows, nothing where they are."""
    if not np.isfinite(n_tokens).all():
        return OUT_OF_MEMORY
    return "" if np.isfinite(nll_sum).all() else NOT_A_NUMBER
