"""Scores -> weights."""

from typing import Any

import torch
from torch import Tensor

from extrap.positions.base import Weights, wide

CACHED_SCORES = 2**18  # scores in half precision whose float32 sums with a bias stay in a core's cache


def weigh(scores: Tensor, weights: Weights | None) -> Tensor:
    """One softmax over all passes, or what a scheme has in its place."""
    return weights(scores.to(wide(scores))) if weights else scores.softmax(dim=-1)


class BiasedSoftmax(torch.autograd.Function):
    """softmax(score + bias) as PyTorch would compute it, with fewer passes over the (B, H, R, T) scores.

    Computed in float32 and kept in the precision of the scores alone; the bias is (1 or B, 1 or H, R, T) or None.
    """

    generate_vmap_rule = True  # several models may be computed as one

    @staticmethod
    def forward(score: Tensor, bias: Tensor | None) -> Tensor:
        # aten's own softmax: that of torch.nn.functional makes a float32 copy of what autocast has made bfloat16
        if bias is None or torch.result_type(score, bias) == score.dtype:
            weights: Tensor = torch.ops.aten._softmax(score if bias is None else score + bias, -1, False)
        else:
            weights = torch.empty_like(score)
            rows = max(1, CACHED_SCORES // score[0].numel()) if score.device.type == "cpu" else len(score)
            parts = (torch.split(whole, rows) for whole in (score, bias.expand(len(score), -1, -1, -1), weights))
            for part, added, into in zip(*parts, strict=True):
                into.copy_(torch.ops.aten._softmax(part + added, -1, False))
        return weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.bias_shape = None if inputs[1] is None else inputs[1].shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        (weights,) = ctx.saved_tensors
        grad_score: Tensor = torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            own = grad_score if ctx.bias_shape[0] > 1 else grad_score.sum(0, keepdim=True, dtype=wide(grad_score))
            grad_bias = own.to(wide(own)).sum_to_size(ctx.bias_shape)
        return grad_score, grad_bias
