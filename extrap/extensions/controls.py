"""Extensions: what is done to finished weights for inputs longer than they were trained on. A function scheme -> scheme.

An extension answers None where it does not apply to a scheme or would change nothing, and is asked only for an eval_len
above train_len: up to there every extension is the identity.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from extrap.positions.base import Branch, PositionScheme, Rotation, ScoreMod
from extrap.positions.local import Local

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
    width = train_len if scheme.geometry.causal else (train_len + 1) // 2
    if scheme.max_len is not None or (isinstance(scheme, Local) and scheme.window <= width):
        return None
    return Local(scheme.geometry, scheme, window=width)


def lambda_mask(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """The same window, and the first 4 tokens, which every token sees as if they were L - 1 away.

    Source: LM-Infinite (Han et al. 2024, arXiv:2308.16137), section 3: a mask in the shape of a lambda and a ceiling on
    distances. Only for schemes of a single attention pass without a mask of their own.
    """
    near = window(scheme, train_len=train_len, eval_len=eval_len)
    if not isinstance(near, Local) or type(scheme).branches is not PositionScheme.branches:
        return None
    return Lambda(near, train_len - 1)


def tile(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """A table of L positions repeated: position t takes the vector of t mod L (Longformer, arXiv:2004.05150, section 5)."""
    return None if scheme.max_len is None else Remapped(scheme, lambda pos: pos % train_len)


def clamp(scheme: PositionScheme, *, train_len: int, eval_len: int) -> PositionScheme | None:
    """A table of L positions whose last vector serves all later ones: position t takes the vector of min(t, L - 1)."""
    return None if scheme.max_len is None else Remapped(scheme, lambda pos: pos.clamp(max=train_len - 1))


Extension = Callable[..., PositionScheme | None]  # (scheme, *, train_len, eval_len)
EXTENSIONS: dict[str, Extension] = {"none": none, "window": window, "lambda": lambda_mask, "tile": tile, "clamp": clamp}


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


class Lambda(PositionScheme):
    """A window, and a second pass over the first tokens at a fixed distance."""

    def __init__(self, near: Local, distance: int) -> None:
        super().__init__(near.geometry)
        self.near, self.distance = near, distance

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        return self.near.positions(seq_len, device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.near.embed(x, pos)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        scheme = self.near.inner
        ends = torch.tensor([0, self.distance], device=pos.device)
        score_mod, rotations = scheme.score_mod(ends), [scheme.rotation(end[None]) for end in ends]

        def far(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            return (kv_idx < N_FIRST) & (pos[q_idx] - pos[kv_idx] >= self.near.window)

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
