"""The interface of a position scheme. Every hook defaults to 'nothing', so the base class is NoPE.

Position can enter a Transformer in four places: the positions themselves, the input vectors, the queries and keys, and the
scores. A scheme overrides the hooks that it needs and states as facts what it is. With them attention computes, in a layer,

    score_ij = score_mod(sharpness(n_i) q_i . k_j / sqrt(K)) + content_ij + c_i - c_j,
    output_i = sum over j of weights(score)_ij v_j,

q and k rotated, n_i the number of keys that query i sees, the content and the decay c made of what the layer reads, weights
the softmax and sharpness 1 unless a scheme has its own.

Shapes: B batch, H heads, T tokens, R queries and S keys of them, K head dim, D model dim. Index functions have
FlexAttention's signature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Rotation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (q, k), each (B, H, T, K or more), q_i made of q_i alone
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # (score, b, h, q_idx, kv_idx) -> score
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (b, h, q_idx, kv_idx) -> bool, True = may attend
KeyRange = Callable[[int, int], tuple[int, int]]  # queries [start, stop) -> keys [first, last)
Sharpness = Callable[[Tensor], Tensor]  # n (1 or H, T), how many keys each query sees -> what multiplies its q . k, alike
Weights = Callable[[Tensor], Tensor]  # scores (B, H, R, S), -inf where a query may not attend -> weights of the values


# The standard deviation of tables of vectors, for tokens and positions, at the start: near the 0.71 of a sinusoid, so that
# nothing drowns anything else where they are added up. Much smaller tables, as GPT-2's 0.02, move too fast under Adam,
# whose steps do not know a table's size: an encoder then takes far longer to learn what positions mean.
TABLE_STD = 0.5


class Content(NamedTuple):
    """What a layer reads: its normed input x (B, T, D), and its queries and keys (B, H, T, K) before and after rotation.

    Beside it the mask of the pass, of wrappers too, for a bias that looks at other pairs than its own.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    rotated_q: Tensor
    rotated_k: Tensor
    mask_mod: MaskMod | None


BlockBias = Callable[[Tensor, Tensor], Tensor]  # q_idx (R,), kv_idx (S,), runs of neighbours -> a bias (B, H, R, S)
ContentBias = Callable[[Content], BlockBias]
Decay = Callable[[Content], Tensor]  # -> c (B, H, T)


@dataclass(frozen=True)
class Geometry:
    """What a scheme may know about the model that it serves."""

    d_model: int
    n_heads: int
    train_len: int
    causal: bool
    n_layers: int = 1

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


class Branch(NamedTuple):
    """One attention pass. Branches of a scheme cover disjoint (query, key) pairs and share one softmax.

    `score_mod` is additive, score_mod(s) = s + bias(h, q_idx, kv_idx), and like `mask_mod` the same for every sequence: both
    may be called with b = 0 alone. `content` is a bias made of what the layer reads. It is asked for a block of queries at a
    time, so that long inputs need no (T, T) table, against keys among which are all between a query and what it may attend
    to. `decay` is one that needs no table at all: c_i - c_j, a c for each token; sums over tokens are best float64.
    Under a softmax every query must keep a key that it may attend to.

    `still`: rotate is the same wherever tokens stand, as a norm is.

    Three facts are stated so that attention can skip work. `window`: mask_mod is False wherever
    abs(q_idx - kv_idx) >= window. `keys`: for queries [start, stop) it is False outside of the keys [first, last) =
    keys(start, stop). `relative`: score_mod and mask_mod depend on h and q_idx - kv_idx alone.
    """

    rotate: Rotation | None = None
    score_mod: ScoreMod | None = None
    mask_mod: MaskMod | None = None
    content: ContentBias | None = None
    decay: Decay | None = None
    window: int | None = None
    keys: KeyRange | None = None
    relative: bool = False
    still: bool = False

    @property
    def reads_content(self) -> bool:
        """Whether a bias is made of what the layer reads."""
        return bool(self.content or self.decay)

    @property
    def places(self) -> bool:
        """Whether a rotation or a score_mod tells where tokens stand."""
        return bool((self.rotate and not self.still) or self.score_mod)


