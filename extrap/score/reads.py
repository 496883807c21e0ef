"""What of held-out text a model reads, each window once, and the sums of the losses there."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from extrap.config.schema import EvalConfig
from extrap.data.base import Source
from extrap.model.encoder import Encoder
from extrap.objectives import Batch, Objective
from extrap.positions.base import PositionScheme
from extrap.score.protocols import PROTOCOLS, bytes_scored, every, held_out_batch, label, masked_alone
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
    every: int  # k: of the segments 0, k, 2 k, ...


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


class Reader:
    """One model and what it is to be scored on: reads go in, sums of losses come out.

    plan: what is scored of each read; steps: k for segments 0, k, 2 k, ...; held_out: all segments.
    """

    def __init__(self, encoder: Encoder, source: Source, objective: Objective, config: EvalConfig) -> None:
        self.encoder, self.scheme = encoder, encoder.scheme
        self.plan = reads(config, self.scheme.geometry.train_len, objective.causal)
        self.steps = {read: min(scoring.every for scoring in scorings) for read, scorings in self.plan.items()}
        self.held_out, hidden = held_out_batch(source, objective, config)
        self._batches = {False: (hidden, bytes_scored(self.held_out, source, objective))}
        if "pseudo" in config.protocols:
            alone = masked_alone(self.held_out, source.vocab_size, config)
            self._batches[True] = alone, source.token_bytes[alone.targets]
        self._shares = objective.causal and not self.scheme.of_length

    def sums(self, schemes: dict[Read, PositionScheme]) -> dict[Read, np.ndarray]:
        """(scorings, 3, N) of every read under its scheme, as `score` has them; no numbers where memory does not suffice.

        As trained, a causal model reads what begins a longer window with it, unless the scheme asks for the length, or a
        look at one segment finds that it is not the same alone.
        """
        as_trained = all(scheme is self.scheme for scheme in schemes.values())
        if not (self._shares and as_trained):
            return self._scored(schemes, {read: [read] for read in schemes})
        serves = beginnings(schemes, self.steps)
        sums = self._scored(schemes, serves)
        # where a longer window is too long for memory or for numbers, its beginning alone may not be
        lost = [read for served in serves.values() for read in served[1:] if not np.isfinite(sums[read]).all()]
        sums |= self._scored(schemes, {read: [read] for read in lost})
        if any(self._differs(read, sums[read]) for read in one_of_each(serves)):
            return self._scored(schemes, {read: [read] for read in schemes})
        return sums

    def _scored(self, schemes: dict[Read, PositionScheme], serves: dict[Read, list[Read]]) -> dict[Read, np.ndarray]:
        """The sums of all processes: of every read that serves others, and of those that begin it."""
        found = {}
        parts = zip(*distributed.gathered(partial(self._own, schemes, serves)), strict=True)
        for (read, served), of_read in zip(serves.items(), parts, strict=True):
            total = together(of_read, len(self.held_out.thinned(self.steps[read]).segments))
            ends = np.cumsum([len(self.plan[one]) for one in served])[:-1]
            for one, own in zip(served, np.split(total, ends), strict=True):
                found[one] = own[:, :, :: self.steps[one] // self.steps[read]]
        return found

    def _own(self, schemes: dict[Read, PositionScheme], serves: dict[Read, list[Read]]) -> list[np.ndarray]:
        """What this process scores."""
        found = []
        device = next(self.encoder.parameters()).device
        for turn, (read, served) in enumerate(serves.items()):
            self.encoder.scheme = schemes[read].to(device)  # what an extension makes of its own included
            scorings = [scoring for one in served for scoring in self.plan[one]]
            batch, n_bytes = self._batch(read)
            sums = np.full((len(scorings), 3, len(n_bytes)), np.nan)
            for _ in range(2 if device.type == "cuda" else 1):  # others, who share a GPU, may need less a moment later
                try:
                    sums = score(self.encoder, batch, n_bytes, read, scorings, turn)
                    break
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                torch.cuda.empty_cache()  # the error gone, which holds what did fit
            found.append(sums)
        self.encoder.scheme = self.scheme
        return found

    def _batch(self, read: Read) -> tuple[Batch, np.ndarray]:
        batch, n_bytes = self._batches[read.alone]
        return Batch(*(part[:: self.steps[read]] for part in batch)), n_bytes[:: self.steps[read]]

    def _differs(self, read: Read, known: np.ndarray) -> bool:
        """Whether the window alone has other sums than are known of it, in the first segment."""
        if not np.isfinite(known).all():
            return False  # it has been read alone
        batch, n_bytes = self._batch(read)
        first = Batch(*(part[:1] for part in batch)), n_bytes[:1]
        alone = score(self.encoder, *first, read, self.plan[read], turn=distributed.rank())
        return not np.allclose(alone, known[:, :, :1], rtol=SAME, atol=0)


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


def together(parts: Sequence[np.ndarray], n_segments: int) -> np.ndarray:
    """(scorings, 3, N): the sums of every segment; of each forward pass all processes but one have 0."""
    total = np.stack(parts).sum(axis=0)
    segments: np.ndarray = total.reshape(*total.shape[:2], n_segments, -1).sum(axis=3)
    return segments


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class for it on CUDA only."""
    told = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)


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
