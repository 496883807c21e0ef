"""What a position scheme is, measured on a small encoder at several sizes: the findings of `make check-scheme`."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from extrap.errors import UserError, one_line
from extrap.model import encoder as model
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.testing.measures import (
    Build,
    Case,
    Seen,
    apart,
    batch,
    define,
    encoder_with,
    future,
    length,
    mirror,
    not_finite,
    paths,
    read,
    shift,
    weight,
)
from extrap.testing.promises import SHORT, TOLERANCE, check_scheme

SIZES = ((16, 8, 4), (128, 32, 2), (37, 12, 3))  # training length, head dim, heads: at one alone a wrong threshold can pass
LAYERS = 2
KINK = 2e-3  # of the largest gradient: where a scheme rounds, as CoPE does, float32 may round to the other side
EXACT = 1e-6  # of attention weights in float64, whose tables were rounded to float32 once

Reference = Callable[..., Any]


class Finding(NamedTuple):
    """A line of the page: verdict PASS, IS (what a scheme may be or not) or WRONG."""

    verdict: str
    about: str
    told: str


def findings(build: Build, reference: Reference | None = None, sizes: Any = SIZES) -> Iterator[Finding]:
    """Everything about a scheme but its cost. Raises UserError where it cannot be built at any size."""
    cases, refused = [], []
    with torch.random.fork_rng(devices=[]):
        for train_len, head_dim, n_heads in sizes:
            for causal in (True, False):
                geometry = Geometry(head_dim * n_heads, n_heads, train_len, causal, LAYERS)
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
    yield _bound("sees no future", "earlier tokens move by up to {} with a later one", future, causal)
    yield _bound("is finite", "{} numbers of outputs and gradients at the training length are none", not_finite, cases)
    yield _bound("same in any batch", "a sequence alone and among others differ by up to {}", batch, cases)
    yield _bound("same at any length", "a token moves by up to {} with the number of those after it", length, causal)
    yield _bound("same on any path", "outputs are up to {} from the definition in float64", paths, cases)
    told = "gradients are up to {} of their largest from those of the definition in float64"
    yield _bound("same gradients", told, lambda case: case.gradient, cases, KINK)
    yield _trained(cases)
    scheme = cases[0].scheme
    differs = "the same text further on differs by up to {}"
    yield _told("shift-invariant", "not shift-invariant", differs, shift, cases, "relative" if scheme.relative else "")
    differs = "in an encoder a text and its mirror image differ by up to {}"
    stated = "" if scheme.direction_aware else "direction_aware = False"
    yield _told("symmetric", "direction-aware", differs, mirror, encoders, stated)
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


def _told(yes: str, no: str, told: str, measure: Callable[[Case], float], cases: list[Case], stated: str = "") -> Finding:
    """What a scheme is; WRONG where it states to be what it is not."""
    if not cases:
        return Finding("IS", yes, "not asked: it is defined for no such model")
    value, where = _worst(measure, cases)
    if math.isnan(value):
        return Finding("WRONG", yes, where)
    told = told.format(f"{value:.2g}")
    if value > TOLERANCE:
        return Finding("WRONG", no, f"states {stated}, but {told} ({where})") if stated else Finding("IS", no, told)
    return Finding("IS", yes, told)


def _effect(cases: list[Case]) -> Finding:
    @torch.no_grad()
    def change(case: Case) -> float:
        plain = encoder_with(Nope(case.geometry))
        return max(apart(read(plain, case.tokens[:, :n]), case.read(n)) for n in case.lengths)

    value, where = _worst(change, cases)
    told = f"hidden states, which are about 1, change by up to {value:.2g} against no positions at all"
    if math.isnan(value):
        return Finding("WRONG", "has an effect", where)
    if value > TOLERANCE:
        return Finding("PASS", "has an effect", told)
    if type(cases[0].scheme) in (Nope, PositionScheme):
        return Finding("IS", "no positions", told)
    return Finding("WRONG", "has no effect", f"{told}; look for a hook whose name is misspelt")


def _trained(cases: list[Case]) -> Finding:
    """Whether each parameter gets a gradient, at some size."""
    largest: dict[str, float] = {}

    def reached(case: Case) -> float:
        named = {name: parameter for name, parameter in case.scheme.named_parameters() if parameter.requires_grad}
        if named:
            hidden = case.read(case.geometry.train_len, training=True)
            grads = torch.autograd.grad((hidden * weight(hidden)).sum(), [*named.values()], materialize_grads=True)
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


def _end(cases: list[Case]) -> Finding:
    longest = {case.scheme.max_len for case in cases}
    if longest != {None}:
        told = ", ".join(f"{case.scheme.max_len} at L={case.geometry.train_len}" for case in cases if case.geometry.causal)
        return Finding("IS", "has an end", f"max_len: {told}")

    @torch.no_grad()
    def lost(case: Case) -> float:
        tokens = case.tokens.repeat(1, 8)[:1, : 8 * case.geometry.train_len]
        return float((~read(case.encoder, tokens).isfinite()).sum())

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
    """Attention weights of every layer's definition against softmax(reference) of the same queries and keys, in float64."""
    wanted = inspect.signature(reference).parameters

    @torch.no_grad()
    def differ(case: Case) -> float:
        worst, exact = 0.0, copy.deepcopy(case.encoder).double()
        for n in case.lengths:
            seen: list[Seen] = []
            with patch.object(model, "prepare", define(seen)):
                read(exact, case.tokens[:1, :n])
            for scheme, (q, k, x, weights) in zip(exact.scheme.layers(LAYERS), seen, strict=True):
                given = {"scheme": scheme, "q": q[0], "k": k[0], "x": x if x is None else x[0]}
                given["causal"] = case.geometry.causal
                scores = torch.as_tensor(reference(**{name: given[name] for name in wanted}), dtype=torch.float64)
                if scores.shape != weights.shape[1:]:
                    raise ValueError(f"expected scores (H, n, n) = {(*weights.shape[1:],)}, found {(*scores.shape,)}")
                if case.geometry.causal:
                    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
                of = scheme.weights() or partial(torch.softmax, dim=-1)
                worst = max(worst, apart(of(scores[None])[0], weights[0]))
        return worst

    told = "attention weights and those of its scores differ by up to {}, in float64"
    yield _bound("agrees with REFERENCE", told, differ, cases, EXACT)
    x, pos = torch.randn(1, SHORT, cases[0].geometry.d_model), cases[0].scheme.positions(SHORT)
    if not torch.equal(cases[0].scheme.embed(x, pos), x):
        yield Finding("IS", "embeds", "REFERENCE is asked about scores: what embed adds to the input was not compared")
