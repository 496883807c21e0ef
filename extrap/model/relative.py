"""Attention whose bias depends on the distance alone, without ever holding a bias for every pair.

The bias of a head is one vector over the distances d = i - j from T - 1 down to 1 - T. Row i of the matrix of pairs is that
vector from T - 1 - i on, so the rows of a block in reverse order are a view of it (a Hankel matrix) that costs no memory.

What is too far to matter is not read. With s_ij = q_i . k_j / sqrt(K) and a bias f, key j weighs at most

    exp(s_ij + f(i - j)) / exp(s_ii + f(0))  <=  exp(top + f(i - j) - f(0)),
    top = max_i (|q_i| max_j |k_j| / sqrt(K) - s_ii),

relative to the token's own key. Each side of a head ends where all that lies beyond weighs at most OMITTED together, so an
output changes by less than 2 * OMITTED times the largest difference between it and a value left out: a steep slope makes
a narrow band, a window ends where its mask does, and where nothing can be left out nothing is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from extrap.model.places import taken

OMITTED = 2.0**-24  # of the weight of a row, on either side: half of what float32 resolves next to 1
BLOCK = 256  # queries that share one range of keys: half as many in a narrow band, where the corners are most of it
NEIGHBOURS = 64  # queries that share one, where few are asked for
WHOLE = 512  # up to here one call for all heads and pairs is faster


def attend_relative(bias: Tensor, q: Tensor, k: Tensor, v: Tensor, at: Tensor | None = None) -> Tensor:
    """softmax_j(q_i . k_j / sqrt(K) + f_h(i - j)) v_j; q, k, v (B, H, T, K), bias (1 or H, 2T - 1) for d = T - 1 .. 1 - T.

    Of the queries at these places (B, R) alone, or of all. Differentiable like the definition, but for what is left out.
    Without gradients memory is O(T); time is O(T * width of the band).
    """
    bias = bias.to(q.dtype)  # SDPA would misread one of another type
    n_heads, seq_len = q.shape[1:3]
    if seq_len <= WHOLE:
        if at is None:
            pairs = rows_from_last(bias, 0, seq_len, 0, seq_len)[None]
            return F.scaled_dot_product_attention(q.flip(2), k, v, attn_mask=pairs).flip(2)
        pairs = rows_at(bias, at.flatten(), 0, seq_len).view(len(bias), *at.shape, seq_len).transpose(0, 1)
        return F.scaled_dot_product_attention(taken(q, at), k, v, attn_mask=pairs)
    if at is not None and q.device.type != "cpu":  # all at once are faster there than some after the other
        return taken(attend_relative(bias, q, k, v), at)
    past, future = reaches(bias.expand(n_heads, -1), q, k)
    if at is None:
        of_heads = torch.split(bias.expand(n_heads, -1), 1)
        parts = [_band(of, q[:, h], k[:, h], v[:, h], past[h], future[h]) for h, of in enumerate(of_heads)]
        return torch.stack(parts, dim=1)
    order = at.argsort(dim=1)  # neighbours read the same keys
    places = at.gather(1, order)
    queries, alike = taken(q, places), n_heads // len(bias)  # so many heads have one bias
    parts = []
    for of, first in zip(torch.split(bias, 1), range(0, n_heads, alike), strict=True):
        heads = slice(first, first + alike)
        tensors = queries[:, heads], k[:, heads], v[:, heads]
        parts.append(_band_at(of, *tensors, max(past[heads]), max(future[heads]), places))
    return taken(torch.cat(parts, dim=1), order.argsort(dim=1))


def rows_from_last(bias: Tensor, start: int, stop: int, first: int, last: int) -> Tensor:
    """(H, stop - start, last - first), a view: the bias of queries stop - 1 down to start against keys first to last - 1."""
    rows, width, seq_len = stop - start, last - first, (bias.shape[1] + 1) // 2
    return bias[:, seq_len - stop + first :][:, : rows + width - 1].unfold(1, width, 1)


def rows_at(bias: Tensor, places: Tensor, first: int, last: int) -> Tensor:
    """(1 or H, R, last - first): the bias of the queries at these places (R,) against keys first to last - 1."""
    seq_len = (bias.shape[1] + 1) // 2
    return bias.unfold(1, last - first, 1)[:, seq_len - 1 + first - places]  # index_select would make all of it


@torch.no_grad()
def reaches(bias: Tensor, q: Tensor, k: Tensor) -> tuple[list[int], list[int]]:
    """For each head how many keys before and after its own position a query has to read."""
    seq_len, top = q.shape[2], headroom(q, k)
    f = bias.to(torch.float64)
    bound = torch.where(f == -torch.inf, 0.0, (f - f[:, seq_len - 1 : seq_len] + top[:, None]).exp())
    sides = bound[:, : seq_len - 1], bound[:, seq_len:].flip(1)  # both from the furthest key to the nearest
    # a bound that is not a number leaves nothing out
    counts = torch.stack([(~(side.cumsum(dim=1) <= OMITTED)).sum(dim=1) for side in sides])
    past, future = counts.tolist()  # once a layer a GPU is waited for: what it then need not read takes longer
    return past, future


def headroom(q: Tensor, k: Tensor) -> Tensor:
    """(H,): by how much the score of any key can exceed that of a query's own key, the `top` above."""
    own = (q * k).sum(dim=-1)
    longest = torch.linalg.vector_norm(k, dim=-1).amax(dim=-1, keepdim=True)
    above: Tensor = (torch.linalg.vector_norm(q, dim=-1) * longest - own).amax(dim=(0, 2)) * q.shape[-1] ** -0.5
    return above


