"""Several models trained as one: a small model leaves a large device idle, and several take little longer than one.

A step is a function of parameters and batches, mapped over models whose parameters are stacked along a first dimension. To
each model happens what loop.py does to it alone: its own batches, the same rates, a gradient clipped by its own norm, an
optimizer that never looks across models. What comes out differs by the rounding of sums in another order.
"""

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from extrap.config.choices import Precision
from extrap.config.schema import TrainConfig
from extrap.data.base import Source
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators, seed_of
from extrap.objectives import Objective
from extrap.train.device import full_precision
from extrap.train.loop import (
    Diverged,
    TrainingBatch,
    TrainingLoss,
    is_logged,
    refuse_diverged,
    refuse_guessing,
    training_batch,
)
from extrap.train.optimizer import make_optimizers, set_rates, update

Gradients = Callable[[dict[str, Tensor], TrainingBatch], tuple[dict[str, Tensor], Tensor]]


def train_stacked(
    encoders: Sequence[Encoder],
    source: Source,
    objective: Objective,
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    precision: Precision,
) -> Tensor:
    """Trains N encoders that differ in their weights alone in place, each as `train` does with its seed, on one processor.

    Returns the losses of all steps, (steps, N), in nats per scored token. Nothing waits for the device before the end.
    Dropout and randomized positions are drawn for all of them by one generator, and so are not those of `train`.
    Raises ValueError where a seed is missing or an encoder holds a second one, and, once the others are trained, Diverged
    for those that have diverged: with their seeds and steps; their encoders are as they were.
    """
    if len(seeds) != len(encoders):
        raise ValueError(f"expected a seed for each of {len(encoders)} encoders, found {len(seeds)}")
    if any(len([*encoder.networks()]) > 1 for encoder in encoders):
        raise ValueError("expected encoders of a single network, found a discriminator and its generator")
    full_precision()
    stack, gradients_of = stacked([TrainingLoss(encoder.train(), precision) for encoder in encoders])
    optimizers = make_optimizers(stack.encoder, config)
    parameters = dict(stack.named_parameters())
    device = next(stack.parameters()).device
    steps: list[Tensor] = []
    for step in range(config.max_steps):
        seed_generators(seed_of(seeds[0], 0, step))
        set_rates(optimizers, step, config)
        batches = [training_batch(source, objective, config, seed, step) for seed in seeds]
        batch = TrainingBatch(*map(torch.stack, zip(*batches, strict=True))).to(device)
        gradients, losses = gradients_of({name: parameter.detach() for name, parameter in parameters.items()}, batch)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        steps.append(torch.stack([losses, clip_each([*gradients.values()], config.grad_clip)]))
        update(optimizers, parameters.values())
    told = torch.stack(steps).cpu()  # (steps, 2, N)
    logged = [step for step in range(config.max_steps) if is_logged(step + 1, config)]
    diverged = []
    for i, (encoder, seed) in enumerate(zip(encoders, seeds, strict=True)):
        losses, grad_norms = told[:, :, i].unbind(dim=1)
        try:
            refuse_diverged(losses, grad_norms, config.max_steps)
            refuse_guessing(losses[logged].tolist(), encoder.guessing(), config.max_steps)
        except Diverged as error:
            diverged.append(f"seed {seed} {error}")
        else:
            trained = {name.removeprefix("encoder."): parameter[i] for name, parameter in parameters.items()}
            encoder.load_state_dict(encoder.state_dict() | trained)
        encoder.eval()
    if diverged:
        raise Diverged("; ".join(diverged))
    return told[:, 0]


def stacked(models: Sequence[TrainingLoss]) -> tuple[TrainingLoss, Gradients]:
    """A module with the parameters of N models of one shape, (N, ...) each, and what gives gradients for such.

    (parameters by name, a batch with a first dimension of N) -> (gradients by name, losses (N,)), a pure function.
    """
    stack, (parameters, buffers) = copy.deepcopy(models[0]), stack_module_state([*models])
    for name, parameter in stack.named_parameters():
        parameter.data = parameters[name].detach()
    # what all models have alike has no first dimension, so that what is made of it alone is made once
    alike = [name for name, buffer in buffers.items() if (buffer == buffer[:1]).all()]
    buffers |= {name: buffers[name][0] for name in alike}
    mapped = dict.fromkeys(buffers, 0) | dict.fromkeys(alike)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: TrainingBatch) -> Tensor:
        found: Tensor = functional_call(stack, (parameters, buffers), tuple(batch))
        return found

    each = vmap(grad_and_value(loss), in_dims=(0, mapped, 0), randomness="different")

    def gradients_of(parameters: dict[str, Tensor], batch: TrainingBatch) -> tuple[dict[str, Tensor], Tensor]:
        with warnings.catch_warnings():  # the gradient of a trained bias, once a layer, is taken model by model
            warnings.filterwarnings("ignore", ".*not yet implemented the batching rule for aten::unfold_backward")
            found: tuple[dict[str, Tensor], Tensor] = each(parameters, buffers, batch)
        return found

    return stack, gradients_of


def clip_each(gradients: Sequence[Tensor], largest: float) -> Tensor:
    """Scales the gradients (N, ...) of each model in place to a norm of at most `largest`; returns what it was, (N,)."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    norm: Tensor = torch.linalg.vector_norm(norms, dim=0)
    share = (largest / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(share.view(-1, *(1,) * (gradient.dim() - 1)))
    return norm
