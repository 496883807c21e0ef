"""Extensions: what is done to finished weights for inputs longer than they were trained on. A function scheme -> scheme.

An extension answers None where it does not apply to a scheme or would change nothing, and is asked only for an eval_len
above train_len: up to there every extension is the identity.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from extrap.positions.base import Branch, PositionScheme
from extrap.positions.local import Local
from extrap.positions.wrappers import Wrapper

N_FIRST = 4  # tokens that `lambda` keeps (Xiao et al. 2024, arXiv:2309.17453, section 3)


def none(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """The scheme as it was trained."""
    return scheme


def window(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """A mask at test time: no token sees more keys than in training. The control that an extrapolating scheme has to beat.

    Of every layer: through n of them a token still receives from n windows back, so that whoever beats it makes use of more.

    Causal: the last train_len keys, abs(i - j) < L. In an encoder the L keys around a token, abs(i - j) < (L + 1) // 2.
    Source: the "window" of kexue.fm 9431; Chi et al. 2022 (arXiv:2205.09921), section 5.
    """
    width = _width(scheme, train_len)
    if scheme.max_len is not None or (isinstance(scheme, Local) and scheme.window <= width):
        return None
    return Local(scheme.geometry, scheme, window=width)


def lambda_mask(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """The same window, and the first 4 tokens, which every token sees as if they were L - 1 away.

    Source: LM-Infinite (Han et al. 2024, arXiv:2308.16137), section 3: a mask in the shape of a lambda and a ceiling on
    distances. Only for schemes whose layers attend in a single pass, without a mask of their own or a bias made of content.
    """
    if scheme.max_len is not None or not all(_is_plain(layer) for layer in scheme.layers(scheme.geometry.n_layers)):
        return None
    return Lambda(scheme, _width(scheme, train_len), train_len - 1)


def tile(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """A table of L positions repeated: position t takes the vector of t mod L (Longformer, arXiv:2004.05150, section 5)."""
    return Remapped(scheme, lambda pos: pos % train_len) if scheme.tabular else None


def clamp(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """A table of L positions whose last vector serves all later ones: position t takes the vector of min(t, L - 1)."""
    return Remapped(scheme, lambda pos: pos.clamp(max=train_len - 1)) if scheme.tabular else None


Extension = Callable[..., PositionScheme | None]  # (scheme, *, train_len, eval_len)
EXTENSIONS: dict[str, Extension] = {"none": none, "window": window, "lambda": lambda_mask, "tile": tile, "clamp": clamp}


def _width(scheme: PositionScheme, train_len: int) -> int:
    """The widest window in which no token sees more keys than in training."""
    return train_len if scheme.geometry.causal else (train_len + 1) // 2


def _is_plain(scheme: PositionScheme) -> bool:
    """Whether a scheme is one pass of a rotation and a score_mod."""
    branch, *others = scheme.branches(scheme.positions(2))
    return not (others or branch.mask_mod or branch.reads_content)


class Remapped(Wrapper):
    """A table that is read at other positions, and so has no end."""

    def __init__(self, inner: PositionScheme, remap: Callable[[Tensor], Tensor]) -> None:
        super().__init__(inner)
        self.remap, self.max_len, self.tabular = remap, None, False

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, self.remap(pos))


class Lambda(Wrapper):
    """A window around a scheme, and a second pass over the first tokens at a fixed distance."""

    def __init__(self, inner: PositionScheme, width: int, distance: int) -> None:
        super().__init__(inner)
        self.width, self.distance = width, distance

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        def first(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (kv_idx < N_FIRST) & (pos[q_idx] - pos[kv_idx] >= self.width)

        near = Local(self.geometry, self.inner, self.width).branches(pos)
        far = self.inner.apart(torch.full_like(pos, self.distance), torch.zeros_like(pos))
        return (*near, far._replace(mask_mod=first))
