"""Absolute positions between those of training."""

import math

import pytest
import torch
from extending import L, T, answers, geometry_of
from torch.testing import assert_close

from extrap.extensions.tables import Interpolate, Squeezed
from extrap.positions.absolute import Learned, Sinusoidal
from extrap.positions.local import Local
from extrap.positions.rope import Rope
from extrap.positions.wrappers import Wrapper


def between(table, seq_len):
    """Row t (L - 1) / (n - 1) of a table, linear between rows."""
    rows = []
    for t in range(seq_len):
        place = t * (L - 1) / (seq_len - 1)
        low = math.floor(place)
        high, share = min(low + 1, L - 1), place - low
        rows.append([(1 - share) * a + share * b for a, b in zip(table[low], table[high], strict=True)])
    return torch.tensor(rows)


def sinusoids(d_model, seq_len):
    """Position t L / n."""
    rows = []
    for t in range(seq_len):
        angles = [t * L / seq_len * 10_000 ** (-2 * c / d_model) for c in range(d_model // 2)]
        rows.append([f(angle) for angle in angles for f in (math.sin, math.cos)])
    return torch.tensor(rows)


def added(scheme, seq_len=T):
    return scheme.embed(torch.zeros(1, seq_len, 32), scheme.eval().positions(seq_len))[0]


@pytest.mark.parametrize("around", [lambda scheme: scheme, Wrapper, lambda scheme: Local(scheme.geometry, scheme, 3)])
def test_what_is_added_stands_between_positions_of_training(around, causal):
    geometry = geometry_of(causal)
    learned, fixed = Learned(geometry), Sinusoidal(geometry)
    extended = Interpolate()(around(learned), T)
    assert extended.max_len is None
    assert not extended.tabular
    assert_close(added(extended), between(learned.table.tolist(), T), rtol=0, atol=1e-6)
    assert_close(added(Interpolate()(around(fixed), T)), sinusoids(32, T), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", [Learned, Sinusoidal])
def test_at_the_training_length_nothing_changes(scheme, causal):
    plain = scheme(geometry_of(causal))
    assert all(map(torch.equal, answers(Interpolate()(plain, L), L), answers(plain, L)))


def test_the_ends_of_a_table_are_its_ends():
    learned = Learned(geometry_of(True))
    found = added(Interpolate()(learned, T))
    assert torch.equal(found[0], learned.table[0])
    assert torch.equal(found[-1], learned.table[-1])
    short = Learned(geometry_of(True, train_len=1))
    assert torch.equal(added(Interpolate()(short, 3), 3), short.table.expand(3, -1))


def test_what_it_does_not_apply_to():
    geometry = geometry_of(True)
    assert Interpolate()(Rope(geometry), T) is None
    assert Interpolate()(Interpolate()(Learned(geometry), T), T) is None


class NearestRow(Wrapper):
    def embed(self, x, pos):
        return self.inner.embed(x, (pos * (L - 1) / (T - 1)).round().long())


class EndBeyondTheTable(Wrapper):
    """t L / n, which the last rows have nothing to be read between."""

    def embed(self, x, pos):
        place = pos * L / T
        low = place.long()
        return torch.lerp(*(self.inner.embed(x, row.clamp(max=L - 1)) for row in (low, low + 1)), (place - low)[:, None])


@pytest.mark.parametrize("mutant", [NearestRow, EndBeyondTheTable])
def test_a_bug_is_rejected(mutant):
    learned = Learned(geometry_of(True))
    with pytest.raises(AssertionError, match="not close"):
        assert_close(added(mutant(learned)), between(learned.table.tolist(), T), rtol=0, atol=1e-6)


def test_a_sinusoid_squeezed_the_wrong_way_is_rejected():
    with pytest.raises(AssertionError, match="not close"):
        assert_close(added(Squeezed(Sinusoidal(geometry_of(True)), L * L / T)), sinusoids(32, T), rtol=0, atol=1e-6)
