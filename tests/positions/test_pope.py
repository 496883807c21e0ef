"""PoPE: sizes that are read, angles that are places, twice the numbers on every path, and the bugs that are told of it."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_formula, check_path, inputs
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from extrap.model.attention import prepare
from extrap.positions.local import Local
from extrap.positions.pope import Pope
from extrap.positions.sinks import Sinks
from extrap.positions.wrappers import Wrapper

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


def scores(scheme, q, k, pos):
    q, k = scheme.rotation(pos)(q, k)
    return q @ k.mT


def test_at_one_position_it_is_the_product_of_sizes():
    q, k, _ = inputs(ENCODER, 20)
    found = scores(Pope(ENCODER), q, k, torch.zeros(20))
    assert_close(found, F.softplus(q) @ F.softplus(k).mT, rtol=1e-6, atol=0)


def test_the_same_text_further_on_has_the_same_scores():
    scheme, (q, k, _) = Pope(ENCODER), inputs(ENCODER, 20)
    nn.init.uniform_(scheme.delta, -6, 0)
    here, there = (scores(scheme, q, k, torch.arange(20) + first) for first in (0, 999))
    assert_close(here, there, rtol=0, atol=1e-5)


def test_there_are_as_many_frequencies_as_dimensions():
    """One step turns dimension m by base^(-m/K)."""
    zero = torch.zeros(1, 1, 1, 8, dtype=torch.float64)
    turned, _ = Pope(ENCODER).rotation(torch.tensor([1]))(zero, zero)
    angles = torch.view_as_complex(turned.view(8, 2)).angle()
    assert angles.tolist() == pytest.approx([10_000 ** (-m / 8) for m in range(8)])


def test_a_trained_angle_beyond_its_bounds_counts_as_them_and_can_come_back():
    scheme, (q, k, _) = Pope(ENCODER), inputs(ENCODER, 9)
    pos = torch.arange(9)
    for beyond, bound in ((0.7, 0.0), (-7.0, -2 * math.pi)):
        nn.init.constant_(scheme.delta, beyond)
        found = scores(scheme, q, k, pos)
        (gradient,) = torch.autograd.grad(found[..., 0].sum(), scheme.delta)
        assert gradient.abs().min() > 1e-3
        nn.init.constant_(scheme.delta, bound)
        assert_close(found, scores(scheme, q, k, pos), rtol=0, atol=1e-5)


class Falling(Wrapper):
    """A decay made of content."""

    def change(self, branch, pos):
        return branch._replace(decay=lambda seen: -F.softplus(seen.k[..., 0]).double().cumsum(dim=-1))


def around(geometry):
    """By the way that attention takes at long inputs: a kernel, by distance, by decay, in chunks."""
    pope = Pope(geometry)
    nn.init.uniform_(pope.delta, -6, 0)
    return {
        "plain": pope,
        "distance": Local(geometry, pope, 12),
        "decay": Falling(pope),
        "chunks": Sinks(geometry, pope).layers(2)[0],
    }


WAYS = pytest.mark.parametrize("way", ["plain", "distance", "decay", "chunks"])


@WAYS
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_twice_the_numbers_have_the_same_root_on_every_path(way, causal, training, small):
    for seq_len in (9, 45):
        check_path(around(DECODER if causal else ENCODER)[way], seq_len, training)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, *(x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor)), 0)
        return made


@torch.no_grad()
@WAYS
def test_twice_the_input_takes_twice_the_memory(way, causal, small):
    scheme, sizes = around(DECODER if causal else ENCODER)[way], []
    for seq_len in (256, 512):
        attend = prepare(scheme, scheme.positions(seq_len), training=False)
        with Largest() as seen:
            attend(*inputs(scheme.geometry, seq_len, dtype=torch.float32))
        sizes.append(seen.numbers)
    assert sizes[1] <= 2.1 * sizes[0]


class RootOfAllNumbers(Pope):
    """Divided by the root of the 2K numbers that queries have become."""

    def rotation(self, pos):
        turn = super().rotation(pos)
        return lambda q, k: (turn(q, k)[0] / math.sqrt(2), turn(q, k)[1])


class FrequenciesOfPairs(Pope):
    """base^(-2m/K), which ends in the middle of the dimensions."""

    def frequencies(self, device=None):
        return super().frequencies(device) ** 2


class OtherSign(Pope):
    """The trained angle on the query's side."""

    def angles_of_keys(self):
        return -super().angles_of_keys()


class Unbounded(Pope):
    def angles_of_keys(self):
        return self.delta


class SignedSizes(Pope):
    """Without softplus: a negative size is a turn by half a circle, made of what is read."""

    def rotation(self, pos):
        turn = super().rotation(pos)

        def signed(q, k):
            zero = torch.zeros_like(q)
            return tuple(
                unit * x.repeat_interleave(2, -1) / math.log(2) for unit, x in zip(turn(zero, zero), (q, k), strict=True)
            )

        return signed


@SIZES
@pytest.mark.parametrize("mutant", [RootOfAllNumbers, FrequenciesOfPairs, OtherSign, Unbounded, SignedSizes])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(Pope, geometry, base=100.0)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, base=100.0)
