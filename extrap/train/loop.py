"""The training loop: schedule, checkpoint, resume. The state after step n depends on the config alone.

To the bit, that is on one processor, with one number of threads and one version of torch: others add up in another order.
Weights then differ from the eighth digit on, and more with every step.

Several processes (distributed.py) divide the rows of each batch. What comes out differs from a single process by the
rounding of sums in another order (seen in rows after 600 steps: 1e-7 in fp32, 1e-3 in bf16), and by dropout and randomized
positions, which each of them draws for itself.
"""

import io
import math
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extrap.config.schema import Precision, TrainConfig
from extrap.data.base import Source
from extrap.errors import UserError
from extrap.files import Damaged, read_sealed, write_atomic, write_sealed
from extrap.model.encoder import Encoder
from extrap.objectives import Objective
from extrap.train import distributed
from extrap.train.device import arithmetic

LOG_HEADER = "step,tokens,lr,loss,grad_norm,seconds\n"  # of train.csv
LOG_EVERY = 10  # steps
WORSE = 1.5  # than guessing all tokens alike: a model that ends there has diverged


class Diverged(Exception):
    """The loss or the gradient is no longer a number, or a trained model is worse than one that knows nothing."""


class History(NamedTuple):
    """Of a training, from its first step on, whatever interrupted it."""

    seconds: float
    log: str  # what train.csv holds
    processes: int  # the most that took part


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up to lr, then a cosine down to zero at max_steps."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(encoder: Encoder, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices of linear maps: not on tables, biases, norms or a scheme's parameters."""
    of_scheme = set(encoder.scheme.modules())
    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear) and module not in of_scheme]
    matrices = [module.weight for module in linear]
    chosen = {id(weight) for weight in matrices}
    others = [parameter for parameter in encoder.parameters() if id(parameter) not in chosen]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)


