"""How many keys each query sees, without ever holding a mask of every pair."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.model.definition import allowed
from extrap.positions.base import Branch, Geometry

BLOCK = 256  # queries at a time where the mask is not one of distances


def keys_seen(branches: Sequence[Branch], geometry: Geometry, idx: Tensor) -> Tensor:
    """Of tokens idx (T,), in all passes together: (1 or H, T) int64. Passes are disjoint, so that theirs add up."""
    total = torch.zeros(1, len(idx), dtype=torch.int64, device=idx.device)
    for branch in branches:
        total = total + _seen(branch, geometry, idx)
    return total


def _seen(branch: Branch, geometry: Geometry, idx: Tensor) -> Tensor:
    seq_len, causal = len(idx), geometry.causal
    if not branch.mask_mod:
        return (idx + 1 if causal else torch.full_like(idx, seq_len))[None]
    b, h = torch.zeros((), dtype=torch.int64, device=idx.device), torch.arange(geometry.n_heads, device=idx.device)
    if branch.relative:  # query i sees the distances i to i - T + 1
        distance = torch.arange(seq_len - 1, -seq_len, -1, device=idx.device)
        near = allowed(branch, causal, b, h[:, None], distance.clamp(min=0), (-distance).clamp(min=0))
        count = F.pad(near.expand(geometry.n_heads, -1).cumsum(dim=-1), (1, 0))
        return (count[:, seq_len:] - count[:, :seq_len]).flip(-1)
    blocks = [allowed(branch, causal, b, h[:, None, None], rows[:, None], idx) for rows in torch.split(idx, BLOCK)]
    return torch.cat([pairs.expand(geometry.n_heads, -1, -1).sum(dim=-1) for pairs in blocks], dim=-1)
