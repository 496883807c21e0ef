"""Attention with linear biases."""

import torch
from torch import Tensor

from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class Alibi(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) - m_h * abs(i - j), the bias not divided by sqrt(K).

    In a bidirectional encoder this is the symmetric variant (MosaicBERT, flash-attention): the bias cannot tell
    a text from its mirror image. The released code of the paper adds m_h * j, which is right only under a causal mask.
    Source: Press et al. 2022 (arXiv:2108.12409), section 3.
    """

    relative = True
    direction_aware = False

    slopes: Tensor  # (H,)

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.register_buffer("slopes", alibi_slopes(geometry.n_heads).to(torch.float32), persistent=False)

    def score_mod(self, pos: Tensor) -> ScoreMod:
        return lambda score, b, h, q_idx, kv_idx: score - self.slopes[h] * (pos[q_idx] - pos[kv_idx]).abs()


def alibi_slopes(n_heads: int) -> Tensor:
    """(H,) float64: m_h = 2^(-8h/H), h = 1..H, for a power of two H.

    Otherwise the slopes for the next lower power of two P, followed by every other slope for 2P, starting with the
    first, as in the paper's released code.
    """
    power = 1 << (n_heads.bit_length() - 1)

    def geometric(n: int) -> list[float]:
        return [2.0 ** (-8.0 * h / n) for h in range(1, n + 1)]

    return torch.tensor(geometric(power) + geometric(2 * power)[::2][: n_heads - power], dtype=torch.float64)
