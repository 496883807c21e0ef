"""Positions drawn at random at test time."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension, ends, is_drawn, is_plain, is_wide, passes_of, rebuilt
from extrap.positions.absolute import Sinusoidal
from extrap.positions.base import Branch, PositionScheme
from extrap.positions.randomized import Randomized as RandomizedScheme
from extrap.positions.wrappers import Wrapper


@dataclass(frozen=True)
class Randomized(Extension):
    """A model of randomized positions or distances read at another draw; others at positions drawn below L.

    For the latter, for which nothing is published, sorted real numbers, of layers that see further than in training. One
    draw for each seed and length, the same for all inputs and on every device: other seeds say how much hangs on it.
    """

    seed: int = 0

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        redrawn = rebuilt(scheme, RandomizedScheme, self.redrawn)
        if redrawn is not scheme:
            return None if ends(scheme, eval_len) else redrawn
        generator, train_len = torch.Generator().manual_seed(self.seed), scheme.geometry.train_len
        layers = dict.fromkeys(scheme.layers(scheme.geometry.n_layers))
        embeds = any(isinstance(part, Sinusoidal) for part in scheme.modules())
        if (
            ends(scheme, eval_len)
            or is_drawn(scheme)
            or scheme.tabular
            or not (embeds or any(is_placed(passes_of(layer), train_len) for layer in layers))
        ):
            return None
        return Squashed(scheme, train_len * torch.rand(eval_len, generator=generator, dtype=torch.float64).sort().values)

    def redrawn(self, scheme: RandomizedScheme) -> RandomizedScheme:
        other = copy(scheme)
        other.seed = self.seed
        return other


def is_placed(passes: Sequence[Branch], train_len: int) -> bool:
    """Whether a layer that sees further than in training knows positions by one pass of a rotation or a score_mod."""
    return is_wide(passes, train_len) and is_plain(passes) and passes[0].places


class Squashed(Wrapper):
    """Tokens at given places, (T,) real numbers, as input vectors and biases and rotations of distance have them."""

    places: Tensor

    def __init__(self, inner: PositionScheme, places: Tensor) -> None:
        super().__init__(inner)
        self.register_buffer("places", places, persistent=False)
        self.relative = False  # distances are those of this draw: nothing can be asked about others

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.inner.embed(x, self.places[: len(pos)])

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        passes = self.inner.branches(pos)
        if not is_placed(passes, self.geometry.train_len):
            return passes
        return (self.inner.apart(*[self.places[: len(pos)]] * 2),)
