"""Distances beyond a window, shortened: near pairs as in training, far ones by a second attention pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension, is_plain
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.wrappers import Wrapper

Places = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions -> where a far query and a far key stand, the query later


@dataclass(frozen=True)
class ReRope(Extension):
    """Distances beyond a window held at it: t becomes min(abs(t), window), with the sign of t.

    Without a window it is half of the training length. In an encoder, for which nothing is published, both sides alike.
    Source: Su 2023 (kexue.fm 9708); the released code also multiplies queries by a logarithm, which is `logn` here.
    """

    window: int | None = None  # tokens

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"expected a window >= 1, found {self.window}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        window = self.window or max(1, scheme.geometry.train_len // 2)
        return far_apart(scheme, window, lambda pos: (torch.full_like(pos, window), torch.zeros_like(pos)))


def far_apart(scheme: PositionScheme, window: int, places: Places) -> PositionScheme | None:
    """None where no layer tells distances by one pass of a rotation or a score_mod."""
    layers = scheme.layers(scheme.geometry.n_layers)
    return FarApart(scheme, window, places) if any(is_plain(layer) and layer.relative for layer in layers) else None


class FarApart(Wrapper):
    """abs(i - j) < window as the scheme has it, further pairs where `places` puts queries and keys.

    Ahead, in an encoder, the mirror image: there the key is the later one. Layers with a mask of their own stay as they are.
    """

    def __init__(self, inner: PositionScheme, window: int, places: Places) -> None:
        super().__init__(inner)
        self.window, self.places = window, places

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        whole, *others = self.inner.branches(pos)
        if others or whole.mask_mod or whole.reads_content:
            return (whole, *others)
        late, early = self.places(pos)
        near = whole._replace(mask_mod=lambda b, h, i, j: (pos[i] - pos[j]).abs() < self.window, window=self.window)
        past = self.inner.apart(late, early)._replace(mask_mod=lambda b, h, i, j: pos[i] - pos[j] >= self.window)
        future = self.inner.apart(early, late)._replace(mask_mod=lambda b, h, i, j: pos[j] - pos[i] >= self.window)
        return (near, past) if self.geometry.causal else (near, past, future)
