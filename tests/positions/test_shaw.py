"""Relative position representations: where they end, and the bugs that are told of them."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_same, inputs
from torch import nn

from extrap.positions.nope import Nope
from extrap.positions.shaw import Offsets, Shaw


@pytest.fixture(params=[DECODER, ENCODER], ids=["causal", "encoder"])
def geometry(request):
    return request.param


def bias_of(layer, q, pos):
    """(B, H, T, T)."""
    (branch,) = layer.double().branches(pos)
    i = torch.arange(len(pos))
    return branch.content(type("Seen", (), {"q": q}))(i, i)


def test_a_table_of_zeros_is_no_positions(geometry):
    scheme = Shaw(geometry)
    for layer in scheme.tables:
        nn.init.zeros_(layer.table)
    check_same(scheme, Nope(geometry))


def test_beyond_the_clip_all_distances_are_alike(geometry):
    q, _, _ = inputs(geometry, 20)
    bias = bias_of(Offsets(geometry, 3), q, torch.arange(20))
    assert (bias[..., 12, :10] == bias[..., 12, :1]).all()
    assert (bias[..., 12, 10] != bias[..., 12, 9]).all()
    if not geometry.causal:
        assert (bias[..., 12, 15:] == bias[..., 12, 19:]).all()
        assert (bias[..., 12, 14] != bias[..., 12, 15]).all()


def test_a_clip_of_the_whole_input_gives_every_distance_a_vector(geometry):
    q, _, _ = inputs(geometry, 9)
    layer = Offsets(geometry, 8)
    distance = torch.arange(9) - torch.arange(9)[:, None] + 8
    vectors = layer.double().table[:, distance.clamp(max=layer.table.shape[1] - 1)]
    expected = torch.einsum("bhik,hijk->bhij", q, vectors) / geometry.head_dim**0.5
    found = bias_of(layer, q, torch.arange(9))
    assert torch.allclose(found.tril(), expected.tril())
    assert geometry.causal or torch.allclose(found, expected)
    assert layer.table.shape == (4, 9 if geometry.causal else 17, 8)


class ShawOfOtherOffsets(Shaw):
    def __init__(self, geometry, clip):
        super().__init__(geometry, clip)
        self.tables = nn.ModuleList(self.Offsets(geometry, clip) for _ in range(geometry.n_layers))


class QueryMinusKey(ShawOfOtherOffsets):
    """i - j in place of j - i: the halves of the table change places, in an encoder alone; otherwise it is reversed."""

    class Offsets(Offsets):
        def rows(self, q_pos, k_pos):
            return (q_pos[:, None] - k_pos).clamp(-self.last, self.clip) + self.last


class ClippedAfterShift(ShawOfOtherOffsets):
    """Everything before the query has its row."""

    class Offsets(Offsets):
        def rows(self, q_pos, k_pos):
            return (k_pos - q_pos[:, None] + self.clip).clamp(self.clip, self.clip + self.last)


class PositionUndivided(ShawOfOtherOffsets):
    """The vector of the distance outside of the root."""

    class Offsets(Offsets):
        def branches(self, pos):
            (branch,) = super().branches(pos)
            root = self.geometry.head_dim**0.5

            def content(seen):
                bias = branch.content(seen)
                return lambda i, j: bias(i, j) * root

            return (branch._replace(content=content),)


@pytest.mark.parametrize("mutant", [QueryMinusKey, ClippedAfterShift, PositionUndivided])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(Shaw, geometry, clip=5)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, clip=5)


def test_a_reversed_table_is_the_same_causal_model():
    reversed_, plain = QueryMinusKey(DECODER, clip=5), Shaw(DECODER, clip=5)
    for mine, theirs in zip(reversed_.tables, plain.tables, strict=True):
        mine.table.data[:] = theirs.table.flip(1)
    check_same(reversed_, plain)


def test_without_a_distance_to_tell_it_is_refused():
    with pytest.raises(ValueError, match="expected clip >= 1, found 0"):
        Shaw(ENCODER, clip=0)
