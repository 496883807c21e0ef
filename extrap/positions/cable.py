"""Context-aware biases (CABLE)."""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import BlockBias, Branch, Content, Decay, Geometry, PositionScheme
from extrap.positions.fox import Gates

Form = Literal["released", "weighted", "printed"]


class Cable(PositionScheme):
    """q_i . k_j / sqrt(K) + b_i - b_j, b_i the sum over u <= i of -softplus(w_h . x_u + c_h), in every layer its own.

    `released`: this, without a weight (the paper's CABLE_NW). `weighted`: times softplus(s_h . x_i), as in the paper.
    `printed`: the paper's equations to the letter, times that weight and relu(w_h . x_u) for each token, so that what is far
    is preferred. w starts at N(0, 0.02^2) and c at 0, as in the released code, s as w. In an encoder, for which the paper
    gives no definition, what lies ahead has parameters of its own, as in FoX.

    Deviation: the released code does not divide q . k by sqrt(K), `scaled=false`. Divided, the released form is FoX with
    gates sigmoid(-w . x - c). Undivided scores begin larger here: the encoder's maps start with a variance of 1/D, so that
    those of 32 dimensions a head spread by 5.7, theirs, from N(0, 0.02^2) at a width of 768, by 2.5.
    Source: Veisi et al. 2025 (arXiv:2503.08067), equations 2 to 7, and its released code.
    """

    relative = True

    def __init__(self, geometry: Geometry, form: Form = "released", scaled: bool = True) -> None:
        super().__init__(geometry)
        self.costs = nn.ModuleList(Costs(geometry, form, scaled) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.costs]  # type: ignore[list-item]


class Costs(Gates):
    """The scheme of a layer: weight (1 side, or 2 in an encoder; H, D), bias (sides, H) and strength (sides, H, D)."""

    def __init__(self, geometry: Geometry, form: Form, scaled: bool) -> None:
        super().__init__(geometry)
        self.form, self.scaled = form, scaled
        if form == "printed":
            self.register_parameter("bias", None)
        if form != "released":
            self.strength = nn.Parameter(0.02 * torch.randn_like(self.weight))

    def steps(self, seen: Content, side: int) -> Tensor:
        cost = seen.x @ self.weight[side].mT
        return (F.relu(cost) if self.form == "printed" else -F.softplus(cost + self.bias[side])).mT.double()

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        branches = super().branches(pos)
        if self.form != "released":
            branches = tuple(
                branch._replace(decay=None, content=partial(self.weighted, side, branch.decay))
                for side, branch in enumerate(branches)
                if branch.decay
            )
        if not self.scaled:
            root = math.sqrt(self.geometry.head_dim)
            branches = tuple(branch._replace(rotate=lambda q, k: (q * root, k)) for branch in branches)
        return branches

    def weighted(self, side: int, decay: Decay, seen: Content) -> BlockBias:
        c, strength = decay(seen), F.softplus(seen.x @ self.strength[side].mT).mT
        return lambda i, j: strength[:, :, i, None] * (c[:, :, i, None] - c[:, :, None, j])
