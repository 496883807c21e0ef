"""What attention computes for a scheme, score by score; positions/base.py has the formula."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from extrap.model.softmax import weigh
from extrap.positions.base import BlockBias, Branch, Content, PositionScheme, wide


def attend_reference(
    scheme: PositionScheme,
    pos: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor | None = None,
    q_idx: Tensor | None = None,
) -> Tensor:
    """The definition, on the whole (T, S) grid: every score through score_mod, every pair through mask_mod.

    With q_idx (R,) only the rows of these queries, (B, H, R, K). x is for branches that read it.
    """
    n_batch, n_heads, seq_len, head_dim = q.shape
    rows = torch.arange(seq_len, device=q.device) if q_idx is None else q_idx
    b = torch.arange(n_batch, device=q.device).view(-1, 1, 1, 1)
    h = torch.arange(n_heads, device=q.device).view(-1, 1, 1)
    i, j = rows.view(-1, 1), torch.arange(seq_len, device=q.device)
    total = q.new_full((n_batch, n_heads, len(rows), seq_len), -math.inf)
    branches, causal = scheme.branches(pos), scheme.geometry.causal
    if sharpness := scheme.sharpness():
        pairs = [allowed(branch, causal, b[:1], h, j[:, None], j).expand(1, n_heads, -1, -1) for branch in branches]
        branches = sharpened(branches, sharpness(torch.stack(pairs).sum(dim=(0, 1, -1))))
    for branch in branches:
        seen = content_of(branch, q, k, x)
        score = seen.rotated_q[:, :, rows] @ seen.rotated_k.mT / math.sqrt(head_dim)
        score = branch.score_mod(score, b, h, i, j) if branch.score_mod else score
        if bias_of := bias_of_content(branch, seen):
            score = score + bias_of(rows, j)
        total = torch.where(allowed(branch, causal, b, h, i, j), score, total)
    return weigh(total, scheme.weights()).to(v.dtype) @ v


def allowed(branch: Branch, causal: bool, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Which keys j a query i may attend to in a pass."""
    pairs = j <= i if causal else torch.ones_like(j <= i)
    return pairs & branch.mask_mod(b, h, i, j) if branch.mask_mod else pairs


def sharpened(branches: Sequence[Branch], by: Tensor) -> tuple[Branch, ...]:
    """Passes whose queries are multiplied by a number for each of them, (1 or H, T), once they are rotated."""

    def turned(branch: Branch, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = branch.rotate(q, k) if branch.rotate else (q, k)
        return q * by[..., None].to(wide(q)), k

    return tuple(branch._replace(rotate=partial(turned, branch)) for branch in branches)


def content_of(branch: Branch, q: Tensor, k: Tensor, x: Tensor | None) -> Content:
    x = q.new_empty(0) if x is None else x.to(wide(x))
    return Content(x, q, k, *(branch.rotate(q, k) if branch.rotate else (q, k)), branch.mask_mod)


def bias_of_content(branch: Branch, seen: Content) -> BlockBias | None:
    """What content and decay add, None for nothing. Positions made of content are positions too: at least float32."""
    if not branch.reads_content:
        return None
    x, q, k, rotated_q, rotated_k = (part.to(wide(part)) for part in seen[:5])
    seen = Content(x, q, k, rotated_q, rotated_k, seen.mask_mod)
    with torch.autocast(seen.q.device.type, enabled=False):
        content = branch.content(seen) if branch.content else None
        c = branch.decay(seen) if branch.decay else None

    def bias_of(rows: Tensor, keys: Tensor) -> Tensor:
        with torch.autocast(seen.q.device.type, enabled=False):
            bias = torch.zeros((), device=rows.device) if c is None else c[:, :, rows, None] - c[:, :, None, keys]
            return (content(rows, keys) + bias if content else bias).to(seen.q.dtype)

    return bias_of
