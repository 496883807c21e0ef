"""A scheme -> attend(q, k, v, x). This file alone decides how a scheme's scores are computed.

definition.py is what they have to compute. The fast paths give the same answers for numbers that are
finite: training on short inputs builds one additive bias that all layers of a scheme share, and multiplies in the precision
of the model, as training on a GPU does at any length. Everything else is computed in float32 whatever that precision is,
and without gradients in memory that grows linearly with the length: by PyTorch's own kernel where nothing but causality
applies, by relative.py where the bias depends on the distance alone, by decay.py where it is c_i - c_j, and otherwise
through the queries in chunks, looking only at keys that causality and the window leave.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.model.decay import attend_decay
from extrap.model.definition import allowed, bias_of_content, content_of, sharpened
from extrap.model.keys import keys_seen
from extrap.model.places import Places, taken
from extrap.model.relative import attend_relative, rows_from_last
from extrap.model.softmax import BiasedSoftmax, weigh
from extrap.positions.base import Branch, Geometry, PositionScheme, Weights, wide

BiasOfPairs = Callable[[int, int, int, int], Tensor | None]  # queries [start, stop), keys [first, last) -> (1, 1 or H, R, S)

DENSE_MAX = 512  # up to here training with one (H, T, T) bias for all layers beats SDPA
HALVED = ("cuda",)  # devices on which half precision makes long attention faster
CHUNK = 64  # queries at a time otherwise on a processor, whose caches then hold most scores,
WIDE_CHUNK = 256  # elsewhere more at once, fewer where
CHUNK_SCORES = 2**23  # they would have more scores than this


class Attend(Protocol):
    """Queries, keys and values (B, H, T, K) -> (B, H, T, K); the layer's input x (B, T, D) is for schemes that read it."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, /) -> Tensor: ...


