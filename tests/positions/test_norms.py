"""Norms of queries and keys: what they leave of lengths, which heads they mix, and the bugs that are told of them."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_against_reference, check_same, inputs
from references.norms import keynorm, qknorm
from references.rope import rope
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from extrap.model.definition import attend_reference
from extrap.positions.alibi import Alibi
from extrap.positions.cope import Cope
from extrap.positions.local import Local
from extrap.positions.nope import Nope
from extrap.positions.norms import KeyNorm, LayerNorms, QkNorm
from extrap.positions.rope import Rope

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


def attended(scheme, q, k, v):
    return attend_reference(scheme, scheme.positions(q.shape[2]), q, k, v)


def lengths(x):
    """One for each vector."""
    return 0.1 + 10 * torch.rand(*x.shape[:-1], 1, dtype=x.dtype)


@SIZES
@pytest.mark.parametrize("inner", [Rope, Alibi, lambda geometry: Local(geometry, Rope(geometry), 5)])
def test_the_length_of_a_key_is_nothing_and_that_of_a_query_is(inner, geometry):
    scheme, (q, k, v) = KeyNorm(geometry, inner(geometry)), inputs(geometry, 20)
    assert_close(attended(scheme, q, lengths(k) * k, v), attended(scheme, q, k, v), rtol=0, atol=1e-6)
    assert (attended(scheme, 3 * q, k, v) - attended(scheme, q, k, v)).abs().max() > 0.1


def test_what_is_counted_of_content_is_normed_too():
    scheme, (q, k, v) = KeyNorm(DECODER, Cope(DECODER, 6)), inputs(DECODER, 20)
    nn.init.normal_(scheme.inner.counted[0].table)
    assert_close(attended(scheme, q, lengths(k) * k, v), attended(scheme, q, k, v), rtol=0, atol=1e-6)


@SIZES
def test_keys_that_have_that_length_are_left_alone(geometry):
    q, k, v = inputs(geometry, 20)
    k = math.sqrt(geometry.head_dim) * F.normalize(k, dim=-1)
    alone = attended(Rope(geometry), q, k, v)
    assert_close(attended(KeyNorm(geometry, Rope(geometry)), q, k, v), alone, rtol=0, atol=1e-6)


@SIZES
def test_scores_of_normed_queries_and_keys_are_bounded(geometry):
    """sqrt(K) g^2, and no length is of account."""
    scheme, (q, k, v) = QkNorm(geometry, Rope(geometry)), inputs(geometry, 20)
    for gains in (*scheme.of_queries, *scheme.of_keys):
        nn.init.constant_(gains, 0.7)
    layer = scheme.layers(geometry.n_layers)[0]
    turned, keys = layer.rotation(torch.arange(20))(q, q)
    scores = turned @ keys.mT / math.sqrt(geometry.head_dim)
    assert scores.max().item() == pytest.approx(0.49 * math.sqrt(geometry.head_dim), rel=1e-4)
    assert scores.diagonal(dim1=-2, dim2=-1).min().item() == pytest.approx(scores.max().item(), rel=1e-2)
    assert_close(attended(layer, lengths(q) * q, lengths(k) * k, v), attended(layer, q, k, v), rtol=0, atol=1e-3)


@SIZES
def test_they_wrap_layers_that_differ(geometry):
    assert len({*KeyNorm(geometry, Nope(geometry)).layers(geometry.n_layers)}) == 1
    assert len({*QkNorm(geometry, Nope(geometry)).layers(geometry.n_layers)}) == geometry.n_layers


def test_norms_before_and_after_a_window_are_the_same():
    inner, outer = QkNorm(ENCODER, Local(ENCODER, Rope(ENCODER), 5)), Local(ENCODER, QkNorm(ENCODER, Rope(ENCODER)), 5)
    check_same(inner, outer)


class UnitKeys(KeyNorm):
    """Without sqrt(K)."""

    def key(self, k):
        return F.normalize(k, dim=-1)


class QueriesInstead(KeyNorm):
    def query(self, q):
        return super().key(q)

    def key(self, k):
        return k


class AllHeadsAtOnce(KeyNorm):
    """The norm over D, as in the code of DroPE."""

    def key(self, k):
        return k / k.square().mean(dim=(1, 3), keepdim=True).sqrt()


@SIZES
@pytest.mark.parametrize("mutant", [UnitKeys, QueriesInstead, AllHeadsAtOnce])
def test_a_bug_of_key_norm_is_rejected(mutant, geometry):
    expected = keynorm(geometry, rope(geometry, 100.0))
    check_against_reference(KeyNorm(geometry, Rope(geometry, 100.0)), expected, range(20))
    with pytest.raises(AssertionError, match="not close"):
        check_against_reference(mutant(geometry, Rope(geometry, 100.0)), expected, range(20))


class QkNormOfOtherLayers(QkNorm):
    def layers(self, n_layers):
        return [self.Layer(one.inner, one.of_queries, one.of_keys) for one in super().layers(n_layers)]


class SharedGains(QkNormOfOtherLayers):
    """By all heads."""

    class Layer(LayerNorms):
        def query(self, q):
            return super().query(q) / self.of_queries[:, None] * self.of_queries[0]


class NormOfAllHeads(QkNormOfOtherLayers):
    class Layer(LayerNorms):
        def query(self, q):
            return q / q.square().mean(dim=(1, 3), keepdim=True).sqrt() * self.of_queries[:, None]


class NormAfterRotation(QkNormOfOtherLayers):
    """Gains are then of dimensions that have been turned."""

    class Layer(LayerNorms):
        def change(self, branch, pos):
            return branch._replace(
                rotate=lambda q, k: (self.query(branch.rotate(q, k)[0]), self.key(branch.rotate(q, k)[1]))
            )


class GainsOfOneLayer(QkNorm):
    def layers(self, n_layers):
        return [super().layers(n_layers)[0]] * n_layers


def check(cls, geometry):
    scheme = cls(geometry, Rope(geometry, 100.0))
    for gains in scheme.parameters():
        nn.init.normal_(gains, mean=1)
    gains = ([one.tolist() for one in part] for part in (scheme.of_queries, scheme.of_keys))
    check_against_reference(scheme, qknorm(geometry, rope(geometry, 100.0), *gains), range(20))


@SIZES
@pytest.mark.parametrize("mutant", [SharedGains, NormOfAllHeads, NormAfterRotation, GainsOfOneLayer])
def test_a_bug_of_qk_norm_is_rejected(mutant, geometry):
    check(QkNorm, geometry)
    with pytest.raises(AssertionError, match="not close"):
        check(mutant, geometry)
