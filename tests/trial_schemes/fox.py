"""The Forgetting Transformer."""

import torch
from torch import nn
from torch.nn import functional as F

from extrap.positions.base import Branch, PositionScheme


class Fox(PositionScheme):
    """q_i . k_j / sqrt(K) + the sum over j < u <= i of log f_u, f_u = sigmoid(w_h . x_u + b_h).

    Gates of their own in every layer, made of its normed input. In an encoder, for which nothing is published, what lies
    ahead has gates f' of its own, the sum over i <= u < j of log f'_u: reversing the text and swapping the gates mirrors it.
    Source: Lin et al. 2025 (arXiv:2503.02130) and its released code.
    """

    relative = True

    def __init__(self, geometry):
        super().__init__(geometry)
        self.gates = nn.ModuleList(Gates(geometry) for _ in range(geometry.n_layers))

    def layers(self, n_layers):
        return list(self.gates)


class Gates(PositionScheme):
    """The scheme of a layer."""

    relative = True

    def __init__(self, geometry):
        super().__init__(geometry)
        sides = 1 if geometry.causal else 2
        self.weight = nn.Parameter(0.02 * torch.randn(sides, geometry.n_heads, geometry.d_model))
        self.bias = nn.Parameter(torch.zeros(sides, geometry.n_heads))

    def log_gates(self, seen, side):
        """(B, H, T) float64."""
        return F.logsigmoid(seen.x @ self.weight[side].mT + self.bias[side]).mT.double()

    def past(self, seen):
        return self.log_gates(seen, 0).cumsum(dim=-1)

    def future(self, seen):
        gates = self.log_gates(seen, 1)
        return gates - gates.cumsum(dim=-1)  # of the tokens before

    def branches(self, pos):
        if self.geometry.causal:
            return (Branch(decay=self.past),)
        past = Branch(mask_mod=lambda b, h, i, j: j <= i, decay=self.past, relative=True)
        return past, Branch(mask_mod=lambda b, h, i, j: j > i, decay=self.future, relative=True)
