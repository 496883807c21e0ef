"""Contextual positions: gates that are all open count tokens, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same, inputs
from torch import nn

from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.positions.cope import Cope, Counted
from extrap.positions.nope import Nope


def test_a_table_of_zeros_is_no_positions():
    check_same(Cope(DECODER, n_positions=6), Nope(DECODER))


def test_it_is_not_defined_for_an_encoder():
    with pytest.raises(ValueError, match="Cope is defined for causal models alone; expected objective=causal"):
        Cope(ENCODER)


def test_it_is_not_rounded_by_bfloat16():
    """A sum of 100 gates has a step of 0.5 in bfloat16: the bias would be that of another position."""
    scheme = Counted(DECODER, n_positions=100)
    nn.init.normal_(scheme.table)
    q, k, v = (x.to(torch.bfloat16).float() for x in inputs(DECODER, 128))
    pos = scheme.positions(128)
    attend = prepare(scheme, pos, training=True)
    exact = attend_reference(scheme, pos, q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(q, k, v)
    assert (rounded - exact).abs().max() < 0.03


class AllOpen(Counted):
    def gates(self, q, k, i, j):
        return (j <= i[:, None]).to(q.dtype).expand(*q.shape[:-1], -1)


def test_open_gates_count_tokens():
    """p = i - j + 1: a learned vector a distance, clipped, which the query weighs (Shaw et al. 2018, keys alone)."""
    scheme = AllOpen(DECODER, n_positions=6)
    nn.init.normal_(scheme.table)
    q, k, _ = inputs(DECODER, 20)
    i = torch.arange(20)
    (branch,) = scheme.double().branches(i)
    seen = type("Seen", (), {"q": q, "k": k})
    distance = (i[:, None] - i + 1).clamp(0, 5)
    expected = torch.einsum("bhik,ijk->bhij", q, scheme.table[distance])
    assert torch.allclose(branch.content(seen)(i, i).tril(), expected.tril())


class CopeOfOtherCounts(Cope):
    def __init__(self, geometry, n_positions):
        super().__init__(geometry, n_positions)
        self.counted = nn.ModuleList(self.Counted(geometry, n_positions) for _ in range(geometry.n_layers))


class CountsTheFuture(CopeOfOtherCounts):
    """Sigmoid of what the mask has set to 0."""

    class Counted(Counted):
        def gates(self, q, k, i, j):
            return torch.sigmoid(torch.where(j <= i[:, None], q @ k.mT / q.shape[-1] ** 0.5, 0))


class CountsFromTheLeft(CopeOfOtherCounts):
    class Counted(Counted):
        def gates(self, q, k, i, j):
            return super().gates(q, k, i, j).flip(-1)


class GateOfUnscaledScores(CopeOfOtherCounts):
    class Counted(Counted):
        def gates(self, q, k, i, j):
            return super().gates(q * q.shape[-1] ** 0.5, k, i, j)


class OneTable(Cope):
    """That of the first layer in all of them."""

    def layers(self, n_layers):
        return [self.counted[0]] * n_layers


@pytest.mark.parametrize("mutant", [CountsTheFuture, CountsFromTheLeft, GateOfUnscaledScores, OneTable])
def test_a_bug_is_rejected(mutant):
    check_formula(Cope, DECODER, n_positions=6)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, DECODER, n_positions=6)


@pytest.mark.parametrize("n_positions", [6, 64])
def test_on_its_path(n_positions, small):
    check_path(Cope(DECODER, n_positions), 45, training=False)
