"""Sharper attention for more keys: q . k times a factor, biases as they are."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from extrap.extensions.base import Extension, ends, is_wide, is_wide_anywhere
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.wrappers import Wrapper


class Sharper(Wrapper):
    """Rotated queries times a factor: of queries (B, H, T, K), a number or (T, 1)."""

    def __init__(self, inner: PositionScheme, factor: Callable[[Tensor], Tensor | float]) -> None:
        super().__init__(inner)
        self.factor = factor

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        rotate = branch.rotate

        def turned(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
            q, k = rotate(q, k) if rotate else (q, k)
            return q * self.factor(q), k

        return branch._replace(rotate=turned)


class LogN(Extension):
    """Query i times max(1, log n_i / log L), n_i = i + 1 keys in a causal model, i from 0, and all n in an encoder.

    Of every layer that sees further than in training, whatever its positions. A bias is not multiplied.
    Source: Su 2023 (kexue.fm 8823 and 9706, "after training").
    """

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        train_len = scheme.geometry.train_len
        if ends(scheme, eval_len) or train_len < 2 or not is_wide_anywhere(scheme, train_len):
            return None
        return Logarithmic(scheme, self._factor(train_len, scheme.geometry.causal))

    def _factor(self, train_len: int, causal: bool) -> Callable[[Tensor], Tensor | float]:
        def factor(q: Tensor) -> Tensor | float:
            n = q.shape[-2]
            if not causal:
                return 1 + math.log(max(1, n / train_len)) / math.log(train_len)
            over = (torch.arange(1, n + 1, dtype=torch.float64, device=q.device) / train_len).clamp(min=1)
            return (1 + over.log() / math.log(train_len)).to(q.dtype)[:, None]  # exactly 1 up to the training length

        return factor


class Logarithmic(Sharper):
    """In wide layers alone."""

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        passes = self.inner.branches(pos)
        return super().branches(pos) if is_wide(passes, self.geometry.train_len) else passes
