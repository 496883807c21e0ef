"""The training loop: schedule, checkpoint, resume. The state after step n depends on the config alone.

To the bit, that is on one processor, with one number of threads and one version of torch: others add up in another order.
Weights then differ from the eighth digit on, and more with every step.

Several processes (distributed.py) divide the rows of each batch. What comes out differs from a single process by the
rounding of sums in another order (seen in rows after 600 steps: 1e-7 in fp32, 1e-3 in bf16), and by dropout and randomized
positions, which each of them draws for itself.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from extrap.config.choices import Precision
from extrap.config.schema import TrainConfig
from extrap.data.base import Source
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators, seed_of
from extrap.objectives import MASK_SEED, Batch, Objective
from extrap.train import distributed
from extrap.train.checkpoint import History, load_checkpoint, save_checkpoint
from extrap.train.device import peak_memory
from extrap.train.log import Entry, write_log
from extrap.train.optimizer import make_optimizers, set_rates, update

LOG_EVERY = 10  # steps
LOOKS = 10  # at held-out text in the course of a training, about
HELD_OUT = 64  # sequences that they are of
WORSE = 1.5  # than guessing all tokens alike: a model that ends there has diverged


class Diverged(Exception):
    """The loss or the gradient is no longer a number, or a trained model is worse than one that knows nothing."""


class TrainingBatch(NamedTuple):
    """What a step reads and predicts; int64."""

    inputs: Tensor  # (B, T)
    scored: Tensor  # (N,), indices among all B * T positions
    targets: Tensor  # (N,), at these

    def to(self, device: torch.device) -> "TrainingBatch":
        """On a GPU before it has done what it was given earlier: from pinned memory nothing waits for the copy."""
        parts = (part.pin_memory() if device.type == "cuda" else part for part in self)
        return TrainingBatch(*(part.to(device, non_blocking=True) for part in parts))

    def share(self, rank: int, of: int) -> tuple["TrainingBatch", float]:
        """The rows of one process among several, and what its mean loss weighs.

        The mean over processes of weight * (mean over own scored tokens) is the mean over all scored tokens of the batch,
        however many of them each process has.
        """
        n_rows, seq_len = self.inputs.shape
        first, last = (n_rows * r // of for r in (rank, rank + 1))
        own = (self.scored >= first * seq_len) & (self.scored < last * seq_len)
        part = TrainingBatch(self.inputs[first:last], self.scored[own] - first * seq_len, self.targets[own])
        return part, of * len(part.scored) / len(self.scored)


def training_batch(source: Source, objective: Objective, config: TrainConfig, seed: int, step: int) -> TrainingBatch:
    """A function of (seed, step)."""
    rng = np.random.default_rng((seed, step))
    tokens = source.batch(rng, config.batch_size, config.train_len + objective.extra_tokens)
    return _as_tensors(objective.training_batch(tokens, source, rng, config.mask_rate))


def held_out_sequences(source: Source, objective: Objective, config: TrainConfig) -> TrainingBatch:
    """Held-out text in sequences as in training, of which as much is hidden as where it is scored."""
    tokens = source.held_out(config.train_len + objective.extra_tokens, HELD_OUT).tokens
    return _as_tensors(objective.batch(tokens, source, np.random.default_rng(MASK_SEED)))


def _as_tensors(batch: Batch) -> TrainingBatch:
    index = np.flatnonzero(batch.scored)
    inputs = np.ascontiguousarray(batch.inputs)
    return TrainingBatch(*map(torch.from_numpy, (inputs, index, batch.targets.ravel()[index])))


class TrainingLoss(nn.Module):
    """The loss of an encoder in nats per scored token, of (inputs, index, targets); logits are computed where it counts."""

    def __init__(self, encoder: Encoder, precision: Precision) -> None:
        super().__init__()
        self.encoder, self.precision = encoder, precision

    def forward(self, inputs: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        with autocast(inputs.device, self.precision):
            return self.encoder.loss(inputs, index, targets)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)


@torch.no_grad()
def loss_on(encoder: Encoder, batch: TrainingBatch, at_once: int) -> float:
    """Nats per scored token, of the encoder as it is evaluated, of so many sequences at a time: as many as those of a step
    take less memory than it does."""
    encoder.eval()
    n_pieces = -(-len(batch.inputs) // at_once)
    pieces = (batch.share(i, n_pieces) for i in range(n_pieces))
    mean = TrainingLoss(encoder, Precision.fp32)
    losses = [weight / n_pieces * mean(*piece) for piece, weight in pieces if len(piece.scored)]
    encoder.train()
    return torch.stack(losses).sum().item()


def train_step(
    model: nn.Module, optimizers: Sequence[Optimizer], batch: TrainingBatch, grad_clip: float, weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One step of the optimizers on weight * model(*batch); returns that loss and the norm of the gradient, each ().

    Where the norm is not finite the gradient counts as zero: weights stay numbers until somebody looks at the norm. Nothing
    here waits for the device.
    """
    loss: Tensor = weight * model(*batch)
    loss.backward()  # type: ignore[no-untyped-call]
    grad_norm = clip(model, grad_clip)
    update(optimizers, model.parameters())
    return loss.detach(), grad_norm


