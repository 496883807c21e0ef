"""Spectra of RoPE: partial, p-RoPE and learned; what they come down to, and the bugs that are told of them."""

import math
from dataclasses import replace

import pytest
import torch
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_formula, check_same, inputs

from extrap.extensions.angles import Ntk
from extrap.model.definition import attend_reference
from extrap.positions.absolute import Sinusoidal
from extrap.positions.alibi import Alibi
from extrap.positions.base import Geometry
from extrap.positions.nope import Nope
from extrap.positions.rope import LearnedRope, PartialRope, PRope, Rope, powers
from extrap.positions.wrappers import Wrapper
from extrap.positions.xpos import Xpos

SMALL = Geometry(d_model=128, n_heads=4, train_len=128, causal=False, n_layers=2)  # the model of the main experiment: K = 32
SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


@SIZES
@pytest.mark.parametrize("cls", [PartialRope, PRope])
def test_all_pairs_are_rope_and_none_are_no_positions(cls, geometry):
    check_same(cls(geometry, fraction=1.0), Rope(geometry))
    check_same(cls(geometry, fraction=0.0), Nope(geometry))


@SIZES
def test_learned_frequencies_start_as_those_of_rope(geometry):
    check_same(LearnedRope(geometry, base=500.0), Rope(geometry, base=500.0))


def test_which_frequencies_a_quarter_holds():
    """PartialRope has the spectrum of 8 dimensions, p-RoPE the fastest quarter of that of 32."""
    partial, kept = PartialRope(SMALL, 0.25).frequencies().tolist(), PRope(SMALL, 0.25).frequencies().tolist()
    assert partial == pytest.approx([1, 0.1, 0.01, 0.001])
    assert kept == pytest.approx([1, 0.562341, 0.316228, 0.177828] + [0] * 12, rel=1e-5)


def test_6_of_16_pairs_turn_within_128_tokens():
    turns = 128 * PRope(SMALL).frequencies() / (2 * math.pi)
    assert turns.tolist() == pytest.approx([20.372, 11.456, 6.442, 3.623, 2.037, 1.146] + [0] * 10, abs=5e-4)
    assert (128 * Rope(SMALL).frequencies() / (2 * math.pi))[6:9].tolist() == pytest.approx([0.644, 0.362, 0.204], abs=5e-4)
    assert torch.equal(PRope(SMALL).frequencies(), PRope(SMALL, fraction=0.375).frequencies())


@pytest.mark.parametrize("fraction", [0.7, 0.3, 0.1])
def test_a_fraction_of_whole_pairs_is_that_many(fraction):
    assert PRope(Geometry(20, 1, 16, causal=True), fraction).n_pairs == round(10 * fraction)


@pytest.mark.parametrize("cls", [PartialRope, PRope])
def test_dimensions_that_are_not_rotated_are_untouched(cls):
    scheme = cls(ENCODER, fraction=0.5)
    for before in inputs(ENCODER, 45)[:2]:
        after, _ = scheme.rotation(scheme.positions(45))(before, before)
        assert torch.equal(after[..., 4:], before[..., 4:])
        assert (after[..., 1:, :4] != before[..., 1:, :4]).all()


@pytest.mark.parametrize(("scheme", "slowest"), [(PartialRope, 4), (PRope, 7), (LearnedRope, 7), (Xpos, 7)])
def test_a_larger_base_is_one_over_the_pairs_that_share_it(scheme, slowest):
    """NTK-aware scaling slows the last pair of the spectrum by k: the last of those that are rotated, or of all."""
    scheme = scheme(Geometry(16, 1, 16, causal=True), **({} if scheme in (LearnedRope, Xpos) else {"fraction": 0.625}))
    pos = torch.arange(45)
    slowed = Ntk()(scheme, 64)
    ratio = slowed.angles(pos)[1:] / scheme.angles(pos)[1:]
    assert ratio[:, 0].tolist() == pytest.approx([1] * 44)
    for pair in range(8):
        if scheme.angles(pos)[1, pair] > 0:
            assert ratio[:, pair].tolist() == pytest.approx([4 ** -(pair / slowest)] * 44)


