"""KERPLE: a relative bias whose decay is trained."""

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class Kerple(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) - r1_h * log(1 + r2_h * abs(i - j)), the logarithmic kernel, r1 and r2 trained.

    The bias is added after the division by sqrt(K), as in the paper's code; its equation has it inside. r1, r2 are
    kept at 0.01 or more and start uniform in (0, 2) and (0, 1), as there. One pair a head serves all layers; the code has
    one a head and layer.
    Source: Chi et al. 2022 (arXiv:2205.09921), equation 6 and its released code.
    """

    relative = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.r1 = nn.Parameter(2 * torch.rand(geometry.n_heads))
        self.r2 = nn.Parameter(torch.rand(geometry.n_heads))

    def score_mod(self, pos: Tensor) -> ScoreMod:
        for r in (self.r1, self.r2):
            r.data.clamp_(min=0.01)  # the numbers themselves, so that a gradient can lift them off the floor again
        return lambda score, b, h, q, kv: score - self.r1[h] * torch.log1p(self.r2[h] * (pos[q] - pos[kv]).abs())
