"""What a position scheme is, measured on a small encoder at several sizes: the findings of `make check-scheme`."""

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from extrap.errors import UserError, one_line, raised_in
from extrap.model.definition import attend_reference
from extrap.model.seed import seed_generators
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.testing import measures
from extrap.testing.case import TOLERANCE, Build, Case, apart, heads
from extrap.testing.measures import Measure, Measured
from extrap.testing.promises import check_scheme

SIZES = ((16, 8, 4), (128, 32, 2), (37, 12, 3))  # training length, head dim, heads: at one alone a wrong threshold can pass
LAYERS = 2
FAILS = "fails"
QKV = ("queries", "keys", "values")
KINK = 2e-3  # of the largest gradient: where a scheme rounds, as CoPE does, float32 may round to the other side
EXACT = 1e-6  # of attention weights in float64, whose tables were rounded to float32 once

Reference = Callable[..., Any]


class Finding(NamedTuple):
    """A line of the page: verdict PASS, IS (what a scheme may be or not) or WRONG."""

    verdict: str
    about: str
    told: str


def findings(build: Build, reference: Reference | None = None, sizes: Any = SIZES) -> Iterator[Finding]:
    """Everything about a scheme but its cost, a failure once. Raises UserError where it cannot be built at any size."""
    failures = set()
    for finding in _all_findings(build, reference, sizes):
        failure = re.search(rf"\b{FAILS} (?:at|before) .*?: (.*)", finding.told)
        error = re.sub(r"\d+|; .*", "", failure[1]) if failure else ""  # whatever sizes are in it, and advice
        if error not in failures:
            yield finding
        failures |= {error} - {""}


def _all_findings(build: Build, reference: Reference | None, sizes: Any) -> Iterator[Finding]:
    cases, refused = [], []
    with torch.random.fork_rng(devices=[]):
        for train_len, head_dim, n_heads in sizes:
            for causal in (True, False):
                geometry = Geometry(head_dim * n_heads, n_heads, train_len, causal, LAYERS)
                seed_generators(0)
                try:
                    cases.append(Case(build(geometry), 2 * train_len + 1))
                except (UserError, ValueError) as error:
                    refused.append(Finding("IS", "refuses some sizes", one_line(f"{_at(geometry)}: {error}")))
                except (Exception, SystemExit) as error:  # whatever somebody's code raises
                    raise UserError(one_line(f"fails at {_at(geometry)}: {type(error).__name__}: {error}")) from error
        if not cases:
            raise UserError(refused[0].told)
        yield from refused[:2]
        yield _promises(cases, build)
        yield from _findings(cases)
        if reference:
            yield from _against(reference, cases)


