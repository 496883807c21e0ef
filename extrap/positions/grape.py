"""GRAPE-A: linear biases whose slopes are gated by the keys."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.alibi import alibi_slopes
from extrap.positions.base import BlockBias, Branch, Content, Geometry, PositionScheme


class Grape(PositionScheme):
    """q_i . k_j / sqrt(K) - abs(i - j) * m_h * softplus(omega_h) * softplus(u_h . k_j / sqrt(K)), m the slopes of ALiBi.

    Every layer has its own omega and u: u, of unit length however it is trained, starts in a random direction, omega so that
    its factor is 1. In an encoder, for which nothing is published, distances count alike to both sides.
    Source: Zhang et al. 2025 (arXiv:2512.07805), equation 4.6 with the gate of the key alone, and the released code of it,
    whose models norm queries and keys before anything else is done with them; here they are as for every other scheme.
    """

    relative = True
    direction_aware = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.gates = nn.ModuleList(KeyGate(geometry) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.gates]  # type: ignore[list-item]


class KeyGate(PositionScheme):
    """The scheme of a layer: omega (H,), u (H, K)."""

    relative = True
    direction_aware = False

    slopes: Tensor  # (H,)

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        n_heads, head_dim = geometry.n_heads, geometry.head_dim
        self.register_buffer("slopes", alibi_slopes(n_heads).to(torch.float32), persistent=False)
        self.omega = nn.Parameter(torch.full((n_heads,), math.log(math.expm1(1.0))))
        self.u = nn.Parameter(torch.randn(n_heads, head_dim) / math.sqrt(head_dim))

    def gate(self, seen: Content) -> Tensor:
        """(B, H, S): what a step away from each key costs."""
        u = F.normalize(self.u, dim=-1) / math.sqrt(self.geometry.head_dim)
        open_ = F.softplus(torch.einsum("bhsk,hk->bhs", seen.k, u.to(seen.k.dtype)))
        return open_ * (self.slopes * F.softplus(self.omega))[:, None]

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        def content(seen: Content) -> BlockBias:
            cost = self.gate(seen)
            return lambda i, j: -(pos[i][:, None] - pos[j]).abs() * cost[:, :, None, j]

        return (Branch(content=content),)
