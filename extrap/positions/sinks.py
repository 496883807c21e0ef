"""Learned attention sinks."""

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, Weights
from extrap.positions.wrappers import Wrapper


class Sinks(Wrapper):
    """One more logit for each head and layer, which takes weight and has no value: softmax times sigmoid(lse - sink).

    lse is the logarithm of the sum of the exponentials of a query's scores; sinks start at 0.
    Raises ValueError around a scheme that makes weights in another way.
    Source: OpenAI 2025, gpt-oss; Xiao et al. 2024 (arXiv:2309.17453), section 3.3, with a key of its own instead.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme) -> None:
        super().__init__(inner)
        if any(layer.weights() for layer in inner.layers(geometry.n_layers)):
            raise ValueError(f"sinks join a softmax: expected a scheme that has one, found {type(inner).__name__}")
        self.sinks = nn.ParameterList(torch.zeros(geometry.n_heads) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [Sink(scheme, sink) for scheme, sink in zip(super().layers(n_layers), self.sinks, strict=True)]


class Sink(Wrapper):
    """The scheme of a layer; sink (H,)."""

    def __init__(self, inner: PositionScheme, sink: Tensor) -> None:
        super().__init__(inner)
        self.sink = sink

    def weights(self) -> Weights:
        def weigh(scores: Tensor) -> Tensor:
            lse = scores.logsumexp(dim=-1, keepdim=True)
            return scores.softmax(dim=-1) * torch.sigmoid(lse - self.sink[:, None, None])

        return weigh