class AttendAt(Protocol):
    """The same for the queries at these places alone, (B, H, R, K)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, /, at: Places = None) -> Tensor: ...


def prepare(scheme: PositionScheme, pos: Tensor, *, training: bool) -> AttendAt:
    """Once per forward: the attention function of all layers that share a scheme, over tokens at pos (T,).

    Of a run of neighbours no other scores are computed, in float32 and in chunks. Queries elsewhere take less than all where
    one additive bias or none holds for all sequences alike; of others theirs are taken from what all queries give.
    """
    branches, idx = scheme.branches(pos), torch.arange(len(pos), device=pos.device)
    if sharpness := scheme.sharpness():
        branches = sharpened(branches, sharpness(keys_seen(branches, scheme.geometry, idx)))
    fast = _prepare_fast(scheme, branches, idx, training=training)

    def attend(q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, at: Places = None) -> Tensor:
        if not isinstance(at, range):
            return fast(q, k, v, x, at=at)
        return _in_float32(_of_all(partial(_in_blocks, branches, scheme.weights(), scheme.geometry, at)))(q, k, v, x)

    return attend


def _prepare_fast(scheme: PositionScheme, branches: Sequence[Branch], idx: Tensor, *, training: bool) -> AttendAt:
    weights, geometry, causal = scheme.weights(), scheme.geometry, scheme.geometry.causal
    if training and len(idx) <= DENSE_MAX:
        whole = [_whole_bias(branch, geometry, idx) for branch in branches]
        if len(branches) == 1 and not branches[0].reads_content and not weights:
            return partial(_in_one, branches[0], whole[0])
        biases = [partial(_block_of, bias) for bias in whole]
        return _of_all(partial(_in_chunks, branches, biases, weights, causal, range(len(idx)), len(idx)))
    wrap = (lambda attend: attend) if training and idx.device.type in HALVED else _in_float32
    branch, turn = branches[0], partial(_turned, branches[0])
    if len(branches) == 1 and not branch.content and not weights:
        plain, decay = not (branch.score_mod or branch.mask_mod), branch.decay
        if plain and not decay:

            def plainly(q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, at: Places = None) -> Tensor:
                q, k = turn(q, k)
                more = q.shape[-1] - v.shape[-1]  # the kernel wants as many dimensions of values
                v = F.pad(v, (0, more)) if more else v
                if causal:  # the kernel tells by its place what a query may see
                    mixed = taken(F.scaled_dot_product_attention(q, k, v, is_causal=True), at)
                else:
                    mixed = F.scaled_dot_product_attention(taken(q, at), k, v)
                return mixed[..., : v.shape[-1] - more]

            return wrap(plainly)
        if plain and decay and causal and not training:
            of_all = _of_all(lambda q, k, v, x=None: attend_decay(decay(content_of(branch, q, k, x)), *turn(q, k), v))
            return wrap(of_all)
        if branch.relative and not decay and not training:
            bias = distance_bias(branch, geometry, idx)
            return wrap(lambda q, k, v, x=None, at=None: attend_relative(bias, *turn(q, k), v, at))
    return wrap(_of_all(partial(_in_blocks, branches, weights, geometry, range(len(idx)))))


def additive_bias(branch: Branch, geometry: Geometry, q_idx: Tensor, kv_idx: Tensor) -> Tensor | None:
    """What score_mod and mask_mod add to the scores of q_idx against kv_idx: float32, (1, 1 or H, R, S), None for nothing.

    q_idx and kv_idx broadcast to (R, S) or to (1, 1, R, S).
    """
    if not (branch.score_mod or branch.mask_mod or geometry.causal):
        return None
    zero = torch.zeros(1, 1, 1, 1, device=q_idx.device)
    b, h = zero.to(torch.int64), torch.arange(geometry.n_heads, device=q_idx.device).view(1, -1, 1, 1)
    bias = branch.score_mod(zero, b, h, q_idx, kv_idx) if branch.score_mod else zero
    return torch.where(allowed(branch, geometry.causal, b, h, q_idx, kv_idx), bias, -math.inf)


def distance_bias(branch: Branch, geometry: Geometry, idx: Tensor) -> Tensor:
    """The bias of a relative branch over tokens idx (T,) by distance: (1 or H, 2T - 1), for i - j from T - 1 to 1 - T."""
    distance = torch.arange(len(idx) - 1, -len(idx), -1, device=idx.device).view(1, 1, 1, -1)
    bias = additive_bias(branch, geometry, distance.clamp(min=0), (-distance).clamp(min=0))
    assert bias is not None
    return bias[0, :, 0].expand(-1, distance.numel())


def _bias_of_pairs(branch: Branch, geometry: Geometry, idx: Tensor) -> BiasOfPairs:
    """What score_mod and mask_mod add, for a block of queries and keys.

    A relative bias is computed once a distance. Gradients are summed by distance first: faster, and more exact.
    """
    if branch.relative and (geometry.causal or branch.score_mod or branch.mask_mod):
        by_distance = distance_bias(branch, geometry, idx)
        return lambda start, stop, first, last: rows_from_last(by_distance, start, stop, first, last).flip(1)[None]
    return lambda start, stop, first, last: additive_bias(branch, geometry, idx[start:stop, None], idx[first:last])


def _whole_bias(branch: Branch, geometry: Geometry, idx: Tensor) -> Tensor | None:
    bias = _bias_of_pairs(branch, geometry, idx)(0, len(idx), 0, len(idx))
    # a mask is 0 and -inf, which are exact in any precision: scores then need not become float32
    return bias if bias is None or branch.score_mod else bias.to(torch.bfloat16)


def _block_of(bias: Tensor | None, start: int, stop: int, first: int, last: int) -> Tensor | None:
    return None if bias is None else bias[:, :, start:stop, first:last]


def _turned(branch: Branch, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Rotated queries and keys for kernels that divide by the root of their dimension, of which a rotation may make more."""
    if not branch.rotate:
        return q, k
    turned, keys = branch.rotate(q, k)
    return turned if turned.shape == q.shape else turned * (turned.shape[-1] / q.shape[-1]) ** 0.5, keys


def _in_float32(attend: AttendAt) -> AttendAt:
    """Whatever the precision of the model."""

    def exact(q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, at: Places = None) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = (part.to(wide(part)) for part in (q, k, v))
            return attend(q, k, v, x, at)

    return exact


