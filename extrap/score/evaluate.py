"""Held-out text under every extension, protocol and length -> rows of sums and counts per segment."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from extrap.config.schema import EvalConfig
from extrap.data.base import HeldOut, Source
from extrap.extensions.base import Extension, extensions_of
from extrap.model.encoder import Encoder
from extrap.objectives import Batch, Objective
from extrap.results.rows import SELECTION
from extrap.score.protocols import MASK_SEED, PROTOCOLS, held_out_batch, label, masked_alone, rows_of
from extrap.train import distributed

FORWARD_TOKENS = 4_096  # in one forward pass: more would leave the caches of a processor


class Read(NamedTuple):
    """What the model is given: positions [start, stop) of every segment."""

    start: int
    stop: int
    eval_len: int  # what an extension is asked for: the longest window of the same protocol and length
    alone: bool  # one masked position at a time


class Scoring(NamedTuple):
    """What is scored of a read, in columns of the read."""

    protocol: str
    eval_len: int
    columns: slice


class Missing(NamedTuple):
    """What has no rows, although the scheme reaches it."""

    extension: str
    protocol: str
    eval_len: int
    reason: str


OUT_OF_MEMORY, NOT_A_NUMBER = "out of memory", "not a number"


class Evaluated(NamedTuple):
    rows: pd.DataFrame
    missing: list[Missing]


@torch.no_grad()
def evaluate(encoder: Encoder, source: Source, objective: Objective, config: EvalConfig) -> Evaluated:
    """Rows of (extension, protocol, eval_len, segment); none for lengths that the scheme, so extended, does not reach.

    Up to the training length extensions change nothing: their rows are copies of those of `none`. A length that does not
    fit into memory, or where a loss is not a number, has no rows and is told; the others are what they would be without it.
    A protocol that lacks the training length has no rows at all, for there is nothing to compare its lengths with.
    Computed in float32, whatever the precision of training; sums are float64. Several processes divide the forward passes
    of a single one among them, none of which changes: on one machine the rows are the same, bit for bit.
    """
    encoder.eval()
    held_out, hidden = held_out_batch(source, objective, config)
    batches = {False: hidden}
    if "pseudo" in config.protocols:
        batches[True] = masked_alone(held_out, source.vocab_size, config)
    scheme, train_len = encoder.scheme, encoder.scheme.geometry.train_len
    plan = reads(config, train_len, objective.causal)
    extensions = extensions_of(config.extensions)

    def own_sums(extension: Extension, changes: bool) -> dict[Read, list[np.ndarray] | None]:
        """Of every read that the scheme, so extended, reaches: what this process scores of it.

        [] where the extension changes nothing, None where memory does not suffice.
        """
        sums: dict[Read, list[np.ndarray] | None] = {}
        for turn, (read, scorings) in enumerate(plan.items()):
            extended = extension(scheme, read.eval_len)
            if extended is None or (extended.max_len is not None and read.eval_len > extended.max_len):
                continue
            if changes and read.eval_len <= train_len:
                sums[read] = []
            else:
                encoder.scheme = extended
                try:
                    sums[read] = score(encoder, batches[read.alone], read, scorings, turn)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    sums[read] = None
                encoder.scheme = scheme
        return sums

    unextended: dict[Read, list[np.ndarray] | None] = {}
    frames, missing = [], []
    for extension in sorted(extensions, key=lambda name: name != "none"):
        found: dict[tuple[str, int], np.ndarray] = {}  # (protocol, eval_len) -> (2, N): nll_sum and n_tokens
        lacking: dict[tuple[str, int], str] = {}
        of_processes = distributed.gathered(partial(own_sums, extensions[extension], extension != "none"))
        for read in of_processes[0]:
            sums = together([own[read] for own in of_processes], config.n_segments)
            if sums == []:
                sums = unextended[read]
            if extension == "none":
                unextended[read] = sums
            if sums is None:
                lacking |= {(scoring.protocol, scoring.eval_len): OUT_OF_MEMORY for scoring in plan[read]}
                continue
            for (protocol, eval_len, _), part in zip(plan[read], sums, strict=True):
                found[protocol, eval_len] = found.get((protocol, eval_len), 0.0) + part
        for at, (nll_sum, _) in found.items():
            if not np.isfinite(nll_sum).all():
                lacking.setdefault(at, NOT_A_NUMBER)
        for protocol, eval_len in found:
            if (reason := lacking.get((protocol, train_len))) is not None:
                lacking.setdefault((protocol, eval_len), f"{reason} at the training length")
        missing += [Missing(extension, *at, reason) for at, reason in sorted(lacking.items())]
        for (protocol, eval_len), (nll_sum, n_tokens) in found.items():
            if (protocol, eval_len) in lacking:
                continue
            rows = rows_of(held_out, protocol, eval_len, nll_sum, n_tokens.astype(np.int64))
            frames.append(rows.assign(extension=extension))
    nothing = np.zeros(config.n_segments, dtype=np.int64)
    rows = pd.concat(frames or [rows_of(held_out, "", 0, nothing, nothing)[:0]], ignore_index=True)
    return Evaluated(rows, missing)


@torch.no_grad()
def on_held_back(encoder: Encoder, held_back: HeldOut, objective: Objective, vocab_size: int) -> pd.DataFrame:
    """Rows of sequences as in training that were held back from it; none where a loss is not a number."""
    encoder.eval()
    batch = objective.batch(held_back.tokens, vocab_size, np.random.default_rng(MASK_SEED))
    length = batch.inputs.shape[1]
    whole = Read(0, length, length, alone=False), [Scoring(SELECTION, length, slice(0, length))], 0
    sums = together(distributed.gathered(partial(score, encoder, batch, *whole)), len(held_back.tokens))
    nll_sum, n_tokens = sums[0] if sums else np.full((2, len(held_back.tokens)), np.nan)
    if not np.isfinite(nll_sum).all():
        return rows_of(held_back, SELECTION, length, nll_sum, n_tokens)[:0]
    return rows_of(held_back, SELECTION, length, nll_sum, n_tokens.astype(np.int64))


def together(of_processes: list[list[np.ndarray] | None], n_segments: int) -> list[np.ndarray] | None:
    """Of each scoring (2, N): the sums of every segment; None if memory did not suffice in one of the processes."""
    found = [sums for sums in of_processes if sums is not None]
    if len(found) < len(of_processes):
        return None
    # of each forward pass all processes but one have 0
    return [np.sum(parts, axis=0).reshape(2, n_segments, -1).sum(axis=2) for parts in zip(*found, strict=True)]


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class for it on CUDA only."""
    told = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)


