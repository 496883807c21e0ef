"""Disentangled attention: its buckets, what is left without its parts, and the bugs that are told of it."""

import math

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, check_same
from torch import nn
from torch.nn import functional as F

from extrap.positions.base import Branch, PositionScheme
from extrap.positions.deberta import Deberta, Disentangled
from extrap.positions.shaw import Offsets


@pytest.fixture(params=[DECODER, ENCODER], ids=["causal", "encoder"])
def geometry(request):
    return request.param


def buckets(geometry, offsets, **sizes):
    """Rows of the table for i - j."""
    layer = Deberta(geometry, **sizes).layers(2)[0]
    return layer.rows(torch.tensor(offsets), torch.tensor([0]))[:, 0].tolist()


def test_buckets_of_the_second_version():
    """256 to a side: exact up to 128, then log-spaced, the last for all beyond."""
    sizes = {"span": 256, "max_distance": 512}
    assert buckets(ENCODER, [0, 1, 127, 128, 129, 130, 131, 510, 511, 512, 9999], **sizes) == [
        *[256, 257, 383, 384, 385, 386, 387, 511, 511, 511, 511]
    ]
    assert buckets(ENCODER, [-1, -127, -128, -129, -510, -511, -512, -9999], **sizes) == [255, 129, 128, 127, 1, 1, 1, 1]
    assert buckets(DECODER, [0, 1, 128, 129, 511, 9999], **sizes) == [0, 1, 128, 129, 255, 255]


def test_buckets_of_the_first_version_are_clipped():
    assert buckets(ENCODER, [-9, -4, -3, 0, 3, 4, 9], span=4, max_distance=None) == [0, 0, 1, 4, 7, 7, 7]


@pytest.mark.parametrize(("span", "max_distance"), [(64, 128), (4, 5), (8, 1000), (256, 512), (30, 4096)])
def test_buckets_grow_with_distance_and_the_last_begins_before_its_end(span, max_distance):
    """As a logarithm of many digits has them."""
    m, found = span // 2, buckets(DECODER, [*range(2 * max_distance)], span=span, max_distance=max_distance)
    ratio = math.log((max_distance - 1) / m)
    for d in range(m + 1, 2 * max_distance):
        x = math.log(d / m) / ratio * (m - 1)
        if abs(x - round(x)) > 1e-9:  # elsewhere a logarithm cannot tell
            assert found[d] == min(m + math.ceil(x), span - 1)
    assert found[: m + 1] == [*range(m + 1)]
    assert found == sorted(found)
    assert found[max_distance - 1] == span - 1


class Cooled(PositionScheme):
    """No positions and scores divided by sqrt(3K)."""

    def rotation(self, pos):
        return lambda q, k: (q / math.sqrt(3), k)


def test_without_vectors_scores_are_divided_by_the_root_of_three_terms(geometry):
    scheme = Deberta(geometry, span=4, max_distance=None)
    nn.init.zeros_(scheme.table)
    check_same(scheme, Cooled(geometry))


class OfKeys(PositionScheme):
    def __init__(self, geometry, table):
        super().__init__(geometry)
        self.shaw = Offsets(geometry, clip=3)
        self.shaw.table.data = table

    def branches(self, pos):
        (branch,) = self.shaw.branches(pos)
        return (branch._replace(rotate=Cooled(self.geometry).rotation(pos)),)


def test_vectors_that_queries_alone_read_are_those_of_shaw():
    """The first version in a causal model: clipped at span - 1, and over sqrt(3)."""
    scheme = Deberta(DECODER, span=4, max_distance=None)
    layer = scheme.layers(2)[0]
    nn.init.zeros_(layer.to_query)
    vectors = F.layer_norm(scheme.table, (32,)) @ layer.to_key / math.sqrt(3)
    check_same(layer, OfKeys(DECODER, vectors.flip(1).detach()))


class DebertaOfOtherLayers(Deberta):
    def layers(self, n_layers):
        return [self.Layer(layer.geometry, layer.edges, layer.table, layer.to_key, layer.to_query)
                for layer in super().layers(n_layers)]  # fmt: skip


class OneTermDivided(DebertaOfOtherLayers):
    """sqrt(K) with three terms."""

    class Layer(Disentangled):
        def branches(self, pos):
            (branch,) = super().branches(pos)

            def content(seen):
                bias = branch.content(seen)
                return lambda i, j: bias(i, j) * math.sqrt(3)

            return (Branch(content=content),)


class LastTermOfThePaper(DebertaOfOtherLayers):
    """The bucket of j - i where keys read it: what is gathered along the wrong axis."""

    class Layer(Disentangled):
        def of_positions(self, seen, pos):
            of_queries = super().of_positions(seen._replace(k=torch.zeros_like(seen.k)), pos)
            of_keys = super().of_positions(seen._replace(q=torch.zeros_like(seen.q)), -pos)
            return lambda i, j: of_queries(i, j) + of_keys(i, j)


class NotNormed(DebertaOfOtherLayers):
    class Layer(Disentangled):
        def of_positions(self, seen, pos):
            table = self.table.to(seen.q.dtype) / math.sqrt(3 * self.geometry.head_dim)
            keys, queries = table @ self.to_key, table @ self.to_query

            def bias(i, j):
                rows = self.rows(pos[i], pos[j]).expand(*seen.q.shape[:2], -1, -1)
                at_key = (seen.k[:, :, j] @ queries.mT).gather(-1, rows.mT).mT
                return (seen.q[:, :, i] @ keys.mT).gather(-1, rows) + at_key

            return bias


@pytest.mark.parametrize("mutant", [OneTermDivided, LastTermOfThePaper, NotNormed])
def test_a_bug_is_rejected(mutant, geometry):
    sizes = {"span": 6, "max_distance": 9}
    check_formula(Deberta, geometry, range(12), **sizes)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, geometry, range(12), **sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"span": 5}, "an even span >= 4, found 5"), ({"span": 2}, "an even span >= 4, found 2"),
     ({"span": 8, "max_distance": 8}, "expected max_distance above span = 8, found 8")],
)  # fmt: skip
def test_buckets_that_do_not_reach_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Deberta(ENCODER, **sizes)
