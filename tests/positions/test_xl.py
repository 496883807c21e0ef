"""Transformer-XL and XLNet: what is left without their parts, and the shift that is right under a mask alone."""

import pytest
import torch
from checking import DECODER, ENCODER, check_against_reference, check_formula, check_same
from references.base import Reference, formula
from torch import nn

from extrap.extensions.far import ReRope
from extrap.positions.base import Branch, Geometry, PositionScheme
from extrap.positions.nope import Nope
from extrap.positions.rope import powers
from extrap.positions.xl import BASE, Sinusoids, TransformerXL


@pytest.fixture(params=[DECODER, ENCODER], ids=["causal", "encoder"])
def geometry(request):
    return request.param


def without(geometry, *names):
    scheme = TransformerXL(geometry)
    for layer in scheme.sinusoids:
        for name in names:
            nn.init.zeros_(getattr(layer, name))
    return scheme


def test_without_its_parts_it_is_no_positions(geometry):
    check_same(without(geometry, "u", "v", "weight"), Nope(geometry))


class KeyBias(PositionScheme):
    def __init__(self, geometry, u):
        super().__init__(geometry)
        self.u = u * geometry.head_dim**-0.5

    def branches(self, pos):
        def content(seen):
            bias = (seen.k @ self.u[:, :, None]).mT  # (B, H, 1, T)
            return lambda i, j: bias[..., j].expand(-1, -1, len(i), -1)

        return (Branch(content=content),)


def test_u_is_a_bias_of_keys_without_a_position(geometry):
    scheme = without(geometry, "weight")
    one_layer = scheme.sinusoids[0]
    nn.init.normal_(one_layer.u)
    check_same(one_layer, KeyBias(geometry, one_layer.u.detach()))


def test_distances_beyond_a_window_can_be_held_at_it(geometry):
    """Queries and keys may stand at places of their own: ReRoPE, which is made for rotations, has nothing to add."""
    scheme = TransformerXL(geometry)
    plain = formula({"_target_": "extrap.positions.xl.TransformerXL"}, scheme)
    held = [Reference(score=lambda q, k, i, j, h, of=of: of.score(q, k, max(-3, min(i - j, 3)), 0, h)) for of in plain]
    check_against_reference(ReRope(window=3)(scheme, 17), held, range(20))


class XLOfOtherSinusoids(TransformerXL):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.sinusoids = nn.ModuleList(self.Sinusoids(geometry) for _ in range(geometry.n_layers))


class CausalShift(XLOfOtherSinusoids):
    """The released shift of products with r_(T-1) .. r_0: on the right of the diagonal it leaves those of the next query."""

    class Sinusoids(Sinusoids):
        def rotation(self, pos):
            return lambda q, k: (q + self.u[:, None], k)

        def branches(self, pos):
            (branch,) = super().branches(pos)
            angles = pos.flip(0).double()[:, None] * powers(BASE, self.geometry.d_model)
            keys = self.weight @ torch.cat([angles.sin(), angles.cos()], dim=-1).mT  # (H, K, T), from r_(T-1) to r_0

            def content(seen):
                products = (seen.q + self.v[:, None]) @ keys
                *size, n = products.shape
                padded = torch.cat([products.new_zeros(*size, 1), products], dim=-1)
                shifted = padded.view(*size[:-1], n + 1, n)[:, :, 1:].reshape(products.shape)
                return lambda i, j: shifted[:, :, i][..., j] * self.geometry.head_dim**-0.5

            return (branch._replace(content=content),)


def test_the_released_shift_is_right_under_a_causal_mask_alone():
    check_formula(TransformerXL, ENCODER, range(9))
    check_formula(CausalShift, DECODER, range(9))
    with pytest.raises(AssertionError, match="not close"):
        check_formula(CausalShift, ENCODER, range(9))


class PositionUndivided(XLOfOtherSinusoids):
    """sqrt(K) under the first of both terms alone."""

    class Sinusoids(Sinusoids):
        def rotation(self, pos):
            longer = super().rotation(pos)

            def undivided(q, k):
                (query, key), n = longer(q, k), q.shape[-1]
                return torch.cat([query[..., :n], query[..., n:] * n**0.5], dim=-1), key

            return undivided


class Interleaved(XLOfOtherSinusoids):
    """Sines and cosines in turn, as in the sinusoids of Vaswani et al., not one after the other."""

    class Sinusoids(Sinusoids):
        def rotation(self, pos):
            pairs = self.weight.unflatten(-1, (-1, 2)).mT.flatten(-2)
            apart = Sinusoids(self.geometry)
            apart.u, apart.v, apart.weight = self.u, self.v, nn.Parameter(pairs.detach())
            return apart.rotation(pos)


class UAndVExchanged(XLOfOtherSinusoids):
    class Sinusoids(Sinusoids):
        def rotation(self, pos):
            exchanged = Sinusoids(self.geometry)
            exchanged.u, exchanged.v, exchanged.weight = self.v, self.u, self.weight
            return exchanged.rotation(pos)


@pytest.mark.parametrize("mutant", [PositionUndivided, Interleaved, UAndVExchanged])
def test_a_bug_is_rejected(mutant, geometry):
    check_formula(TransformerXL, geometry, range(12))
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, range(12))


def test_an_odd_width_has_no_pairs():
    with pytest.raises(ValueError, match="needs an even d_model, found 15"):
        TransformerXL(Geometry(15, 3, 16, causal=False))
