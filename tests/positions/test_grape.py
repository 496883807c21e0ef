"""GRAPE-A: what its gates come down to, and the bugs that are told of it."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_path, check_same
from torch import nn

from extrap.positions.alibi import Alibi
from extrap.positions.grape import Grape, KeyGate

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER], ids=["causal", "encoder"])


@SIZES
def test_gates_that_read_nothing_are_alibi(geometry):
    scheme, alibi = Grape(geometry), Alibi(geometry)
    for gate in scheme.gates:
        nn.init.zeros_(gate.u)
    alibi.slopes *= math.log(2)
    check_same(scheme, alibi)


def test_at_the_start_its_own_factor_is_1():
    gate = Grape(DECODER).gates[0]
    assert torch.allclose(nn.functional.softplus(gate.omega), torch.ones(4))
    assert not torch.equal(*(gate.u for gate in Grape(DECODER).gates))


class GrapeOfOtherGates(Grape):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.gates = nn.ModuleList(self.KeyGate(geometry) for _ in range(geometry.n_layers))


class OfTheQuery(GrapeOfOtherGates):
    class KeyGate(KeyGate):
        def gate(self, seen):
            return super().gate(seen._replace(k=seen.q))


class OfAnyLength(GrapeOfOtherGates):
    """u counts by its length too."""

    class KeyGate(KeyGate):
        def gate(self, seen):
            return super().gate(seen._replace(k=seen.k * self.u.norm(dim=-1)[:, None, None]))


class Unscaled(GrapeOfOtherGates):
    class KeyGate(KeyGate):
        def gate(self, seen):
            return super().gate(seen._replace(k=seen.k * math.sqrt(self.geometry.head_dim)))


class OmegaBelowZero(GrapeOfOtherGates):
    class KeyGate(KeyGate):
        def gate(self, seen):
            return super().gate(seen) * (self.omega / nn.functional.softplus(self.omega))[:, None]


@SIZES
@pytest.mark.parametrize("mutant", [OfTheQuery, OfAnyLength, Unscaled, OmegaBelowZero])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(Grape, geometry)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry)


@SIZES
def test_on_its_path(geometry, small):
    (layer, _) = Grape(geometry).layers(2)
    check_path(layer, 45, training=False)
    check_path(layer, 16, training=True)
