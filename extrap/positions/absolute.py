"""Absolute positions: a vector per position, added to the input vectors."""

import torch
from torch import Tensor, nn

from extrap.positions.base import TABLE_STD, Geometry, PositionScheme


class Learned(PositionScheme):
    """A trained table of train_len rows: x_t + table[t]. Undefined beyond its last row.

    Shapes: table (train_len, D). Raises ValueError for a position outside the table.
    Source: BERT (Devlin et al. 2019, arXiv:1810.04805). As there it starts as large as the token embeddings, here
    N(0, 0.5^2) instead of N(0, 0.02^2) and a layer norm over their sum.
    """

    tabular = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.max_len = geometry.train_len
        self.table = nn.Parameter(torch.empty(geometry.train_len, geometry.d_model))
        nn.init.normal_(self.table, std=TABLE_STD)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        try:
            return x + self.table[pos]
        except IndexError as error:  # on the CPU; an input that is too long the encoder refuses on any device
            told = f"learned positions end at {len(self.table)}, the input reaches {int(pos[-1]) + 1}"
            raise ValueError(told) from error


class Sinusoidal(PositionScheme):
    """x_t + p_t with p[t, 2k] = sin(t * base^(-2k/D)) and p[t, 2k+1] = cos(t * base^(-2k/D)).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5; interleaved as printed there.
    Raises ValueError for an odd d_model and a base that is not positive.
    """

    def __init__(self, geometry: Geometry, base: float = 10_000.0) -> None:
        super().__init__(geometry)
        if geometry.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, found {geometry.d_model}")
        if not base > 0:
            raise ValueError(f"sinusoidal positions need a positive base, found {base}")
        self.base = base

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + sinusoids(pos, x.shape[-1], self.base).to(torch.float32)


def sinusoids(pos: Tensor, d_model: int, base: float) -> Tensor:
    """(T,) int64 -> (T, D) float64, sine and cosine interleaved."""
    exponent = torch.arange(0, d_model, 2, dtype=torch.float64, device=pos.device) / d_model
    angle = pos.to(torch.float64)[:, None] * base**-exponent  # (T, D/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
