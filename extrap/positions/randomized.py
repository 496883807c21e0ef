"""Positions of longer inputs, drawn at random."""

from typing import Literal

import torch
from torch import Tensor

from extrap.positions.base import Branch, Geometry, PositionScheme
from extrap.positions.wrappers import Wrapper, at_distances


class Drawn(Wrapper):
    """While training, positions below `max_len` that `draw_positions` draws anew for every forward pass.

    One draw for all layers and all sequences of a batch. In evaluation 0, 1, 2, ... Without a max_len it is `times` L.
    Windows around or within it are of positions: wherever these are drawn, they hold fewer tokens, as draws lie apart.
    Raises ValueError where it is less than L, for an inner scheme that ends before it, as a learned table of L rows does,
    and for one that draws positions itself.
    """

    times = 8  # as far as Zhu et al. 2024 compare randomized positions and PoSE

    def __init__(self, geometry: Geometry, inner: PositionScheme, max_len: int | None = None) -> None:
        super().__init__(inner)
        self.end = self.times * geometry.train_len if max_len is None else max_len
        name, ends = type(inner).__name__, inner.max_len
        if self.end < geometry.train_len:
            raise ValueError(f"expected max_len >= {geometry.train_len}, the training length, found {max_len}")
        if ends is not None and ends < self.end:
            raise ValueError(f"expected a scheme for all positions below {self.end}, found {name}, which ends at {ends}")
        if inner.relative and not any(map(reads_positions, inner.layers(geometry.n_layers))):
            raise ValueError(f"positions are drawn for a scheme that reads them; found {name}")
        if inner.random_in_training:
            raise ValueError(f"positions are drawn once: expected a scheme that draws none, found {name}")
        self.random_in_training = True

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        if not self.training:
            return self.inner.positions(seq_len, device)
        if seq_len > self.end:
            raise ValueError(f"{type(self).__name__} trains on positions below {self.end}, found {seq_len} tokens")
        return self.draw_positions(seq_len, device)

    def draw_positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        """(T,) int64, strictly increasing, of PyTorch's generator."""
        raise NotImplementedError


def reads_positions(layer: PositionScheme) -> bool:
    """Whether an attention pass of a layer may depend on where tokens stand."""
    passes = layer.branches(layer.positions(2))
    return any(one.places or one.mask_mod or one.content for one in passes)


class Randomized(Drawn):
    """Sorted positions, drawn without replacement below `max_len` (Ruoss et al. 2023, arXiv:2305.16843), in evaluation, too.

    Two readings of it, of which `draw` says one. `positions`, as for absolute and rotary positions there: distances are
    differences of what is drawn. `distances`, as the released code has it for ALiBi: 0 and T - 1 sorted distances below
    `max_len` are drawn, the same to both sides, and two tokens t apart count as the t-th of them apart, wherever they stand.
    There a key behind is half a step nearer, too, so that an encoder knows the sides apart; here `alibi_half` does that.
    Evaluation reads all inputs of a length at one draw, of a seed that is drawn when the scheme is made: each run has its
    own, and `randomized(seed=1)` among the extensions another. Nothing is defined for more tokens than `max_len`; without
    one it is 32 L, at which inputs of 32 L are consecutive (there 2,048 for training lengths to 40, and tests to 500).
    Deviations: there every batch of evaluation has a draw of its own, and every layer but for input vectors.
    `distances` raises ValueError but for biases of distance alone.
    """

    times = 32
    seed: int  # of evaluation

    def __init__(
        self,
        geometry: Geometry,
        inner: PositionScheme,
        max_len: int | None = None,
        draw: Literal["positions", "distances"] = "positions",
    ) -> None:
        super().__init__(geometry, inner, max_len)
        self.draw = draw
        self.max_len, self.of_length, self.relative = self.end, True, self.relative and draw == "positions"
        self.seed = int(torch.randint(2**31, (), device="cpu"))
        if draw == "distances" and not all(map(is_bias, inner.layers(geometry.n_layers))):
            raise ValueError(f"distances are drawn of a bias of distance alone; found {type(inner).__name__}")

    def positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        if self.training:
            pos = super().positions(seq_len, device)
        else:
            pos = self.draw_positions(seq_len, generator=torch.Generator().manual_seed(self.seed)).to(device)
        pos.are_distances = self.draw == "distances"  # type: ignore[attr-defined]
        return pos

    def draw_positions(
        self, seq_len: int, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        first = 1 if self.draw == "distances" else 0  # which begin with 0
        drawn = first + torch.randperm(self.end - first, device=device, generator=generator)[: seq_len - first].sort().values
        return torch.cat([drawn.new_zeros(first), drawn])

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        if not getattr(pos, "are_distances", False):
            return self.inner.branches(pos)

        def drawn(q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            t = q_idx - kv_idx
            return t.sign() * pos[t.abs()]

        return (Branch(score_mod=at_distances(self.inner, drawn), relative=True),)


def is_bias(scheme: PositionScheme) -> bool:
    """Whether the scheme of a layer is a bias of distance and nothing else."""
    branch, *others = scheme.branches(scheme.positions(2))
    beside = others or branch.rotate or branch.mask_mod or branch.reads_content
    return scheme.relative and branch.score_mod is not None and not beside
