"""How far a model reads: what it loses when all text beyond a distance is another's."""

from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.data.base import HeldOut
from extrap.errors import UserError
from extrap.model.encoder import Encoder
from extrap.model.prefix import Prefix
from extrap.objectives import Batch, Mlm
from extrap.probes.base import Probed, found
from extrap.runs.prepare import Run
from extrap.score.reads import FORWARD_TOKENS

N_TARGETS = 512  # over all segments: their noise decides what rise can be told from none
SEED = 0  # of what changes places


def reach(of: Probed) -> pd.DataFrame:
    """The loss of single targets with the text beyond distance d replaced, in windows of the training length.

    Each target is alone in its window: in the middle, hidden by itself (mlm) or as the corrupted text has it (rtd); or
    behind its end (causal). A token at i is at distance |i - t| of a target at t; those beyond d are replaced by those of
    another document at the same places (`reach(other)`), or change places among themselves (`reach(shuffled)`, of d = 1
    alone). The window keeps its length, for a shorter one would bring the input nearer to what was trained on. d is 1, 2,
    4, ..., and the length of the window where nothing is replaced.

    Source: the interventions of Khandelwal et al. 2018 (arXiv:1805.04623), without cutting.
    """
    n, causal = of.train_len, of.run.objective.causal
    alone, documents = targets_alone(of)
    other = others(of.held_out)
    far = np.abs(np.arange(n) - (n if causal else n // 2))
    distances = [2**k for k in range(n.bit_length()) if (far > 2**k).any()]
    order = np.random.default_rng(SEED).random(alone.inputs.shape)
    one = np.ones(len(documents), dtype=np.int64)

    def told(probe: str, distance: int, nll_sum: np.ndarray) -> pd.DataFrame:
        return found(probe, n, documents, {"nll": (nll_sum, one)}, distance)

    losses = losses_behind if causal else losses_amid
    whole, *replaced = losses(of.encoder, alone, other, distances)
    parts = [told("reach(other)", n, whole), told("reach(shuffled)", n, whole)]
    parts += [told("reach(other)", d, nll_sum) for d, nll_sum in zip(distances, replaced, strict=True)]
    for d in distances[:1]:  # none where a window holds no more than a target's neighbours
        nll_sum = losses_in(of.encoder, alone, shuffled(alone.inputs, far > d, order))
        parts.append(told("reach(shuffled)", d, nll_sum))
    return pd.concat(parts, ignore_index=True)


def losses_amid(encoder: Encoder, alone: Batch, other: np.ndarray, distances: list[int]) -> list[np.ndarray]:
    """(B,) float64: the losses in whole windows, and in those whose tokens beyond each distance are another segment's.

    other (N,): of every segment the one whose windows stand in the place of its own.
    """
    n = alone.inputs.shape[1]
    donors = alone.inputs.reshape(len(other), -1, n)[other].reshape(alone.inputs.shape)
    far = np.abs(np.arange(n) - n // 2)
    return [losses_in(encoder, alone, np.where(far > d, donors, alone.inputs)) for d in (n, *distances)]


def losses_behind(encoder: Encoder, alone: Batch, other: np.ndarray, distances: list[int]) -> list[np.ndarray]:
    """The same of a causal model, which reads a window once both for itself and for what stands in the place of another's
    beginning, where segments stand in for their neighbours: what it makes of a text does not depend on what comes behind.
    """
    n, device = alone.inputs.shape[1], next(encoder.parameters()).device
    windows = torch.from_numpy(alone.inputs).to(device).view(len(other), -1, n)
    parts = []
    for some in torch.split(windows, max(1, FORWARD_TOKENS // n), dim=1):  # of every segment
        read = lru_cache(maxsize=2)(lambda segment, some=some: Prefix(encoder, some[segment]))
        of_segments = []
        for segment, donor in enumerate(other.tolist()):  # mostly the next one, which is then kept
            own = some[segment]
            whole = read(segment).last(own[:, -1:])
            of_segments.append(torch.stack([whole, *(read(donor).last(own[:, -d:]) for d in distances)]))
        parts.append(torch.stack(of_segments, dim=1))
    hidden = torch.cat(parts, dim=2).flatten(1, 2)
    return [_losses(encoder, states, alone.targets[:, -1]) for states in hidden]


def losses_in(encoder: Encoder, alone: Batch, inputs: np.ndarray) -> np.ndarray:
    """(B,) float64: the losses of single targets, all at the same place, in these windows (B, T)."""
    at, device = int(alone.scored[0].argmax()), next(encoder.parameters()).device
    parts = torch.split(torch.from_numpy(inputs), max(1, FORWARD_TOKENS // inputs.shape[1]))
    hidden = torch.cat([encoder(part.to(device), range(at, at + 1))[:, 0] for part in parts])
    return _losses(encoder, hidden, alone.targets[:, at])


def _losses(encoder: Encoder, hidden: Tensor, targets: np.ndarray) -> np.ndarray:
    nll = F.cross_entropy(encoder.logits(hidden), torch.from_numpy(targets).to(hidden.device), reduction="none")
    losses: np.ndarray = nll.to(torch.float64).cpu().numpy()
    return losses


def targets_alone(of: Probed) -> tuple[Batch, list[str]]:
    """Windows of the training length with one scored token each, as many of every segment and spread over it, segment by
    segment, and the document of each.
    """
    n, objective = of.train_len, of.run.objective
    text, targets = (of.held_out.tokens,) * 2 if isinstance(objective, Mlm) else (of.batch.inputs, of.batch.targets)
    n_segments, length = text.shape
    each = min(max(1, N_TARGETS // n_segments), length - n + 1)
    starts = np.linspace(0, length - n, each).round().astype(np.int64)
    segment = np.repeat(np.arange(n_segments), each)
    columns = np.tile(starts, n_segments)[:, None] + np.arange(n)
    scored = np.zeros(columns.shape, dtype=bool)
    scored[:, -1 if objective.causal else n // 2] = True
    inputs = text[segment[:, None], columns]
    if isinstance(objective, Mlm):
        inputs = np.where(scored, of.run.source.vocab_size, inputs)
    batch = Batch(inputs, targets[segment[:, None], columns], scored)
    return batch, [of.held_out.documents[at] for at in segment]


def others(held_out: HeldOut) -> np.ndarray:
    """Of every segment the next one of another document and of other text: a copy in its place would change nothing.

    Raises UserError where there is none.
    """
    found, n, (tokens, documents, *_) = [], len(held_out.tokens), held_out
    for at in range(n):
        after = (other % n for other in range(at + 1, at + n))
        fit = (one for one in after if documents[one] != documents[at] and (tokens[one] != tokens[at]).any())
        if (other := next(fit, None)) is None:
            raise UserError(f"probe reach: expected held-out text of two documents or more, found {documents[at]} alone")
        found.append(other)
    return np.array(found)


def refuse_others(run: Run) -> None:
    """Raises UserError where nothing could stand in the place of a document's text."""
    config = run.config.eval
    others(run.source.held_out(max(config.lengths) + run.objective.extra_tokens, config.n_segments))


def shuffled(inputs: np.ndarray, beyond: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The tokens of these columns in the order of `order` (B, T), the others where they are."""
    columns = np.flatnonzero(beyond)
    changed = inputs.copy()
    changed[:, columns] = np.take_along_axis(inputs[:, columns], order[:, columns].argsort(axis=1), axis=1)
    return changed