class PositionScheme(nn.Module):
    """Tells a model where a token is; this base class tells it nothing.

    Facts, each stated by overriding it; tests hold a scheme to them:
    `max_len`: the longest input that the scheme is defined for, None if there is no end.
    `tabular`: embed reads row pos of a table of max_len rows, so that an extension may send a token to another row.
    `relative`: positions enter as differences, so that the same text further on is the same; score_mod and mask_mod then
    depend on the head and pos[q_idx] - pos[kv_idx] alone.
    `direction_aware`: an encoder can tell a text from its mirror image.
    `causal_only`: the scheme is not defined for an encoder; to build it for one raises ValueError.
    `random_in_training`: it draws from PyTorch's generator where self.training, and never elsewhere.
    `of_length`: the position of a token depends on the length of the input, as where positions are drawn, though not on
    which tokens follow.
    """

    max_len: int | None = None
    tabular: bool = False
    relative: bool = False
    direction_aware: bool = True
    causal_only: bool = False
    random_in_training: bool = False
    of_length: bool = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        if self.causal_only and not geometry.causal:
            raise ValueError(f"{type(self).__name__} is defined for causal models alone; expected objective=causal")
        self.geometry = geometry

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        """(T,) int64, strictly increasing: the position of each token."""
        return consecutive(seq_len, device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Input vectors (B, T, D) -> (B, T, D)."""
        return x

    def rotation(self, pos: Tensor) -> Rotation | None:
        """A map of queries and keys, or None. Positions may be real numbers here and in score_mod, see `apart`."""
        return None

    def score_mod(self, pos: Tensor) -> ScoreMod | None:
        """A bias on the scores, or None. Indexes `pos` with q_idx and kv_idx."""
        return None

    def mask_mod(self, pos: Tensor) -> MaskMod | None:
        """Which pairs may attend, or None for all. Causality is the objective's, not the scheme's."""
        return None

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        """The attention passes; override it for several passes and for biases made of content."""
        score_mod, mask_mod = self.score_mod(pos), self.mask_mod(pos)
        relative = (self.relative or not (score_mod or mask_mod)) and are_consecutive(pos)
        return (Branch(self.rotation(pos), score_mod, mask_mod, relative=relative),)

    def sharpness(self) -> Sharpness | None:
        """What queries are multiplied by once they are rotated, made of how many keys they see; None for 1."""
        return None

    def weights(self) -> Weights | None:
        """What makes weights of the scores of some queries, or None for the softmax. Weights need not sum to 1."""
        return None

    def layers(self, n_layers: int) -> list["PositionScheme"]:
        """The scheme of each layer, which provides its branches, sharpness and weights: this one in all of them.

        Layers with the same object share all that is prepared of it. Positions and input vectors are made once for all.
        """
        return [self] * n_layers

    def apart(self, q_pos: Tensor, k_pos: Tensor) -> Branch:
        """A pass in which queries stand at q_pos and keys at k_pos, (T,) each, whole or real numbers.

        It has the scheme's rotation and score_mod; whoever asks for it adds the mask of the pairs that it is meant for.
        """
        at_query, at_key = self.rotation(q_pos), self.rotation(k_pos)
        score_mod = self.score_mod(torch.cat([q_pos, k_pos]))
        rotate: Rotation | None = None
        add: ScoreMod | None = None
        if at_query and at_key:
            rotate = lambda q, k: (at_query(q, k)[0], at_key(q, k)[1])  # noqa: E731
        if score_mod:
            add = lambda s, b, h, i, j: score_mod(s, b, h, i, j + len(q_pos)).to(s.dtype)  # noqa: E731
        return Branch(rotate, add)


def wide(x: Tensor) -> torch.dtype:
    """At least float32: what positions are computed in, whatever the precision of the model."""
    return torch.promote_types(x.dtype, torch.float32)


def consecutive(seq_len: int, device: torch.device | None = None) -> Tensor:
    """(T,) int64: 0, 1, .. T - 1, marked as such; whatever is computed of them, a part of them included, has no mark."""
    pos = torch.arange(seq_len, device=device)
    pos.consecutive = True  # type: ignore[attr-defined]
    return pos


def are_consecutive(pos: Tensor) -> bool:
    """Whether differences of positions are known to be differences of indices: told by their mark, for a GPU would have to
    be waited for until it tells their values."""
    return getattr(pos, "consecutive", False)
