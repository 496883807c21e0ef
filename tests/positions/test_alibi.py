"""ALiBi in an encoder: what its variants come down to, which of them know left from right, and the bugs told of them."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same, inputs
from test_positions import check_mirror
from torch import nn

from extrap.model.attention import additive_bias, prepare
from extrap.positions.alibi import Alibi, alibi_slopes
from extrap.positions.base import Geometry

VARIANTS = ["half", "split", "two", "offset"]
LEARNED = pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])


def bias(scheme, seq_len=12):
    """(H, T, T)."""
    pos = scheme.positions(seq_len)
    return additive_bias(scheme.branches(pos)[0], scheme.geometry, pos[:, None], pos)[0]


@LEARNED
@pytest.mark.parametrize("variant", ["symmetric", *VARIANTS])
def test_learned_slopes_start_as_alibis(variant, learned):
    scheme, fixed = Alibi(ENCODER, variant, learned), Alibi(ENCODER, variant)
    assert scheme.direction_aware is (variant != "symmetric")
    check_same(scheme, fixed)
    assert [*dict(scheme.named_parameters())] == ["gate"] * learned + ["offset"] * (variant == "offset")
    check_same(Alibi(DECODER, learned=learned), Alibi(DECODER))


def test_half_a_step_is_for_keys_behind_alone():
    step = bias(Alibi(ENCODER, "half")) - bias(Alibi(ENCODER))
    assert torch.equal(step, 0.5 * Alibi(ENCODER).slopes[:, None, None] * torch.ones(12, 12).tril(-1))
    assert step.max() == 0.125


def test_split_heads_see_one_side_and_have_the_slopes_of_half_as_many():
    causal = bias(Alibi(Geometry(16, 2, 16, causal=True)))
    split = bias(Alibi(ENCODER, "split"))
    assert torch.equal(split, torch.cat([causal, causal.mT]))


def test_equal_slopes_and_no_offset_are_the_symmetric_bias():
    two, offset = Alibi(ENCODER, "two"), Alibi(ENCODER, "offset")
    assert torch.allclose(two.slopes[1], two.slopes[0] * 0.5)  # 2^(-4/4), between m_h and m_h / 4
    two.slopes[1] = two.slopes[0]
    for scheme in (two, offset):
        assert torch.equal(bias(scheme), bias(Alibi(ENCODER)))
    nn.init.constant_(offset.offset, 0.7)
    assert torch.allclose(bias(Alibi(ENCODER)) - bias(offset), torch.full((12, 12), 0.7).triu(1).expand(4, -1, -1))


@LEARNED
def test_all_but_the_symmetric_variant_know_a_text_from_its_mirror_image(learned):
    check_mirror(Alibi(ENCODER, learned=learned).double())
    for variant in VARIANTS:
        scheme = Alibi(ENCODER, variant, learned).double()
        if variant == "offset":
            nn.init.constant_(scheme.offset, 0.5)
        with pytest.raises(AssertionError, match="not close"):
            check_mirror(scheme)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_causal_model_has_no_other_side(variant):
    with pytest.raises(ValueError, match=f"variant {variant} is defined for encoders alone; expected objective=mlm"):
        Alibi(DECODER, variant)


def test_an_odd_number_of_heads_cannot_be_split():
    with pytest.raises(ValueError, match="half ahead: expected an even number of heads, found 3"):
        Alibi(Geometry(24, 3, 16, causal=False), "split")


@LEARNED
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_its_path_for_distances(variant, learned, small):
    scheme = Alibi(ENCODER, variant, learned)
    for parameter in scheme.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    assert scheme.branches(scheme.positions(45))[0].relative
    check_path(scheme, 45, training=False)
    check_path(scheme, 16, training=True)


def test_what_a_head_does_not_see_it_does_not_read(small):
    q, k, v = inputs(ENCODER, 45)
    scheme = Alibi(ENCODER, "split")
    k[..., 40, :] = torch.nan
    found = prepare(scheme, scheme.positions(45), training=False)(q, k, v)
    assert not found[:, :2, :32].isnan().any()  # up to the block of the spoiled key


class HalfAStepAtTheTokenItself(Alibi):
    def score_mod(self, pos):
        inner = super().score_mod(pos)
        return lambda score, b, h, i, j: inner(score, b, h, i, j) + 0.5 * self.slopes[h] * (i == j)


class SplitOfAllSlopes(Alibi):
    """The full list cut in two: heads that look ahead are nearly flat."""

    def __init__(self, geometry, variant):
        super().__init__(geometry, variant)
        self.slopes = alibi_slopes(geometry.n_heads).float()


class SplitTheOtherWay(Alibi):
    def mask_mod(self, pos):
        return super().mask_mod(-pos)


class TwoTheOtherWay(Alibi):
    def __init__(self, geometry, variant):
        super().__init__(geometry, variant)
        self.slopes = self.slopes.flip(0)


class OffsetBehind(Alibi):
    def score_mod(self, pos):
        return super().score_mod(-pos)


@pytest.mark.parametrize(
    ("mutant", "variant"),
    [(HalfAStepAtTheTokenItself, "half"), (SplitOfAllSlopes, "split"), (SplitTheOtherWay, "split"), (TwoTheOtherWay, "two"),
     (OffsetBehind, "offset")],
)  # fmt: skip
def test_a_bug_is_rejected(mutant, variant):
    check_formula(Alibi, ENCODER, variant=variant)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, ENCODER, variant=variant)


class SlopesBelowZero(Alibi):
    """The trained number itself, which may leave the positive ones."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: score + self.gate[h] * (pos[i] - pos[j]).abs()


@pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
def test_a_learned_slope_is_never_negative(geometry):
    check_formula(Alibi, geometry, learned=True)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(SlopesBelowZero, geometry, learned=True)
