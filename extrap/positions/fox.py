"""The Forgetting Transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import Branch, Content, Geometry, PositionScheme


class Fox(PositionScheme):
    """q_i . k_j / sqrt(K) + the sum over j < u <= i of log f_u, f_u = sigmoid(w_h . x_u + b_h).

    Gates of their own in every layer, made of its normed input. In an encoder, for which nothing is published, what lies
    ahead has gates f' of its own, the sum over i <= u < j of log f'_u: reversing the text and swapping the gates mirrors it.
    Source: Lin et al. 2025 (arXiv:2503.02130) and its released code, the variant without rotation, norms and output gate.
    """

    relative = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.gates = nn.ModuleList(Gates(geometry) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.gates]  # type: ignore[list-item]


class Gates(PositionScheme):
    """The scheme of a layer: weight (1 side, or 2 in an encoder; H, D), bias (sides, H)."""

    relative = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        sides = 1 if geometry.causal else 2
        self.weight = nn.Parameter(0.02 * torch.randn(sides, geometry.n_heads, geometry.d_model))
        self.bias = nn.Parameter(torch.zeros(sides, geometry.n_heads))

    def steps(self, seen: Content, side: int) -> Tensor:
        """(B, H, T) float64: what each token adds to the score of a key that it stands between, log f."""
        return F.logsigmoid(seen.x @ self.weight[side].mT + self.bias[side]).mT.double()

    def past(self, seen: Content) -> Tensor:
        return self.steps(seen, 0).cumsum(dim=-1)

    def future(self, seen: Content) -> Tensor:
        steps = self.steps(seen, 1)
        return steps - steps.cumsum(dim=-1)  # of the tokens before

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        if self.geometry.causal:
            return (Branch(decay=self.past),)
        past = Branch(mask_mod=lambda b, h, i, j: j <= i, decay=self.past, relative=True)
        return past, Branch(mask_mod=lambda b, h, i, j: j > i, decay=self.future, relative=True)
