"""The disentangled attention of DeBERTa."""

import math
from bisect import bisect_right

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import TABLE_STD, BlockBias, Branch, Content, Geometry, PositionScheme


class Deberta(PositionScheme):
    """[q_i . k_j + q_i . Wk_h p_d + k_j . Wq_h p_d] / sqrt(3K), p_d the vector of the bucket d of i - j.

    To either side distances up to span / 2 have a bucket each, further ones share span / 2 - 1 log-spaced ones, the last of
    which begins before max_distance and has no end; without a max_distance each distance up to span has its own, or to keys
    behind below span, as in the first version.
    One table (2 span, D), or (span, D) in a causal model, serves all layers, normed to mean 0 and variance 1, as since the
    second version; Wk and Wq, (H, D, K), are a layer's own. All start like the encoder's embeddings and linear maps.

    Deviations: the second version takes the layer's own projections for Wk and Wq, the first trained ones, as here; neither
    has biases here. Absolute positions, which the model for masked words adds before its last layers, are left out.
    The last term is that of the code: the paper has the bucket of j - i there. That distances end before max_distance is
    its later form; earlier, and in transformers, keys max_distance ahead and further have one bucket more.
    Source: He et al. 2021 (arXiv:2006.03654), equation 4, He et al. 2021 (arXiv:2111.09543) and its released code.
    Raises ValueError where the buckets do not reach.
    """

    relative = True

    edges: Tensor  # int64, the last distance of each bucket but the last

    def __init__(self, geometry: Geometry, span: int = 64, max_distance: int | None = 128) -> None:
        super().__init__(geometry)
        if span < 4 or span % 2:
            raise ValueError(f"DeBERTa's buckets: expected an even span >= 4, found {span}")
        if max_distance is not None and max_distance <= span:
            raise ValueError(f"DeBERTa's buckets: expected max_distance above span = {span}, found {max_distance}")
        edges = [*range(span)] if max_distance is None else bucket_ends(span, max_distance)[:-1]
        self.register_buffer("edges", torch.tensor(edges), persistent=False)
        rows, sizes = span if geometry.causal else 2 * span, (geometry.n_heads, geometry.d_model, geometry.head_dim)
        self.table = nn.Parameter(TABLE_STD * torch.randn(rows, geometry.d_model))
        self.to_key, self.to_query = (
            nn.ParameterList(geometry.d_model**-0.5 * torch.randn(sizes) for _ in range(geometry.n_layers)) for _ in range(2)
        )

    def layers(self, n_layers: int) -> list[PositionScheme]:
        maps = zip(self.to_key, self.to_query, strict=True)
        return [Disentangled(self.geometry, self.edges, self.table, *of_layer) for of_layer in maps]


class Disentangled(PositionScheme):
    """The scheme of a layer."""

    relative = True

    def __init__(self, geometry: Geometry, edges: Tensor, table: Tensor, to_key: Tensor, to_query: Tensor) -> None:
        super().__init__(geometry)
        self.edges, self.table, self.to_key, self.to_query = edges, table, to_key, to_query

    def rows(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Positions (R,) and (S,) -> (R, S), rows of the table; ahead before behind, of which a causal model has none."""
        distance, behind = q_pos[:, None] - k_pos, 0 if self.geometry.causal else len(self.table) // 2
        return (distance.sign() * torch.bucketize(distance.abs(), self.edges) + behind).clamp(0, len(self.table) - 1)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        return (Branch(rotate=lambda q, k: (q / math.sqrt(3), k), content=lambda seen: self.of_positions(seen, pos)),)

    def of_positions(self, seen: Content, pos: Tensor) -> BlockBias:
        table = F.layer_norm(self.table, self.table.shape[-1:]).to(seen.q.dtype) / math.sqrt(3 * self.geometry.head_dim)
        keys, queries = table @ self.to_key.to(table.dtype), table @ self.to_query.to(table.dtype)  # (H, rows, K)
        at_key = seen.k @ queries.mT  # (B, H, T, rows)

        def bias(i: Tensor, j: Tensor) -> Tensor:
            rows = self.rows(pos[i], pos[j]).expand(*seen.q.shape[:2], -1, -1)
            return (seen.q[:, :, i] @ keys.mT).gather(-1, rows) + at_key[:, :, j].gather(-1, rows.mT).mT

        return bias


def bucket_ends(span: int, max_distance: int) -> list[int]:
    """The last distance of each bucket of one side.

    With m = span / 2, distance d > m has bucket m + ceil(log(d/m) / log((max_distance - 1)/m) * (m - 1)).
    In whole numbers: a logarithm can put a distance that is exactly an edge on its wrong side. Bucket m + c ends at the last
    d with (d/m)^(m - 1) <= ((max_distance - 1)/m)^c.
    """
    m = span // 2
    ends = [*range(m + 1)]
    for c in range(1, m):
        bound = (max_distance - 1) ** c * m ** (m - 1 - c)
        ends.append(bisect_right(range(max_distance), bound, lo=m, key=lambda d: d ** (m - 1)) - 1)
    return ends
