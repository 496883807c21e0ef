"""Biases that reach further: distances divided, slopes flattened, and the bugs that are told of them."""

import math

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of
from references.alibi import alibi
from references.base import Reference, scaled
from references.kerple import kerple
from references.t5 import t5
from torch import nn
from torch.testing import assert_close

from extrap.extensions.biases import NtkAlibi, Rescale, Rescaled
from extrap.positions.alibi import Alibi
from extrap.positions.base import Geometry
from extrap.positions.fox import Fox
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sinks import Sinks
from extrap.positions.t5 import T5


def divided(reference, read=lambda t: t):
    """B(t L / n), the product of query and key as it is."""
    return reference._replace(score=lambda q, k, i, j, h: reference.score(q, k, read((i - j) * L / T), 0, h))


def biased(geometry):
    """Schemes of distance beside their formulas."""
    steps, curved = T5(geometry, n_buckets=8, max_distance=20), Kerple(geometry)
    nn.init.normal_(steps.bias)
    return [
        (Alibi(geometry), divided(alibi(geometry))),
        (curved, divided(kerple(geometry, curved.r1.tolist(), curved.r2.tolist()))),
        (steps, divided(t5(geometry, steps.bias.tolist(), 8, 20), math.trunc)),
    ]


def test_distances_are_divided(causal, small):
    geometry = geometry_of(causal)
    for scheme, reference in biased(geometry):
        check_layers(Rescale()(scheme, T), [reference] * 2)
        wide = reference._replace(keep=lambda i, j: abs(i - j) < L + 1)
        check_layers(Rescale()(Local(geometry, scheme, L + 1), T), [wide] * 2)


def test_layers_that_see_no_further_than_training_and_rotations_stay(causal, small):
    geometry, plain = geometry_of(causal), alibi(geometry_of(causal))
    near = Local(geometry, Alibi(geometry), L)
    local = plain._replace(keep=lambda i, j: abs(i - j) < L)
    for extension, far in ((Rescale(), divided(plain)), (NtkAlibi(), flattened(geometry))):
        check_layers(extension(Mixed(geometry, near, Alibi(geometry)), T), [local, far])
        for scheme in (near, Sinks(geometry, near), Rope(geometry), Nope(geometry), Fox(geometry)):
            assert extension(scheme, T) is None
    assert NtkAlibi()(Kerple(geometry), T) is None


def test_a_rescaled_bias_keeps_its_fast_path(causal, small):
    for scheme, _ in biased(geometry_of(causal)):
        (branch,) = Rescale()(scheme, T).branches(scheme.positions(T))
        assert branch.relative
        extended = Rescale()(scheme, 45)
        assert_close(answers(extended, 45, exact=False), answers(extended, 45), rtol=0, atol=1e-5)


@pytest.mark.parametrize("extension", [Rescale(), NtkAlibi()])
def test_at_the_training_length_nothing_changes(extension, causal):
    for scheme, _ in biased(geometry_of(causal)):
        extended = extension(scheme, L)
        assert extended is None or all(map(torch.equal, answers(extended, L), answers(scheme, L)))


# ---- slopes


def flattened(geometry):
    """m_h / a^((h - 1) / (H - 1)), heads from 1, a = n / L."""

    def score(q, k, i, j, h):
        slope = 2 ** (-8 * (h + 1) / geometry.n_heads) / (T / L) ** (h / (geometry.n_heads - 1))
        return scaled(q, k, i, j, h) - slope * abs(i - j)

    return Reference(score=score)


def test_slopes_are_flattened(causal, small):
    geometry = geometry_of(causal)
    check_layers(NtkAlibi()(Alibi(geometry), T), [flattened(geometry)] * 2)


def slopes(n_heads, k):
    extended = NtkAlibi()(Alibi(Geometry(n_heads * 8, n_heads, L, causal=True)), k * L)
    return None if extended is None else extended.slopes.tolist()


