"""FIRE: what its network reads and comes down to, its pieces, and the bugs that are told of it."""

from dataclasses import replace

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same
from torch import nn
from torch.testing import assert_close

from extrap.model.attention import additive_bias
from extrap.positions.fire import Fire, Interpolation
from extrap.positions.nope import Nope

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])


def layer_of(geometry):
    return Interpolation(geometry).requires_grad_(False)


def bias(layer, seq_len):
    i = torch.arange(seq_len)
    return additive_bias(layer.branches(layer.positions(seq_len))[0], layer.geometry, i[:, None], i)[0]


@SIZES
@pytest.mark.parametrize("seq_len", [1, 3, 16, 700])
def test_the_network_reads_from_the_token_to_the_furthest(seq_len, geometry):
    layer, i = layer_of(geometry), torch.arange(seq_len)
    read = layer.ratios(layer.positions(seq_len))(i[:, None], i)
    behind = read.tril()
    assert (behind.diagonal() == 0).all()
    assert (behind >= 0).all()
    assert (behind <= 1).all()
    reached = i[i >= geometry.train_len / 4]
    assert_close(behind[reached, 0], torch.ones(len(reached)), rtol=0, atol=1e-4)
    assert (behind[1 : geometry.train_len // 4, 0] < 1 - 1e-4).all()
    if not geometry.causal:
        assert_close(read.flip(0, 1), -read, rtol=0, atol=1e-6)


def test_up_to_its_threshold_it_tells_distances():
    layer = layer_of(replace(DECODER, train_len=80))
    found = bias(layer, 21).masked_fill(torch.ones(21, 21).triu(1).bool(), 0)
    assert_close(found[:, 1:, 1:], found[:, :-1, :-1], rtol=0, atol=1e-6)
    beyond = bias(layer, 22)
    assert not torch.allclose(beyond[:, 21, 1], beyond[:, 20, 0])


@SIZES
def test_a_network_without_an_output_is_no_positions(geometry):
    scheme = Fire(geometry)
    for layer in scheme.functions:
        nn.init.zeros_(layer.out)
    check_same(scheme, Nope(geometry))


def test_behind_an_encoder_has_the_bias_of_a_causal_model():
    causal, encoder = layer_of(DECODER), layer_of(ENCODER)
    encoder.load_state_dict(causal.state_dict())
    assert torch.equal(bias(causal, 45).tril(), bias(encoder, 45).tril())


@pytest.mark.parametrize("zero", [(), ("hidden",), ("hidden", "hidden_bias")])
def test_pieces_are_the_network_everywhere(zero):
    """Knots before, within and beyond what is read, units that are always or never open, and two that share a knot."""
    layer = layer_of(ENCODER).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    for name in zero:
        layer.get_parameter(name)[3:6] = 0
    layer.hidden[7], layer.hidden_bias[7] = -2 * layer.hidden[8], -2 * layer.hidden_bias[8]
    knots, slope, at_0 = layer.pieces()
    assert (knots.diff()[:-3] >= 0).all()
    x = torch.cat([torch.linspace(-50, 50, 4001).double(), knots[knots.isfinite()]])
    piece = torch.searchsorted(knots, x)
    found = slope[piece] * x[:, None] + at_0[piece]
    expected = torch.relu(x[:, None] * layer.hidden.T + layer.hidden_bias) @ layer.out.T
    assert_close(found, expected, rtol=0, atol=1e-10)


def test_pieces_have_the_gradients_of_the_network():
    layer = Interpolation(DECODER).double()
    x = torch.linspace(0, 1, 57).double().requires_grad_()
    knots, slope, at_0 = layer.pieces()
    piece = torch.searchsorted(knots, x.detach())
    expected = torch.relu(x[:, None] * layer.hidden.T + layer.hidden_bias) @ layer.out.T
    weight, leaves = torch.randn_like(expected), [x, layer.hidden, layer.hidden_bias, layer.out]
    found = torch.autograd.grad(((slope[piece] * x[:, None] + at_0[piece]) * weight).sum(), leaves)
    for a, b in zip(found, torch.autograd.grad((expected * weight).sum(), leaves), strict=True):
        assert_close(a, b, rtol=0, atol=1e-12)


class FireOfOtherLayers(Fire):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.functions = nn.ModuleList(self.Interpolation(geometry) for _ in range(geometry.n_layers))


class Subtracted(FireOfOtherLayers):
    """Forks take the difference of the logarithms."""

    class Interpolation(Interpolation):
        def ratios(self, pos):
            threshold = (self.factor * (self.geometry.train_len / 4)).abs()
            return lambda i, j: self.psi(pos[i] - pos[j]) - self.psi(torch.maximum(pos[i], threshold))


class PlaceOfTheKey(FireOfOtherLayers):
    class Interpolation(Interpolation):
        def ratios(self, pos):
            threshold = (self.factor * (self.geometry.train_len / 4)).abs()
            return lambda i, j: self.psi(pos[i] - pos[j]) / self.psi(torch.maximum(pos[j], threshold))


class DistanceForPlace(FireOfOtherLayers):
    """Another fork: interpolated to the distance itself, beyond the threshold a constant."""

    class Interpolation(Interpolation):
        def ratios(self, pos):
            threshold = (self.factor * (self.geometry.train_len / 4)).abs()
            return lambda i, j: self.psi(pos[i] - pos[j]) / self.psi(torch.maximum(pos[i] - pos[j], threshold))


class Unsigned(FireOfOtherLayers):
    class Interpolation(Interpolation):
        def ratios(self, pos):
            inner = super().ratios(pos)
            return lambda i, j: inner(i, j).abs()


class Cached(FireOfOtherLayers):
    """What was made first serves every input as long, whatever has become of c."""

    class Interpolation(Interpolation):
        kept = {}  # noqa: RUF012  the bug itself

        def ratios(self, pos):
            return self.kept.setdefault(len(pos), super().ratios(pos))


@pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
@pytest.mark.parametrize("mutant", [Subtracted, PlaceOfTheKey, DistanceForPlace, Unsigned, Cached])
def test_a_bug_is_rejected(mutant, geometry):
    for _ in range(2):  # one that keeps something is right the first time
        check_formula(Fire, geometry)
    if mutant is Unsigned and geometry.causal:
        check_formula(mutant, geometry)  # which has one side
    else:
        with pytest.raises(AssertionError, match="not close"):
            check_formula(mutant, geometry)


@SIZES
def test_on_its_path(geometry, small):
    (layer, _) = Fire(geometry).layers(2)
    assert not layer.branches(layer.positions(45))[0].relative
    check_path(layer, 45, training=False)
    check_path(layer, 45, training=True)
    check_path(layer, 16, training=True)
