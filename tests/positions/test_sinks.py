"""Learned sinks: closed ones are none, weights sum to less than 1, and the bugs that are told of them."""

import pytest
import torch
from checking import DECODER, ENCODER, check_against_reference, check_same
from references.base import Reference
from references.sinks import sinks
from torch import nn
from torch.nn import functional as F

from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sinks import Sink, Sinks
from extrap.positions.stick_breaking import StickBreaking

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])


@SIZES
def test_closed_sinks_are_none(geometry):
    closed = Sinks(geometry, Rope(geometry))
    for sink in closed.sinks:
        nn.init.constant_(sink, -100.0)
    check_same(closed, Rope(geometry))


def test_weights_sum_to_less_than_1_and_equal_one_logit_more():
    (layer, _) = Sinks(DECODER, Rope(DECODER)).layers(2)
    scores = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    weights = layer.weights()(scores)
    assert weights.sum(dim=-1).max() < 1
    with_sink = torch.cat([scores, torch.zeros(1, 4, 9, 1)], dim=-1).softmax(dim=-1)[..., :-1]
    assert torch.allclose(weights, with_sink)


def test_weights_of_another_kind_are_refused():
    for inner in (Sinks(DECODER, Rope(DECODER)), StickBreaking(DECODER)):
        with pytest.raises(ValueError, match="sinks join a softmax: expected a scheme that has one, found"):
            Sinks(DECODER, inner)


class DroppedBeforeTheSoftmax(Sinks):
    """The column of the sink is gone before it takes any weight."""

    def layers(self, n_layers):
        return self.inner.layers(n_layers)


class SinkWithAValue(Sinks):
    """Weight that no value takes is shared out again."""

    class Sink(Sink):
        def weights(self):
            weigh = super().weights()
            return lambda scores: F.normalize(weigh(scores), p=1, dim=-1)

    def layers(self, n_layers):
        return [self.Sink(layer.inner, layer.sink) for layer in super().layers(n_layers)]


class OneSinkForAllHeads(Sinks):
    def layers(self, n_layers):
        return [Sink(layer.inner, layer.sink.mean().expand(4)) for layer in super().layers(n_layers)]


def check(cls, geometry):
    scheme = cls(geometry, Nope(geometry))
    for sink in scheme.sinks:
        nn.init.normal_(sink)
    check_against_reference(scheme, sinks(geometry, Reference(), [sink.tolist() for sink in scheme.sinks]), range(20))


@SIZES
@pytest.mark.parametrize("mutant", [DroppedBeforeTheSoftmax, SinkWithAValue, OneSinkForAllHeads])
def test_a_bug_is_rejected(mutant, geometry):
    check(Sinks, geometry)
    with pytest.raises(AssertionError, match="not close"):
        check(mutant, geometry)
