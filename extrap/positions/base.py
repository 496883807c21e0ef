"""The interface of a position scheme. Every hook defaults to 'nothing', so the base class is NoPE.

Position can enter a Transformer in four places: the positions themselves, the input vectors, the queries and
keys, and the scores. A scheme overrides the hooks that it needs. Index functions have FlexAttention's signature.

Shapes: B batch, H heads, T queries, S keys, K head dim, D model dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Rotation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (q, k) -> (q, k), each (B, H, T, K)
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # (score, b, h, q_idx, kv_idx) -> score
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (b, h, q_idx, kv_idx) -> bool, True = may attend
ContentBias = Callable[[Tensor, Tensor], ScoreMod]  # (q, k) after rotation -> score_mod


@dataclass(frozen=True)
class Geometry:
    """What a scheme may know about the model that it serves."""

    d_model: int
    n_heads: int
    train_len: int
    causal: bool

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


class Branch(NamedTuple):
    """One attention pass. Branches of a scheme cover disjoint (query, key) pairs and share one softmax.

    A score_mod is additive: score_mod(s) = s + bias(h, q_idx, kv_idx). `content` yields one that depends on the queries
    and keys, and only there b is the index in the batch; score_mod and mask_mod may be called with b = 0 alone.
    Two facts are stated as data so that attention can skip work. `window`: mask_mod is False wherever
    abs(q_idx - kv_idx) >= window. `relative`: score_mod and mask_mod depend on h and q_idx - kv_idx alone.
    Every query must keep a key that it may attend to.
    """

    rotate: Rotation | None = None
    score_mod: ScoreMod | None = None
    mask_mod: MaskMod | None = None
    content: ContentBias | None = None
    window: int | None = None
    relative: bool = False


class PositionScheme(nn.Module):
    """Tells a model where a token is; this base class tells it nothing.

    `max_len` is the longest input that the scheme is defined for, None if there is no end. `relative` states that
    score_mod and mask_mod depend on the head and on pos[q_idx] - pos[kv_idx] alone; a subclass that adds a mask or bias
    of another kind to a relative scheme has to take it back.
    """

    max_len: int | None = None
    relative: bool = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        """(T,) int64, strictly increasing: the position of each token."""
        return torch.arange(seq_len, device=device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Input vectors (B, T, D) -> (B, T, D)."""
        return x

    def rotation(self, pos: Tensor) -> Rotation | None:
        """A map of queries and keys, or None."""
        return None

    def score_mod(self, pos: Tensor) -> ScoreMod | None:
        """A bias on the scores, or None. Indexes `pos` with q_idx and kv_idx."""
        return None

    def mask_mod(self, pos: Tensor) -> MaskMod | None:
        """Which pairs may attend, or None for all. Causality is the objective's, not the scheme's."""
        return None

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        """The attention passes; override it for several passes, a content-dependent bias or a wrapper."""
        score_mod, mask_mod = self.score_mod(pos), self.mask_mod(pos)
        relative = (self.relative or not (score_mod or mask_mod)) and consecutive(pos)
        return (Branch(self.rotation(pos), score_mod, mask_mod, relative=relative),)


def consecutive(pos: Tensor) -> bool:
    """Whether differences of positions are differences of indices."""
    return bool((pos.diff() == 1).all())
