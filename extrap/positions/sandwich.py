"""Sandwich: a bias made of sinusoids, without parameters."""

import torch
from torch import Tensor

from extrap.positions.absolute import sinusoids
from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class Sandwich(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) + (p_i . p_j - dim / 2) / (8h / H), p the sinusoids of a Transformer of width dim.

    p_i . p_j is the sum over c < dim / 2 of cos((i - j) * 10000^(-2c/dim)); the constant, without effect in a softmax, makes
    the bias 0 at a token itself. It falls with the logarithm of the distance, though not steadily. In an encoder, for which
    nothing is published, a cosine is the same to both sides.
    Source: Chi et al. 2023 (arXiv:2212.10356). The frequencies are those of Vaswani et al. 2017, c from 0; NVIDIA's NeMo
    begins with 1. The width is a choice of its own, whatever that of the model is.
    Raises ValueError for a width that is not even and positive.
    """

    relative = True
    direction_aware = False

    def __init__(self, geometry: Geometry, dim: int = 128) -> None:
        super().__init__(geometry)
        if dim < 2 or dim % 2:
            raise ValueError(f"Sandwich has a sine and a cosine a frequency: expected an even dim >= 2, found {dim}")
        self.dim = dim

    def score_mod(self, pos: Tensor) -> ScoreMod:
        def at(idx: Tensor) -> Tensor:
            return sinusoids(pos[idx].flatten(), self.dim, 10_000.0).view(*idx.shape, self.dim)

        def add(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            similarity = torch.einsum("...d,...d->...", at(q_idx), at(kv_idx))  # of a grid of pairs one matrix product
            ratio = 8 * (h + 1) / self.geometry.n_heads
            return score + ((similarity - self.dim / 2) / ratio).to(torch.float32)

        return add
