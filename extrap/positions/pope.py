"""Polar coordinate position embedding."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import Geometry, PositionScheme, Rotation, wide
from extrap.positions.kerple import within
from extrap.positions.rope import powers


class Pope(PositionScheme):
    """score_ij = sum over the K dims m of softplus(q_m) softplus(k_m) cos((i - j) base^(-m/K) - delta_hm), over sqrt(K).

    Every dimension is a complex number: its size is made of what is read, its angle of the position alone. So queries and
    keys become 2K numbers. delta (H, K), one for all layers, starts at 0 and counts as -2 pi .. 0 at most, with the gradient
    of delta itself, so that training can bring it back; in the code that we know it then stays where it is.
    Source: Gopalakrishnan et al. 2025 (arXiv:2509.10534); delta as in x-transformers and PoPE-pytorch.
    Raises ValueError for a base that is not positive.
    """

    relative = True

    def __init__(self, geometry: Geometry, base: float = 10_000.0) -> None:
        super().__init__(geometry)
        if not base > 0:
            raise ValueError(f"PoPE needs a positive base, found {base}")
        self.base = base
        self.delta = nn.Parameter(torch.zeros(geometry.n_heads, geometry.head_dim))

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """(K,) float64, radians a token, of each dimension."""
        return powers(self.base, 2 * self.geometry.head_dim, device)

    def angles_of_keys(self) -> Tensor:
        """(H, K): delta within its bounds."""
        return within(self.delta, -2 * math.pi, 0.0)

    def rotation(self, pos: Tensor) -> Rotation:
        angles = pos.to(torch.float64)[:, None] * self.frequencies(pos.device)
        of_queries, of_keys = unit(angles), unit(angles + self.angles_of_keys().double()[:, None])

        def polar(x: Tensor, direction: Tensor) -> Tensor:
            size = F.softplus(x.to(wide(x)))
            return torch.view_as_real(size * direction).flatten(-2)

        return lambda q, k: (polar(q, of_queries), polar(k, of_keys))


def unit(angles: Tensor) -> Tensor:
    """exp(i * angle), rounded to float32 once."""
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
