"""Contextual position encoding."""

import math

import torch
from torch import Tensor, nn

from extrap.positions.base import BlockBias, Branch, Content, Geometry, PositionScheme


class Cope(PositionScheme):
    """q_i . k_j / sqrt(K) + q_i . e[p_ij], p_ij the sum over j <= u <= i of sigmoid(q_i . k_u / sqrt(K)).

    p is at most n_positions - 1; e between two whole positions is interpolated. A table (n_positions, K) for each layer, of
    zeros at the start, serves all heads.
    Source: Golovneva et al. 2024 (arXiv:2405.18719), equations 3 to 5 and the code beside them. Their released code divides
    q_i . e by sqrt(K) unless told not to, and has one position more than tokens.
    Raises ValueError for fewer than two positions.
    """

    relative = True
    causal_only = True

    def __init__(self, geometry: Geometry, n_positions: int = 64) -> None:
        super().__init__(geometry)
        if n_positions < 2:
            raise ValueError(f"CoPE interpolates between positions: expected n_positions >= 2, found {n_positions}")
        self.counted = nn.ModuleList(Counted(geometry, n_positions) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.counted]  # type: ignore[list-item]


class Counted(PositionScheme):
    """The scheme of a layer."""

    relative = True

    def __init__(self, geometry: Geometry, n_positions: int) -> None:
        super().__init__(geometry)
        self.table = nn.Parameter(torch.zeros(n_positions, geometry.head_dim))

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        return (Branch(content=self.bias),)

    def gates(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """(B, H, R, S), 0 for keys ahead."""
        return torch.where(j <= i[:, None], torch.sigmoid(q @ k.mT / math.sqrt(q.shape[-1])), 0)

    def bias(self, seen: Content) -> BlockBias:
        def bias(i: Tensor, j: Tensor) -> Tensor:
            q = seen.q[:, :, i]
            gates = self.gates(q, seen.k[:, :, j], i, j).double()
            place = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=len(self.table) - 1)
            below, above = place.floor().long(), place.ceil().long()
            at = q @ self.table.to(q.dtype).mT  # (B, H, R, positions)
            return torch.lerp(at.gather(-1, below), at.gather(-1, above), (place - below).to(q.dtype))

        return bias
