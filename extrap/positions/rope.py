"""Rotary position embedding."""

import torch
from torch import Tensor

from extrap.positions.base import Geometry, PositionScheme, Rotation


class Rope(PositionScheme):
    """Rotates pair k of each query and key by the angle pos * base^(-2k/K), so that scores depend on i - j only.

    Pairs are half-split, (x_k, x_{k + K/2}), as in GPT-NeoX and Llama; the paper pairs neighbours (x_2k, x_2k+1),
    which is the same up to a permutation of the head dimensions.
    Source: Su et al. 2021 (arXiv:2104.09864), equations 14 and 15.
    Raises ValueError for an odd head dim and a base that is not positive.
    """

    def __init__(self, geometry: Geometry, base: float = 10_000.0) -> None:
        super().__init__(geometry)
        if geometry.head_dim % 2:
            raise ValueError(f"RoPE rotates pairs and needs an even head_dim, found {geometry.head_dim}")
        if not base > 0:
            raise ValueError(f"RoPE needs a positive base, found {base}")
        self.base = base

    def rotation(self, pos: Tensor) -> Rotation:
        return rotate_by(rotary_angles(pos, self.geometry.head_dim, self.base))


def rotary_angles(pos: Tensor, head_dim: int, base: float) -> Tensor:
    """(T,) int64 -> (T, K/2) float64 angles in radians."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=pos.device) / head_dim
    return pos.to(torch.float64)[:, None] * base**-exponent


def rotate_by(angles: Tensor) -> Rotation:
    """The rotation of queries and keys by the same angles (T, K/2); the tables are rounded to float32 once."""
    cos, sin = angles.cos().to(torch.float32), angles.sin().to(torch.float32)
    cos, sin = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)  # (T, K)

    def turn(x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # once, not in each product
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)

    return lambda q, k: (turn(q), turn(k))
