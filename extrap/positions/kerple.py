"""KERPLE: a relative bias whose decay is trained."""

from typing import Literal

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, ScoreMod

LEAST, HIGHEST = 0.01, 2.0  # beyond an exponent of 2 the kernel is no longer conditionally positive definite


class Kerple(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) less a kernel of t = abs(i - j) whose parameters are trained:

    - log: r1_h * log(1 + r2_h * t),
    - power: r1_h * t^r2_h,
    - three: r1_h * log(1 + r2_h * t^r3_h), the paper's 3-para-log.

    The bias is added after the division by sqrt(K), as in the authors' code; the paper's equation has it inside. As there,
    factors start uniform in (0, 1), exponents and the r1 of `log` in (0, 2), one of each a head serves all layers, and none
    counts for less than 0.01, an exponent for no more than 2; there what leaves these bounds is set back to them, here it is
    kept, and comes back by its gradient. `three` has not been released: it starts as `log`, and its
    exponent as that of `power`.
    Source: Chi et al. 2022 (arXiv:2205.09921), sections 4 and 5.3, and its released code.
    """

    relative = True
    direction_aware = False

    def __init__(self, geometry: Geometry, kernel: Literal["log", "power", "three"] = "log") -> None:
        super().__init__(geometry)
        self.kernel = kernel
        n_heads, low, high = geometry.n_heads, 1.0, HIGHEST
        self.r1 = nn.Parameter((low if kernel == "power" else high) * torch.rand(n_heads))
        self.r2 = nn.Parameter((high if kernel == "power" else low) * torch.rand(n_heads))
        if kernel == "three":
            self.r3 = nn.Parameter(high * torch.rand(n_heads))

    def score_mod(self, pos: Tensor) -> ScoreMod:
        r1 = within(self.r1, LEAST)
        r2 = within(self.r2, LEAST, HIGHEST if self.kernel == "power" else None)
        if self.kernel == "power":
            return lambda score, b, h, q, kv: score - r1[h] * (pos[q] - pos[kv]).abs() ** r2[h]
        if self.kernel == "three":
            r3 = within(self.r3, LEAST, HIGHEST)
            return lambda score, b, h, q, kv: score - r1[h] * torch.log1p(r2[h] * (pos[q] - pos[kv]).abs() ** r3[h])
        return lambda score, b, h, q, kv: score - r1[h] * torch.log1p(r2[h] * (pos[q] - pos[kv]).abs())


def within(r: Tensor, low: float, high: float | None = None) -> Tensor:
    """r between its bounds, with the gradient of r itself, so that training can take it off a bound again."""
    return r + (r.clamp(low, high) - r).detach()
