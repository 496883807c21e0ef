"""The Forgetting Transformer: what its gates come down to, and the bugs that are told of it."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_same
from torch import nn

from extrap.positions.alibi import Alibi
from extrap.positions.fox import Fox, Gates
from extrap.positions.nope import Nope


@pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
def test_open_gates_are_no_positions_and_gates_of_the_bias_alone_are_alibi(geometry):
    open_, steady, alibi = Fox(geometry), Fox(geometry), Alibi(geometry)
    for gates in (*open_.gates, *steady.gates):
        nn.init.zeros_(gates.weight)
        nn.init.constant_(gates.bias, 100.0)
    check_same(open_, Nope(geometry))
    for gates in steady.gates:  # -log sigmoid(b) = m
        gates.bias.data[:] = -torch.log(torch.expm1(alibi.slopes))
    check_same(steady, alibi)


def test_at_the_start_a_token_costs_the_logarithm_of_2():
    assert -nn.functional.logsigmoid(Fox(DECODER).gates[0].bias)[0, 0].item() == pytest.approx(math.log(2))


class FoxOfOtherGates(Fox):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.gates = nn.ModuleList(self.Gates(geometry) for _ in range(geometry.n_layers))


class GateOfTheKey(FoxOfOtherGates):
    """Exclusive where it should be inclusive: the gates from the key on, without the query's own."""

    class Gates(Gates):
        def past(self, seen):
            steps = self.steps(seen, 0)
            return steps.cumsum(dim=-1) - steps


class GateOverSqrt(FoxOfOtherGates):
    """flash-linear-attention's PaTH-FoX: the gate divided by sqrt(K) like q . k."""

    class Gates(Gates):
        def steps(self, seen, side):
            return super().steps(seen, side) / math.sqrt(self.geometry.head_dim)


class RightSideOfXTransformers(FoxOfOtherGates):
    """Ahead it counts the key's gate and not the query's: no mirror image of the left side."""

    class Gates(Gates):
        def future(self, seen):
            return -self.steps(seen, 1).cumsum(dim=-1)


class GatesOfOneLayer(Fox):
    """The first layer's gates in all of them."""

    def layers(self, n_layers):
        return [self.gates[0]] * n_layers


class GatesInBfloat16(FoxOfOtherGates):
    """Rounded before they are summed."""

    class Gates(Gates):
        def steps(self, seen, side):
            return super().steps(seen, side).bfloat16().double()


@pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])
@pytest.mark.parametrize("mutant", [GateOfTheKey, GateOverSqrt, GatesOfOneLayer, RightSideOfXTransformers, GatesInBfloat16])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(Fox, geometry)
    if mutant is RightSideOfXTransformers and geometry.causal:
        check_formula(mutant, geometry)  # which has no right side
    else:
        with pytest.raises(AssertionError, match="not close"):
            check_formula(mutant, geometry)
