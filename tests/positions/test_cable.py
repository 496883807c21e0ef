"""Context-aware biases: what they come down to, and what is unlike the paper in public."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, ROUNDING, check_formula, check_same, inputs
from torch import nn
from torch.nn import functional as F

from extrap.model.definition import bias_of_content, content_of
from extrap.positions.alibi import Alibi
from extrap.positions.cable import Cable, Costs
from extrap.positions.fox import Fox


@pytest.fixture(params=[DECODER, ENCODER], ids=["causal", "encoder"])
def geometry(request):
    return request.param


def biases(scheme, seq_len=12):
    """(H, T, T) of each pass of the first layer."""
    layer, geometry = scheme.double().layers(2)[0], scheme.geometry
    q, k, _ = inputs(geometry, seq_len)
    x, i = torch.randn(1, seq_len, geometry.d_model, dtype=torch.float64), torch.arange(seq_len)
    passes = layer.branches(scheme.positions(seq_len))
    return [bias_of_content(branch, content_of(branch, q, k, x))(i, i)[0] for branch in passes]


def test_what_each_token_costs_adds_up_along_the_way():
    (bias,) = biases(Cable(DECODER))
    past = bias.tril()
    assert (past.diagonal(dim1=1, dim2=2) == 0).all()
    assert (past < ROUNDING).all()
    assert torch.allclose(past[:, 9, 5] + past[:, 5, 2], past[:, 9, 2])


def test_a_weight_is_of_the_query():
    """All that a query sees is scaled alike, so that no path adds up any more."""
    plain, weighted = Cable(DECODER), Cable(DECODER, "weighted")
    for a, b in zip(plain.costs, weighted.costs, strict=True):
        b.weight.data[:] = a.weight
        nn.init.normal_(b.strength)
    torch.manual_seed(1)
    (expected,) = biases(plain)
    torch.manual_seed(1)
    (found,) = biases(weighted)
    assert torch.allclose(found[:, 9, 2] * expected[:, 9, 5], found[:, 9, 5] * expected[:, 9, 2])
    assert not torch.allclose(found[:, 9, 5] + found[:, 5, 2], found[:, 9, 2])


def test_the_printed_form_prefers_what_is_far(geometry):
    past, *future = biases(Cable(geometry, "printed"))
    assert (past.tril() > -ROUNDING).all()
    assert (past[:, 11, 0] > past[:, 11, 10]).all()
    assert all((bias.triu() > -ROUNDING).all() for bias in future)


def test_costs_of_the_bias_alone_are_alibi(geometry):
    scheme, alibi = Cable(geometry), Alibi(geometry)
    for costs in scheme.costs:  # softplus(c) = m
        nn.init.zeros_(costs.weight)
        costs.bias.data[:] = alibi.slopes.expm1().log()
    check_same(scheme, alibi)


def test_the_released_form_is_fox_with_gates_of_the_opposite_sign(geometry):
    scheme, fox = Cable(geometry), Fox(geometry)
    for costs, gates in zip(scheme.costs, fox.gates, strict=True):
        gates.weight.data[:], gates.bias.data[:] = -costs.weight, -costs.bias
    check_same(scheme, fox)


def test_the_released_code_does_not_divide_scores():
    (branch,) = Cable(DECODER, scaled=False).layers(2)[0].branches(torch.arange(5))
    q, k, _ = inputs(DECODER, 5)
    turned, same = branch.rotate(q, k)
    assert torch.equal(turned, q * math.sqrt(DECODER.head_dim))
    assert same is k


class CableOfOtherCosts(Cable):
    def __init__(self, geometry, form="released", scaled=True):
        super().__init__(geometry, form, scaled)
        self.costs = nn.ModuleList(self.Costs(geometry, form, scaled) for _ in range(geometry.n_layers))


class PrintedSign(CableOfOtherCosts):
    """The sign of the paper's equations with the steps of its code."""

    class Costs(Costs):
        def steps(self, seen, side):
            return -super().steps(seen, side)


class WithoutSoftplus(CableOfOtherCosts):
    """Steps of either sign: some tokens bring what lies behind them nearer."""

    class Costs(Costs):
        def steps(self, seen, side):
            return -(seen.x @ self.weight[side].mT + self.bias[side]).mT.double()


class WithoutRelu(CableOfOtherCosts):
    class Costs(Costs):
        def steps(self, seen, side):
            return F.softplus(seen.x @ self.weight[side].mT).mT.double()


class WeightOfTheKey(CableOfOtherCosts):
    class Costs(Costs):
        def weighted(self, side, decay, seen):
            c, strength = decay(seen), F.softplus(seen.x @ self.strength[side].mT).mT
            return lambda i, j: strength[:, :, None, j] * (c[:, :, i, None] - c[:, :, None, j])


class Undivided(CableOfOtherCosts):
    """q . k as the released code has it, where it should be divided by sqrt(K)."""

    class Costs(Costs):
        def __init__(self, geometry, form, scaled):
            super().__init__(geometry, form, scaled=False)


@pytest.mark.parametrize(
    ("mutant", "form"),
    [
        *[(PrintedSign, "released"), (PrintedSign, "weighted"), (WithoutSoftplus, "released"), (Undivided, "released")],
        *[(WithoutRelu, "printed"), (WeightOfTheKey, "weighted"), (WeightOfTheKey, "printed")],
    ],
)
def test_a_bug_is_rejected(mutant, form, geometry):
    check_formula(Cable, geometry, range(12), form=form, scaled=True)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, range(12), form=form, scaled=True)
