"""KERPLE's kernels: what they come down to, and the bugs that are told of them."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same

from extrap.positions.alibi import Alibi
from extrap.positions.kerple import Kerple

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
KERNELS = ["log", "power", "three"]


def kerple(geometry, kernel="log", **values):
    scheme = Kerple(geometry, kernel)
    for name, value in values.items():
        scheme.get_parameter(name).data[:] = torch.as_tensor(value)
    return scheme


@SIZES
def test_a_power_of_1_is_alibi(geometry):
    alibi = Alibi(geometry)
    alibi.slopes.clamp_(min=0.01)  # as steep as the flattest of KERPLE
    check_same(kerple(geometry, "power", r1=alibi.slopes, r2=1.0), alibi)


@SIZES
def test_a_logarithm_is_linear_where_it_is_flat(geometry):
    alibi = Alibi(geometry)
    check_same(kerple(geometry, r1=100 * alibi.slopes, r2=0.01), alibi, seq_len=3, atol=0.01)


@SIZES
def test_three_parameters_of_which_one_is_1_are_two(geometry):
    start = {"r1": [0.3, 0.9, 1.1, 1.9], "r2": [0.1, 0.3, 0.7, 0.9]}
    check_same(kerple(geometry, "three", **start, r3=1.0), kerple(geometry, **start))


def test_where_parameters_start():
    """As in the released code: exponents and the r1 of the logarithm within (0, 2), other factors within (0, 1)."""
    highest = {"log": (2, 1), "power": (1, 2), "three": (2, 1, 2)}
    for kernel, ends in highest.items():
        draws = [[r.max().item() for r in Kerple(DECODER, kernel).parameters()] for _ in range(40)]
        for end, found in zip(ends, torch.tensor(draws).amax(dim=0), strict=True):
            assert 0.9 * end < found < end


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_numbers_at_a_distance_of_0_and_at_bounds(kernel):
    for value in (-1.0, 0.01, 2.0, 5.0):
        scheme = kerple(ENCODER, kernel, **{name: value for name, _ in Kerple(ENCODER, kernel).named_parameters()})
        pos, zero = scheme.positions(3), torch.zeros(1, 1, 3, 3)
        h = torch.arange(4)[:, None, None]
        (scheme.score_mod(pos)(zero, None, h, pos[:, None], pos) * torch.randn(4, 3, 3)).sum().backward()
        for name, parameter in scheme.named_parameters():
            assert parameter.grad.isfinite().all(), (name, value)
            assert parameter.grad.abs().min() > 0, (name, value)


class UnboundedExponent(Kerple):
    """Beyond 2 the kernel is no longer conditionally positive definite."""

    def score_mod(self, pos):
        return lambda score, b, h, i, j: (
            score - self.r1[h].clamp(min=0.01) * (pos[i] - pos[j]).abs() ** self.r2[h].clamp(min=0.01)
        )


class OverSqrt(Kerple):
    """Within the root, as equation 1 has it and the released code does not."""

    def score_mod(self, pos):
        inner = super().score_mod(pos)
        return lambda score, b, h, i, j: score + inner(0, b, h, i, j) / math.sqrt(self.geometry.head_dim)


class NothingAhead(Kerple):
    """The released code's triangle of distances, right under a causal mask alone: in an encoder nothing decays ahead."""

    def score_mod(self, pos):
        inner = super().score_mod(torch.cat([pos, pos]))
        return lambda score, b, h, i, j: inner(score, b, h, i, torch.minimum(i, j))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mutant", [OverSqrt, NothingAhead])
def test_a_bug_is_rejected(mutant, kernel):
    check_formula(Kerple, ENCODER, kernel=kernel)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, ENCODER, kernel=kernel)


@SIZES
def test_an_exponent_above_2_counts_as_2(geometry):
    values = {"r1": [0.02, 0.02, 0.03, 0.04], "r2": [2.0, 2.0, 0.01, 1.5]}
    bounded = kerple(geometry, "power", **values)
    beyond = kerple(geometry, "power", **values | {"r2": [2.3, 9.0, -1.0, 1.5]})
    check_same(beyond, bounded)
    mutant = UnboundedExponent(geometry, "power")
    mutant.load_state_dict(beyond.state_dict())
    with pytest.raises(AssertionError, match="not close"):
        check_same(mutant, bounded)


@SIZES
@pytest.mark.parametrize("kernel", KERNELS)
def test_on_its_path_for_distances(kernel, geometry, small):
    scheme = Kerple(geometry, kernel)
    assert scheme.branches(scheme.positions(45))[0].relative
    check_path(scheme, 45, training=False)
    check_path(scheme, 16, training=True)
