"""The floating-point operations of a training step."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from extrap.config.choices import Precision
from extrap.config.schema import TrainConfig
from extrap.model.encoder import Encoder
from extrap.train.loop import TrainingBatch, TrainingLoss
from extrap.train.optimizer import make_optimizers

GRADIENT = 2  # times the forward pass: the gradient of either factor of every product
ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which PyTorch does not count


def flops_of_step(encoder: Encoder, config: TrainConfig, precision: Precision, batch: TrainingBatch) -> int:
    """Of a step on this batch: 2 for every multiplication and addition in matrix products, all else is little.

    3 times those of the forward pass, for its gradient has twice as many, and those of the optimizer. Attention is counted
    over all pairs that are computed, masked ones too, the last block and the logits for scored tokens alone, as computed.
    """
    encoder = deepcopy(encoder).train()
    with torch.no_grad():
        forward = _counted(lambda: TrainingLoss(encoder, precision)(*batch))
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    updates = sum(_counted(optimizer.step) for optimizer in make_optimizers(encoder, config))
    return (1 + GRADIENT) * forward + updates


def _counted(work: Callable[[], object]) -> int:
    also = {ON_CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)}  # type: ignore[no-untyped-call]  # of shapes
    with FlopCounterMode(display=False, custom_mapping=also) as counter:
        work()
    return int(counter.get_total_flops())
