"""Sharper attention for more keys: q . k times a factor, biases as they are."""

import math

from torch import Tensor

from extrap.extensions.base import Extension, ends, is_wide_anywhere
from extrap.positions.base import PositionScheme, Sharpness
from extrap.positions.sharpness import LogN as Trained
from extrap.positions.sharpness import SSMax
from extrap.positions.wrappers import Wrapper, joined


class Sharper(Wrapper):
    """A scheme with one more factor of q . k, made of how many keys a query sees."""

    def __init__(self, inner: PositionScheme, factor: Sharpness) -> None:
        super().__init__(inner)
        self.factor = factor

    def sharpness(self) -> Sharpness:
        return joined(self.factor, self.inner.sharpness())


class LogN(Extension):
    """q_i . k_j times max(1, log n_i / log L), n_i the number of keys that query i sees: more of them than in training.

    Whatever the positions; a bias is not multiplied (which is what: positions/sharpness.py). None where windows
    leave no query more than L keys, and of a scheme that counts keys already.
    Source: Su 2023 (kexue.fm 9706, there for models that were not trained with it); Su 2021 (kexue.fm 8823).
    """

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        train_len = scheme.geometry.train_len
        window = train_len if scheme.geometry.causal else (train_len + 1) // 2
        if ends(scheme, eval_len) or train_len < 2 or not is_wide_anywhere(scheme, window):
            return None
        if any(isinstance(part, Trained | SSMax) for part in scheme.modules()):
            return None
        return Sharper(scheme, lambda n: self.factor(n, train_len))

    def factor(self, n: Tensor, train_len: int) -> Tensor:
        return 1 + (n.double() / train_len).clamp(min=1).log() / math.log(train_len)  # exactly 1 for up to L keys
