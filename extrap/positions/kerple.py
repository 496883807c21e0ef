"""KERPLE: a relative bias whose decay is trained."""

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class Kerple(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) - r1_h * log(1 + r2_h * abs(i - j)), the logarithmic kernel, r1 and r2 trained.

    The bias is added after the division by sqrt(K), as in the authors' code; the paper's equation has it inside. As there,
    r1 and r2 start uniform in (0, 2) and (0, 1), one pair a head serves all layers, and none counts for less than 0.01.
    Source: Chi et al. 2022 (arXiv:2205.09921), equation 6 and its released code.
    """

    relative = True
    direction_aware = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.r1 = nn.Parameter(2 * torch.rand(geometry.n_heads))
        self.r2 = nn.Parameter(torch.rand(geometry.n_heads))

    def score_mod(self, pos: Tensor) -> ScoreMod:
        r1, r2 = at_least(0.01, self.r1), at_least(0.01, self.r2)
        return lambda score, b, h, q, kv: score - r1[h] * torch.log1p(r2[h] * (pos[q] - pos[kv]).abs())


def at_least(low: float, r: Tensor) -> Tensor:
    """max(low, r), with the gradient of r itself, so that training can lift it off the floor again."""
    return r + (r.clamp(min=low) - r).detach()
