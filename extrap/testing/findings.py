"""What a position scheme is, measured on a small encoder at several sizes: the findings of `make check-scheme`."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from extrap.config.schema import ModelConfig
from extrap.errors import UserError, one_line
from extrap.model import encoder as model
from extrap.model.attention import attend_reference
from extrap.model.encoder import Encoder
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.testing.promises import BEYOND, MOVED, SHORT, TOLERANCE, VOCAB, check_scheme

SIZES = ((16, 8, 4), (128, 32, 2), (37, 12, 3))  # training length, head dim, heads: at one alone a wrong threshold can pass
CHUNKED = 515  # tokens, on which attention trains in chunks
FAR = 1000  # tokens further on
EXACT = 1e-6  # of attention weights in float64, whose tables were rounded to float32 once

Build = Callable[[Geometry], PositionScheme]
Reference = Callable[..., Any]


class Finding(NamedTuple):
    """A line of the page: verdict PASS, IS (what a scheme may be or not) or WRONG."""

    verdict: str
    about: str
    told: str


class Seen(NamedTuple):
    """What one layer has read and how it has weighed it: q and k (B, H, T, K), x (B, T, D) if it is told, weights."""

    q: Tensor
    k: Tensor
    x: Tensor | None
    weights: Tensor


class Case:
    """A scheme at one size, its parameters away from 0, in an encoder of one layer whose other weights are drawn alike."""

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
        self.at = f"L={geometry.train_len}, K={geometry.head_dim}, {'causal' if geometry.causal else 'bidirectional'}"

    def read(self, seq_len: int, *, training: bool = False, first: int = 0) -> Tensor:
        """Hidden states (3, T, D) of the first tokens, which stand at `first` and on."""
        return _read(self.encoder, self.tokens[:, :seq_len], training, first)


def encoder_with(scheme: PositionScheme) -> Encoder:
    geometry = scheme.geometry
    torch.manual_seed(1)
    return Encoder(ModelConfig(geometry.d_model, 1, geometry.n_heads, geometry.d_model, 0.0, False), scheme, VOCAB, VOCAB)


def _read(encoder: Encoder, tokens: Tensor, training: bool = False, first: int = 0) -> Tensor:
    torch.manual_seed(2)  # what is drawn in training is drawn alike
    positions = encoder.scheme.positions
    with patch.object(encoder.scheme, "positions", lambda n, device=None: positions(n, device) + first):
        hidden: Tensor = encoder.train(training)(tokens)
    return hidden


def define(seen: list[Seen]) -> Callable[..., Callable[..., Tensor]]:
    """What stands in for attention.prepare: the definition of every layer, which leaves in `seen` what it was given."""

    def prepare(branches: Any, *, causal: bool, weights: Any = None, **_: Any) -> Callable[..., Tensor]:
        own = {"weights": weights} if weights else {}

        def attend(q: Tensor, k: Tensor, v: Tensor, *x: Tensor) -> Tensor:
            each = torch.eye(q.shape[2], dtype=v.dtype).expand(*q.shape[:2], -1, -1)  # the mean of unit vectors
            weighed = attend_reference(branches, q, k, each, *x, causal=causal, **own)
            seen.append(Seen(q, k, x[0] if x else None, weighed))
            return weighed @ v

        return attend

    return prepare


def findings(build: Build, reference: Reference | None = None, sizes: Any = SIZES) -> Iterator[Finding]:
    """Everything about a scheme but its cost. Raises UserError where it cannot be built at any size."""
    cases, refused = [], []
    with torch.random.fork_rng(devices=[]):
        for train_len, head_dim, n_heads in sizes:
            for causal in (True, False):
                geometry = Geometry(head_dim * n_heads, n_heads, train_len, causal)
                try:
                    cases.append(Case(build, geometry))
                except (UserError, ValueError) as error:
                    at = f"L={train_len}, K={head_dim}, {'causal' if causal else 'bidirectional'}"
                    refused.append(Finding("IS", "refuses some sizes", one_line(f"{at}: {error}")))
        if not cases:
            raise UserError(refused[0].told)
        yield from refused[:2]
        yield from _findings(cases, build, reference)


def _findings(cases: list[Case], build: Build, reference: Reference | None) -> Iterator[Finding]:
    causal = [case for case in cases if case.geometry.causal]
    encoders = [case for case in cases if not case.geometry.causal]
    yield _effect(cases)
    yield _bound("sees no future", "earlier tokens move by up to {} with a later one", _future, causal)
    yield _bound("is finite", "{} numbers of outputs and gradients at the training length are none", _not_finite, cases)
    yield _bound("same in any batch", "a sequence alone and among others differ by up to {}", _batch, cases)
    yield _bound("same at any length", "a token moves by up to {} with the number of those after it", _length, causal)
    yield _bound("same on any path", "outputs and gradients are up to {} from the definition in float64", _paths, cases)
    yield _trained(cases)
    yield _shifted(cases)
    yield _told(
        "symmetric", "direction-aware", "in an encoder a text and its mirror image differ by up to {}", _mirror, encoders
    )
    yield _end(cases)
    yield _promises(cases, build)
    if reference:
        yield from _against(reference, cases)


def _worst(measure: Callable[[Case], float], cases: list[Case]) -> tuple[float, str]:
    """The largest number and where it is found; none, and why, where somebody's code fails."""
    worst, where = 0.0, ""
    for case in cases:
        try:
            value = measure(case)
        except Exception as error:  # noqa: BLE001  whatever somebody's code raises
            return math.nan, one_line(f"fails at {case.at}: {type(error).__name__}: {error}")
        if value > worst:
            worst, where = value, case.at
    return worst, where


