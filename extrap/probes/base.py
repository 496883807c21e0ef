"""What probes share: which windows of held-out text they read, and the form of what they find."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from extrap.data.base import HeldOut
from extrap.model.encoder import Encoder
from extrap.objectives import Batch
from extrap.results.probes import FOUND
from extrap.runs.prepare import Run
from extrap.score.protocols import held_out_batch, nonoverlap
from extrap.score.reads import FORWARD_TOKENS, token_nll


class Probed(NamedTuple):
    """A finished run, its encoder, and the held-out text that it was scored on: whole segments, and what is hidden there."""

    run: Run
    encoder: Encoder
    held_out: HeldOut
    batch: Batch

    @property
    def train_len(self) -> int:
        return self.run.config.train.train_len

    @property
    def lengths(self) -> list[int]:
        """Those of eval.lengths that the scheme reaches."""
        end = self.encoder.scheme.max_len
        return [n for n in sorted(self.run.config.eval.lengths) if end is None or n <= end]


def probed(run: Run, encoder: Encoder) -> Probed:
    return Probed(run, encoder, *held_out_batch(run.source, run.objective, run.config.eval))


def pieces(of: Probed, eval_len: int) -> list[tuple[int, int]]:
    """[start, stop) of what segments are cut into under nonoverlap: windows of this length, and what is left."""
    plan = nonoverlap(of.run.config.eval, of.train_len, of.run.objective.causal)
    return [(piece.start, piece.stop) for piece in plan[eval_len]]


def windows(of: Probed, eval_len: int) -> list[tuple[int, int]]:
    """The whole windows of this length alone."""
    return [(start, stop) for start, stop in pieces(of, eval_len) if stop - start == eval_len]


def nll(encoder: Encoder, batch: Batch) -> np.ndarray:
    """(B, T) float64: the losses at scored positions, 0 elsewhere, some rows of the batch at a time."""
    n_inputs, length = batch.inputs.shape
    step = max(1, FORWARD_TOKENS // length)
    parts = [Batch(*(array[first : first + step] for array in batch)) for first in range(0, n_inputs, step)]
    return np.concatenate([token_nll(encoder, part, [slice(None)])[0] for part in parts])


def logits(encoder: Encoder, tokens: np.ndarray) -> np.ndarray:
    """(B, T, V) float32 at every position, some rows at a time."""
    step, device = max(1, FORWARD_TOKENS // tokens.shape[1]), next(encoder.parameters()).device
    parts = (torch.from_numpy(np.ascontiguousarray(tokens[first : first + step])) for first in range(0, len(tokens), step))
    return np.concatenate([encoder.logits(encoder(part.to(device))).cpu().numpy() for part in parts])


Sums = Mapping[str, tuple[np.ndarray, np.ndarray]]  # by metric what every input sums to, and over how many places


def found(probe: str, eval_len: int, documents: Sequence[str], sums: Sums, distance: int = 0) -> pd.DataFrame:
    """Lines by document; the sum is infinite where a part of it is not a number."""
    frames = [
        pd.DataFrame({"document": documents, "value_sum": value_sum, "n": n}).assign(metric=metric)
        for metric, (value_sum, n) in sums.items()
    ]
    lines = pd.concat(frames).fillna({"value_sum": np.inf})  # of which sums would be made without it
    lines = lines.groupby(["metric", "document"], sort=False, as_index=False)[["value_sum", "n"]].sum()
    return lines.assign(probe=probe, eval_len=eval_len, distance=distance)[FOUND]
