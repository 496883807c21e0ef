"""Scores that grow with the number of keys, against attention that thins out over many of them.

What a query's product with its keys is multiplied by does not multiply biases: s log(n_i) q_i . k_j / sqrt(K) + bias_ij.
Queries and keys are those that the scheme has turned, all of what Transformer-XL's score is made of; what a scheme adds is a
bias, also where content has a part in it (Shaw, DeBERTa, CoPE). n_i is the number of keys that query i sees, itself
included: i + 1 in a causal model and all tokens in an encoder, fewer where a mask leaves fewer, wherever a window stands
around or within the scheme.
"""

import math

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, Sharpness
from extrap.positions.wrappers import Wrapper, joined


class LogN(Wrapper):
    """Any scheme with log(n_i) / log(L) times its q_i . k_j / sqrt(K), n_i the number of keys that query i sees.

    In training as beyond it, where it is the `logn` of finished weights, which counts nothing below 1.
    Source: Su 2021 (kexue.fm 8823), there in an encoder with n tokens and L = 512.
    Raises ValueError for a training length below 2, and around a scheme that counts keys already.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme) -> None:
        super().__init__(inner)
        refuse_counting(inner)
        self.rate = rate(geometry)

    def sharpness(self) -> Sharpness:
        return joined(lambda n: self.rate * logs(n), self.inner.sharpness())


class SSMax(Wrapper):
    """Scalable softmax: any scheme with s_h log(n_i) times its q_i . k_j / sqrt(K), n_i the keys that query i sees.

    s, (H,) for each layer, starts at 1 / log(L), where query L has the softmax as it is. Without the paper's other variant,
    which adds a trained bias to the logarithm.
    Source: Nakanishi 2025 (arXiv:2501.19399), causal and around RoPE there; the start is ours.
    Raises ValueError for a training length below 2, and around a scheme that counts keys already.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme) -> None:
        super().__init__(inner)
        refuse_counting(inner)
        start = torch.full((geometry.n_heads,), rate(geometry))
        self.rates = nn.ParameterList(start.clone() for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [Sharpened(scheme, s) for scheme, s in zip(super().layers(n_layers), self.rates, strict=True)]


class Sharpened(Wrapper):
    """The scheme of a layer; s (H,)."""

    def __init__(self, inner: PositionScheme, s: Tensor) -> None:
        super().__init__(inner)
        self.s = s

    def sharpness(self) -> Sharpness:
        return joined(lambda n: self.s[:, None] * logs(n), self.inner.sharpness())


def refuse_counting(inner: PositionScheme) -> None:
    if any(layer.sharpness() for layer in inner.layers(inner.geometry.n_layers)):
        raise ValueError(f"keys are counted once: expected a scheme that does not count them, found {type(inner).__name__}")


def rate(geometry: Geometry) -> float:
    """1 / log(L)."""
    if geometry.train_len < 2:
        raise ValueError(f"scores grow from what they are at L: expected a training length >= 2, found {geometry.train_len}")
    return 1 / math.log(geometry.train_len)


def logs(n: Tensor) -> Tensor:
    """0 for who sees no key, too: a scheme with weights of its own may leave a query without any."""
    return n.clamp(min=1).double().log()
