"""Blocks at test time: which keys a query sees, and in which layers."""

import pytest
import torch
from extending import L, T, answers, check_layers, geometry_of, named
from references.alibi import alibi
from references.rope import rope

from extrap.extensions.blocks import Bca, Blocks
from extrap.positions.absolute import Learned
from extrap.positions.alibi import Alibi
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.rope import Rope


def blocked(reference, size):
    return reference._replace(keep=lambda i, j: abs(i // size - j // size) <= 1)


@pytest.mark.parametrize("size", [None, 1, 3])
def test_a_query_sees_its_block_and_those_beside_it(size, causal, small):
    geometry = geometry_of(causal)
    of = size or (L // 2 if causal else L // 3)
    extended = named("bca" if size is None else f"bca(size={size})")
    check_layers(extended(Rope(geometry), T), [blocked(rope(geometry, 10_000.0), of)] * 2)
    check_layers(extended(Alibi(geometry), T), [blocked(alibi(geometry), of)] * 2)


def test_a_causal_query_sees_half_of_the_training_length_to_all_of_it():
    (branch,) = Bca()(Rope(geometry_of(True)), T).branches(torch.arange(T))
    i, j = torch.arange(T)[:, None], torch.arange(T)
    seen = (branch.mask_mod(0, 0, i, j) & (j <= i)).sum(dim=1)
    assert seen[L:].min() == L // 2 + 1
    assert seen.max() == L
    assert branch.window == L
    assert not branch.relative


def test_up_to_the_training_length_all_is_seen(causal):
    scheme = Rope(geometry_of(causal, train_len=9))
    n = 8 if causal else 6  # blocks of 4 and of 3
    assert all(map(torch.equal, answers(Bca()(scheme, 9), n), answers(scheme, n)))


def test_layers_that_see_no_further_than_training_stay(causal, small):
    geometry, plain = geometry_of(causal), rope(geometry_of(causal), 10_000.0)
    near = Local(geometry, Rope(geometry), L)
    local = plain._replace(keep=lambda i, j: abs(i - j) < L)
    check_layers(Bca()(Mixed(geometry, near, Rope(geometry)), T), [local, blocked(plain, L // 2 if causal else L // 3)])
    assert Bca()(near, T) is None
    assert Bca()(Learned(geometry), T) is None
    assert named("bca+ntk")(Rope(geometry), T) is None, "nothing is beyond training"
    assert named("ntk+bca")(Rope(geometry), T) is not None


class Sliding(Blocks):
    """A window: no blocks."""

    def near(self, pos):
        return Local.near(self, pos)


class OwnBlock(Blocks):
    def near(self, pos):
        return lambda b, h, i, j: pos[i] // self.size == pos[j] // self.size


@pytest.mark.parametrize("mutant", [Sliding, OwnBlock])
def test_a_bug_is_rejected(mutant, small):
    geometry = geometry_of(True)
    with pytest.raises(AssertionError, match="not close"):
        check_layers(mutant(Rope(geometry), 4), [blocked(rope(geometry, 10_000.0), 4)] * 2)


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="size >= 1, found 0"):
        Bca(0)
