"""xPos: how pairs decay, on either side, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_formula, check_path, check_same, inputs
from torch.testing import assert_close

from extrap.extensions.controls import Window
from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.positions.base import Geometry
from extrap.positions.rope import Rope
from extrap.positions.xpos import Xpos

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


@SIZES
def test_without_decay_it_is_rope(geometry):
    check_same(Xpos(geometry, scale_base=1e12), Rope(geometry))


def test_how_fast_pairs_decay():
    """Of a query and a key of ones, each pair alone, without its turn: zeta^(distance / 512)."""
    scheme = Xpos(Geometry(32, 1, 128, causal=True), base=1e300)
    ones = torch.ones(1, 1, 129, 32, dtype=torch.float64)
    q, k = scheme.rotation(torch.arange(129))(ones, ones)
    pairs = (q * k[:, :, :1])[0, 0].unflatten(-1, (16, 2)).mean(-1)
    assert (pairs[128, [8, 15]]).tolist() == pytest.approx([0.8954, 0.9886], abs=5e-5)
    fastest = scheme.rotation(torch.tensor([0, 512]))(ones[:, :, :2], ones[:, :, :2])[0][0, 0, :, :2].norm(dim=-1)
    assert (fastest[1] / fastest[0]).item() == pytest.approx(0.28571, abs=5e-6)
    assert ((fastest[1] / fastest[0]) ** 0.25).item() == pytest.approx(0.7311, abs=5e-5)


@SIZES
def test_the_same_text_further_on_is_the_same(geometry):
    q, k, v = inputs(geometry, 20)
    scheme = Xpos(geometry, scale_base=8.0)
    here, there = (attend_reference(scheme, torch.arange(20) + first, q, k, v) for first in (0, 300))
    assert_close(here, there, rtol=0, atol=1e-4)  # rounded angles


@pytest.mark.parametrize("causal", [True, False])
def test_32_training_lengths_are_exact_in_float32(causal):
    """Factors of a half of the training length, 1e-17 to 1e17, cancel."""
    scheme = Xpos(Geometry(32, 2, 8, causal), scale_base=4.0)
    q, k, v = inputs(scheme.geometry, 256)
    pos = scheme.positions(256)
    found = prepare(scheme, pos, training=False)(q.float(), k.float(), v.float())
    assert_close(found.double(), attend_reference(scheme, pos, q, k, v), rtol=0, atol=1e-5)


class Still(Xpos):
    """Decays and does not turn."""

    def angles(self, pos):
        return 0 * super().angles(pos)


def test_an_encoder_sees_as_far_to_either_side():
    """With angles of 0 a text and its mirror image are the same."""
    scheme = Still(ENCODER, scale_base=4.0)
    q, k, v = inputs(ENCODER, 20)
    forward, backward = (
        attend_reference(scheme, torch.arange(20), *x) for x in ((q, k, v), (q.flip(2), k.flip(2), v.flip(2)))
    )
    assert_close(backward.flip(2), forward, rtol=0, atol=1e-12)


def test_both_passes_on_their_path(small):
    for training in (True, False):
        check_path(Xpos(ENCODER, scale_base=16.0), 45, training)


def test_a_decay_that_is_none_is_told():
    with pytest.raises(ValueError, match=r"expected scale_base > 0, found 0.0"):
        Xpos(DECODER, scale_base=0.0)


class KeysGrowToo(Xpos):
    """Both times zeta^(+position): absolute, not relative."""

    def _turn(self, pos, side):
        turn = super()._turn(pos, side)
        return lambda q, k: (turn(q, k)[0], turn(k, k)[0])


class KeysAreOnlyTurned(Xpos):
    """The downscale is missing."""

    def _turn(self, pos, side):
        turn, plain = super()._turn(pos, side), Rope.rotation(self, pos)
        return lambda q, k: (turn(q, k)[0], plain(q, k)[1])


class OnePassForBothSides(Xpos):
    """What lies ahead grows with distance."""

    def branches(self, pos):
        return Rope.branches(self, pos)


class WrongWay(Xpos):
    def _turn(self, pos, side):
        return super()._turn(pos, -side)


@SIZES
@pytest.mark.parametrize("mutant", [KeysGrowToo, KeysAreOnlyTurned, OnePassForBothSides, WrongWay])
def test_a_bug_is_rejected(mutant, geometry):
    arguments = {"scale_base": 16.0, "base": 100.0}
    check_formula(Xpos, geometry, **arguments)
    if mutant is OnePassForBothSides and geometry.causal:
        check_formula(mutant, geometry, **arguments)  # for which it is right
    else:
        with pytest.raises(AssertionError, match="not close"):
            check_formula(mutant, geometry, **arguments)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_every_output_is_a_number_up_to_where_it_ends(causal, training):
    """Behind a window's mask, too, where products are formed that no query sees."""
    geometry = Geometry(16, 2, 8, causal)
    for scale_base in (4.0, 8.0):
        scheme = Xpos(geometry, scale_base)
        q, k, v = inputs(geometry, scheme.max_len, dtype=torch.float32)
        for one in (scheme, Window()(scheme, scheme.max_len)):
            attend = prepare(one, scheme.positions(scheme.max_len), training=training)
            assert attend(q, k, v).isfinite().all()