def _findings(cases: list[Case]) -> Iterator[Finding]:
    scheme = cases[0].scheme
    causal, encoders = ([case for case in cases if case.geometry.causal is wanted] for wanted in (True, False))
    for case in cases:
        case.move_parameters()
    yield _bound("same whenever asked", "the same input gives outputs that differ by up to {}", measures.again, cases)
    yield _effect(cases)
    yield _fact(
        "same in training", "differs in training", "outputs differ from evaluation by up to {}", measures.modes, cases
    )
    yield _bound("sees no future", "earlier tokens move by up to {} with a later one", measures.future, causal)
    yield _bound("is finite", "at L up to {} numbers of outputs or of a gradient are not finite", measures.not_finite, cases)
    yield _bound("same in any batch", "a sequence alone and beside others differs by up to {}", measures.batch, cases)
    told = "a token moves by up to {} with the number of those after it"
    same = Finding("PASS", "same at any length", told)
    other = Finding("IS", "differs by length", told) if scheme.of_length else same._replace(verdict="WRONG")
    yield _finding(measures.length, causal, same, other)
    told = "outputs of attention are up to {} from the definition in float64, but for what float32 rounds in it"
    yield _bound("same on any path", told, lambda case: ((value, at) for value, _, at in case.paths), cases)
    told = "gradients are up to {} of their largest from those of the definition in float64"
    yield _bound("same gradients", told, lambda case: ((value, at) for _, value, at in case.paths), cases, KINK)
    yield _trained(cases)
    told = "the same text at the same positions differs by up to {} with its place in the input"
    other = Finding("IS", "differs by place", told)
    found = _finding(measures.place, cases, Finding("PASS", "same at any place", told), other)
    if found.about == other.about and not _embeds_content(cases[0]):  # or it may sum up what stands before
        hint = "; take them from what hooks are given, do not count"
        found = Finding("WRONG", "ignores positions", found.told + hint)
    yield found
    told = "the same text at positions twice as far apart differs by up to {}"
    deaf = "; what changes positions does nothing to it: extensions, randomized, pose"
    yield _finding(
        measures.stretch, cases, Finding("IS", "reads no positions", told + deaf), Finding("IS", "reads positions", told)
    )
    told = "trains where tensors have sizes and no values"
    found = _bound("runs on any device", told, measures.elsewhere, cases)
    hint = "; keep tensors in parameters and buffers or make them on pos.device, and ask none for its value"
    yield found._replace(told=found.told + hint * found.told.startswith(FAILS))
    differs = "the same text further on differs, beyond rounded angles, by up to {}"
    stated = "states relative" if scheme.relative else ""
    if scheme.of_length:
        yield Finding("IS", "shift-invariant", "not asked: it states of_length, positions of its own for each length")
    else:
        found = _fact("shift-invariant", "not shift-invariant", differs, measures.shift, cases, stated)
        hint = "; relative = True may be stated: biases take linear memory, and extensions of distances apply"
        unstated = found.about == "shift-invariant" and found.verdict == "IS" and not scheme.relative
        yield found._replace(told=found.told + hint * unstated)
    differs = "in an encoder a text and its mirror image differ by up to {}"
    stated = "" if scheme.direction_aware else "states direction_aware = False"
    yield _fact("symmetric", "direction-aware", differs, measures.mirror, encoders, stated)
    differs = "the same input, read again in training, gives outputs that differ by up to {}"
    stated = "" if scheme.random_in_training else "does not state random_in_training"
    yield _fact("draws nothing", "draws in training", differs, measures.drawn, cases, stated)
    if scheme.max_len is None:
        some = Finding("IS", "not finite beyond L", "{} numbers at 8 L are not finite")
        yield _finding(measures.lost, cases, Finding("PASS", "has no end", "states no max_len, and is finite at 8 L"), some)
    else:
        ends = dict.fromkeys(f"{case.scheme.max_len} at L={case.geometry.train_len}" for case in cases)
        yield Finding("IS", "has an end", f"max_len: {', '.join(ends)}")


def _at(geometry: Geometry) -> str:
    return f"L={geometry.train_len}, K={geometry.head_dim}, {'causal' if geometry.causal else 'bidirectional'}"


def _finding(measure: Measure, cases: list[Case], low: Finding, high: Finding, bound: float = TOLERANCE) -> Finding:
    """`high` where a number is above the bound, with the largest of them and its place; `low` elsewhere."""
    if not cases:
        return Finding("IS", low.about, "not asked: it is defined for no such model")
    worst, where = 0.0, ""
    for case in cases:
        at = _at(case.geometry)
        try:
            for value, place in measure(case):
                if value > worst:
                    worst, where = value, f" ({'; '.join(filter(None, (at, place)))})"
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever somebody's code raises
            return Finding("WRONG", low.about, f"{FAILS} at {at}: {raised_in(type(case.scheme), error)}")
    if worst > bound:
        return high._replace(told=high.told.format(f"{worst:.2g}") + where)
    return low._replace(told=low.told.format(f"{worst:.2g}"))


def _bound(about: str, told: str, measure: Measure, cases: list[Case], bound: float = TOLERANCE) -> Finding:
    return _finding(measure, cases, Finding("PASS", about, told), Finding("WRONG", about, told), bound)


def _fact(yes: str, no: str, told: str, measure: Measure, cases: list[Case], stated: str = "") -> Finding:
    """What a scheme is; WRONG where it states something else."""
    high = Finding("WRONG", no, f"{stated}, but {told}") if stated else Finding("IS", no, told)
    return _finding(measure, cases, Finding("IS", yes, told), high)


def _effect(cases: list[Case]) -> Finding:
    """In training as in evaluation."""
    told = "hidden states, which are about 1, change by up to {} against no positions at all"
    nothing = Finding("WRONG", "has no effect", f"{told}; look for a hook whose name is misspelt")
    if type(cases[0].scheme) in (Nope, PositionScheme):
        nothing = Finding("IS", "no positions", told)
    modes = {"in training": True, "in evaluation": False}
    some = Finding("PASS", "has an effect", told)
    found = {mode: _finding(partial(measures.effect, training=t), cases, nothing, some) for mode, t in modes.items()}
    if failed := [finding for finding in found.values() if finding.told.startswith(FAILS)]:
        return failed[0]
    without = [mode for mode, finding in found.items() if finding.verdict == "WRONG"]
    if len(without) == 1:
        told = f"{without[0]}: {found[without[0]].told.partition(';')[0]}; look for what asks self.training"
        return nothing._replace(told=told)
    return found["in evaluation"]


