"""Attention over long inputs: the queries, keys and values of trained weights, ours against plain attention."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.speed.ours import Trained
from experiments.speed.rounds import Contestant, if_it_compiles
from experiments.speed.timings import YARDSTICK
from extrap.model.attention import prepare
from extrap.model.encoder import Encoder

Qkv = tuple[Tensor, Tensor, Tensor]  # each (B, H, T, K), before rotation


class Layer(NamedTuple):
    """What attention gets in a layer of an encoder and what it gives back, in float32."""

    qkv: Qkv
    mixed: Tensor  # (B, H, T, K)


@torch.no_grad()
def layers_of(encoder: Encoder, tokens: Tensor) -> list[Layer]:
    """All layers, which share their scheme, for tokens (1, T)."""
    pos = encoder.scheme.positions(tokens.shape[1], tokens.device)
    attend = prepare(encoder.scheme, pos, training=False)
    seen: list[Layer] = []

    def listen(q: Tensor, k: Tensor, v: Tensor, read: Tensor | None = None) -> Tensor:
        seen.append(Layer((q, k, v), attend(q, k, v, read)))
        return seen[-1].mixed

    x = encoder.scheme.embed(encoder.embedding(tokens), pos)
    for block in encoder.blocks:
        x = block(x, listen)
    return seen


def contestants(trained: list[Trained], n: int, tokens: Tensor, flex: tuple[str, ...]) -> list[Contestant]:
    """Ours goes through every layer and tells the mean of a layer, the yardstick through one: its time does not
    depend on the weights."""
    found = []
    yardsticks = {one.objective: one for one in reversed(trained)}  # the first of each
    for one in trained:
        heads = [layer.qkv for layer in layers_of(one.encoder, tokens[:, :n])]
        columns = one.columns(n) | {"case": "attention"}
        found.append(Contestant(columns, partial(attend_all, one, heads), len(heads)))
        if one is yardsticks[one.objective]:
            plain = partial(F.scaled_dot_product_attention, *heads[-1], is_causal=one.encoder.causal)
            found.append(Contestant(columns | {"name": YARDSTICK, "scheme": "nope"}, plain))
        if one.scheme.startswith(flex):
            compiled = columns | {"name": "FlexAttention", "setting": "compiled"}
            found += if_it_compiles(Contestant(compiled, flex_attention_of(one, *heads[-1])))
    return found


@torch.no_grad()
def attend_all(one: Trained, heads: list[Qkv]) -> None:
    scheme, first = one.encoder.scheme, heads[0][0]
    attend = prepare(scheme, scheme.positions(first.shape[2], first.device), training=False)
    for q, k, v in heads:
        attend(q, k, v)


def flex_attention_of(one: Trained, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    """torch's FlexAttention with the functions of the scheme."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    n, device, causal = q.shape[2], q.device, one.encoder.causal
    (branch,) = one.encoder.scheme.branches(one.encoder.scheme.positions(n, device))
    near = branch.mask_mod

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = i >= j if causal else i >= 0
        return seen & near(b, h, i, j) if near else seen

    mask = create_block_mask(allowed, None, None, n, n, device=str(device)) if causal or near else None
    compiled: Any = torch.compile(flex_attention, dynamic=False)

    @torch.no_grad()
    def run() -> object:
        turned = branch.rotate(q, k) if branch.rotate else (q, k)
        return compiled(*turned, v, score_mod=branch.score_mod, block_mask=mask)

    return run