def _of_all(attend: Attend) -> AttendAt:
    """Computes all queries, whichever are asked for."""
    return lambda q, k, v, x=None, at=None: taken(attend(q, k, v, x), at)


def _in_one(
    branch: Branch, bias: Tensor | None, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None, at: Places = None
) -> Tensor:
    """All keys at once, with a bias (1, 1 or H, T, T) or none."""
    scale, (q, k) = q.shape[-1] ** -0.5, branch.rotate(q, k) if branch.rotate else (q, k)
    if bias is not None and isinstance(at, Tensor):
        bias = bias[0].index_select(1, at.flatten()).view(len(bias[0]), *at.shape, -1).transpose(0, 1)  # (B, 1 or H, R, T)
    score = (taken(q, at) * scale) @ k.mT
    shares: Tensor = BiasedSoftmax.apply(score, bias)  # type: ignore[no-untyped-call]
    return shares.to(v.dtype) @ v


def _in_blocks(
    branches: Sequence[Branch],
    weights: Weights | None,
    geometry: Geometry,
    rows: range,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor | None = None,
) -> Tensor:
    """As many of these queries at a time as this device does well."""
    idx = torch.arange(q.shape[2], device=q.device)
    most = CHUNK if q.device.type == "cpu" else WIDE_CHUNK
    chunk = max(1, min(most, CHUNK_SCORES // (len(q) * geometry.n_heads * len(idx))))
    biases = [_bias_of_pairs(branch, geometry, idx) for branch in branches]
    return _in_chunks(branches, biases, weights, geometry.causal, rows, chunk, q, k, v, x)


def _in_chunks(
    branches: Sequence[Branch],
    biases: Sequence[BiasOfPairs],
    weights: Weights | None,
    causal: bool,
    rows: range,
    chunk: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor | None = None,
) -> Tensor:
    """`chunk` of these queries at a time against the keys that they can see, each pass against its own where nothing else
    counts.
    """
    seq_len = q.shape[2]
    idx = torch.arange(seq_len, device=q.device)
    seen = [content_of(branch, q, k, x) for branch in branches]
    contents = [bias_of_content(branch, content) for branch, content in zip(branches, seen, strict=True)]
    together = bool(weights) or any(contents)  # which look at keys that others attend to
    outputs = []
    for start in range(rows.start, rows.stop, chunk):
        stop = min(start + chunk, rows.stop)
        ranges = [_key_range(branch, start, stop, seq_len, causal) for branch in branches]
        if together:
            ranges = [(min(first for first, _ in ranges), max(last for _, last in ranges))] * len(ranges)
        scores: dict[tuple[int, int], Tensor] = {}
        for bias_of, reads, (_, _, _, qr, kr, _), (first, last) in zip(biases, contents, seen, ranges, strict=True):
            if first >= last:
                continue
            bias = bias_of(start, stop, first, last)
            if reads:
                content = reads(idx[start:stop], idx[first:last])  # of no account where the mask is -inf
                bias = content if bias is None else (content + bias).masked_fill(bias.isneginf(), -math.inf)
            score = (qr[:, :, start:stop] * q.shape[-1] ** -0.5) @ kr[:, :, first:last].mT
            score = score if bias is None else score + bias  # a bias in float32 is added in float32
            at = first, last  # passes are disjoint: at each pair at most one score is above -inf
            scores[at] = torch.maximum(scores[at], score) if at in scores else score
        total, values = joined([*scores.values()], -1), joined([v[:, :, first:last] for first, last in scores], -2)
        outputs.append(weigh(total, weights).to(v.dtype) @ values)
    return joined(outputs, 2)


def joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _key_range(branch: Branch, start: int, stop: int, seq_len: int, causal: bool) -> tuple[int, int]:
    """The keys [first, last) that queries [start, stop) can see in a pass."""
    reach = seq_len if branch.window is None else branch.window - 1
    first, last = branch.keys(start, stop) if branch.keys else (0, seq_len)
    return max(0, start - reach, first), min(stop if causal else stop + reach, seq_len, last)
