"""Learned attention sinks."""

import torch
from torch import nn

from extrap.positions.wrappers import Wrapper


class Sinks(Wrapper):
    """One more logit for each head and layer, which takes weight and has no value: softmax times sigmoid(lse - sink).

    lse is the logarithm of the sum of the exponentials of a query's scores. As in gpt-oss (OpenAI 2025).
    """

    def __init__(self, geometry, inner):
        super().__init__(inner)
        self.sinks = nn.ParameterList(torch.zeros(geometry.n_heads) for _ in range(geometry.n_layers))

    def layers(self, n_layers):
        return [Sink(scheme, sink) for scheme, sink in zip(super().layers(n_layers), self.sinks, strict=True)]


class Sink(Wrapper):
    """The scheme of a layer; sink (H,)."""

    def __init__(self, inner, sink):
        super().__init__(inner)
        self.sink = sink

    def weights(self):
        def weigh(scores):
            lse = scores.logsumexp(dim=-1, keepdim=True)
            return scores.softmax(dim=-1) * torch.sigmoid(lse - self.sink[:, None, None])

        return weigh
