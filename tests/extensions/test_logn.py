"""Sharper attention: one factor for each query, on q . k alone, and in layers that see more keys than in training."""

import math

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.base import Reference, scaled
from references.rope import rope

from extrap.extensions.temperature import LogN
from extrap.positions.absolute import Learned
from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sharpness import LogN as TrainedLogN
from extrap.positions.sharpness import SSMax
from extrap.positions.sinks import Sinks
from extrap.positions.wrappers import Wrapper


def sharper(reference, causal, seq_len=T):
    """The product of query and key grows, what is added to it stays."""

    def score(q, k, i, j, h):
        n = sum(reference.keep(i, key) for key in range(i + 1 if causal else seq_len))
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


def test_layers_that_see_no_more_keys_than_in_training_stay(causal, small):
    geometry = geometry_of(causal)
    near = Local(geometry, Rope(geometry), L)
    local = rope(geometry, 10_000.0)._replace(keep=lambda i, j: abs(i - j) < L)
    local = local if causal else sharper(local, causal)  # whose two sides hold more than L keys
    check_layers(LogN()(Mixed(geometry, near, Nope(geometry)), T), [local, sharper(Reference(), causal)])
    half = Local(geometry, Rope(geometry), L // 2)
    for scheme in (half, Sinks(geometry, half), Learned(geometry)):
        assert LogN()(scheme, T) is None
    assert (LogN()(near, T) is None) == causal


def test_weights_and_content_are_left_to_the_scheme(causal):
    """Of what reads content the product alone: gates stay."""
    geometry = geometry_of(causal)
    fox, sinks = Fox(geometry), Sinks(geometry, Rope(geometry))
    assert LogN()(sinks, T).layers(2)[0].weights() is not None
    layer = LogN()(fox, T).layers(2)[0]
    assert layer.branches(torch.arange(T))[0].reads_content
    assert layer.scale() is not None


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


def test_it_counts_what_masks_leave(causal, small):
    """The first tokens beside a window, too."""
    geometry, width = geometry_of(causal), L if causal else (L + 1) // 2
    shaped = Reference(keep=lambda i, j: abs(i - j) < width or (j < 4 and j < i))
    check_layers(named("lambda+logn")(Nope(geometry), T), [sharper(shaped, causal)] * 2)


def test_it_joins_a_scale_that_is_trained(causal, small):
    scheme = SSMax(geometry_of(causal), Nope(geometry_of(causal)))
    n = torch.arange(1, T + 1)
    plain, sharp = (one.layers(2)[0].scale()(n) for one in (scheme, LogN()(scheme, T)))
    assert torch.equal(sharp, plain * LogN().factor(n, L))


# ---- bugs


class OnTheBias(Wrapper):
    def change(self, branch, pos):
        score_mod, sharp = branch.score_mod, LogN().factor(torch.arange(1, len(pos) + 1), L)
        return branch._replace(score_mod=lambda s, b, h, i, j: score_mod(s, b, h, i, j) * sharp[i])


class OfTheWholeInput(LogN):
    """n for every query of a causal model."""

    def factor(self, n, train_len):
        return super().factor(torch.full_like(n, T), train_len)


class NoFloor(LogN):
    """Below the training length softer than in training."""

    def factor(self, n, train_len):
        return n.double().log() / math.log(train_len)


class OnTheOutcome(LogN):
    """A logarithm subtracted from every logit, as edifice does, which a softmax does not notice."""

    def factor(self, n, train_len):
        return torch.ones_like(n)


@pytest.mark.parametrize("mutant", [OfTheWholeInput, NoFloor, OnTheOutcome])
def test_a_bug_is_rejected(mutant, small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant()(Rope(geometry), T), [sharper(rope(geometry, 10_000.0), True)] * 2)


def test_a_bias_that_grows_is_rejected(small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(OnTheBias(Alibi(geometry)), [sharper(alibi(geometry), True)] * 2)


def test_the_bias_of_the_formula_is_not_multiplied():
    of, plain = sharper(alibi(geometry_of(True)), True), alibi(geometry_of(True))
    q, k = [1.0] * 8, [0.5] * 8
    assert of.score([0.0] * 8, k, T - 1, 0, 0) == plain.score([0.0] * 8, k, T - 1, 0, 0)
    grown = scaled(q, k, T - 1, 0, 0) * (math.log(T) / math.log(L) - 1)
    assert of.score(q, k, T - 1, 0, 0) - plain.score(q, k, T - 1, 0, 0) == pytest.approx(grown)


def test_who_counts_keys_in_training_is_left_alone(causal):
    geometry = geometry_of(causal)
    for cls in (TrainedLogN, SSMax):
        assert LogN()(Local(geometry, cls(geometry, Rope(geometry)), 3 * L), 4 * L) is None
