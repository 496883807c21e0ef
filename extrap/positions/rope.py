"""Rotary position embedding."""

from collections.abc import Callable

import torch
from torch import Tensor

from extrap.positions.base import Geometry, PositionScheme, Rotation


class Rope(PositionScheme):
    """Rotates pair k of each query and key by the angle pos * base^(-2k/K), so that scores depend on i - j only.

    Pairs are neighbours, (x_2k, x_2k+1), as in the paper. GPT-NeoX and Llama pair x_k with x_{k + K/2}: the same up to a
    permutation of the head dimensions, so their checkpoints cannot be read as they are.
    Source: Su et al. 2021 (arXiv:2104.09864), equations 14 and 15.
    Raises ValueError for an odd head dim and a base that is not positive.
    """

    relative = True
    factors: Callable[[Tensor], Tensor] | None = None  # of frequencies (K/2,), set by extensions of finished weights

    def __init__(self, geometry: Geometry, base: float = 10_000.0) -> None:
        super().__init__(geometry)
        if geometry.head_dim % 2:
            raise ValueError(f"RoPE rotates pairs and needs an even head_dim, found {geometry.head_dim}")
        if not base > 0:
            raise ValueError(f"RoPE needs a positive base, found {base}")
        self.base = base

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """(K/2,) float64, radians a token, of each pair."""
        return powers(self.base, self.geometry.head_dim, device)

    def angles(self, pos: Tensor) -> Tensor:
        """Positions (T,), whole or real -> (T, K/2) float64, radians."""
        frequencies = self.frequencies(pos.device)
        return pos.to(torch.float64)[:, None] * (frequencies * self.factors(frequencies) if self.factors else frequencies)

    def rotation(self, pos: Tensor) -> Rotation:
        return rotate_by(self.angles(pos))


def powers(base: float, dim: int, device: torch.device | None = None) -> Tensor:
    """(dim / 2,) float64: base^(-2k/dim)."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    frequencies: Tensor = base**-exponent
    return frequencies


def rotate_by(angles: Tensor) -> Rotation:
    """The rotation of queries and keys by the same angles (T, K/2): pairs are complex numbers, times exp(i * angle).

    The factors are rounded to float32 once.
    """
    factors = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    def turn(x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
        return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) * factors).flatten(-2)

    return lambda q, k: (turn(q), turn(k))
