"""Biases of distance that reach further."""

from copy import copy

import torch
from torch import Tensor

from extrap.extensions.base import Extension, ends, is_drawn, is_wide, passes_of, rebuilt
from extrap.positions.alibi import Alibi
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.wrappers import Wrapper, at_distances


class Rescale(Extension):
    """Distances of biases divided by k = n / L, so that the longest is that of training: B(t) becomes B(t / k).

    Of ALiBi it divides the slopes by k (its position interpolation: Al-Khateeb et al. 2023, arXiv:2310.13017); T5's buckets
    take the whole part of t / k; of KERPLE and all others, for which nothing is published, t is divided alike (the half step
    of ALiBi's variant `half` stays a half). Rotations, masks and biases made of content stay, and so do layers that see no
    further than in training. None of DAPE, whose perceptron reads the bias, too, and of drawn positions, which were trained
    further than L.
    """

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        layers = dict.fromkeys(scheme.layers(scheme.geometry.n_layers))
        if ends(scheme, eval_len) or is_drawn(scheme) or not any(is_biased(layer, passes_of(layer)) for layer in layers):
            return None
        return Rescaled(scheme, eval_len)


TINY = 1e-30  # trained slopes may have become equal


class NtkAlibi(Extension):
    """NTK-ALiBi: m_h * k^(-(h - 1) / (H - 1)), k = n / L: the steepest slope stays, the flattest is divided by k.

    The exponent here is the share of log(m_h) between the two: the same for a power of two H, and for others, whose further
    slopes the released code leaves as they are, for trained ones and for two sides, the same rule. None for a single head,
    and of drawn positions.
    Source: the released code of NTK-ALiBi (github.com/keezen/ntk_alibi, 2023).
    """

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        if is_drawn(scheme):
            return None
        k = eval_len / scheme.geometry.train_len

        def spread(alibi: Alibi) -> PositionScheme:
            if scheme.geometry.n_heads == (2 if alibi.variant == "split" else 1):
                return alibi  # all have one slope
            other, slopes = copy(alibi), alibi.steepness().detach()
            share = (slopes.max().log() - slopes.log()) / (slopes.max().log() - slopes.min().log()).clamp(min=TINY)
            other.learned, other._buffers = False, alibi._buffers | {"slopes": slopes * k**-share}
            return other

        extended = rebuilt(scheme, Alibi, spread)
        return None if extended is scheme else extended


def is_biased(scheme: PositionScheme, passes: tuple[Branch, ...]) -> bool:
    """Whether a layer that sees further than in training has one pass with a bias of the distance."""
    one = len(passes) == 1 and passes[0].score_mod is not None and not passes[0].reads_content
    return scheme.relative and one and is_wide(passes, scheme.geometry.train_len)


class Rescaled(Wrapper):
    """Biases at distances of training."""

    def __init__(self, inner: PositionScheme, eval_len: int) -> None:
        super().__init__(inner)
        self.eval_len = eval_len

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        passes = self.inner.branches(pos)
        if not is_biased(self.inner, passes):
            return passes

        def shorter(q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            t = (pos[q_idx] - pos[kv_idx]).to(torch.float64)
            return (t * self.geometry.train_len / self.eval_len).to(torch.float32)

        return (passes[0]._replace(score_mod=at_distances(self.inner, shorter)),)
