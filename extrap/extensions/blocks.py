"""Blockwise attention at test time."""

from dataclasses import dataclass

from torch import Tensor

from extrap.extensions.base import Extension, ends, is_wide, is_wide_anywhere
from extrap.positions.base import Branch, MaskMod, PositionScheme
from extrap.positions.local import Local


@dataclass(frozen=True)
class Bca(Extension):
    """Blockwise causal attention: blocks of L/2 tokens, every token sees its own block and the one before.

    That is L/2 to L keys; positions are those of the whole input. In an encoder, for which nothing is published, blocks have
    L/3 tokens, and the next one is seen, too. Only in layers that see further than in training.
    Source: Sun et al. 2022 (arXiv:2212.10554), section 3.3.
    """

    size: int | None = None  # tokens of a block

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"expected blocks of size >= 1, found {self.size}")

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        if ends(scheme, eval_len) or not is_wide_anywhere(scheme, scheme.geometry.train_len):
            return None
        n_blocks = 2 if scheme.geometry.causal else 3
        return Blocks(scheme, self.size or max(1, scheme.geometry.train_len // n_blocks))


class Blocks(Local):
    """Keys of the same block and of those beside it: a window that moves by blocks."""

    def __init__(self, inner: PositionScheme, size: int) -> None:
        super().__init__(inner.geometry, inner, window=2 * size)  # the last of a block and the first of the one before
        self.size, self.relative = size, False

    def near(self, pos: Tensor) -> MaskMod:
        return lambda b, h, q_idx, kv_idx: (q_idx // self.size - kv_idx // self.size).abs() <= 1

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        return super().change(branch, pos)._replace(relative=False)

    def branches(self, pos: Tensor) -> tuple[Branch, ...]:
        passes = self.inner.branches(pos)
        return super().branches(pos) if is_wide(passes, self.geometry.train_len) else passes
