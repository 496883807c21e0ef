"""Held-out text under every extension, protocol and length -> rows of sums and counts per segment."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from extrap.config.schema import EvalConfig
from extrap.data.base import HeldOut, Source
from extrap.extensions.base import extensions_of
from extrap.model.encoder import Encoder
from extrap.objectives import MASK_SEED, Batch, Objective
from extrap.positions.base import PositionScheme
from extrap.results.rows import SELECTION
from extrap.score.protocols import PROTOCOLS, bytes_scored, every, held_out_batch, label, masked_alone, rows_of
from extrap.train import distributed

FORWARD_TOKENS = 4_096  # in one forward pass: more would leave the caches of a processor
SAME = 1e-5  # of a sum of losses: sums in another order are far nearer


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
    every: int  # so many-th segment


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

    Up to the training length extensions change nothing: their rows are copies of those of `none`. Beyond it they are scored
    at config.extension_multiples of it. A length that does not fit into memory, or where a loss is not a number, has no rows
    and is told; the others are what they would be without it, but for rounding: a causal model reads what begins a longer
    window with it, where a look at one segment finds that it is the same alone.
    A protocol that lacks the training length has no rows at all, for there is nothing to compare its lengths with.
    Computed in float32, whatever the precision of training; sums are float64. Several processes divide the forward passes
    of a single one among them, none of which changes: on one machine the rows are the same, bit for bit.
    """
    encoder.eval()
    held_out, hidden = held_out_batch(source, objective, config)
    batches = {False: (hidden, bytes_scored(held_out, source, objective))}
    if "pseudo" in config.protocols:
        alone = masked_alone(held_out, source.vocab_size, config)
        batches[True] = alone, source.token_bytes[alone.targets]
    scheme, train_len = encoder.scheme, encoder.scheme.geometry.train_len
    device = next(encoder.parameters()).device
    plan = reads(config, train_len, objective.causal)
    steps = {read: min(scoring.every for scoring in scorings) for read, scorings in plan.items()}
    shares = objective.causal and not scheme.of_length

    def batch_of(read: Read) -> tuple[Batch, np.ndarray]:
        batch, n_bytes = batches[read.alone]
        return Batch(*(part[:: steps[read]] for part in batch)), n_bytes[:: steps[read]]

    def own_sums(schemes: dict[Read, PositionScheme], serves: dict[Read, list[Read]]) -> list[np.ndarray]:
        """What this process scores of every read under its scheme; no numbers where memory does not suffice."""
        found = []
        for turn, (read, served) in enumerate(serves.items()):
            encoder.scheme = schemes[read].to(device)  # what an extension makes of its own included
            scorings = [scoring for one in served for scoring in plan[one]]
            try:
                found.append(score(encoder, *batch_of(read), read, scorings, turn))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                found.append(np.full((len(scorings), 3, len(batch_of(read)[1])), np.nan))
        encoder.scheme = scheme
        return found

    def scored(schemes: dict[Read, PositionScheme], serves: dict[Read, list[Read]]) -> dict[Read, np.ndarray]:
        """(scorings, 3, N) of every read, of all processes."""
        found = {}
        parts = zip(*distributed.gathered(partial(own_sums, schemes, serves)), strict=True)
        for (read, served), of_read in zip(serves.items(), parts, strict=True):
            total = together(of_read, len(held_out.thinned(steps[read]).segments))
            ends = np.cumsum([len(plan[one]) for one in served])[:-1]
            for one, own in zip(served, np.split(total, ends), strict=True):
                found[one] = own[:, :, :: steps[one] // steps[read]]
        return found

    def differs(read: Read) -> bool:
        """Whether a window alone has other sums than it has in `sums`, in the first segment."""
        (batch, n_bytes), known = batch_of(read), sums[read][:, :, :1]
        if not np.isfinite(known).all():
            return False  # it has been read alone
        first = Batch(*(part[:1] for part in batch)), n_bytes[:1]
        return not np.allclose(score(encoder, *first, read, plan[read], turn=distributed.rank()), known, rtol=SAME, atol=0)

    sums: dict[Read, np.ndarray] = {}
    segments: dict[tuple[str, int], HeldOut] = {}  # by protocol and eval_len
    frames: list[pd.DataFrame] = []
    missing: list[Missing] = []
    for name, extension in sorted(extensions_of(config.extensions).items(), key=lambda one: one[0] != "none"):
        reached: dict[Read, PositionScheme] = {}
        for read in plan:
            if name != "none" and read.eval_len > train_len and not config.extended(read.eval_len, train_len):
                continue
            extended = extension(scheme, read.eval_len)
            if extended is not None and (extended.max_len is None or read.eval_len <= extended.max_len):
                reached[read] = extended
        asked = {read: extended for read, extended in reached.items() if name == "none" or read.eval_len > train_len}
        serves = beginnings(asked, steps) if name == "none" and shares else {read: [read] for read in asked}
        sums |= scored(asked, serves)
        # where a longer window is too long for memory or for numbers, its beginning alone may not be
        lost = [read for served in serves.values() for read in served[1:] if not np.isfinite(sums[read]).all()]
        sums |= scored(asked, {read: [read] for read in lost})
        if any(map(differs, one_of_each(serves))):  # a scheme in which a token hangs on the number of those after it
            sums |= scored(asked, {read: [read] for read in asked})
        totals: dict[tuple[str, int], np.ndarray] = {}  # (protocol, eval_len) -> (3, N): see score
        for read in reached:
            for scoring, part in zip(plan[read], sums[read], strict=True):
                at = scoring.protocol, scoring.eval_len
                totals[at] = totals.get(at, 0.0) + part[:, :: scoring.every // steps[read]]
                segments[at] = held_out.thinned(scoring.every)
        reasons = {at: lack_of(*total[:2]) for at, total in totals.items()}
        for (protocol, eval_len), total in totals.items():
            if not reasons[protocol, eval_len] and (reason := reasons.get((protocol, train_len))):
                reasons[protocol, eval_len] = f"{reason} at the training length"
            if not reasons[protocol, eval_len]:
                rows = rows_of(segments[protocol, eval_len], protocol, eval_len, total)
                frames.append(rows.assign(extension=name))
        missing += [Missing(name, *at, reason) for at, reason in sorted(reasons.items()) if reason]
    nothing = rows_of(held_out, "", 0, np.zeros((3, config.n_segments)))[:0]
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


def together(parts: Sequence[np.ndarray], n_segments: int) -> np.ndarray:
    """(scorings, 3, N): the sums of every segment; of each forward pass all processes but one have 0."""
    total = np.stack(parts).sum(axis=0)
    segments: np.ndarray = total.reshape(*total.shape[:2], n_segments, -1).sum(axis=3)
    return segments


def lack_of(nll_sum: np.ndarray, n_tokens: np.ndarray) -> str:
    """Why sums are no rows, nothing where they are."""
    if not np.isfinite(n_tokens).all():
        return OUT_OF_MEMORY
    return "" if np.isfinite(nll_sum).all() else NOT_A_NUMBER


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
                columns = slice(score_start - start, score_stop - start)
                scoring = Scoring(label(config, protocol), eval_len, columns, every(config, protocol))
                found.setdefault(Read(start, stop, longest, protocol == "pseudo"), []).append(scoring)
    return found


def beginnings(asked: Iterable[Read], steps: dict[Read, int]) -> dict[Read, list[Read]]:
    """Which reads may give what others would: a causal model reads a window as it does the beginning of a longer one.

    Of each itself, and those that begin where it does and are of no segments that it is not.
    """
    serves: dict[Read, list[Read]] = {}
    longest: dict[int, Read] = {}  # by where they begin
    for read in sorted(asked, key=lambda read: read.start - read.stop):
        longer = longest.setdefault(read.start, read)
        serves.setdefault(longer if steps[read] % steps[longer] == 0 else read, []).append(read)
    return serves


def one_of_each(serves: dict[Read, list[Read]]) -> list[Read]:
    """Of those that are the beginning of a longer one, one for each two lengths."""
    begun = [(read, longer) for longer, served in serves.items() for read in served[1:]]
    return [*{(read.stop - read.start, longer.stop - longer.start): read for read, longer in reversed(begun)}.values()]


def score(encoder: Encoder, batch: Batch, n_bytes: np.ndarray, read: Read, scorings: list[Scoring], turn: int) -> np.ndarray:
    """(scorings, 3, N) float64: of every input the sum of the losses in nats, and the scored tokens and their bytes.

    n_bytes (N, T): of what each position is scored on.
    Processes take forward passes in turns, the first of them that of number `turn`; what others take is 0 here.
    """
    rows = max(1, FORWARD_TOKENS // (read.stop - read.start))
    n_inputs = len(batch.inputs)
    found = np.zeros((len(scorings), 3, n_inputs))
    for number, first in enumerate(range(0, n_inputs, rows), start=turn):
        if number % distributed.n_processes() != distributed.rank():
            continue
        these = slice(first, first + rows)
        part = Batch(*(array[these, read.start : read.stop] for array in batch))
        nll, scored = token_nll(encoder, part, [scoring.columns for scoring in scorings])
        told = np.stack([nll, scored, scored * n_bytes[these, read.start : read.stop]])
        for sums, scoring in zip(found, scorings, strict=True):
            sums[:, these] = told[:, :, scoring.columns].sum(axis=2)
    return found


def token_nll(encoder: Encoder, batch: Batch, columns: list[slice]) -> tuple[np.ndarray, np.ndarray]:
    """(B, T) float64 losses and (B, T) bool: the scored positions in any of these columns; 0 elsewhere."""
    device = next(encoder.parameters()).device
    wanted = np.zeros_like(batch.scored)
    for part in columns:
        wanted[:, part] = batch.scored[:, part]
    counts = wanted.sum(axis=1, keepdims=True)
    # of every input its wanted places in order, and others behind them where an input has fewer than another
    at = np.argsort(~wanted, axis=1, kind="stable")[:, : max(1, counts.max())]
    inputs, places, own, targets = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device)
        for part in (batch.inputs, at, np.flatnonzero(np.arange(at.shape[1]) < counts), batch.targets[wanted])
    )
    logits = encoder.logits(encoder(inputs, None if wanted.all() else places).flatten(0, 1)[own])
    losses = F.cross_entropy(logits, targets, reduction="none")
    nll = np.zeros(wanted.shape)
    nll[wanted] = losses.to(torch.float64).cpu().numpy()
    return nll, wanted