@torch.no_grad()
def _embeds_content(case: Case) -> bool:
    """Whether what embed adds depends on what it is added to."""
    scheme, n = case.scheme, case.geometry.train_len
    here, other = torch.randn(2, 1, n, case.geometry.d_model)
    pos = scheme.positions(n)
    return apart(scheme.embed(here, pos) - here, scheme.embed(other, pos) - other) > TOLERANCE


def _trained(cases: list[Case]) -> Finding:
    """Whether each parameter gets a gradient, at some size, and so do the queries, keys and values of each layer."""
    reached: dict[str, bool] = {}

    def gradients(case: Case) -> Measured:
        for name, grad in measures.gradients(case).items():
            parts = {name: grad} if name.startswith("scheme.") else {}
            if name.startswith("blocks.") and name.endswith("qkv.weight"):
                parts = {f"the {what} of {name}": of for what, of in zip(QKV, grad.chunk(3), strict=True)}
            for part, of in parts.items():
                reached[part] = reached.get(part, False) or bool(of.any())
        yield 0.0, ""

    found = _bound("trains its parameters", "a gradient reaches each of them", gradients, cases)
    if idle := [name for name, is_reached in reached.items() if not is_reached]:
        told = f"no gradient reaches {', '.join(idle)}; outputs do not depend on it, or look for torch.no_grad and detach"
        return found._replace(verdict="WRONG", told=told)
    if found.verdict == "PASS" and not any(name.startswith("scheme.") for name in reached):
        return Finding("IS", "has no parameters", "nothing of it is trained")
    return found


def _promises(cases: list[Case], build: Build) -> Finding:
    for case in cases:
        try:
            check_scheme(partial(build, case.geometry), case.lengths[-1])
        except UserError as error:
            return Finding("WRONG", "would be refused", f"by every sweep ({_at(case.geometry)}): {error}")
    return Finding("PASS", "would be run", "keeps every promise that a sweep asks about beforehand: hooks, masks, facts")


GIVEN = ("scheme", "q", "k", "x", "causal")  # to a reference, which names those of them that it wants


def _against(reference: Reference, cases: list[Case]) -> Iterator[Finding]:
    """Attention weights of every layer's definition against softmax(reference) of the same queries and keys, in float64."""
    wanted = inspect.signature(reference).parameters

    @torch.no_grad()
    def differ(case: Case) -> Measured:
        exact, geometry = copy.deepcopy(case.scheme).double().eval(), case.geometry
        for n in case.lengths:
            pos, (q, k, _) = exact.positions(n), heads(geometry, n, n_batch=1)
            x = torch.randn(1, n, geometry.d_model, dtype=torch.float64)
            each = torch.eye(n, dtype=torch.float64).expand(1, geometry.n_heads, n, n)  # the mean of unit vectors
            for scheme in dict.fromkeys(exact.layers(LAYERS)):
                weights = attend_reference(scheme, pos, q, k, each, x)[0]
                given = dict(zip(GIVEN, (scheme, q[0], k[0], x[0], geometry.causal), strict=True))
                scores = torch.as_tensor(reference(**{name: given[name] for name in wanted}), dtype=torch.float64)
                if scores.shape != weights.shape:
                    raise ValueError(f"expected scores (H, n, n) = {(*weights.shape,)}, found {(*scores.shape,)}")
                if geometry.causal:
                    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -math.inf)
                of = scheme.weights() or partial(torch.softmax, dim=-1)
                yield apart(of(scores[None])[0], weights), f"{n} tokens"

    told = "attention weights and those of its scores differ by up to {}, in float64"
    yield _bound("agrees with REFERENCE", told, differ, cases, EXACT)
    scheme, n = cases[0].scheme, cases[0].lengths[0]
    x = torch.randn(1, n, scheme.geometry.d_model)
    if not torch.equal(scheme.embed(x, scheme.positions(n)), x):
        yield Finding("IS", "embeds", "REFERENCE is asked about scores: what embed adds to the input was not compared")
    if any(layer.weights() for layer in scheme.layers(LAYERS)):
        yield Finding("IS", "weighs", "REFERENCE is asked about scores: what weights makes of them was not compared")
