"""Branches of a scheme -> attend(q, k, v). This file alone decides how a scheme's scores are computed.

    score_ij = bias(q_i . k_j / sqrt(K)),  weights = softmax over the allowed j,  output_i = sum_j weights_ij v_j

`attend_reference` says what that means. The fast paths give the same answers for numbers that are finite: training on
short inputs builds one additive bias that all layers share, and multiplies in the precision of the model. Everything else
is computed in float32 whatever the precision of the model, and without gradients in memory that grows linearly with the
length: by PyTorch's own kernel where nothing but causality applies, by relative.py where the bias depends on the distance
alone, and otherwise through the queries in chunks, looking only at keys that causality and the window leave.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.model.relative import attend_relative, rows_from_last
from extrap.positions.base import Branch, ScoreMod

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v, each (B, H, T, K) -> (B, H, T, K)

DENSE_MAX = 512  # up to here training with one (H, T, T) bias for all layers beats SDPA
CACHED_SCORES = 2**18  # scores in half precision whose float32 sums with a bias stay in a core's cache
CHUNK = 256  # queries at a time otherwise, fewer where
CHUNK_SCORES = 2**23  # they would have more scores than this


def prepare(
    branches: Sequence[Branch], *, seq_len: int, n_heads: int, causal: bool, training: bool, device: torch.device
) -> Attend:
    """Once per forward: the attention function that every layer uses."""
    if training and seq_len <= DENSE_MAX:
        return _dense(branches, seq_len, n_heads, causal, device)
    branch = branches[0]
    if len(branches) == 1 and not branch.content:
        if not (branch.score_mod or branch.mask_mod):
            return _in_float32(_rotated(branch, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)))
        if branch.relative and not training:
            bias = distance_bias(branch, seq_len, n_heads, causal, device)
            return _in_float32(_rotated(branch, lambda q, k, v: attend_relative(bias.expand(n_heads, -1), q, k, v)))
    return _in_float32(lambda q, k, v: _chunked(branches, q, k, v, causal))


def attend_reference(
    branches: Sequence[Branch], q: Tensor, k: Tensor, v: Tensor, *, causal: bool, q_idx: Tensor | None = None
) -> Tensor:
    """The definition, on the whole (T, S) grid: every score through score_mod, every pair through mask_mod.

    With q_idx (R,) only the rows of these queries, (B, H, R, K).
    """
    n_batch, n_heads, seq_len, head_dim = q.shape
    rows = torch.arange(seq_len, device=q.device) if q_idx is None else q_idx
    b = torch.arange(n_batch, device=q.device).view(-1, 1, 1, 1)
    h = torch.arange(n_heads, device=q.device).view(-1, 1, 1)
    i, j = rows.view(-1, 1), torch.arange(seq_len, device=q.device)
    total = q.new_full((n_batch, n_heads, len(rows), seq_len), -math.inf)
    for branch in branches:
        qr, kr = branch.rotate(q, k) if branch.rotate else (q, k)
        score = qr[:, :, rows] @ kr.mT / math.sqrt(head_dim)
        for mod in (branch.score_mod, branch.content and branch.content(qr, kr)):
            score = mod(score, b, h, i, j) if mod else score
        allowed = j <= i if causal else torch.ones_like(j <= i)
        allowed = allowed & branch.mask_mod(b, h, i, j) if branch.mask_mod else allowed
        total = torch.where(allowed, score, total)
    output: Tensor = total.softmax(dim=-1) @ v
    return output


def additive_bias(
    branch: Branch, mod: ScoreMod | None, q_idx: Tensor, kv_idx: Tensor, n_heads: int, causal: bool, n_batch: int = 1
) -> Tensor | None:
    """What is added to the scores of q_idx against kv_idx: float32, broadcastable to (B, H, T, S), None for nothing.

    q_idx and kv_idx are vectors, of which every pair is meant, or indices that broadcast to (B, H, T, S) themselves.
    """
    device = q_idx.device
    b = torch.arange(n_batch, device=device).view(-1, 1, 1, 1)
    h = torch.arange(n_heads, device=device).view(1, -1, 1, 1)
    i = q_idx.view(1, 1, -1, 1) if q_idx.ndim == 1 else q_idx
    j = kv_idx.view(1, 1, 1, -1) if kv_idx.ndim == 1 else kv_idx
    bias = mod(torch.zeros(1, 1, 1, 1, device=device), b, h, i, j) if mod else None
    allowed = j <= i if causal else None
    if branch.mask_mod:
        near = branch.mask_mod(b, h, i, j)
        allowed = near if allowed is None else allowed & near
    if allowed is None:
        return bias
    bias = torch.zeros((), device=device) if bias is None else bias
    return torch.where(allowed, bias, -math.inf)


def distance_bias(branch: Branch, seq_len: int, n_heads: int, causal: bool, device: torch.device) -> Tensor:
    """The bias of a relative branch by distance: (1 or H, 2T - 1), for i - j from T - 1 down to 1 - T."""
    distance = torch.arange(seq_len - 1, -seq_len, -1, device=device).view(1, 1, 1, -1)
    bias = additive_bias(branch, branch.score_mod, distance.clamp(min=0), (-distance).clamp(min=0), n_heads, causal)
    return torch.zeros(1, 2 * seq_len - 1, device=device) if bias is None else bias[0, :, 0].expand(-1, 2 * seq_len - 1)


def _bias_of_pairs(
    branch: Branch, seq_len: int, n_heads: int, causal: bool, device: torch.device
) -> Callable[[int, int, int, int], Tensor | None]:
    """(start, stop, first, last) -> the bias of queries [start, stop) against keys [first, last), (1, 1 or H, rows, keys).

    A relative bias is computed once a distance. Gradients are summed by distance first: faster, and more exact.
    """
    if branch.relative and (causal or branch.score_mod or branch.mask_mod):
        by_distance = distance_bias(branch, seq_len, n_heads, causal, device)
        return lambda start, stop, first, last: rows_from_last(by_distance, start, stop, first, last).flip(1)[None]
    idx = torch.arange(seq_len, device=device)
    return lambda start, stop, first, last: additive_bias(
        branch, branch.score_mod, idx[start:stop], idx[first:last], n_heads, causal
    )


def _dense(branches: Sequence[Branch], seq_len: int, n_heads: int, causal: bool, device: torch.device) -> Attend:
    idx = torch.arange(seq_len, device=device)

    def whole_bias(branch: Branch) -> Tensor | None:
        bias = None if branch.content else _bias_of_pairs(branch, seq_len, n_heads, causal, device)(0, seq_len, 0, seq_len)
        # a mask is 0 and -inf, which are exact in any precision: scores then need not become float32
        return bias if bias is None or branch.score_mod else bias.to(torch.bfloat16)

    biases = [whole_bias(branch) for branch in branches]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = []
        for branch, bias in zip(branches, biases, strict=True):
            qr, kr = branch.rotate(q, k) if branch.rotate else (q, k)
            if branch.content:
                with torch.autocast(q.device.type, enabled=False):  # positions made of content are positions too
                    content = branch.content(_at_least_float32(qr), _at_least_float32(kr))
                bias = _content_bias(branch, content, qr, idx, idx, causal)
            scores.append(_scores(qr, kr, bias))
        return _mix(scores, v)

    def attend_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        qr, kr = branches[0].rotate(q, k) if branches[0].rotate else (q, k)
        scores = (qr * q.shape[-1] ** -0.5) @ kr.mT
        weights: Tensor = _Softmax.apply(scores, biases[0])  # type: ignore[no-untyped-call]
        return weights.to(v.dtype) @ v

    return attend_one if len(branches) == 1 and not branches[0].content else attend


class _Softmax(torch.autograd.Function):
    """softmax(score + bias) as PyTorch would compute it, with fewer passes over the (B, H, T, T) scores.

    Computed in float32 and kept in the precision of the scores alone; the bias is (1, 1 or H, T, T) or None.
    """

    @staticmethod
    def forward(ctx: Any, score: Tensor, bias: Tensor | None) -> Tensor:
        # aten's own softmax: that of torch.nn.functional makes a float32 copy of what autocast has made bfloat16
        if bias is None or torch.result_type(score, bias) == score.dtype:
            weights: Tensor = torch.ops.aten._softmax(score if bias is None else score + bias, -1, False)
        else:
            weights = torch.empty_like(score)
            rows = max(1, CACHED_SCORES // score[0].numel())
            for part, into in zip(torch.split(score, rows), torch.split(weights, rows), strict=True):
                into.copy_(torch.ops.aten._softmax(part + bias, -1, False))
        ctx.save_for_backward(weights)
        ctx.bias_shape = None if bias is None else bias.shape
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        (weights,) = ctx.saved_tensors
        grad_score: Tensor = torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = grad_score.sum(0, keepdim=True, dtype=_wide(grad_score)).sum_to_size(ctx.bias_shape)
        return grad_score, grad_bias


def _content_bias(branch: Branch, content: ScoreMod, q: Tensor, q_idx: Tensor, kv_idx: Tensor, causal: bool) -> Tensor:
    def mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        score = branch.score_mod(score, b, h, i, j) if branch.score_mod else score
        return content(score, b, h, i, j)

    bias = additive_bias(branch, mod, q_idx, kv_idx, q.shape[1], causal, n_batch=q.shape[0])
    assert bias is not None
    return bias


def _scores(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """(B, H, T, S). A bias in float32 is added in float32, whatever the precision of q and k."""
    score: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
    return score if bias is None else score + bias


def _mix(scores: list[Tensor], v: Tensor) -> Tensor:
    """One softmax over all branches: they are disjoint, so at each pair at most one score is above -inf."""
    total = scores[0]
    for score in scores[1:]:
        total = torch.maximum(total, score)
    return total.softmax(dim=-1).to(v.dtype) @ v


def _in_float32(attend: Attend) -> Attend:
    def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            return attend(_at_least_float32(q), _at_least_float32(k), _at_least_float32(v))

    return exact


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(_wide(x))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _rotated(branch: Branch, attend: Attend) -> Attend:
    rotate = branch.rotate
    return attend if rotate is None else lambda q, k, v: attend(*rotate(q, k), v)


def _chunked(branches: Sequence[Branch], q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    n_batch, n_heads, seq_len = q.shape[:3]
    idx = torch.arange(seq_len, device=q.device)
    turned = [branch.rotate(q, k) if branch.rotate else (q, k) for branch in branches]
    contents = [b.content(*qk) if b.content else None for b, qk in zip(branches, turned, strict=True)]
    biases = [_bias_of_pairs(b, seq_len, n_heads, causal, q.device) for b in branches]
    chunk = max(1, min(CHUNK, CHUNK_SCORES // (n_batch * n_heads * seq_len)))
    outputs = []
    for start in range(0, seq_len, chunk):
        stop = min(start + chunk, seq_len)
        first, last = _key_range(branches, start, stop, seq_len, causal)
        rows, keys = idx[start:stop], idx[first:last]
        scores = []
        for branch, content, bias_of, (qr, kr) in zip(branches, contents, biases, turned, strict=True):
            bias = _content_bias(branch, content, qr, rows, keys, causal) if content else bias_of(start, stop, first, last)
            scores.append(_scores(qr[:, :, start:stop], kr[:, :, first:last], bias))
        outputs.append(_mix(scores, v[:, :, first:last]))
    return torch.cat(outputs, dim=2)


def _key_range(branches: Sequence[Branch], start: int, stop: int, seq_len: int, causal: bool) -> tuple[int, int]:
    """The keys [first, last) that queries [start, stop) can see in any branch."""
    reach = max(seq_len if b.window is None else b.window - 1 for b in branches)
    return max(0, start - reach), stop if causal else min(seq_len, stop + reach)
