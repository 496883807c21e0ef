"""How a peer is trained: its setting, its loss as its library gives it, one step, and the logits that it computes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 257  # bytes and a mask token
Batch = tuple[Tensor, Tensor, Tensor]  # inputs (B, T), flat indices of the scored positions (N,), their targets (N,)
Loss = Callable[[nn.Module, Batch], Tensor]


class Setting(NamedTuple):
    """How a peer is run.

    `flash`: F.scaled_dot_product_attention, not plain matrix products. `tuned`: fused AdamW and all that the model offers.
    """

    flash: bool
    tuned: bool = False
    bf16: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        precision, optimizer = "bf16" if self.bf16 else "fp32", "fused" if self.tuned else "unfused"
        attention = "SDPA" if self.flash else "matmul"
        return f"{precision}, {optimizer}, {attention}{', compiled' if self.compiled else ''}"


def stepper(network: nn.Module, loss_of: Loss, setting: Setting) -> Callable[[Batch], None]:
    """One step of training as in every library: loss, gradient, clipped to norm 1, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=setting.tuned or None)
    run: Any = torch.compile(network) if setting.compiled else network

    def step(batch: Batch) -> None:
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=setting.bf16):
            loss = loss_of(run, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def runs(step: Callable[[Batch], None], batch: Batch, name: str) -> bool:
    """Compiles it; a peer that cannot be compiled here is left out with a word."""
    try:
        step(batch)
    except Exception as error:  # noqa: BLE001  the compiler has many ways to fail
        print(f"{name} compiled was left out: {type(error).__name__}")
        return False
    return True


def count_logits(network: nn.Module, loss_of: Loss, batch: Batch) -> int:
    """Rows of logits in a step, counted at the linear map to the vocabulary."""
    rows: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(output.numel() // VOCAB)

    last = [module for module in network.modules() if isinstance(module, nn.Linear) and module.out_features == VOCAB]
    hook = last[-1].register_forward_hook(count)
    with torch.no_grad():
        loss_of(network, batch)
    hook.remove()
    return sum(rows)


def scored_loss(network: nn.Module, batch: Batch) -> Tensor:
    """For a network that maps tokens to logits: all logits are computed, the scored ones count."""
    inputs, index, targets = batch
    return F.cross_entropy(network(inputs).flatten(0, 1)[index], targets)


def labelled_loss(network: nn.Module, batch: Batch) -> Tensor:
    """For a model of transformers, which takes a label for every position, -100 where it does not count."""
    inputs, index, targets = batch
    labels = torch.full_like(inputs, -100)
    labels.view(-1)[index] = targets
    loss: Tensor = network(input_ids=inputs, labels=labels).loss
    return loss


def shifted_loss(network: nn.Module, batch: Batch) -> Tensor:
    """For a causal model of transformers: its labels can be given as they are, the next token of each."""
    inputs, _, targets = batch
    loss: Tensor = network(input_ids=inputs, labels=inputs, shift_labels=targets.view_as(inputs), use_cache=False).loss
    return loss
