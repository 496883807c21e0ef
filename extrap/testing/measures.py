"""What is measured of a position scheme on a small encoder: a number each, of one size."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from extrap.config.schema import ModelConfig
from extrap.model import encoder as model
from extrap.model.attention import Attend, attend_reference
from extrap.model.encoder import Encoder
from extrap.positions.base import Branch, Geometry, PositionScheme, Weights
from extrap.testing.promises import BEYOND, MOVED, SHORT, VOCAB

CHUNKED = 515  # tokens, on which attention trains in chunks
FAR = 1000  # tokens further on

Build = Callable[[Geometry], PositionScheme]


class Seen(NamedTuple):
    """What one layer has read and how it has weighed it: q and k (B, H, T, K), x (B, T, D), weights (B, H, T, T)."""

    q: Tensor
    k: Tensor
    x: Tensor | None
    weights: Tensor


class Case:
    """A scheme at one size, its parameters away from 0, in an encoder whose other weights are those of every case."""

    def __init__(self, build: Build, geometry: Geometry) -> None:
        self.geometry = geometry
        torch.manual_seed(0)
        self.scheme = build(geometry)
        with torch.no_grad():
            for parameter in self.scheme.parameters():
                parameter.add_(torch.where(parameter < 0, -MOVED, MOVED) * torch.rand_like(parameter))
        self.encoder = encoder_with(self.scheme)
        end = geometry.train_len + BEYOND if self.scheme.max_len is None else self.scheme.max_len
        self.beyond = max(min(end, 2 * geometry.train_len + 1), geometry.train_len)
        chunked = CHUNKED if geometry.train_len == 128 and self.scheme.max_len is None else 0
        self.tokens = torch.randint(VOCAB, (3, max(self.beyond, chunked)))
        self.lengths = sorted({min(SHORT, geometry.train_len), geometry.train_len, self.beyond})
        self.gradient = 0.0
        self.at = f"L={geometry.train_len}, K={geometry.head_dim}, {'causal' if geometry.causal else 'bidirectional'}"

    def read(self, seq_len: int, *, training: bool = False, first: int = 0) -> Tensor:
        """Hidden states (3, T, D) of the first tokens, which stand at `first` and on."""
        return read(self.encoder, self.tokens[:, :seq_len], training, first)


def encoder_with(scheme: PositionScheme) -> Encoder:
    geometry = scheme.geometry
    torch.manual_seed(1)
    sizes = ModelConfig(geometry.d_model, geometry.n_layers, geometry.n_heads, geometry.d_model, dropout=0.0, tie=False)
    return Encoder(sizes, scheme, VOCAB, VOCAB)


def read(encoder: Encoder, tokens: Tensor, training: bool = False, first: int = 0) -> Tensor:
    torch.manual_seed(2)  # what is drawn in training is drawn alike
    positions = encoder.scheme.positions
    with patch.object(encoder.scheme, "positions", lambda n, device=None: positions(n, device) + first):
        hidden: Tensor = encoder.train(training)(tokens)
    return hidden


def define(seen: list[Seen]) -> Callable[..., Attend]:
    """What stands in for attention.prepare: the definition, which leaves in `seen` what every layer was given."""

    def prepare(branches: Sequence[Branch], *, causal: bool, weights: Weights | None, **_: Any) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
            each = torch.eye(q.shape[2], dtype=v.dtype).expand(*q.shape[:2], -1, -1)  # the mean of unit vectors
            weighed = attend_reference(branches, q, k, each, x, causal=causal, weights=weights)
            seen.append(Seen(q, k, x, weighed))
            return weighed @ v

        return attend

    return prepare


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; two that are both no number are the same, one that is none is infinitely far."""
    differs = torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs().to(torch.float64)).nan_to_num(nan=math.inf)
    return float(differs.max()) if differs.numel() else 0.0


@torch.no_grad()
def future(case: Case) -> float:
    worst = 0.0
    for n in case.lengths:
        for training in (False, True):
            whole = case.read(n, training=training)
            for t in sorted({1, n // 2, n - 1}):
                changed = case.tokens[:, :n].clone()
                changed[:, t] = (changed[:, t] + 1) % VOCAB
                worst = max(worst, apart(read(case.encoder, changed, training)[:, :t], whole[:, :t]))
    return worst


def not_finite(case: Case) -> float:
    hidden = case.read(case.geometry.train_len, training=True)
    grads = torch.autograd.grad((hidden * weight(hidden)).sum(), [*case.encoder.parameters()], materialize_grads=True)
    evaluated = case.read(case.geometry.train_len).detach()
    return float(sum(int((~x.isfinite()).sum()) for x in (hidden, evaluated, *grads)))


@torch.no_grad()
def batch(case: Case) -> float:
    worst = 0.0
    for n in case.lengths:
        whole = case.read(n)
        for b in range(3):
            worst = max(worst, apart(read(case.encoder, case.tokens[b : b + 1, :n]), whole[b : b + 1]))
    return worst


@torch.no_grad()
def length(case: Case) -> float:
    whole = case.read(case.beyond)
    return max(apart(case.read(n), whole[:, :n]) for n in (*case.lengths, case.beyond - 1))


def weight(hidden: Tensor) -> Tensor:
    return torch.sin(torch.arange(hidden.numel(), dtype=torch.float64)).view_as(hidden).to(hidden.dtype)


def _answers(case: Case, n: int, training: bool, exact: bool) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of the first two sequences and gradients; `exact`: by the definition, in float64."""
    encoder = copy.deepcopy(case.encoder).double() if exact else case.encoder
    with patch.object(model, "prepare", define([])) if exact else nullcontext():
        hidden = read(encoder, case.tokens[:2, :n], training)
    loss = (hidden * weight(hidden)).sum()
    grads = torch.autograd.grad(loss, [*encoder.parameters()], materialize_grads=True)
    return hidden.detach().double(), [grad.double() for grad in grads]


def paths(case: Case) -> float:
    """Outputs at every length in training and evaluation: dense, chunked, fast; leaves what gradients differ by, in parts of
    the largest, in case.gradient.
    """
    worst = 0.0
    for n in sorted({*case.lengths, case.tokens.shape[1]}):
        for training in (True, False):
            (found, grads), (exact, wanted) = (_answers(case, n, training, exact) for exact in (False, True))
            largest = max(float(grad.abs().max()) for grad in wanted)
            case.gradient = max(case.gradient, *(apart(a, b) / largest for a, b in zip(grads, wanted, strict=True)))
            worst = max(worst, apart(found, exact))
    return worst


@torch.no_grad()
def shift(case: Case) -> float:
    n, end = case.geometry.train_len, case.scheme.max_len
    if end is None:
        return max(apart(case.read(n, first=first), case.read(n)) for first in (1, n, FAR))
    n = max(1, end // 2)
    return apart(case.read(n, first=end - n), case.read(n))


@torch.no_grad()
def mirror(case: Case) -> float:
    n = case.geometry.train_len
    return apart(read(case.encoder, case.tokens[:, :n].flip(1)).flip(1), case.read(n))
