"""Schemes around a scheme: local attention, and most of what is done to a scheme for longer inputs."""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from extrap.positions.base import Branch, MaskMod, PositionScheme, Rotation, ScoreMod, Sharpness, Weights

FACTS = tuple(PositionScheme.__annotations__)


class Wrapper(PositionScheme):
    """A scheme around another, `inner`, that leaves to it all that it does not change.

    It has the facts of the inner scheme and wraps the scheme of each layer alike. A subclass overrides `change`
    for what it does to an attention pass, however many there are, or positions, embed, branches, sharpness or weights.
    """

    def __init__(self, inner: PositionScheme) -> None:
        super().__init__(inner.geometry)
        self.inner = inner
        self.training = inner.training
        for fact in FACTS:
            setattr(self, fact, getattr(inner, fact))

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        """What becomes of an attention pass of the inner scheme."""
        return branch

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        return self.inner.positions(seq_len, device)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, pos)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        return tuple(self.change(branch, pos) for branch in self.inner.branches(pos))

    def sharpness(self) -> Sharpness | None:
        return self.inner.sharpness()

    def weights(self) -> Weights | None:
        return self.inner.weights()

    def rotation(self, pos: Tensor) -> Rotation | None:
        return self._only_pass(pos).rotate

    def score_mod(self, pos: Tensor) -> ScoreMod | None:
        return self._only_pass(pos).score_mod

    def mask_mod(self, pos: Tensor) -> MaskMod | None:
        return self._only_pass(pos).mask_mod

    def _only_pass(self, pos: Tensor) -> Branch:
        passes = self.branches(pos)
        if len(passes) > 1:
            raise ValueError(f"{type(self.inner).__name__} attends in {len(passes)} passes; ask for branches instead")
        return passes[0]

    def layers(self, n_layers: int) -> list[PositionScheme]:
        layers = self.inner.layers(n_layers)
        around: dict[PositionScheme, PositionScheme] = {self.inner: self}  # one for all layers that share a scheme
        for inner in layers:
            if inner not in around:  # this wrapper, its parameters included, around the scheme of a layer
                around[inner] = copy(self)
                around[inner]._modules = self._modules | {"inner": inner}
        return [around[inner] for inner in layers]


def joined(own: Sharpness, inner: Sharpness | None) -> Sharpness:
    """Both factors of q . k, where there are two."""
    return own if inner is None else lambda n: own(n) * inner(n)


def at_distances(inner: PositionScheme, read: Callable[[Tensor, Tensor], Tensor]) -> ScoreMod:
    """The score_mod of a scheme of distances, asked about other ones than those of the tokens.

    read(q_idx, kv_idx) gives the distances, with their sign, whole or real. It is exact: no differences are formed.
    """

    def bias(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        distance = read(q_idx, kv_idx)
        places = torch.cat([distance.new_zeros(1), distance.flatten()])  # of the key, and of each query
        query = torch.arange(1, len(places), device=places.device).view(distance.shape)
        score_mod = inner.score_mod(places)
        assert score_mod
        return score_mod(score, b, h, query, torch.zeros_like(query)).to(score.dtype)

    return bias
