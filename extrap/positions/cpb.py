"""Continuous position bias: a network that reads the distance."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import Geometry, PositionScheme, ScoreMod


class Cpb(PositionScheme):
    """score_ij = q_i . k_j / sqrt(K) + f_h(i - j), f a network of two hidden layers of D/4 SiLUs, one for all layers.

    With `log_distance` it reads sign(i - j) * log(1 + abs(i - j)) instead. It knows either side from the other; far away it
    is linear in what it reads, as a SiLU is. Weights and biases start as those of PyTorch's linear maps; there is no last
    bias, which no softmax sees.
    Shapes, W = D/4: first (W, 1), second (W, W), first_bias and second_bias (W,), last (H, W).
    Source: x-transformers' dynamic_pos_bias, depth 2, without norms; after Swin v2 (Liu et al. 2022, arXiv:2111.09883),
    whose network is another one.
    """

    relative = True

    def __init__(self, geometry: Geometry, log_distance: bool = False) -> None:
        super().__init__(geometry)
        self.log_distance = log_distance
        width = max(1, geometry.d_model // 4)
        self.first, self.first_bias = linear(1, width)
        self.second, self.second_bias = linear(width, width)
        self.last, _ = linear(width, geometry.n_heads)

    def read(self, t: Tensor) -> Tensor:
        """What the network reads of distances i - j."""
        return t.sign() * t.abs().log1p() if self.log_distance else t

    def score_mod(self, pos: Tensor) -> ScoreMod:
        # float64: a bias may be in the hundreds, where float32 is coarse; of a text each distance is computed once
        first, second = (self.first.double(), self.first_bias.double()), (self.second.double(), self.second_bias.double())

        def add(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            x = self.read((pos[q_idx] - pos[kv_idx]).double())[..., None]
            for weight, bias in (first, second):
                x = F.silu(F.linear(x, weight, bias))
            return score + torch.einsum("...w,...w->...", x, self.last[h].double()).to(self.last.dtype)

        return add


def linear(inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """The weight (outputs, inputs) and the bias of a linear map as PyTorch starts them."""
    return uniform(inputs, outputs, inputs), uniform(inputs, outputs)


def uniform(n_in: int, *size: int) -> nn.Parameter:
    """Within 1 / sqrt(n_in), n_in the numbers that make one."""
    return nn.Parameter(torch.empty(size).uniform_(-(n_in**-0.5), n_in**-0.5))
