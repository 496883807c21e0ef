"""The relative bias of T5."""

import math
from bisect import bisect_left

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class T5(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) + sqrt(K) * bias[h, bucket(j - i)], one trained table for all layers.

    Near distances have a bucket each, far ones share log-spaced buckets up to max_distance, and beyond it the last.
    Deviations: T5 has neither factor. Here queries are scaled as for every other scheme, and the table by sqrt(K), as in
    GPT-NeoX: it starts at zero (ours) and AdamW moves an entry by about the learning rate a step, so that in a short
    training the bare table could not grow steep enough to mask what is far.
    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.1, and its released code.
    Raises ValueError where the buckets do not reach.
    """

    relative = True

    edges: Tensor  # (buckets of one side - 1,) int64

    def __init__(self, geometry: Geometry, n_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(geometry)
        if n_buckets < 4 or n_buckets % 4:
            raise ValueError(f"T5 bias: expected n_buckets to be a multiple of 4, found {n_buckets}")
        if max_distance <= n_buckets // 2:
            raise ValueError(f"T5 bias: expected max_distance above n_buckets / 2 = {n_buckets // 2}, found {max_distance}")
        edges = bucket_edges(n_buckets if geometry.causal else n_buckets // 2, max_distance)
        self.register_buffer("edges", torch.tensor(edges), persistent=False)
        self.bias = nn.Parameter(torch.zeros(geometry.n_heads, n_buckets))

    def score_mod(self, pos: Tensor) -> ScoreMod:
        def add_bias(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            offset = whole(pos[kv_idx] - pos[q_idx])
            bucket = t5_bucket(offset, self.geometry.causal, self.edges)
            return score + math.sqrt(self.geometry.head_dim) * self.bias[h, bucket]

        return add_bias


def whole(offset: Tensor) -> Tensor:
    """int64; of a real distance the whole part, of one that rounding has put just short of a whole number that number."""
    return (offset.double().round(decimals=6) if offset.is_floating_point() else offset).to(torch.int64)


def t5_bucket(offset: Tensor, causal: bool, edges: Tensor) -> Tensor:
    """The bucket, 0 .. n_buckets - 1, of offset = j - i (any shape, int64); edges as of bucket_edges.

    Causal: all buckets for the past. Bidirectional: the lower half for j <= i, the upper half for j > i.
    """
    if causal:
        return torch.bucketize((-offset).clamp(min=0), edges, right=True)
    return (offset > 0) * (len(edges) + 1) + torch.bucketize(offset.abs(), edges, right=True)


def bucket_edges(size: int, max_distance: int) -> list[int]:
    """The first distance of each bucket of one side but the first, for n = size buckets.

    Distance d < n/2 has bucket d, beyond it n/2 + floor(log(2d/n) / log(2 * max_distance/n) * n/2).
    In whole numbers: a logarithm can put a distance that is exactly an edge on its wrong side. Bucket n/2 + c begins at the
    first d with (2d/n)^(n/2) >= (2 * max_distance/n)^c.
    """
    exact = size // 2
    edges = list(range(1, exact + 1))
    for c in range(1, size - exact):
        bound = max_distance**c * exact ** (size - exact - c)
        edges.append(bisect_left(range(max_distance), bound, lo=edges[-1], key=lambda d: d ** (size - exact)))
    return edges
