"""Norms of queries and keys, before anything is done with them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extrap.positions.base import Branch, Content, Geometry, PositionScheme, wide
from extrap.positions.wrappers import Wrapper

EPSILON = 1e-6


class Normed(Wrapper):
    """Queries and keys have the inner scheme's rotation, and its biases made of content read them, once they are normed."""

    def query(self, q: Tensor) -> Tensor:
        return q

    def key(self, k: Tensor) -> Tensor:
        return k

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        rotate, content, decay = branch.rotate, branch.content, branch.decay

        def turned(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
            q, k = self.query(q.to(wide(q))), self.key(k.to(wide(k)))
            return rotate(q, k) if rotate else (q, k)

        def normed(seen: Content) -> Content:
            return seen._replace(q=self.query(seen.q), k=self.key(seen.k))

        return branch._replace(
            rotate=turned,
            still=branch.still or rotate is None,
            content=content and (lambda seen: content(normed(seen))),
            decay=decay and (lambda seen: decay(normed(seen))),
        )


class KeyNorm(Normed):
    """Any scheme with keys of one length: k becomes sqrt(K) k / |k|, so that q . k / sqrt(K) is |q| times a cosine.

    Source: Su 2023 (kexue.fm 9859), there around RoPE in a causal model.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme) -> None:
        super().__init__(inner)

    def key(self, k: Tensor) -> Tensor:
        return math.sqrt(k.shape[-1]) * F.normalize(k, dim=-1)


class QkNorm(Wrapper):
    """Any scheme with queries and keys normed: x becomes g * x / sqrt(mean(x^2) + 1e-6), the mean over the K dims of a head.

    The gains g, (H, K) for queries and for keys in each layer, start at 1: a score is then sqrt(K) times a cosine.
    Source: Henry et al. 2020 (arXiv:2010.04245) for the idea, with one scale instead of gains; RMSNorm of each head as in
    Gemma 3 and Qwen 3, whose heads share gains, and x-transformers' qk_rmsnorm, whose heads do not.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme) -> None:
        super().__init__(inner)
        gains = [torch.ones(geometry.n_heads, geometry.head_dim) for _ in range(2 * geometry.n_layers)]
        self.of_queries, self.of_keys = nn.ParameterList(gains[::2]), nn.ParameterList(gains[1::2])

    def layers(self, n_layers: int) -> list[PositionScheme]:
        gains = zip(self.of_queries, self.of_keys, strict=True)
        return [LayerNorms(scheme, *pair) for scheme, pair in zip(super().layers(n_layers), gains, strict=True)]


class LayerNorms(Normed):
    """The scheme of a layer; gains (H, K)."""

    def __init__(self, inner: PositionScheme, of_queries: Tensor, of_keys: Tensor) -> None:
        super().__init__(inner)
        self.of_queries, self.of_keys = of_queries, of_keys

    def query(self, q: Tensor) -> Tensor:
        return rms_norm(q) * self.of_queries[:, None]

    def key(self, k: Tensor) -> Tensor:
        return rms_norm(k) * self.of_keys[:, None]


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)