def test_known_slopes():
    assert slopes(4, 1) == [0.25, 0.0625, 0.015625, 0.00390625]
    assert slopes(4, 4) == pytest.approx([0.25, 0.039373, 0.0062008, 0.00097656], rel=1e-4)
    assert slopes(1, 4) is None


def test_further_slopes_follow_the_same_rule():
    """6 heads: 2^-2 to 2^-8, and then 2^-1, the steepest, and 2^-3."""
    for slope, raw in zip(slopes(6, 4), [2, 4, 6, 8, 1, 3], strict=True):
        assert slope == pytest.approx(2**-raw * 4 ** (-(raw - 1) / 7))


@pytest.mark.parametrize("variant", ["half", "split", "two", "offset"])
def test_slopes_of_other_variants(variant):
    """The steepest of both sides stays, the flattest is divided by k."""
    scheme = Alibi(geometry_of(False), variant)
    factors = NtkAlibi()(scheme, 4 * L).slopes / scheme.slopes
    assert factors.flatten()[scheme.slopes.argmax()] == 1
    assert factors.flatten()[scheme.slopes.argmin()] == pytest.approx(0.25)


def test_trained_slopes():
    scheme = Alibi(geometry_of(True), learned=True)
    assert NtkAlibi()(scheme, 4 * L).steepness().tolist() == pytest.approx(slopes(4, 4), rel=1e-5)
    assert scheme.learned


def test_variants_and_learned_slopes_are_flattened_as_they_are():
    encoder = geometry_of(False)
    for variant in ("half", "offset", "symmetric"):
        for learned in (False, True):
            extended = NtkAlibi()(Alibi(encoder, variant, learned), T)
            assert_close(extended.steepness(), NtkAlibi()(Alibi(encoder), T).slopes)
    two, k = NtkAlibi()(Alibi(encoder, "two"), 4 * L).slopes, 4
    assert two[0, 0] == 0.25
    assert two[1, -1] * k == pytest.approx(Alibi(encoder, "two").slopes[1, -1].item())
    assert NtkAlibi()(Alibi(Geometry(16, 2, L, causal=False), "split"), T) is None


def test_the_scheme_itself_keeps_its_slopes():
    alibi_ = Alibi(geometry_of(True))
    before = alibi_.slopes.clone()
    NtkAlibi()(alibi_, T)
    assert torch.equal(alibi_.slopes, before)


# ---- bugs


class Stretched(Rescaled):
    """t k instead of t / k."""

    def __init__(self, inner, eval_len):
        super().__init__(inner, L * L / eval_len)


class OfTheLength(Rescaled):
    """k = n instead of n / L."""

    def __init__(self, inner, eval_len):
        super().__init__(inner, eval_len * L)


class EveryHeadAlike(NtkAlibi):
    """Position interpolation: all slopes divided by k."""

    def __call__(self, scheme, eval_len):
        return Rescaled(scheme, eval_len)


class FromTheSecondHead(NtkAlibi):
    """m_h k^(-h / H), which flattens the steepest, too."""

    def __call__(self, scheme, eval_len):
        extended = super().__call__(scheme, eval_len)
        k, heads = eval_len / L, torch.arange(1, 5)
        extended._buffers = {"slopes": scheme.slopes * k ** -(heads / 4)}
        return extended


@pytest.mark.parametrize("mutant", [Stretched, OfTheLength])
def test_a_bug_in_distances_is_rejected(mutant, small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant(Alibi(geometry), T), [divided(alibi(geometry))] * 2)


@pytest.mark.parametrize("mutant", [EveryHeadAlike, FromTheSecondHead])
def test_a_bug_in_slopes_is_rejected(mutant, small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant()(Alibi(geometry), T), [flattened(geometry)] * 2)


def test_trained_slopes_that_have_become_one_stay():
    """Flat or steep, none of them differs from the others: 0 / 0 would be no number."""
    scheme = Alibi(geometry_of(True), learned=True)
    nn.init.constant_(scheme.gate, 2.0)
    assert torch.equal(NtkAlibi()(scheme, 4 * L).steepness(), scheme.steepness())
