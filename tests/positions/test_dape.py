"""Data-adaptive positions: what is left without the map, and what a convolution along keys must not read."""

from functools import partial

import pytest
import torch
from checking import DECODER, ENCODER, check_against_reference, check_path, check_same, inputs
from marks import slow
from references.base import formula
from torch import nn

from extrap.errors import UserError
from extrap.model.attention import prepare
from extrap.positions.alibi import Alibi
from extrap.positions.dape import Adapted, Dape
from extrap.positions.fox import Fox
from extrap.positions.kerple import Kerple
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.testing.promises import check_scheme


@pytest.fixture(params=[DECODER, ENCODER], ids=["causal", "encoder"])
def geometry(request):
    return request.param


def dape(geometry, kernel=1, cls=Dape):
    """With weights that are heard of."""
    scheme = cls(geometry, Kerple(geometry), kernel)
    for parameter in scheme.parameters():
        nn.init.normal_(parameter, std=0.3)
    return scheme


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_last_map_of_zeros_is_the_scheme_inside(geometry, kernel):
    scheme = dape(geometry, kernel)
    for of_layer in scheme.maps:
        nn.init.zeros_(of_layer.second)
    check_same(scheme, scheme.inner)


def test_a_kernel_that_reads_no_neighbours_is_the_first_version(geometry):
    first, second = dape(geometry, 1), dape(geometry, 3)
    for a, b in zip(first.maps, second.maps, strict=True):
        for name in ("first", "second"):
            nn.init.zeros_(getattr(b, name))
            getattr(b, name).data[..., 1:2] = getattr(a, name)
        b.bias.data[:] = a.bias
    second.inner.load_state_dict(first.inner.state_dict())
    check_same(first, second)


@pytest.mark.parametrize("kernel", [3, *slow(1, 5)])
def test_it_does_not_matter_which_keys_are_asked_for(kernel, geometry, small):
    """Around it a window: blocks that begin and end anywhere read the neighbours of their keys all the same."""
    scheme = Local(geometry, Dape(geometry, Alibi(geometry), kernel), window=5)
    for seq_len in (1, 16, 45):
        for training in (True, False):
            check_path(scheme.layers(2)[1], seq_len, training)


def test_a_token_does_not_know_whether_another_one_follows():
    q, k, v = inputs(DECODER, 9)
    layer = dape(DECODER, 3).double().layers(2)[0]
    whole, part = (prepare(layer, layer.positions(n), training=True)(*(x[:, :, :n] for x in (q, k, v))) for n in (9, 6))
    assert torch.allclose(whole[:, :, :6], part)


class OfOtherMaps(Dape):
    def layers(self, n_layers):
        return [self.Layer(layer.inner, layer.perceptron) for layer in super().layers(n_layers)]


class Untruncated(OfOtherMaps):
    """v2 without tril: what a key ahead of the query scores is read."""

    class Layer(Adapted):
        def may_attend(self, i, j):
            return torch.ones_like(j <= i)


class SumAlone(OfOtherMaps):
    """f reads zeros in place of biases."""

    class Layer(Adapted):
        def adapted(self, seen, score_mod):
            return super().adapted(seen, lambda score, b, h, i, j: 0 * score_mod(score, b, h, i, j))


class Replaces(OfOtherMaps):
    """f in place of the bias, not beside it."""

    class Layer(Adapted):
        def change(self, branch, pos):
            return super().change(branch, pos)._replace(score_mod=None)


class OneMap(OfOtherMaps):
    """The map of the first layer in all of them."""

    Layer = Adapted

    def layers(self, n_layers):
        return [super().layers(n_layers)[0]] * n_layers


def check(cls, geometry, kernel, at=range(9)):
    scheme = dape(geometry, kernel, cls)
    kerple = {"_target_": "extrap.positions.kerple.Kerple"}
    spec = {"_target_": "extrap.positions.dape.Dape", "inner": kerple, "kernel": kernel}
    check_against_reference(scheme, formula(spec, scheme), at)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("mutant", [Untruncated, SumAlone, Replaces, OneMap])
def test_a_bug_is_rejected(mutant, kernel, geometry):
    check(Dape, geometry, kernel)
    if mutant is Untruncated and (kernel == 1 or not geometry.causal):
        return  # which read no neighbours, or those of both sides
    with pytest.raises(AssertionError, match="not close"):
        check(mutant, geometry, kernel)


def test_a_convolution_that_reads_ahead_leaks():
    check_scheme(partial(dape, DECODER, 3), longest=64)
    with pytest.raises(UserError, match="sees the future"):
        check_scheme(partial(dape, DECODER, 3, Untruncated), longest=64)


def test_it_asks_for_a_bias_of_positions_and_an_odd_kernel(geometry):
    for inner in (Nope, Rope, Fox):
        with pytest.raises(ValueError, match=f"expected a scheme of one pass with a bias, found {inner.__name__}"):
            Dape(geometry, inner(geometry))
    for kernel in (0, 2, -1):
        with pytest.raises(ValueError, match=f"expected an odd kernel, found {kernel}"):
            Dape(geometry, Kerple(geometry), kernel)
