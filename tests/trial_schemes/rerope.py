"""ReRoPE in an encoder."""

import torch

from extrap.positions.rope import Rope


class ReRope(Rope):
    """RoPE at the distance i - j held between -window and window (kexue.fm 9708; its encoder form is ours).

    Three passes under one softmax: pairs nearer than the window as they are, queries `window` after all keys of their past,
    and keys `window` after all queries that look ahead to them.
    """

    def __init__(self, geometry, base=10_000.0, window=5):
        super().__init__(geometry, base)
        self.window = window

    def branches(self, pos):
        (whole,) = super().branches(pos)
        far, zero = torch.full_like(pos, self.window), torch.zeros_like(pos)
        near = whole._replace(mask_mod=lambda b, h, i, j: (pos[i] - pos[j]).abs() < self.window, window=self.window)
        past = self.apart(far, zero)._replace(mask_mod=lambda b, h, i, j: pos[i] - pos[j] >= self.window)
        future = self.apart(zero, far)._replace(mask_mod=lambda b, h, i, j: pos[j] - pos[i] >= self.window)
        return (near, past) if self.geometry.causal else (near, past, future)
