"""Data-adaptive position encoding (DAPE)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import BlockBias, Branch, Content, Geometry, PositionScheme, ScoreMod
from extrap.positions.cpb import uniform
from extrap.positions.wrappers import Wrapper

WIDTH = 32


class Dape(Wrapper):
    """s + b + f(s, b), s = q . k / sqrt(K) the scores of all heads at a pair of tokens and b the biases of another scheme.

    f is a perceptron of each layer, of these 2H numbers over 32 to H, with LeakyReLU.
    With a kernel_size above 1, DAPE v2, both its maps are convolutions along the keys. In place of keys that a query may not
    attend to they read 0, in a causal model those ahead of it. Weights start as PyTorch has them. An encoder, for which
    nothing is published, has the same perceptron, and convolutions over the keys of both sides.

    Deviations: of KERPLE there every layer has parameters of its own, here one for all. Where an input begins or ends, the
    second of the released convolutions reads 0, so that the weights of a token depend on whether another one follows. Here
    an input has zeros all around it, and what the first makes of them counts.
    Source: Zheng et al. 2024 (arXiv:2405.14722), Zheng et al. 2024 (arXiv:2410.04798) and their released code.
    Raises ValueError for an even kernel_size, and around a scheme without a bias of positions.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme, kernel_size: int = 1) -> None:
        super().__init__(inner)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"DAPE reads a key and as many on either side: expected an odd kernel_size, found {kernel_size}"
            )
        if not all(has_bias(layer) for layer in inner.layers(geometry.n_layers)):
            raise ValueError(f"DAPE reads a bias: expected a scheme of one pass with a bias, found {type(inner).__name__}")
        self.direction_aware = inner.direction_aware or kernel_size > 1
        self.maps = nn.ModuleList(Perceptron(geometry.n_heads, kernel_size) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [
            Adapted(scheme, cast(Perceptron, own)) for scheme, own in zip(super().layers(n_layers), self.maps, strict=True)
        ]


def has_bias(layer: PositionScheme) -> bool:
    branch, *others = layer.branches(layer.positions(2))
    return branch.score_mod is not None and not (others or branch.reads_content)


class Perceptron(nn.Module):
    """Of a layer: first (32, 2H, kernel), bias (32,), second (H, 32, kernel); the softmax is blind to a second bias."""

    def __init__(self, n_heads: int, kernel: int) -> None:
        super().__init__()
        self.first, self.bias = (uniform(2 * n_heads * kernel, WIDTH, *rest) for rest in ((2 * n_heads, kernel), ()))
        self.second = uniform(WIDTH * kernel, n_heads, WIDTH, kernel)


class Adapted(Wrapper):
    """The scheme of a layer."""

    def __init__(self, inner: PositionScheme, perceptron: Perceptron) -> None:
        super().__init__(inner)
        self.perceptron = perceptron

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        score_mod = branch.score_mod
        assert score_mod
        return branch._replace(content=lambda seen: self.adapted(seen, score_mod))

    def adapted(self, seen: Content, score_mod: ScoreMod) -> BlockBias:
        n_tokens, of, device = seen.q.shape[2], self.perceptron, seen.q.device
        first, second = (weight.to(seen.q.dtype)[:, :, None] for weight in (of.first, of.second))
        zero, h = seen.q.new_zeros(1, 1, 1, 1), torch.arange(self.geometry.n_heads, device=device)[:, None, None]
        reach = first.shape[-1] // 2

        def added(i: Tensor, j: Tensor) -> Tensor:
            # whatever keys are asked for, their neighbours are read too
            near = j[:1] + torch.arange(-2 * reach, len(j) + 2 * reach, device=device)
            keys = near.clamp(0, n_tokens - 1)
            score = seen.rotated_q[:, :, i] @ seen.rotated_k[:, :, keys].mT * self.geometry.head_dim**-0.5
            bias = score_mod(zero, zero.long(), h, i[:, None], keys)
            read = (near >= 0) & (near < n_tokens) & self.may_attend(i[:, None], keys)
            if seen.mask_mod:
                read = read & seen.mask_mod(zero.long(), h, i[:, None], keys)
            both = torch.cat([part.where(read, 0) for part in (score, bias.expand_as(score))], dim=1)
            return F.conv2d(F.leaky_relu(F.conv2d(both, first, of.bias.to(both.dtype)), inplace=True), second)

        return added

    def may_attend(self, i: Tensor, j: Tensor) -> Tensor:
        return j <= i if self.geometry.causal else torch.ones_like(j <= i)
