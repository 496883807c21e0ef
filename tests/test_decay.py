"""The fast path of a bias c_i - c_j: what it does not read weighs nothing, and what it might read it reads."""

import pytest
import torch
from checking import DECODER, FLOAT32, inputs
from torch.testing import assert_close

from extrap.model import decay
from extrap.model.decay import first_keys
from extrap.model.definition import attend_reference
from extrap.positions.base import Branch, PositionScheme


def decayed(c, q, k, v):
    class Decayed(PositionScheme):
        def branches(self, pos):
            return (Branch(decay=lambda seen: c),)

    return attend_reference(Decayed(DECODER), torch.arange(c.shape[-1]), q, k, v)


def fast_and_exact(c, q, k, v):
    exact = decayed(c, *(part.double() for part in (q, k, v)))
    return decay.attend_decay(c, q, k, v), exact


def test_what_has_decayed_is_not_read(small):
    q, k, v = inputs(DECODER, 400, dtype=torch.float32)
    c = -torch.tensor([1.0, 0.3, 0.01, 0.0])[:, None] * torch.arange(400, dtype=torch.float64).expand(1, 4, -1)
    firsts = first_keys(c, q, k)
    assert firsts[0] == sorted(firsts[0])
    assert 300 < firsts[0][-1] < 400 - 8
    assert 200 < firsts[1][-1] < firsts[0][-1]
    assert firsts[3] == [0] * 50
    found, exact = fast_and_exact(c, q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)
    v[:, 0, : firsts[0][-1]] = torch.nan  # spoils whatever reads it
    assert torch.equal(decay.attend_decay(c, q, k, v)[:, 0, -8:], found[:, 0, -8:])


def test_a_large_key_a_decay_that_stops_and_one_that_rises_leave_nothing_out(small):
    """What counts is the largest score that any pair could have, and the sum of the steps wherever they are."""
    q, k, v = inputs(DECODER, 400, dtype=torch.float32)
    k[0, 0, 3] = 30 * q[0, 0, 390] / q[0, 0, 390].square().sum().sqrt()
    steps = torch.rand(1, 4, 400, dtype=torch.float64)
    steps[:, 1, 100:] = 0
    steps[:, 2, 200:] *= -1
    found, exact = fast_and_exact(-steps.cumsum(dim=-1), q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("which", ["c", "q", "k"])
def test_numbers_that_are_no_numbers_leave_nothing_out(which, small):
    q, k, _ = inputs(DECODER, 45, dtype=torch.float32)
    tensors = {"c": -9.0 * torch.arange(45.0).expand(1, 4, -1).double(), "q": q, "k": k}
    before = first_keys(**tensors)
    assert all(first[-1] > 0 for first in before)
    tensors["c"] = tensors["c"].clone()  # or all heads would be one
    tensors[which][0, 0, 20] = torch.nan
    assert first_keys(**tensors) == [[0] * 6, *before[1:]]


def test_long_sums_lose_nothing_near_by():
    """100,000 tokens at 0.7 each: in float32 neighbours would differ by a multiple of 0.008."""
    q, k, v = (torch.randn(1, 1, 300, 8) for _ in range(3))
    c = -(100_000 + torch.arange(300, dtype=torch.float64)) * 0.7
    found, exact = fast_and_exact(c.expand(1, 1, -1), q, k, v)
    assert_close(found.double(), exact, rtol=0, atol=FLOAT32)
    assert_close(found, decay.attend_decay((c - c[0]).expand(1, 1, -1), q, k, v), rtol=0, atol=FLOAT32)
