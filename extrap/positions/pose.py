"""Positional skip-wise training."""

import torch
from torch import Tensor

from extrap.positions.base import consecutive
from extrap.positions.randomized import Drawn


class Pose(Drawn):
    """PoSE: two chunks of neighbours, of which the second stands further on: positions i, and i + u for i >= l.

    l ~ U{1, .., (T + 1) // 2}, u ~ U{0, .., max_len - T}. Deviations: the text goes on across the gap, where the released
    code takes that of the second chunk from further on, too; all sequences of a batch share a gap; and the model is
    trained from scratch, there fine-tuned with interpolated positions. The token after the gap is scored, as there.
    Source: Zhu et al. 2024 (arXiv:2309.10400), section 3, and its released code.
    """

    def draw_positions(self, seq_len: int, device: torch.device | None = None) -> Tensor:
        pos = consecutive(seq_len, device)
        first = torch.randint(1, (seq_len + 1) // 2 + 1, (1,), device=device)
        gap = torch.randint(0, self.end - seq_len + 1, (1,), device=device)
        return pos + gap * (pos >= first)