def training_batch(
    source: Source, objective: Objective, config: TrainConfig, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (B, T), the flat indices of the scored positions (N,), and their targets (N,): a function of (seed, step)."""
    rng = np.random.default_rng((seed, step))
    tokens = source.batch(rng, config.batch_size, config.train_len + objective.extra_tokens)
    batch = objective.batch(tokens, source.vocab_size, rng)
    index = np.flatnonzero(batch.scored)
    inputs = np.ascontiguousarray(batch.inputs)
    return torch.from_numpy(inputs), torch.from_numpy(index), torch.from_numpy(batch.targets.ravel()[index])


def mean_nll(encoder: Encoder, inputs: Tensor, index: Tensor, targets: Tensor, precision: Precision) -> Tensor:
    """The loss in nats per scored token; logits are computed where they are scored only."""
    with autocast(inputs.device, precision):
        hidden = encoder(inputs).flatten(0, 1)
        logits = encoder.logits(hidden if len(index) == len(hidden) else hidden[index])
    return F.cross_entropy(logits.to(torch.float32), targets)


class TrainingLoss(nn.Module):
    """Encoder and loss in one module: (inputs, index, targets) -> mean_nll."""

    def __init__(self, encoder: Encoder, precision: Precision) -> None:
        super().__init__()
        self.encoder, self.precision = encoder, precision

    def forward(self, inputs: Tensor, index: Tensor, targets: Tensor) -> Tensor:
        return mean_nll(self.encoder, inputs, index, targets, self.precision)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    grad_clip: float,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on weight * model(*batch); returns that loss and the norm of the gradient, each ().

    Nothing is updated where the norm is not finite.
    """
    loss: Tensor = model(*batch)
    if weight != 1:
        loss = weight * loss
    loss.backward()  # type: ignore[no-untyped-call]
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    if math.isfinite(grad_norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach(), grad_norm


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.bf16)


def train(
    encoder: Encoder,
    source: Source,
    objective: Objective,
    config: TrainConfig,
    *,
    seed: int,
    precision: Precision,
    folder: Path,
    checkpoint_every: int,
    of: str,
) -> History:
    """Trains in place, from the checkpoint in `folder` if there is one; leaves train.csv and checkpoints there.

    `of` says what run this is: a checkpoint of another is not read.
    Raises Diverged, with the step, for a loss or gradient that is no number, and for a loss that ends above 1.5 ln V.
    """
    device = next(encoder.parameters()).device
    optimizer = make_optimizer(encoder, config)
    first, before = 0, History(0.0, LOG_HEADER, 1)
    if checkpoint := load_tensors(folder / "checkpoint.pt", of):
        encoder.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        first, before = checkpoint["step"], History(*checkpoint["history"])
        tell_other_arithmetic(folder.name, f"step {first}", checkpoint["arithmetic"], device)
    log, processes = before.log, max(before.processes, distributed.n_processes())
    writes = distributed.rank() == 0
    if writes:
        write_atomic(folder / "train.csv", log)
    model = distributed.parallel(TrainingLoss(encoder, precision))
    began = time.monotonic() - before.seconds
    encoder.train()
    for step in range(first, config.max_steps):
        # dropout and randomized positions, after a resume too; other ones in every process
        torch.manual_seed(seed * 2**32 + distributed.rank() * 2**26 + step)
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        own, weight = distributed.share(training_batch(source, objective, config, seed, step))
        inputs, index, targets = (part.to(device) for part in own)
        loss, grad_norm = train_step(model, optimizer, (inputs, index, targets), config.grad_clip, weight)
        if not math.isfinite(grad_norm):  # the same number in all processes
            loss = distributed.mean(loss)
            raise Diverged(f"diverged at step {step}: loss {loss.item():.4g}, gradient norm {grad_norm.item():.4g}")
        done = step + 1
        if done % LOG_EVERY == 0 or done == config.max_steps:
            tokens = done * config.batch_size * config.train_len
            loss = distributed.mean(loss)
            spent = time.monotonic() - began
            entry = f"{done},{tokens},{lr:.6g},{loss.item():.6f},{grad_norm.item():.4f},{spent:.2f}\n"
            log += entry
            if writes:
                with (folder / "train.csv").open("a") as file:
                    file.write(entry)
        if writes and done % checkpoint_every == 0 and done < config.max_steps:
            history = History(time.monotonic() - began, log, processes)
            state = {"model": encoder.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            state |= {"history": tuple(history), "arithmetic": arithmetic(device)}
            save_tensors(folder / "checkpoint.pt", state, of)
    if (loss_at_end := _loss_at_end(log)) > WORSE * math.log(encoder.n_outputs):
        raise Diverged(
            f"diverged by step {config.max_steps}: loss {loss_at_end:.4g}, {math.log(encoder.n_outputs):.4g} is guessing"
        )
    encoder.eval()
    return History(time.monotonic() - began, log, processes)


def tell_other_arithmetic(run: str, stage: str, before: dict[str, Any], device: torch.device) -> None:
    """A line where a run goes on otherwise than it began: its rows are then not those of an undisturbed one to the bit."""
    changed = [f"{key} {before[key]} -> {value}" for key, value in arithmetic(device).items() if before[key] != value]
    if changed and distributed.rank() == 0:
        print(
            f"{run} goes on from {stage} with {', '.join(changed)}: sums are rounded in another order, and its rows may "
            "differ from the eighth digit on from those of a run that nothing has stopped",
            file=sys.stderr,
        )


def _loss_at_end(log: str) -> float:
    """The mean of the last ten entries."""
    losses = [float(line.split(",")[3]) for line in log.splitlines()[1:]]
    return sum(losses[-10:]) / len(losses[-10:])


def save_tensors(path: Path, state: dict[str, Any], of: str) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_sealed(path, buffer.getvalue(), of)


def load_tensors(path: Path, of: str) -> dict[str, Any] | None:
    """What was saved; None if there is nothing. A damaged file, or one of another run, is told and removed."""
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(read_sealed(path, of)), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Damaged as error:
        if distributed.rank() == 0:
            print(f"{error}; what it held is trained again", file=sys.stderr)
            path.unlink(missing_ok=True)
        return None
    except pickle.UnpicklingError as error:  # it would run code, or was made by something else
        raise UserError(f"{path} holds other things than weights, and is not read; remove it") from error
    return state