def _band(bias: Tensor, q: Tensor, k: Tensor, v: Tensor, past: int, future: int) -> Tensor:
    """One head, (B, T, K): query i reads the keys from i - past to i + future."""
    seq_len = q.shape[1]

    def blocks(first: int, stop: int, rows: int) -> Tensor:
        """The queries [first, stop) in blocks of `rows`, all with equally many keys."""
        low, high = max(0, first - past), min(seq_len, stop + future)
        width = high - low - (stop - first) + rows
        query = q[:, first:stop].reshape(len(q), -1, rows, q.shape[-1]).flip(2)
        key, value = (x[:, low:high].unfold(1, width, rows).mT for x in (k, v))  # overlapping views
        pairs = rows_from_last(bias, first, first + rows, low, low + width)[None]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=pairs).flip(2).flatten(1, 2)

    # in the middle every block has the same range around it, so that one call does them all
    size = BLOCK if past + future > 2 * BLOCK else BLOCK // 2
    begin = min(seq_len, -(-past // size) * size)
    end = max(begin, (seq_len - future) // size * size)
    pieces = [blocks(a, min(a + size, begin), min(size, begin - a)) for a in range(0, begin, size)]
    if end > begin:
        pieces.append(blocks(begin, end, size))
    pieces += [blocks(a, min(a + size, seq_len), min(size, seq_len - a)) for a in range(end, seq_len, size)]
    return torch.cat(pieces, dim=1)


def _band_at(bias: Tensor, q: Tensor, k: Tensor, v: Tensor, past: int, future: int, places: Tensor) -> Tensor:
    """Heads of one bias, queries (B, H, R, K) at rising places (B, R): some neighbours at a time, and the keys they read."""
    sequences = []
    for of, queries, keys, values in zip(places, *(torch.split(x, 1) for x in (q, k, v)), strict=True):
        blocks = []
        for query, near in zip(torch.split(queries, NEIGHBOURS, dim=2), torch.split(of, NEIGHBOURS), strict=True):
            first, last = max(0, int(near[0]) - past), min(k.shape[2], int(near[-1]) + future + 1)
            pairs = rows_at(bias, near, first, last)[None]
            key, value = keys[:, :, first:last], values[:, :, first:last]
            blocks.append(F.scaled_dot_product_attention(query, key, value, attn_mask=pairs))
        sequences.append(torch.cat(blocks, dim=2))
    return torch.cat(sequences)
