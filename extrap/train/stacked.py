"""Several models trained as one: a small model leaves a large device idle, and several take little longer than one.

A step is a function of parameters and batches, mapped over models whose parameters are stacked along a first dimension. To
each model happens what loop.py does to it alone: its own batches, the same rates, a gradient clipped by its own norm, an
optimizer that never looks across models. What comes out differs by the rounding of sums in another order.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from extrap.config.schema import Precision, TrainConfig
from extrap.data.base import Source
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators
from extrap.objectives import Objective
from extrap.train.loop import TrainingBatch, TrainingLoss, learning_rate, make_optimizer, training_batch

Gradients = Callable[[dict[str, Tensor], TrainingBatch], tuple[dict[str, Tensor], Tensor]]


def train_stacked(
    encoders: Sequence[Encoder], source: Source, objective: Objective, config: TrainConfig, *, seeds: Sequence[int], precision: Precision
) -> Tensor:
    """Trains encoders of one shape in place, each as `loop.train` does with its seed; losses (steps, N)."""
    models = [TrainingLoss(encoder.train(), precision) for encoder in encoders]
    stack, gradients = stacked(models)
    optimizer = make_optimizer(stack.encoder, config)
    losses = []
    device = next(stack.parameters()).device
    for step in range(config.max_steps):
        seed_generators(seeds[0] * 2**32 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        batches = [training_batch(source, objective, config, seed, step) for seed in seeds]
        batch = TrainingBatch(*map(torch.stack, zip(*batches, strict=True))).to(device)
        parameters = dict(stack.named_parameters())
        found, loss = gradients({name: parameter.detach() for name, parameter in parameters.items()}, batch)
        clip_each([*found.values()], config.grad_clip)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
        losses.append(loss)
    with torch.no_grad():
        for i, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.copy_(parameters[name][i])
    return torch.stack(losses)


def stacked(models: Sequence[nn.Module]) -> tuple[nn.Module, Gradients]:
    """One module that holds the parameters of N models of one shape, (N, ...) each, and what gives their gradients.

    (parameters by name, a batch of N) -> (gradients by name, losses (N,)), a pure function.
    """
    stack, (parameters, buffers) = copy.deepcopy(models[0]), stack_module_state([*models])
    for name, parameter in stack.named_parameters():
        parameter.data = parameters[name].detach()
    # what all models share has no first dimension, so that what is made of it alone is made once
    alike = [name for name, buffer in buffers.items() if (buffer == buffer[:1]).all()]
    buffers |= {name: buffers[name][0] for name in alike}
    dims = dict.fromkeys(buffers, 0) | dict.fromkeys(alike)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: TrainingBatch) -> Tensor:
        found: Tensor = functional_call(stack, (parameters, buffers), tuple(batch))
        return found

    each = vmap(grad_and_value(loss), in_dims=(0, dims, 0), randomness="different")
    return stack, lambda parameters, batch: each(parameters, buffers, batch)


def clip_each(gradients: Sequence[Tensor], largest: float) -> Tensor:
    """Scales the gradients (N, ...) of each model in place to a norm of at most `largest`; their norms before, (N,)."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    norm = torch.linalg.vector_norm(norms, dim=0)
    share = (largest / (norm + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(share.view(-1, *(1,) * (gradient.dim() - 1)))
    return norm