def _bound(about: str, told: str, measure: Callable[[Case], float], cases: list[Case], bound: float = TOLERANCE) -> Finding:
    """PASS where what a measure gives is rounding."""
    if not cases:
        return Finding("IS", about, "not asked: it is defined for no such model")
    value, where = _worst(measure, cases)
    if math.isnan(value):
        return Finding("WRONG", about, where)
    if value > bound:
        return Finding("WRONG", about, f"{told.format(f'{value:.2g}')} ({where})")
    return Finding("PASS", about, told.format(f"{value:.1g}"))


def _told(yes: str, no: str, told: str, measure: Callable[[Case], float], cases: list[Case]) -> Finding:
    if not cases:
        return Finding("IS", yes, "not asked: it is defined for no such model")
    value, where = _worst(measure, cases)
    if math.isnan(value):
        return Finding("WRONG", yes, where)
    return Finding("IS", no if value > TOLERANCE else yes, told.format(f"{value:.2g}"))


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference; two that are both no number are the same, one that is none is infinitely far."""
    differs = torch.where(a.isnan() & b.isnan(), 0.0, (a - b).abs().to(torch.float64)).nan_to_num(nan=math.inf)
    return float(differs.max()) if differs.numel() else 0.0


def _effect(cases: list[Case]) -> Finding:
    @torch.no_grad()
    def change(case: Case) -> float:
        plain = encoder_with(Nope(case.geometry))
        return max(_apart(_read(plain, case.tokens[:, :n]), case.read(n)) for n in case.lengths)

    value, where = _worst(change, cases)
    told = f"hidden states, which are about 1, change by up to {value:.2g} against no positions at all"
    if math.isnan(value):
        return Finding("WRONG", "has an effect", where)
    if value > TOLERANCE:
        return Finding("PASS", "has an effect", told)
    if type(cases[0].scheme) in (Nope, PositionScheme):
        return Finding("IS", "no positions", told)
    return Finding("WRONG", "has no effect", f"{told}; look for a hook whose name is misspelt")


@torch.no_grad()
def _future(case: Case) -> float:
    worst = 0.0
    for n in case.lengths:
        for training in (False, True):
            whole = case.read(n, training=training)
            for t in sorted({1, n // 2, n - 1}):
                changed = case.tokens[:, :n].clone()
                changed[:, t] = (changed[:, t] + 1) % VOCAB
                worst = max(worst, _apart(_read(case.encoder, changed, training)[:, :t], whole[:, :t]))
    return worst


def _not_finite(case: Case) -> float:
    hidden = case.read(case.geometry.train_len, training=True)
    grads = torch.autograd.grad((hidden * _weight(hidden)).sum(), [*case.encoder.parameters()], materialize_grads=True)
    evaluated = case.read(case.geometry.train_len).detach()
    return float(sum(int((~x.isfinite()).sum()) for x in (hidden, evaluated, *grads)))


@torch.no_grad()
def _batch(case: Case) -> float:
    worst = 0.0
    for n in case.lengths:
        whole = case.read(n)
        for b in range(3):
            worst = max(worst, _apart(_read(case.encoder, case.tokens[b : b + 1, :n]), whole[b : b + 1]))
    return worst


@torch.no_grad()
def _length(case: Case) -> float:
    whole = case.read(case.beyond)
    return max(_apart(case.read(n), whole[:, :n]) for n in (*case.lengths, case.beyond - 1))


def _weight(hidden: Tensor) -> Tensor:
    return torch.sin(torch.arange(hidden.numel(), dtype=torch.float64)).view_as(hidden).to(hidden.dtype)


def _answers(case: Case, n: int, training: bool, exact: bool) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of the first two sequences and gradients; `exact`: by the definition, in float64."""
    encoder = copy.deepcopy(case.encoder).double() if exact else case.encoder
    with patch.object(model, "prepare", define([])) if exact else nullcontext():
        hidden = _read(encoder, case.tokens[:2, :n], training)
    loss = (hidden * _weight(hidden)).sum()
    grads = torch.autograd.grad(loss, [*encoder.parameters()], materialize_grads=True)
    return hidden.detach().double(), [grad.double() for grad in grads]