def clip(model: nn.Module, largest: float) -> Tensor:
    """Scales gradients to a norm of at most `largest`, a generator's apart from all others; returns the larger norm."""
    whole: Any = getattr(model, "module", model)  # which several processes wrap
    if not (apart := whole.encoder.clipped_apart()):
        return nn.utils.clip_grad_norm_(model.parameters(), largest)
    # in the order of the model: sums hang on it
    parts = ([own for own in model.parameters() if (own in apart) == inner] for inner in (False, True))
    return torch.stack([nn.utils.clip_grad_norm_(part, largest) for part in parts]).max()


def refuse_diverged(losses: Tensor, grad_norms: Tensor, done: int) -> None:
    """Raises Diverged for the first of these steps, (S,), the last of `done`, whose gradient is no number."""
    told = zip(losses.tolist(), grad_norms.tolist(), strict=True)
    for step, (loss, grad_norm) in enumerate(told, start=done - len(losses)):
        if not math.isfinite(grad_norm):
            raise Diverged(f"diverged at step {step}: loss {loss:.4g}, gradient norm {grad_norm:.4g}")


def refuse_guessing(losses: Sequence[float], guessing: float, done: int) -> None:
    """Raises Diverged where the mean of the last ten logged losses is far above guessing."""
    last = losses[-10:]
    if (loss_at_end := sum(last) / len(last)) > WORSE * guessing:
        raise Diverged(f"diverged by step {done}: loss {loss_at_end:.4g}, {guessing:.4g} is guessing")


def is_logged(done: int, config: TrainConfig) -> bool:
    return done % LOG_EVERY == 0 or done == config.max_steps


def train(
    encoder: Encoder,
    source: Source,
    objective: Objective,
    config: TrainConfig,
    *,
    seed: int,
    precision: Precision,
    log: Path,
    checkpoint: Path,
    checkpoint_every: int,
    of: str,
) -> History:
    """Trains in place, from `checkpoint` if there is one; leaves its log and checkpoints.

    `of` says what run this is: a checkpoint of another is not read.
    Raises Diverged, with the step, for a loss or gradient that is no number, and for a loss that ends above 1.5 times that
    of guessing.
    """
    device = next(encoder.parameters()).device
    optimizers = make_optimizers(encoder, config)
    first, before = 0, History(0.0, [], 1)
    if found := load_checkpoint(checkpoint, device, of):
        state, before = found
        encoder.load_state_dict(state["model"])
        for optimizer, of_it in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(of_it)
        first = state["step"]
    entries, processes = before.log, max(before.processes, distributed.n_processes())
    writes = distributed.rank() == 0
    if writes:
        write_log(log, entries)
    model = distributed.parallel(TrainingLoss(encoder, precision))
    held_out = held_out_sequences(source, objective, config).to(device)
    look_every = LOG_EVERY * -(-config.max_steps // (LOG_EVERY * LOOKS))
    began = time.monotonic() - before.seconds

    def so_far() -> History:
        peak = max(before.peak_memory, peak_memory(device))
        return before._replace(seconds=time.monotonic() - began, processes=processes, peak_memory=peak)

    steps: list[Tensor] = []  # loss and gradient norm, (2,), of those since the device was last waited for
    encoder.train()
    for step in range(first, config.max_steps):
        # dropout and randomized positions, after a resume too; other ones in every process
        seed_generators(seed_of(seed, distributed.rank(), step))
        lr = set_rates(optimizers, step, config)
        batch = training_batch(source, objective, config, seed, step)
        own, weight = batch.share(distributed.rank(), distributed.n_processes())
        steps.append(torch.stack(train_step(model, optimizers, own.to(device), config.grad_clip, weight)))
        done = step + 1
        logged, saved = is_logged(done, config), done % checkpoint_every == 0
        if not (logged or saved):
            continue
        losses, grad_norms = torch.stack(steps).unbind(dim=1)  # norms are the same in all processes
        losses = distributed.mean(losses)
        refuse_diverged(losses, grad_norms, done)
        steps.clear()
        if logged:
            tokens = done * config.batch_size * config.train_len
            looks = done % look_every == 0 or done == config.max_steps
            held_out_loss = loss_on(encoder, held_out, config.batch_size) if looks else math.nan
            numbers = losses[-1].item(), held_out_loss, grad_norms[-1].item()
            entries.append(Entry(done, tokens, lr, *numbers, time.monotonic() - began))
            if writes:
                with log.open("a") as file:
                    file.write(entries[-1].line())
        if writes and saved and done < config.max_steps:
            states = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": encoder.state_dict(), "optimizers": states, "step": done}
            save_checkpoint(checkpoint, state, so_far(), device, of)
    refuse_guessing([entry.loss for entry in entries], encoder.guessing(), config.max_steps)
    encoder.eval()
    return so_far()