def test_trained_frequencies_turn_as_far_as_they_say():
    scheme = LearnedRope(ENCODER)
    scheme.log_factors.data[:] = torch.tensor([0.0, math.log(2), 0.0, -math.log(4)])
    assert (scheme.frequencies() / Rope(ENCODER).frequencies()).tolist() == pytest.approx([1, 2, 1, 0.25])


@pytest.mark.parametrize("cls", [PartialRope, PRope])
def test_what_is_no_fraction_is_told(cls):
    for fraction in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"expected a fraction of the pairs of dimensions, 0 to 1, found {fraction}"):
            cls(ENCODER, fraction)


# ---- SHAPE


class Shape(Wrapper):
    """One offset for all positions, drawn while training (Kiyono et al. 2021)."""

    def positions(self, seq_len, device=None):
        pos = self.inner.positions(seq_len, device)
        return pos + torch.randint(100, (1,), device=device) if self.training else pos


@SIZES
def test_an_offset_for_all_positions_is_nothing_to_a_scheme_of_distances(geometry):
    q, k, v = inputs(geometry, 16)

    def outputs(inner):
        return [attend_reference(one, one.positions(16), q, k, v) for one in (Shape(inner).train(), inner)]

    assert torch.allclose(*outputs(Rope(geometry)), atol=1e-5)  # angles are rounded
    assert torch.equal(*outputs(Alibi(geometry)))
    absolute = Sinusoidal(geometry)
    shifted, plain = (
        absolute.embed(torch.zeros(1, 16, geometry.d_model), one.positions(16))
        for one in (Shape(absolute).train(), absolute)
    )
    assert (shifted - plain).abs().max() > 0.5


# ---- bugs


class ExponentOverTheHead(PartialRope):
    """base^(-2k/K): the fastest pairs of RoPE."""

    def frequencies(self, device=None):
        return PRope(self.geometry, self.n_pairs / self.geometry.head_dim * 2, self.base).frequencies(device)


class ExponentOverTheKept(PRope):
    """base^(-2k/r): the whole spectrum."""

    def frequencies(self, device=None):
        return powers(self.base, 2 * self.n_pairs)


class KeepsTheSlow(PRope):
    def frequencies(self, device=None):
        return Rope.frequencies(self, device) - super().frequencies(device)


class CountsAgain(PRope):
    """A fork of HoPE: pairs that turn within what is read, not within what was trained on."""

    def angles(self, pos):
        self.n_pairs = PRope(replace(self.geometry, train_len=len(pos)), base=self.base).n_pairs
        return super().angles(pos)


def test_which_pairs_turn_does_not_follow_the_input():
    scheme, mutant = PRope(SMALL), CountsAgain(SMALL)
    for cls in (scheme, mutant):
        assert cls.angles(torch.arange(128))[-1].count_nonzero() == 6
    assert scheme.angles(torch.arange(4096))[-1].count_nonzero() == 6
    assert mutant.angles(torch.arange(4096))[-1].count_nonzero() > 6


class FactorsAreNoLogarithms(LearnedRope):
    def frequencies(self, device=None):
        return Rope.frequencies(self, device) * (1 + self.log_factors)


class OnlyTheQuery(LearnedRope):
    """Keys keep the frequencies of RoPE."""

    def rotation(self, pos):
        trained, fixed = super().rotation(pos), Rope(self.geometry, self.base).rotation(pos)
        return lambda q, k: (trained(q, k)[0], fixed(q, k)[1])


@SIZES
@pytest.mark.parametrize(
    "mutant", [ExponentOverTheHead, ExponentOverTheKept, KeepsTheSlow, FactorsAreNoLogarithms, OnlyTheQuery]
)
def test_a_bug_is_rejected(mutant, geometry):
    real = mutant.mro()[1]
    arguments = {"base": 100.0} | ({} if real is LearnedRope else {"fraction": 0.7})
    check_formula(real, geometry, **arguments)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, **arguments)
