"""Continuous position bias: what its network can be, what it knows, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same
from test_positions import check_mirror

from extrap.model.attention import prepare
from extrap.positions.alibi import Alibi
from extrap.positions.base import Geometry
from extrap.positions.cpb import Cpb
from extrap.positions.nope import Nope

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
SCALES = pytest.mark.parametrize("log_distance", [False, True], ids=["linear", "log"])


def emptied(scheme):
    for parameter in scheme.parameters():
        torch.nn.init.zeros_(parameter)
    return scheme


def test_silus_in_pairs_are_alibi():
    """silu(x) - silu(-x) = x: two units hand a number on as it is."""
    scheme, alibi = emptied(Cpb(DECODER)), Alibi(DECODER)
    pair = torch.tensor([1.0, -1.0])
    scheme.first.data[:2, 0] = pair
    scheme.second.data[:2, :2] = torch.outer(pair, pair)
    scheme.last.data[:, :2] = -alibi.slopes[:, None] * pair
    check_same(scheme, alibi)


@SIZES
@SCALES
def test_without_a_distance_a_head_has_a_constant_which_a_softmax_does_not_see(geometry, log_distance):
    scheme = Cpb(geometry, log_distance)
    torch.nn.init.zeros_(scheme.first)
    zero = scheme.positions(1)
    assert scheme.score_mod(zero)(torch.zeros(1), None, torch.arange(4), zero, zero).abs().min() > 0
    check_same(scheme, Nope(geometry))


def test_a_logarithm_has_the_sign_of_its_distance():
    t = torch.arange(-5000, 5001).double()
    found = Cpb(ENCODER, log_distance=True).read(t)
    assert torch.equal(found.flip(0), -found)
    assert (found.diff() > 0).all()
    assert found[5001] == pytest.approx(0.6931, abs=1e-4)


@SCALES
def test_far_away_it_is_linear_in_what_it_reads(log_distance):
    scheme = Cpb(ENCODER, log_distance)
    pos = torch.tensor([0, 400, 500, 600]).double()  # a unit that reads 100 times its weight has left its bend
    pos = pos.expm1() if log_distance else 1e4 * pos
    i, zero, h = torch.arange(1, 4), torch.zeros(1), torch.arange(4)[:, None]
    found = scheme.score_mod(pos)(zero, None, h, i, 0 * i)
    assert torch.allclose(found[:, 2] - found[:, 1], found[:, 1] - found[:, 0], rtol=1e-2)


def test_it_knows_a_text_from_its_mirror_image_until_it_reads_no_sign():
    with pytest.raises(AssertionError, match="not close"):
        check_mirror(Cpb(ENCODER).double())
    check_mirror(Unsigned(ENCODER).double())


def test_a_narrow_model_has_a_unit():
    assert Cpb(Geometry(3, 1, 16, causal=False)).second.shape == (1, 1)


class Unsigned(Cpb):
    def read(self, t):
        return super().read(t.abs())


class LogWithoutOne(Cpb):
    """Neighbours count as the token itself."""

    def read(self, t):
        return t.sign() * t.abs().clamp(min=1).log()


class KeyMinusQuery(Cpb):
    def read(self, t):
        return super().read(-t)


@pytest.mark.parametrize("mutant", [Unsigned, LogWithoutOne, KeyMinusQuery])
def test_a_bug_is_rejected(mutant):
    for log_distance in (False, True):
        check_formula(Cpb, ENCODER, log_distance=log_distance)
        with pytest.raises(AssertionError, match="not close"):
            check_formula(mutant, ENCODER, log_distance=log_distance)


@SIZES
@SCALES
def test_the_network_reads_each_distance_once(geometry, log_distance, small):
    scheme, numbers = Cpb(geometry, log_distance), []
    assert scheme.branches(scheme.positions(45))[0].relative
    inner = scheme.read
    scheme.read = lambda t: numbers.append(t.numel()) or inner(t)
    for seq_len, training in ((45, False), (16, True)):
        numbers.clear()
        prepare(scheme, scheme.positions(seq_len), training=training)
        assert numbers == [2 * seq_len - 1]


@SIZES
@SCALES
def test_on_its_path_for_distances(geometry, log_distance, small):
    check_path(Cpb(geometry, log_distance), 45, training=False)
    check_path(Cpb(geometry, log_distance), 16, training=True)
