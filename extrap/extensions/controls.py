"""Controls: what a scheme that extrapolates has to beat, and what is done to one whose positions end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension
from extrap.positions.base import Branch, PositionScheme, Rotation, ScoreMod
from extrap.positions.local import Local


@dataclass(frozen=True)
class Window(Extension):
    """A mask at test time: no token sees more keys than in training. The control that an extrapolating scheme has to beat.

    Of every layer: through n of them a token still receives from n windows back, so that whoever beats it makes use of more.

    Causal: the last `size` keys, abs(i - j) < size. In an encoder the `size` keys around a token,
    abs(i - j) < (size + 1) // 2. Without a size it is the training length.
    Source: the "window" of kexue.fm 9431; Chi et al. 2022 (arXiv:2205.09921), section 5.
    """

    size: int | None = None  # tokens

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"expected a window of size >= 1, found {self.size}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        size = scheme.geometry.train_len if self.size is None else self.size
        width = size if scheme.geometry.causal else (size + 1) // 2
        if scheme.max_len is not None or (isinstance(scheme, Local) and scheme.window <= width):
            return None
        return Local(scheme.geometry, scheme, window=width)


@dataclass(frozen=True)
class Lambda(Extension):
    """The same window, and the first tokens, which every token sees as if they were L - 1 away.

    Source: LM-Infinite (Han et al. 2024, arXiv:2308.16137), section 3: a mask in the shape of a lambda and a ceiling on
    distances. Only for schemes of a single attention pass without a mask of their own.
    """

    n_first: int = 4  # tokens (Xiao et al. 2024, arXiv:2309.17453, section 3)

    def __post_init__(self) -> None:
        if self.n_first < 1:
            raise ValueError(f"expected n_first >= 1, found {self.n_first}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        near = Window()(scheme, eval_len)
        if not isinstance(near, Local) or type(scheme).branches is not PositionScheme.branches:
            return None
        return WithFirst(near, scheme.geometry.train_len - 1, self.n_first)


class Tile(Extension):
    """A table of L positions repeated: position t takes the vector of t mod L (Longformer, arXiv:2004.05150, section 5)."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        train_len = scheme.geometry.train_len
        return None if scheme.max_len is None else Remapped(scheme, lambda pos: pos % train_len)


class Clamp(Extension):
    """A table of L positions whose last vector serves all later ones: position t takes the vector of min(t, L - 1)."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        train_len = scheme.geometry.train_len
        return None if scheme.max_len is None else Remapped(scheme, lambda pos: pos.clamp(max=train_len - 1))


class Remapped(PositionScheme):
    """A scheme whose input vectors are those of other positions."""

    def __init__(self, inner: PositionScheme, remap: Callable[[Tensor], Tensor]) -> None:
        super().__init__(inner.geometry)
        self.inner, self.remap = inner, remap

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        return self.inner.positions(seq_len, device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, self.remap(pos))

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        return self.inner.branches(pos)


class WithFirst(PositionScheme):
    """A window, and a second pass over the first tokens at a fixed distance."""

    def __init__(self, near: Local, distance: int, n_first: int) -> None:
        super().__init__(near.geometry)
        self.near, self.distance, self.n_first = near, distance, n_first

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        return self.near.positions(seq_len, device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.near.embed(x, pos)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        scheme = self.near.inner
        ends = torch.tensor([0, self.distance], device=pos.device)
        score_mod, rotations = scheme.score_mod(ends), [scheme.rotation(end[None]) for end in ends]

        def far(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (kv_idx < self.n_first) & (pos[q_idx] - pos[kv_idx] >= self.near.window)

        return (*self.near.branches(pos), Branch(_apart(rotations), _at_ends(score_mod), far))


def _apart(rotations: list[Rotation | None]) -> Rotation | None:
    """Keys at the first of two positions, queries at the second."""
    at_key, at_query = rotations
    if at_key is None or at_query is None:
        return None
    return lambda q, k: (at_query(q, k)[0], at_key(q, k)[1])


def _at_ends(score_mod: ScoreMod | None) -> ScoreMod | None:
    """The bias between the second of two positions and the first, whatever the indices."""
    if score_mod is None:
        return None
    return lambda score, b, h, q_idx, kv_idx: score_mod(score, b, h, torch.ones_like(q_idx), torch.zeros_like(kv_idx))
