"""FIRE: functional interpolation of the distance to the length."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, ScoreMod
from extrap.positions.cpb import linear

UNITS = 32
EPS = 1e-6  # of the released listing


class Fire(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) + f_h(psi(i - j) / (psi(max(i, threshold)) + 1e-6)), psi(x) = log(1 + abs(c * x)).

    Every layer has its own c, threshold and f, a network of one hidden layer of 32 ReLUs. c starts at 0.1, the threshold is
    a factor, trained from 1, times L/4 (the paper's 512 for L = 2,048), and f starts as PyTorch's linear maps do, but has
    no last bias, which no softmax sees.
    In an encoder, for which nothing is published, what lies behind has this bias too; ahead positions are counted from the
    end, and f reads the ratio with a minus sign.
    Source: Li et al. 2024 (arXiv:2310.04418), FIRE and not FIRE-S, whose layers share all; with one hidden layer, as in the
    paper's listing, where its text has two.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.functions = nn.ModuleList(Interpolation(geometry) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.functions]  # type: ignore[list-item]


class Interpolation(PositionScheme):
    """The scheme of a layer: c (1,), factor (1,), hidden (32, 1), hidden_bias (32,), out (H, 32)."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.c, self.factor = nn.Parameter(torch.full((1,), 0.1)), nn.Parameter(torch.ones(1))
        self.hidden, self.hidden_bias = linear(1, UNITS)
        self.out, _ = linear(UNITS, geometry.n_heads)

    def psi(self, x: Tensor) -> Tensor:
        return torch.log1p((self.c * x).abs())

    def ratios(self, pos: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(q_idx, kv_idx) -> what the network reads, between -1 and 1; behind a query it is positive."""
        threshold = (self.factor * (self.geometry.train_len / 4)).abs()

        def normaliser(reach: Tensor) -> Tensor:
            return self.psi(torch.maximum(reach, threshold)) + EPS

        def ratio(q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            i, t = pos[q_idx], pos[q_idx] - pos[kv_idx]
            if self.geometry.causal:
                return self.psi(t) / normaliser(i)
            return t.sign() * self.psi(t) / torch.where(t < 0, normaliser(pos[-1] - i), normaliser(i))

        return ratio

    def pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        """The network, which is linear between knots (32,): of each piece the slope and the value at 0, (33, H) both."""
        w, b = self.hidden[:, 0], self.hidden_bias
        knots, order = torch.where(w == 0, torch.inf, -b / w).detach().sort()
        beyond = torch.arange(UNITS + 1, device=w.device)[:, None] > order.argsort()
        active = (beyond == (w > 0)) & ((w != 0) | (b > 0))
        slope, at_0 = ((active[:, None] * (self.out * unit)).sum(dim=-1) for unit in (w, b))
        return knots, slope, at_0

    def score_mod(self, pos: Tensor) -> ScoreMod:
        ratio, (knots, slope, at_0) = self.ratios(pos), self.pieces()

        def add(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            x = ratio(q_idx, kv_idx)
            piece = torch.searchsorted(knots, x.detach())  # no pair needs all units at once, nor its gradients
            return score + (slope[piece, h] * x + at_0[piece, h])

        return add