def reads(config: EvalConfig, train_len: int, causal: bool) -> dict[Read, list[Scoring]]:
    """What to read, each only once, and what is scored of it: one long pass serves every protocol that it can."""
    found: dict[Read, list[Scoring]] = {}
    for protocol in config.protocols:
        for eval_len, windows in PROTOCOLS[protocol](config, train_len, causal).items():
            longest = max(stop - start for start, stop, _, _ in windows)
            for start, stop, score_start, score_stop in windows:
                scoring = Scoring(label(config, protocol), eval_len, slice(score_start - start, score_stop - start))
                found.setdefault(Read(start, stop, longest, protocol == "pseudo"), []).append(scoring)
    return found


def score(encoder: Encoder, batch: Batch, read: Read, scorings: list[Scoring], turn: int) -> list[np.ndarray]:
    """For each scoring (2, N) float64: the sum of the losses in nats and the number of scored tokens of every input.

    Processes take forward passes in turns, the first of them that of number `turn`; what others take is 0 here.
    """
    rows = max(1, FORWARD_TOKENS // (read.stop - read.start))
    n_inputs = len(batch.inputs)
    found = [np.zeros((2, n_inputs)) for _ in scorings]
    for number, first in enumerate(range(0, n_inputs, rows), start=turn):
        if number % distributed.n_processes() != distributed.rank():
            continue
        these = slice(first, first + rows)
        part = Batch(*(array[these, read.start : read.stop] for array in batch))
        nll, scored = token_nll(encoder, part, [scoring.columns for scoring in scorings])
        for sums, (_, _, columns) in zip(found, scorings, strict=True):
            sums[:, these] = nll[:, columns].sum(axis=1), scored[:, columns].sum(axis=1)
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
