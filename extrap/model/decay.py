"""Causal attention whose bias is c_i - c_j, c falling from token to token, without ever holding a bias for every pair.

As in relative.py, what is too far to matter is not read. With s_ij = q_i . k_j / sqrt(K), key j weighs at most

    exp(s_ij + c_i - c_j) / exp(s_ii)  <=  exp(top + c_i - c_j),  top = max_i (|q_i| max_j |k_j| / sqrt(K) - s_ii),

relative to the token's own key. A block of queries begins at the first key for which all before it weigh at most OMITTED
together: fast decay makes a narrow band, and where nothing can be left out nothing is.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.model.relative import OMITTED, headroom

BLOCK = 128  # queries that share one range of keys


def attend_decay(c: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax over j <= i of (q_i . k_j / sqrt(K) + c_i - c_j), times v_j; q, k, v (B, H, T, K), c (B, H, T).

    Without gradients memory is O(T); time is O(T * width of the band).
    """
    starts = range(0, q.shape[2], BLOCK)
    heads = []
    for h, of_head in enumerate(first_keys(c, q, k)):
        blocks = []
        for start, first in zip(starts, of_head, strict=True):
            rows, keys = slice(start, start + BLOCK), slice(first, start + BLOCK)
            bias = (c[:, h, rows, None] - c[:, h, None, keys]).to(q.dtype)
            bias = bias + torch.full(bias.shape[1:], -math.inf, device=q.device).triu(1 + start - first)
            blocks.append(F.scaled_dot_product_attention(q[:, h, rows], k[:, h, keys], v[:, h, keys], attn_mask=bias))
        heads.append(torch.cat(blocks, dim=1))
    return torch.stack(heads, dim=1)


@torch.no_grad()
def first_keys(c: Tensor, q: Tensor, k: Tensor) -> list[list[int]]:
    """For each head and block of queries the first key that it has to read."""
    c = c.to(torch.float64)
    highest = torch.stack([block.amax(dim=2) for block in torch.split(c, BLOCK, dim=2)], dim=2)  # (B, H, blocks)
    before = torch.logcumsumexp(-c, dim=2)  # the logarithm of the sum of exp(-c_j) up to each key
    spare = math.log(OMITTED) - headroom(q, k).to(torch.float64)[:, None] - highest
    omitted = torch.searchsorted(before, spare.contiguous(), right=True).amin(dim=0)  # (H, blocks)
    finite = before.isfinite().all(dim=2) & spare.isfinite().all(dim=2)  # numbers that are none leave nothing out
    omitted = torch.where(finite.all(dim=0)[:, None], omitted, 0)
    first: list[list[int]] = omitted.minimum(torch.arange(0, c.shape[2], BLOCK, device=c.device)).tolist()
    return first
