"""Attention over long inputs: the queries, keys and values of trained weights, ours against plain attention."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.speed.ours import Trained
from experiments.speed.rounds import Contestant, Row
from experiments.speed.timings import OURS, YARDSTICK
from extrap.model.attention import Attend, prepare

Qkv = tuple[Tensor, Tensor, Tensor]  # each (B, H, T, K), before rotation


class Layer(NamedTuple):
    """What attention gets in a layer of an encoder and what it gives back, in float32."""

    qkv: Qkv
    mixed: Tensor  # (B, H, T, K)


@torch.no_grad()
def layers_of(encoder: torch.nn.Module, tokens: Tensor) -> list[Layer]:
    """All layers, for tokens (1, T)."""
    seen: list[Layer] = []

    def listen(block: torch.nn.Module, args: tuple[Tensor, Attend]) -> tuple[Tensor, Attend]:
        x, attend = args

        def attend_and_keep(q: Tensor, k: Tensor, v: Tensor, read: Tensor | None = None) -> Tensor:
            mixed = attend(q, k, v, read)
            seen.append(Layer((q.contiguous(), k.contiguous(), v.contiguous()), mixed))
            return mixed

        return x, attend_and_keep

    blocks: Any = encoder.blocks
    hooks = [block.register_forward_pre_hook(listen) for block in blocks]
    encoder(tokens)
    for hook in hooks:
        hook.remove()
    return seen


def attention_of(trained: Trained, n: int, device: torch.device, training: bool = False) -> Attend:
    """How the encoder attends over n tokens, made once as for a forward pass."""
    scheme = trained.encoder.scheme
    return prepare(scheme, scheme.positions(n, device), training=training)


def contestants(trained: list[Trained], n: int, tokens: Tensor, flex: tuple[str, ...]) -> list[Contestant]:
    """Ours goes through every layer and tells the mean of a layer, the yardstick through one: its time does not
    depend on the weights."""
    found = []
    device = tokens.device
    for one in trained:
        heads = [layer.qkv for layer in layers_of(one.encoder, tokens[:, :n])]
        columns: Row = {
            "case": "attention", "n": n, "tokens": n, "scheme": one.scheme, "objective": one.objective, "precision": "fp32",
        }  # fmt: skip

        def ours(one: Trained = one, heads: list[Qkv] = heads) -> None:
            with torch.no_grad():
                attend = attention_of(one, n, device)
                for q, k, v in heads:
                    attend(q, k, v)

        found.append(Contestant(columns | {"name": OURS}, ours, len(heads)))
        if one.objective not in (other.columns["objective"] for other in found if other.columns["name"] == YARDSTICK):
            plain = partial(F.scaled_dot_product_attention, *heads[-1], is_causal=one.objective == "causal")
            found.append(Contestant(columns | {"name": YARDSTICK, "scheme": "nope"}, plain))
        if one.scheme.startswith(flex) and (run := compiled_flex(one, heads[-1])):
            found.append(Contestant(columns | {"name": "FlexAttention", "setting": "compiled"}, run))
    return found


def compiled_flex(one: Trained, heads: Qkv) -> Callable[[], object] | None:
    """torch's FlexAttention with the functions of the scheme, compiled; None where that is impossible here."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = heads
    n, device = q.shape[2], q.device
    scheme, causal = one.encoder.scheme, one.objective == "causal"
    (branch,) = scheme.branches(scheme.positions(n, device))
    near = branch.mask_mod

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = i >= j if causal else i >= 0
        return seen & near(b, h, i, j) if near else seen

    compiled: Any = torch.compile(flex_attention, dynamic=False)

    @torch.no_grad()
    def run() -> object:
        turned = branch.rotate(q, k) if branch.rotate else (q, k)
        return compiled(*turned, v, score_mod=branch.score_mod, block_mask=mask)

    try:
        mask = create_block_mask(allowed, None, None, n, n, device=str(device)) if causal or near else None
        run()
    except Exception as error:  # noqa: BLE001  the compiler has many ways to fail, and ours is not what failed
        print(f"FlexAttention of {one.scheme}, {one.objective} was left out: {type(error).__name__}")
        return None
    return run
