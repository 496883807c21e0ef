"""Attention with linear biases."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import Geometry, MaskMod, PositionScheme, ScoreMod

Variant = Literal["symmetric", "half", "split", "two", "offset"]


class Alibi(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) - m_h * abs(i - j), the bias not divided by sqrt(K).

    The released code of the paper adds m_h * j, which is right only under a causal mask. In an encoder the paper's bias is
    `symmetric` (MosaicBERT, flash-attention) and cannot tell a text from its mirror image; the other variants can, and are
    for encoders alone, since in a causal model nothing lies ahead:

    - half: keys behind are nearer by half a step, m_h * (abs(i - j) - 0.5) for j < i (Ruoss et al. 2023, arXiv:2305.16843,
      their released code);
    - split: the first half of the heads sees what lies behind, the second what lies ahead, each with the slopes of H/2;
    - offset: keys ahead have c_h less, c trained from 0 (both proposed in ofirpress/attention_with_linear_biases, issue 5);
    - two: keys ahead have the slopes m_h * 2^(-4/H), each between m_h and the next (ours).

    `learned`: slopes softplus(-gate), trained from ALiBi's own. These are the gates of the Forgetting Transformer without
    their input (Lin et al. 2025, arXiv:2503.02130, there called bias-only, one for each layer); here one serves all layers.
    Source: Press et al. 2022 (arXiv:2108.12409), section 3.
    Raises ValueError for a variant that is not defined.
    """

    relative = True
    direction_aware = False

    slopes: Tensor  # (H,), of `two` (2, H): behind and ahead

    def __init__(self, geometry: Geometry, variant: Variant = "symmetric", learned: bool = False) -> None:
        super().__init__(geometry)
        n_heads = geometry.n_heads
        if geometry.causal and variant != "symmetric":
            raise ValueError(
                f"ALiBi's variant {variant} is defined for encoders alone; expected objective=mlm, rtd, electra"
            )
        if variant == "split" and n_heads % 2:
            raise ValueError(f"half of the heads look back, half ahead: expected an even number of heads, found {n_heads}")
        self.variant, self.learned, self.direction_aware = variant, learned, variant != "symmetric"
        slopes = alibi_slopes(n_heads // 2).repeat(2) if variant == "split" else alibi_slopes(n_heads)
        if variant == "two":
            slopes = torch.stack([slopes, slopes * 2 ** (-4 / n_heads)])
        if learned:
            self.gate = nn.Parameter(-slopes.expm1().log().to(torch.float32))
        else:
            self.register_buffer("slopes", slopes.to(torch.float32), persistent=False)
        if variant == "offset":
            self.offset = nn.Parameter(torch.zeros(n_heads))

    def steepness(self) -> Tensor:
        """m, (H,) or (2, H)."""
        return F.softplus(-self.gate) if self.learned else self.slopes

    def score_mod(self, pos: Tensor) -> ScoreMod:
        m = self.steepness()

        def add(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            t = pos[q_idx] - pos[kv_idx]
            match self.variant:
                case "half":
                    return score - m[h] * (t.abs() - 0.5 * (t > 0))
                case "two":
                    return score - m[(t < 0).long(), h] * t.abs()
                case "offset":
                    return score - (m[h] * t.abs() + self.offset[h] * (t < 0))
            return score - m[h] * t.abs()

        return add

    def mask_mod(self, pos: Tensor) -> MaskMod | None:
        if self.variant != "split":
            return None
        behind = self.geometry.n_heads // 2
        return lambda b, h, i, j: torch.where(h < behind, pos[j] <= pos[i], pos[j] >= pos[i])


def alibi_slopes(n_heads: int) -> Tensor:
    """(H,) float64: m_h = 2^(-8h/H), h = 1..H, for a power of two H.

    Otherwise the slopes for the next lower power of two P, followed by every other slope for 2P, starting with the
    first, as in the paper's released code.
    """
    power = 1 << (n_heads.bit_length() - 1)

    def geometric(n: int) -> list[float]:
        return [2.0 ** (-8.0 * h / n) for h in range(1, n + 1)]

    return torch.tensor(geometric(power) + geometric(2 * power)[::2][: n_heads - power], dtype=torch.float64)
