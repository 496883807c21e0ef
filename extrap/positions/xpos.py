"""xPos: RoPE whose pairs also decay with distance."""

import torch
from torch import Tensor

from extrap.positions.base import Branch, Geometry, Rotation
from extrap.positions.rope import Rope, rotate_by


class Xpos(Rope):
    """RoPE with pair k of a score multiplied by zeta_k^((i - j) / scale_base), zeta_k = (2k / K + 0.4) / 1.4.

    scale_base is 512 in the paper, half of its training length; within 128 tokens no pair then falls below 0.73.
    In an encoder, for which nothing is published, keys ahead decay alike, zeta_k^(abs(i - j) / scale_base), in a second
    pass: a factor for each query and one for each key cannot make an absolute value.
    The factors of a token at position p are zeta_k^(+-(p / scale_base - 32)). float32 holds their products of both signs,
    which are formed behind masks, up to p = 64 scale_base: there the scheme ends.
    Extensions that slow the angles leave the decay as it is.
    Source: Sun et al. 2022 (arXiv:2212.10554) and its code in torchscale.
    Raises ValueError for a scale_base that is not positive, and as RoPE does.
    """

    def __init__(self, geometry: Geometry, scale_base: float = 512.0, base: float = 10_000.0) -> None:
        super().__init__(geometry, base)
        if not scale_base > 0:
            raise ValueError(f"xPos decays with distance: expected scale_base > 0, found {scale_base}")
        self.scale_base, self.max_len = scale_base, int(2 * CENTRE * scale_base)

    def rotation(self, pos: Tensor) -> Rotation:
        """Towards keys behind."""
        return self._turn(pos, side=1)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        if self.geometry.causal:
            return super().branches(pos)
        past = Branch(self._turn(pos, side=1), mask_mod=lambda b, h, i, j: j <= i, relative=True)
        return past, Branch(self._turn(pos, side=-1), mask_mod=lambda b, h, i, j: j > i, relative=True)

    def _turn(self, pos: Tensor, side: int) -> Rotation:
        head_dim = self.geometry.head_dim
        zeta = (torch.arange(0, head_dim, 2, dtype=torch.float64, device=pos.device) / head_dim + 0.4) / 1.4
        exponents = side * (pos.to(torch.float64)[:, None] / self.scale_base - CENTRE)
        growth, turn = (zeta**exponents).repeat_interleave(2, dim=-1), rotate_by(self.angles(pos))

        def turned(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
            q, k = turn(q, k)
            return q * growth.to(q.dtype), k * (1 / growth).to(k.dtype)

        return turned


CENTRE = 32  # what the exponents are counted from, for both sides of the range of float32 to be used
