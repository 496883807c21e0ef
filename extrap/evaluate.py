"""Held-out text under every protocol and length -> rows of sums and counts per segment."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from extrap.config import EvalConfig
from extrap.data.base import Source
from extrap.model import Encoder
from extrap.objectives import Batch, Objective
from extrap.protocols import held_out_batch, rows_of, windows

FORWARD_TOKENS = 4_096  # in one forward pass: more would leave the caches of a processor


@torch.no_grad()
def evaluate(encoder: Encoder, source: Source, objective: Objective, config: EvalConfig) -> pd.DataFrame:
    """Rows of (protocol, eval_len, segment); none for lengths that the scheme does not reach.

    Computed in float32, whatever the precision of training; sums are float64.
    Raises FloatingPointError for a loss that is not a number.
    """
    encoder.eval()
    held_out, batch = held_out_batch(source, objective, config)
    max_len = encoder.scheme.max_len
    frames = []
    for eval_len in sorted(config.lengths):
        if max_len is not None and eval_len > max_len:
            continue
        nll_sum = {protocol: np.zeros(config.n_segments) for protocol in config.protocols}
        n_tokens = {protocol: np.zeros(config.n_segments, dtype=np.int64) for protocol in config.protocols}
        for (start, stop), scorings in reads(config, eval_len, objective.causal).items():
            rows = max(1, FORWARD_TOKENS // (stop - start))
            for first in range(0, config.n_segments, rows):
                these = slice(first, first + rows)
                part = Batch(*(array[these, start:stop] for array in batch))
                nll, scored = token_nll(encoder, part, [columns for _, columns in scorings])
                for protocol, columns in scorings:
                    nll_sum[protocol][these] += nll[:, columns].sum(axis=1)
                    n_tokens[protocol][these] += scored[:, columns].sum(axis=1)
        for protocol in config.protocols:
            if not np.isfinite(nll_sum[protocol]).all():
                raise FloatingPointError(f"the loss at eval_len {eval_len} ({protocol}) is not a number")
            frames.append(rows_of(held_out, protocol, eval_len, nll_sum[protocol], n_tokens[protocol]))
    return pd.concat(frames, ignore_index=True)


def reads(config: EvalConfig, eval_len: int, causal: bool) -> dict[tuple[int, int], list[tuple[str, slice]]]:
    """What to read, [start, stop), each only once, and which protocols score which of its positions."""
    found: dict[tuple[int, int], list[tuple[str, slice]]] = {}
    for protocol in config.protocols:
        for start, stop, score_start, score_stop in windows(config, protocol, eval_len, causal):
            found.setdefault((start, stop), []).append((protocol, slice(score_start - start, score_stop - start)))
    return found


def token_nll(encoder: Encoder, batch: Batch, columns: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """(B, T) float64 losses and (B, T) bool: the scored positions in any of these columns; 0 elsewhere."""
    device = next(encoder.parameters()).device
    wanted = np.zeros_like(batch.scored)
    for part in columns:
        wanted[:, part] = batch.scored[:, part]
    index = np.flatnonzero(wanted)
    hidden = encoder(torch.from_numpy(np.ascontiguousarray(batch.inputs)).to(device)).flatten(0, 1)
    logits = encoder.logits(hidden[torch.from_numpy(index).to(device)])
    targets = torch.from_numpy(batch.targets.ravel()[index]).to(device)
    losses = F.cross_entropy(logits, targets, reduction="none")
    nll = np.zeros(wanted.shape)
    nll.ravel()[index] = losses.to(torch.float64).cpu().numpy()
    return nll, wanted
