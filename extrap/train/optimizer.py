"""How weights are updated, for all schemes alike: Muon for the matrices of the blocks and of a head, AdamW for all else."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from extrap.config.choices import Optimizer, Schedule
from extrap.config.schema import TrainConfig
from extrap.model.encoder import Encoder

MOMENTUM = 0.9
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def learning_rate(step: int, config: TrainConfig) -> float:
    """The share of its peak: linear warm-up, then linearly or as a cosine down to zero at max_steps."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return 1 - done if config.schedule is Schedule.linear else 0.5 * (1 + math.cos(math.pi * done))


def set_rates(optimizers: Iterable[torch.optim.Optimizer], step: int, config: TrainConfig) -> float:
    """Of a step; returns AdamW's."""
    share = learning_rate(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak"]
    return share * config.lr


def update(optimizers: Iterable[torch.optim.Optimizer], parameters: Iterable[nn.Parameter]) -> None:
    """A step by their clipped gradients, which are then gone. One whose norm was not finite counts as zero.

    Clipping has made all of it 0 or no number: a device need not be asked which gradient it was.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def make_optimizers(encoder: Encoder, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon at muon_ratio * lr for the matrices of the blocks and of a head and AdamW at lr for all else, or AdamW for all.

    What a scheme learns is AdamW's, whatever its shape, so that none gains by writing it as a matrix. Weight decay is on
    those matrices of the encoder's linear maps that AdamW has: not on tables that are read, a tied one among them, nor on
    biases, norms or a scheme's parameters.
    """
    networks = [*encoder.networks()]
    of_scheme = {module for network in networks for module in network.scheme.modules()}
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear) and module not in of_scheme]
    matrices = dict.fromkeys(module.weight for module in linear)
    others = [parameter for parameter in encoder.parameters() if parameter not in matrices]
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer is Optimizer.muon:
        inner = [one for network in networks for one in (network.blocks, network.head) if one is not None]
        parts = [(name, part) for one in inner for name, part in one.named_modules()]
        maps = [(name, part.weight) for name, part in parts if isinstance(part, nn.Linear)]
        stacks = [matrix for name, matrix in maps if name.endswith("qkv")]  # three matrices each
        single = [matrix for name, matrix in maps if not name.endswith("qkv")]
        optimizers = [
            Muon([{"params": stacks, "stacked": 3}, {"params": single, "stacked": 1}], config.muon_ratio * config.lr)
        ]
        matrices = {matrix: None for matrix in matrices if matrix not in {*stacks, *single}}
    groups = [{"params": [*matrices], "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]  # with a tied table AdamW may have no matrix
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)
    for optimizer in (optimizers := [*optimizers, adamw]):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is made orthogonal; parameters (..., stacked * R, C) hold `stacked` matrices (R, C) each.

    m <- mu m + (1 - mu) g;  W <- W - lr sqrt(max(1, R / C)) orthogonal((1 - mu) g + mu m), mu = 0.9.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, as in torch.optim.Muon without weight decay, but
    in float32: processors without units for bfloat16 emulate it.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        alike: dict[tuple[int, int], list[tuple[nn.Parameter, float, Tensor]]] = {}  # by size: multiplied together
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                matrices = parameter.grad.lerp(momentum, MOMENTUM).unflatten(-2, (group["stacked"], -1)).flatten(0, -3)
                rows, columns = matrices.shape[-2:]
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                alike.setdefault((rows, columns), []).append((parameter, rate, matrices))
        for same in alike.values():
            updates = orthogonal(torch.cat([matrices for *_, matrices in same]))
            parts = torch.split(updates, [len(matrices) for *_, matrices in same])
            for (parameter, rate, _), own in zip(same, parts, strict=True):
                parameter.sub_(own.reshape(parameter.shape), alpha=rate)


def orthogonal(x: Tensor) -> Tensor:
    """(..., R, C) -> the same: U S' V^T for x = U S V^T, with all S' near 1, by five steps of Newton-Schulz.

    x <- (a I + b G + c G^2) x, G = x x^T, from x / |x|. Of a wide x the steps are taken on G alone, which they multiply from
    both sides, and x is multiplied once at the end: the same but for rounding (1e-4 of the result), at half the products.
    """
    if x.shape[-2] > x.shape[-1]:
        return orthogonal(x.mT).mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-7)
    if x.shape[-2] == x.shape[-1]:
        for _ in range(ITERATIONS):
            x = _factor(x @ x.mT) @ x
        return x
    gram = x @ x.mT
    product = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ x


def _factor(gram: Tensor) -> Tensor:
    """a I + b G + c G^2."""
    a, b, c = QUINTIC
    factor = (gram @ gram).mul_(c).add_(gram, alpha=b)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor
