"""Absolute positions brought back among those of training."""

import torch
from torch import Tensor

from extrap.extensions.base import Extension, is_drawn, rebuilt
from extrap.positions.absolute import Sinusoidal
from extrap.positions.base import PositionScheme
from extrap.positions.wrappers import Wrapper


class Interpolate(Extension):
    """Real positions between those of training: a table of L rows, and sinusoids.

    Position t of n reads a table at t (L - 1) / (n - 1), linear between rows, as images of another size do (Dosovitskiy et
    al. 2021, arXiv:2010.11929, section 3.2); a sinusoid stands at t L / n, which is position interpolation. None of drawn
    positions.
    """

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        if is_drawn(scheme):
            return None
        if scheme.tabular:
            return Interpolated(scheme, eval_len)
        extended = rebuilt(scheme, Sinusoidal, lambda inner: Squeezed(inner, eval_len))
        return None if extended is scheme else extended


class Interpolated(Wrapper):
    """A table read between its rows, which so has no end."""

    def __init__(self, inner: PositionScheme, eval_len: int) -> None:
        super().__init__(inner)
        self.eval_len, self.max_len, self.tabular = eval_len, None, False

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        last = self.geometry.train_len - 1
        place = pos.to(torch.float64) * last / max(1, self.eval_len - 1)
        row = place.to(torch.int64)
        share = (place - row).to(x.dtype)[:, None]
        return torch.lerp(self.inner.embed(x, row), self.inner.embed(x, (row + 1).clamp(max=last)), share)


class Squeezed(Wrapper):
    """Input vectors at positions below the training length."""

    def __init__(self, inner: PositionScheme, eval_len: int) -> None:
        super().__init__(inner)
        self.eval_len = eval_len

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, pos.to(torch.float64) * self.geometry.train_len / self.eval_len)
