"""Relative position representations."""

import torch
from torch import Tensor, nn

from extrap.positions.base import BlockBias, Branch, Content, Geometry, PositionScheme


class Shaw(PositionScheme):
    """q_i . (k_j + a_t) / sqrt(K), t = j - i, at least -clip and at most clip: a vector for each distance up to it.

    Every layer and head has a table (2 clip + 1, K), or (clip + 1, K) in a causal model, as the paper's base model with its
    clip of 16; the larger one shares it between heads. It starts as Glorot and Bengio have it, as in the released code.
    Deviation: keys alone; what the paper adds to values makes no difference beside it there (its table 3).
    Source: Shaw et al. 2018 (arXiv:1803.02155), equations 4 and 5, section 4.1, and its code in tensor2tensor.
    Raises ValueError for a clip below 1.
    """

    relative = True

    def __init__(self, geometry: Geometry, clip: int = 16) -> None:
        super().__init__(geometry)
        if clip < 1:
            raise ValueError(f"Shaw's representations: expected clip >= 1, found {clip}")
        self.tables = nn.ModuleList(Offsets(geometry, clip) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.tables]  # type: ignore[list-item]


class Offsets(PositionScheme):
    """The scheme of a layer: table (H, distances, K), from clip tokens before a query on."""

    relative = True

    def __init__(self, geometry: Geometry, clip: int) -> None:
        super().__init__(geometry)
        self.clip, self.last = clip, 0 if geometry.causal else clip
        size = clip + self.last + 1, geometry.head_dim
        self.table = nn.Parameter(torch.stack([nn.init.xavier_uniform_(torch.empty(size)) for _ in range(geometry.n_heads)]))

    def rows(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Positions (R,) and (S,) -> (R, S), rows of the table."""
        return (k_pos - q_pos[:, None]).clamp(-self.clip, self.last) + self.clip

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        def added(seen: Content) -> BlockBias:
            table = self.table.to(seen.q.dtype) * self.geometry.head_dim**-0.5

            def bias(i: Tensor, j: Tensor) -> Tensor:
                at = seen.q[:, :, i] @ table.mT  # (B, H, R, distances)
                found: Tensor = at.gather(-1, self.rows(pos[i], pos[j]).expand(*at.shape[:2], -1, -1))
                return found

            return bias

        return (Branch(content=added),)
