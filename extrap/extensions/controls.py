"""Controls: what a scheme that extrapolates has to beat, and what is done to one whose positions end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension, ends, is_drawn, is_plain, is_wide_anywhere, passes_of
from extrap.positions.base import Branch, MaskMod, PositionScheme
from extrap.positions.local import Local
from extrap.positions.wrappers import Wrapper


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
        width = _width(scheme, scheme.geometry.train_len if self.size is None else self.size)
        if ends(scheme, eval_len) or not is_wide_anywhere(scheme, width):
            return None
        return OfTokens(scheme.geometry, scheme, window=width)


class OfTokens(Local):
    """A window of tokens, wherever they stand."""

    def near(self, pos: Tensor) -> MaskMod:
        return lambda b, h, q_idx, kv_idx: (q_idx - kv_idx).abs() < self.window

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        return super().change(branch, pos)._replace(relative=branch.relative)


@dataclass(frozen=True)
class Lambda(Extension):
    """A window of the training length, and the first tokens, which every token sees as if they were L - 1 away.

    Source: LM-Infinite (Han et al. 2024, arXiv:2308.16137), section 3: a mask in the shape of a lambda and a ceiling on
    distances. Only for schemes whose layers attend in a single pass, without a mask of their own or a bias made of content,
    and whose positions are not drawn. Of absolute positions, which layers know nothing of, only the mask is left.
    """

    n_first: int = 4  # tokens (Xiao et al. 2024, arXiv:2309.17453, section 3)

    def __post_init__(self) -> None:
        if self.n_first < 1:
            raise ValueError(f"expected n_first >= 1, found {self.n_first}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        layers = scheme.layers(scheme.geometry.n_layers)
        if ends(scheme, eval_len) or is_drawn(scheme) or not all(_has_ceiling(layer) for layer in layers):
            return None
        return WithFirst(scheme, self.n_first)


class Tile(Extension):
    """A table of L positions repeated: position t takes the vector of t mod L (Longformer, arXiv:2004.05150, section 5)."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        return Remapped(scheme, lambda pos, length: pos % length) if scheme.tabular else None


class Clamp(Extension):
    """A table of L positions whose last vector serves all later ones: position t takes the vector of min(t, L - 1)."""

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        return Remapped(scheme, lambda pos, length: pos.clamp(max=length - 1)) if scheme.tabular else None


def _width(scheme: PositionScheme, size: int) -> int:
    """How far a window reaches, the token itself included, in which no token sees more than `size` keys."""
    return size if scheme.geometry.causal else (size + 1) // 2


def _has_ceiling(layer: PositionScheme) -> bool:
    """Whether a layer knows nothing of positions, or distances alone, of which one can be asked for."""
    passes = passes_of(layer)
    return is_plain(passes) and (layer.relative or not passes[0].places)


class Remapped(Wrapper):
    """A table that is read at remap(positions, training length), and so has no end."""

    def __init__(self, inner: PositionScheme, remap: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__(inner)
        self.remap, self.max_len, self.tabular = remap, None, False

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, self.remap(pos, self.geometry.train_len))


class WithFirst(Wrapper):
    """A window of the training length around a scheme, and a second pass over the first tokens at the distance L - 1."""

    def __init__(self, inner: PositionScheme, n_first: int) -> None:
        super().__init__(inner)
        self.n_first = n_first

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        train_len = self.geometry.train_len
        width = _width(self, train_len)

        def first(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (kv_idx < self.n_first) & (pos[q_idx] - pos[kv_idx] >= width)

        near = Local(self.geometry, self.inner, width).branches(pos)
        far = self.inner.apart(torch.full_like(pos, train_len - 1), torch.zeros_like(pos))
        return (*near, far._replace(mask_mod=first, keys=lambda start, stop: (0, self.n_first)))