def _paths(case: Case) -> float:
    """Outputs and, in parts of the largest, gradients, at every length in training and evaluation: dense, chunked, fast."""
    worst = 0.0
    for n in sorted({*case.lengths, case.tokens.shape[1]}):
        for training in (True, False):
            (found, grads), (exact, wanted) = (_answers(case, n, training, exact) for exact in (False, True))
            largest = max(float(grad.abs().max()) for grad in wanted)
            apart = max(_apart(a, b) for a, b in zip(grads, wanted, strict=True)) / largest
            worst = max(worst, _apart(found, exact), apart)
    return worst


def _trained(cases: list[Case]) -> Finding:
    """Whether each parameter gets a gradient, at some size."""
    largest: dict[str, float] = {}

    def reached(case: Case) -> float:
        named = {name: parameter for name, parameter in case.scheme.named_parameters() if parameter.requires_grad}
        if named:
            hidden = case.read(case.geometry.train_len, training=True)
            grads = torch.autograd.grad((hidden * _weight(hidden)).sum(), [*named.values()], materialize_grads=True)
            for name, grad in zip(named, grads, strict=True):
                largest[name] = max(float(grad.abs().nan_to_num().max()), largest.get(name, 0.0))
        return 0.0

    value, where = _worst(reached, cases)
    if math.isnan(value):
        return Finding("WRONG", "trains its parameters", where)
    if not largest:
        return Finding("IS", "has no parameters", "nothing of it is trained")
    if idle := [name for name, gradient in largest.items() if not gradient]:
        return Finding(
            "WRONG", "trains its parameters", f"no gradient reaches {', '.join(idle)}; outputs do not depend on it"
        )
    told = ", ".join(f"{name} {gradient:.2g}" for name, gradient in largest.items())
    return Finding("PASS", "trains its parameters", f"largest gradients: {told}")


