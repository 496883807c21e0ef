"""Rotary position embedding, and the spectra that it is given."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, Rotation, wide


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
        self.base, self.n_spectrum = base, geometry.head_dim // 2  # the pairs that one step of base^-1 is spread over

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """(K/2,) float64, radians a token, of each pair; of fewer where the others are not rotated."""
        return powers(self.base, self.geometry.head_dim, device)

    def angles(self, pos: Tensor) -> Tensor:
        """Positions (T,), whole or real -> (T, K/2) float64, radians."""
        frequencies = self.frequencies(pos.device)
        frequencies = frequencies * self.factors(frequencies) if self.factors else frequencies
        frequencies = nn.functional.pad(frequencies, (0, self.geometry.head_dim // 2 - len(frequencies)))
        return pos.to(torch.float64)[:, None] * frequencies

    def rotation(self, pos: Tensor) -> Rotation:
        return rotate_by(self.angles(pos))


class PartialRope(Rope):
    """RoPE on the first r = fraction * K dimensions, with r in the place of K: base^(-2k/r). The others are not rotated.

    r is rounded down to whole pairs. The fastest turns as in RoPE, the slowest base^(2/r - 2/K) times as fast, with fewer
    between them; `PRope` keeps the fast ones as they are instead.
    Source: Wang & Komatsuzaki 2021, GPT-J (r = 64 of 256); Black et al. 2022, GPT-NeoX (arXiv:2204.06745).
    Raises ValueError for a fraction outside of 0 .. 1, and as RoPE does.
    """

    def __init__(self, geometry: Geometry, fraction: float = 0.25, base: float = 10_000.0) -> None:
        super().__init__(geometry, base)
        self.n_pairs = self.n_spectrum = pairs_of(fraction, geometry)

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        return powers(self.base, 2 * self.n_pairs, device)


class PRope(Rope):
    """RoPE whose slowest pairs are not rotated: of base^(-2k/K), k = 0 .. K/2 - 1, the first fraction * K/2 are kept.

    None keeps the pairs that turn at least once within the training length, base^(-2k/K) * L >= 2 pi: the line that FoPE
    draws (Hua et al. 2024, arXiv:2412.17739), without its sums of frequencies. HoPE (Chen et al. 2024, arXiv:2410.21216)
    takes the position from slow pairs, too.
    Source: Barbero et al. 2025 (arXiv:2410.06205).
    Raises ValueError for a fraction outside of 0 .. 1, and as RoPE does.
    """

    def __init__(self, geometry: Geometry, fraction: float | None = None, base: float = 10_000.0) -> None:
        super().__init__(geometry, base)
        head_dim, slowest = geometry.head_dim, 2 * math.pi / geometry.train_len
        turning = sum(base ** (-2 * k / head_dim) >= slowest for k in range(head_dim // 2))
        self.n_pairs = turning if fraction is None else pairs_of(fraction, geometry)

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        frequencies = super().frequencies(device)
        return torch.cat([frequencies[: self.n_pairs], 0 * frequencies[self.n_pairs :]])


class LearnedRope(Rope):
    """RoPE whose frequencies are trained: base^(-2k/K) * exp(w_k), one spectrum for all heads and layers.

    w starts at 0, as RoPE, and its gradient is clipped with all others. GRAPE-M (Zhang et al. 2025, arXiv:2512.07805) trains
    the logarithms of frequencies, too, in its code those of each layer.
    Source: LeRoPE (2026, arXiv:2607.10134), which we know from others' descriptions alone.
    Raises ValueError as RoPE does.
    """

    def __init__(self, geometry: Geometry, base: float = 10_000.0) -> None:
        super().__init__(geometry, base)
        self.log_factors = nn.Parameter(torch.zeros(geometry.head_dim // 2))

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        return super().frequencies(device) * self.log_factors.double().exp()


def powers(base: float, dim: int, device: torch.device | None = None) -> Tensor:
    """(dim / 2,) float64: base^(-2k/dim)."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    frequencies: Tensor = base**-exponent
    return frequencies


def pairs_of(fraction: float, geometry: Geometry) -> int:
    """How many pairs of dimensions a fraction of the head dim holds."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction of the pairs of dimensions, 0 to 1, found {fraction}")
    return int(fraction * geometry.head_dim / 2 + 1e-9)  # 0.7 * 20 / 2 is 7


def rotate_by(angles: Tensor) -> Rotation:
    """The rotation of queries and keys by the same angles (T, K/2): pairs are complex numbers, times exp(i * angle).

    The factors are rounded to float32 once.
    """
    factors = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    def turn(x: Tensor) -> Tensor:
        x = x.to(wide(x)).contiguous()
        return torch.view_as_real(torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) * factors).flatten(-2)

    return lambda q, k: (turn(q), turn(k))
