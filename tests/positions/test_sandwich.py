"""Sandwich: golden numbers, what it is made of, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path
from torch.testing import assert_close

from extrap.positions.absolute import sinusoids
from extrap.positions.sandwich import Sandwich

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
DISTANCES = [1, 2, 8, 32, 128, 512, 4096]


def bias(scheme, distances):
    """(H, distances) of queries so far behind a key, and as far ahead."""
    pos, h = torch.arange(4097), torch.arange(4)[:, None]
    add, t, zero = scheme.score_mod(pos), torch.tensor(distances), torch.zeros(1, dtype=torch.float64)
    ahead = add(zero, None, h, 0 * t, t)
    assert torch.equal(ahead, add(zero, None, h, t, 0 * t))
    return ahead


def test_golden_numbers():
    expected = torch.tensor([-0.953, -3.309, -9.140, -14.161, -21.351, -24.978, -33.691], dtype=torch.float64)
    found = bias(Sandwich(DECODER), DISTANCES)
    assert_close(found[0], expected, rtol=0, atol=5e-4)
    assert_close(found, found[:1] / torch.arange(1, 5)[:, None], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dim", [128, 6])
def test_a_token_is_nearest_to_itself_and_others_are_not_in_order(dim):
    found = bias(Sandwich(DECODER, dim), [*range(400)])[0]
    assert found[0] == 0
    assert (found[1:] < 0).all()
    assert (found.diff() > 0).any()


@pytest.mark.parametrize("dim", [0, 5, -2])
def test_a_width_without_sine_and_cosine_is_refused(dim):
    with pytest.raises(ValueError, match=f"expected an even dim >= 2, found {dim}"):
        Sandwich(DECODER, dim)


class OfNemo(Sandwich):
    """Frequencies from the second to one beyond the last."""

    first, short = 1, 0

    def wave(self, angle):
        return angle.cos()

    def score_mod(self, pos):
        frequencies = 10_000.0 ** -(2 * torch.arange(self.first, self.dim // 2 + 1 - self.short) / self.dim).double()

        def add(score, b, h, i, j):
            waves = self.wave((pos[i] - pos[j])[..., None] * frequencies).sum(dim=-1)
            return score + (waves - self.dim / 2) / (8 * (h + 1) / self.geometry.n_heads)

        return add


class OfEarlyNemo(OfNemo):
    """Its first version: no cosine, and a frequency less."""

    short = 1

    def wave(self, angle):
        return angle


class HeadsFromZero(Sandwich):
    """The first head counted as the second, ..."""

    def score_mod(self, pos):
        inner = super().score_mod(pos)
        return lambda score, b, h, i, j: inner(score, b, h + 1, i, j)


def test_what_nemo_computes_is_known():
    found = bias(OfNemo(DECODER), DISTANCES)[0]
    expected = torch.tensor([-0.723, -2.601, -8.567, -14.078, -20.504, -23.981, -33.635], dtype=torch.float64)
    assert_close(found, expected, rtol=0, atol=5e-4)


@SIZES
@pytest.mark.parametrize("mutant", [OfNemo, OfEarlyNemo, HeadsFromZero])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(Sandwich, geometry, dim=16)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, dim=16)


@SIZES
def test_on_its_path_for_distances(geometry, small):
    scheme = Sandwich(geometry)
    assert scheme.branches(scheme.positions(45))[0].relative
    check_path(scheme, 45, training=False)
    check_path(scheme, 16, training=True)


def test_it_is_the_inner_product_of_sinusoids_whatever_the_positions():
    scheme, pos = Sandwich(ENCODER, dim=8), torch.tensor([3.5, 0.25, 1e5, -7.0], dtype=torch.float64)
    p, zero = sinusoids(pos, 8, 10_000.0), torch.zeros(1, dtype=torch.float64)
    i = torch.arange(4)
    found = scheme.score_mod(pos)(zero, None, torch.tensor(0), i[:, None], i)
    assert_close(found, (p @ p.T - 4) / 2, rtol=0, atol=1e-6)