def _shifted(cases: list[Case]) -> Finding:
    told = _told("shift-invariant", "not shift-invariant", "the same text further on differs by up to {}", _shift, cases)
    if told.about == "not shift-invariant" and any(case.scheme.relative for case in cases):
        return Finding("WRONG", told.about, f"states relative, but {told.told}")
    return told


@torch.no_grad()
def _shift(case: Case) -> float:
    n, end = case.geometry.train_len, case.scheme.max_len
    if end is None:
        return max(_apart(case.read(n, first=first), case.read(n)) for first in (1, n, FAR))
    n = max(1, end // 2)
    return _apart(case.read(n, first=end - n), case.read(n))


@torch.no_grad()
def _mirror(case: Case) -> float:
    n = case.geometry.train_len
    return _apart(_read(case.encoder, case.tokens[:, :n].flip(1)).flip(1), case.read(n))


def _end(cases: list[Case]) -> Finding:
    longest = {case.scheme.max_len for case in cases}
    if longest != {None}:
        told = ", ".join(f"{case.scheme.max_len} at L={case.geometry.train_len}" for case in cases if case.geometry.causal)
        return Finding("IS", "has an end", f"max_len: {told}")

    @torch.no_grad()
    def lost(case: Case) -> float:
        tokens = case.tokens.repeat(1, 8)[:1, : 8 * case.geometry.train_len]
        return float((~_read(case.encoder, tokens).isfinite()).sum())

    value, where = _worst(lost, cases)
    if math.isnan(value):
        return Finding("WRONG", "has no end", f"states no max_len, but at 8 L it {where}")
    if value:
        return Finding("IS", "not finite beyond L", f"{value:.0f} numbers at 8 L are none ({where})")
    return Finding("PASS", "has no end", "states no max_len, and is finite at 8 L")


def _promises(cases: list[Case], build: Build) -> Finding:
    for case in cases:
        try:
            check_scheme(lambda geometry=case.geometry: build(geometry), 2 * case.geometry.train_len + 1)  # type: ignore[misc]
        except UserError as error:
            return Finding("WRONG", "would be refused", f"by every run ({case.at}): {error}")
    return Finding(
        "PASS", "would be run", "keeps every promise that the start of a run asks about: state, windows, masks, facts"
    )


def _against(reference: Reference, cases: list[Case]) -> Iterator[Finding]:
    """Attention weights of the definition against softmax(reference) of the same queries and keys, in float64."""
    wanted = inspect.signature(reference).parameters

    @torch.no_grad()
    def differ(case: Case) -> float:
        worst, exact = 0.0, copy.deepcopy(case.encoder).double()
        for n in case.lengths:
            seen: list[Seen] = []
            with patch.object(model, "prepare", define(seen)):
                _read(exact, case.tokens[:1, :n])
            q, k, x, weights = seen[0]
            given = {"scheme": exact.scheme, "q": q[0], "k": k[0], "causal": case.geometry.causal}
            given |= {} if x is None else {"x": x[0]}
            scores = torch.as_tensor(reference(**{name: given[name] for name in wanted}), dtype=torch.float64)
            if scores.shape != weights.shape[1:]:
                raise ValueError(f"expected scores (H, n, n) = {(*weights.shape[1:],)}, found {(*scores.shape,)}")
            if case.geometry.causal:
                scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
            worst = max(worst, _apart(scores.softmax(dim=-1), weights[0]))
        return worst

    told = "attention weights and the softmax of its scores differ by up to {}, in float64"
    yield _bound("agrees with REFERENCE", told, differ, cases, EXACT)
    x, pos = torch.randn(1, SHORT, cases[0].geometry.d_model), cases[0].scheme.positions(SHORT)
    if not torch.equal(cases[0].scheme.embed(x, pos), x):
        yield Finding("IS", "embeds", "REFERENCE is asked about scores: what embed adds to the input was not compared")
