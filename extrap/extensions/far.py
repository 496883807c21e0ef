"""Distances beyond a window, shortened: near pairs as in training, far ones by a second attention pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension, is_drawn, is_plain, passes_of
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
        window = width(scheme, self.window)
        return far_apart(scheme, window, lambda pos: (torch.full_like(pos, window), torch.zeros_like(pos)))


@dataclass(frozen=True)
class LeakyReRope(ReRope):
    """Distances beyond a window grow more slowly: abs(t) becomes window + (abs(t) - window) / leak.

    A leak of 1 is nothing, an endless one is ReRoPE. Without a leak it is the least that keeps distances below L; the
    released code has 16, and also multiplies queries by a logarithm, which is `logn` here.
    Source: Su 2023 (kexue.fm 9708), whose k it is, and its released code. In an encoder both sides alike.
    """

    leak: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leak is not None and self.leak < 1:
            raise ValueError(f"expected a leak >= 1, found {self.leak}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        window = width(scheme, self.window)
        room = max(1, scheme.geometry.train_len - 1 - window)
        leak = self.leak or max(1.0, (eval_len - 1 - window) / room)
        if self.leak == 1:
            return None
        return far_apart(scheme, window, lambda pos: ((pos.double() + window * (leak - 1)) / leak, pos.double() / leak))


@dataclass(frozen=True)
class SelfExtend(ReRope):
    """Beyond a window tokens count in groups: query i stands at i // group + window - window // group, key j at j // group.

    Without a group it is the smallest that keeps distances below L. The paper rounds window / group down, as here; its code
    does so while decoding alone, which is the same where the window is a multiple of the group.
    Source: Jin et al. 2024 (arXiv:2401.01325), algorithm 1. In an encoder, for which nothing is published, both sides alike.
    """

    group: int | None = None  # tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group is not None and self.group < 1:
            raise ValueError(f"expected a group >= 1, found {self.group}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        window, last, train_len = width(scheme, self.window), eval_len - 1, scheme.geometry.train_len
        fitting = (g for g in range(1, eval_len) if last // g + window - window // g < train_len)
        group = self.group or next(fitting, eval_len)
        if self.group == 1:
            return None
        return far_apart(scheme, window, lambda pos: (pos // group + window - window // group, pos // group))


def width(scheme: PositionScheme, window: int | None) -> int:
    return window or max(1, scheme.geometry.train_len // 2)


def far_apart(scheme: PositionScheme, window: int, places: Places) -> PositionScheme | None:
    """None where no layer tells distances by one pass of a rotation or a score_mod, and where positions are drawn."""
    layers = dict.fromkeys(scheme.layers(scheme.geometry.n_layers))
    found = any(layer.relative and tells_distances(passes_of(layer)) for layer in layers)
    return FarApart(scheme, window, places) if found and not is_drawn(scheme) else None


def tells_distances(passes: Sequence[Branch]) -> bool:
    return is_plain(passes) and passes[0].places


class FarApart(Wrapper):
    """abs(i - j) < window as the scheme has it, further pairs where `places` puts queries and keys.

    Ahead, in an encoder, the mirror image: there the key is the later one. Layers with a mask of their own stay as they are.
    """

    def __init__(self, inner: PositionScheme, window: int, places: Places) -> None:
        super().__init__(inner)
        self.window, self.places = window, places

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        passes = self.inner.branches(pos)
        if not (self.inner.relative and tells_distances(passes)):
            return passes
        whole = passes[0]
        late, early = self.places(pos)
        near = whole._replace(mask_mod=lambda b, h, i, j: (pos[i] - pos[j]).abs() < self.window, window=self.window)
        past = self.inner.apart(late, early)._replace(mask_mod=lambda b, h, i, j: pos[i] - pos[j] >= self.window)
        future = self.inner.apart(early, late)._replace(mask_mod=lambda b, h, i, j: pos[j] - pos[i] >= self.window)
        if whole.relative:  # by index, too
            past = past._replace(keys=lambda start, stop: (0, stop - self.window), relative=past.score_mod is None)
            future = future._replace(keys=lambda start, stop: (start + self.window, len(pos)), relative=past.relative)
        return (near, past) if self.geometry.causal else (near, past, future)
