"""Sharper attention: one factor for each query, on q . k alone, and in layers that see more keys than in training."""

import math

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.base import Reference, scaled
from references.rope import rope
from torch import nn

from extrap.extensions.temperature import Logarithmic, LogN
from extrap.positions.absolute import Learned
from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sinks import Sinks


def sharper(reference, causal, seq_len=T):
    """The product of query and key grows, what is added to it stays."""

    def score(q, k, i, j, h):
        n = i + 1 if causal else seq_len
        return reference.score(q, k, i, j, h) + extra(q, k, i, j, h, reference) * (max(1, math.log(n, L)) - 1)

    def extra(q, k, i, j, h, reference):
        nothing = [0.0] * len(q)
        return reference.score(q, k, i, j, h) - reference.score(nothing, k, i, j, h)

    return reference._replace(score=score)


def test_a_query_grows_with_the_keys_that_it_sees(causal, small):
    geometry = geometry_of(causal)
    schemes = (
        (Rope(geometry), rope(geometry, 10_000.0)),
        (Alibi(geometry), alibi(geometry)),
        (Nope(geometry), Reference()),
        (Local(geometry, Rope(geometry), L + 1), rope(geometry, 10_000.0)._replace(keep=lambda i, j: abs(i - j) < L + 1)),
    )
    for scheme, reference in schemes:
        check_layers(LogN()(scheme, T), [sharper(reference, causal)] * 2)


def test_layers_that_see_no_further_than_training_stay(causal, small):
    geometry = geometry_of(causal)
    near = Local(geometry, Rope(geometry), L)
    local = rope(geometry, 10_000.0)._replace(keep=lambda i, j: abs(i - j) < L)
    check_layers(LogN()(Mixed(geometry, near, Nope(geometry)), T), [local, sharper(Reference(), causal)])
    for scheme in (near, Sinks(geometry, near), Learned(geometry)):
        assert LogN()(scheme, T) is None


def test_weights_and_content_are_left_to_the_scheme(causal):
    """Of what reads content the product alone: gates stay."""
    geometry = geometry_of(causal)
    fox, sinks = Fox(geometry), Sinks(geometry, Rope(geometry))
    for gates in fox.gates:
        nn.init.zeros_(gates.weight)
    assert LogN()(sinks, T).layers(2)[0].weights() is not None
    for plain, sharp in zip(
        *(scheme.layers(2)[0].branches(torch.arange(T)) for scheme in (fox, LogN()(fox, T))), strict=True
    ):
        assert plain.rotate is None
        assert sharp.rotate is not None
        assert (sharp.decay is None, sharp.content is None) == (plain.decay is None, plain.content is None)


def test_up_to_the_training_length_nothing_changes(causal):
    scheme = Rope(geometry_of(causal))
    for n in (1, L - 1, L):
        assert all(map(torch.equal, answers(LogN()(scheme, T), n), answers(scheme, n)))


def test_it_joins_other_distances_and_other_frequencies(causal, small):
    """Each query by its place in the input, wherever a rotation puts it."""
    geometry = geometry_of(causal)
    held = rope(geometry, 10_000.0)
    held = held._replace(score=lambda q, k, i, j, h, of=held.score: of(q, k, max(-4, min(i - j, 4)), 0, h))
    for name in ("rerope+logn", "logn+rerope"):
        check_layers(named(name)(Rope(geometry), T), [sharper(held, causal)] * 2)


# ---- bugs


class OnTheBias(Logarithmic):
    def change(self, branch, pos):
        score_mod = branch.score_mod
        sharp = self.factor(torch.zeros(1, 1, len(pos), 1))
        return branch._replace(score_mod=lambda s, b, h, i, j: score_mod(s, b, h, i, j) * sharp[i].squeeze(-1))


class OfTheWholeInput(LogN):
    """n for every query of a causal model."""

    def _factor(self, train_len, causal):
        return super()._factor(train_len, False)


class NoFloor(LogN):
    """Below the training length softer than in training."""

    def _factor(self, train_len, causal):
        return lambda q: torch.arange(1, q.shape[-2] + 1, dtype=q.dtype).log()[:, None] / math.log(train_len)


class OnTheOutcome(LogN):
    """A logarithm subtracted from every logit, as edifice does, which a softmax does not notice."""

    def _factor(self, train_len, causal):
        return lambda q: 1.0


@pytest.mark.parametrize("mutant", [OfTheWholeInput, NoFloor, OnTheOutcome])
def test_a_bug_is_rejected(mutant, small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant()(Rope(geometry), T), [sharper(rope(geometry, 10_000.0), True)] * 2)


def test_a_bias_that_grows_is_rejected(small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(OnTheBias(Alibi(geometry), LogN()._factor(L, True)), [sharper(alibi(geometry), True)] * 2)


def test_the_bias_of_the_formula_is_not_multiplied():
    of, plain = sharper(alibi(geometry_of(True)), True), alibi(geometry_of(True))
    q, k = [1.0] * 8, [0.5] * 8
    assert of.score([0.0] * 8, k, T - 1, 0, 0) == plain.score([0.0] * 8, k, T - 1, 0, 0)
    grown = scaled(q, k, T - 1, 0, 0) * (math.log(T) / math.log(L) - 1)
    assert of.score(q, k, T - 1, 0, 0) - plain.score(q, k, T - 1, 0, 0) == pytest.approx(grown)
