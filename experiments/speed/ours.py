"""Our side: the schemes, their training steps, and encoders that were trained for a moment."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from tqdm import tqdm

from experiments.speed.rounds import Contestant, Row
from experiments.speed.timings import OURS
from extrap.config.compose import compose_grid
from extrap.config.schema import Config, Precision
from extrap.data.text import Stdlib
from extrap.model.encoder import Encoder, n_in_matrices
from extrap.objectives import Causal, Mlm, Objective
from extrap.runs.prepare import build_scheme
from extrap.train.device import pick_precision
from extrap.train.loop import TrainingBatch, TrainingLoss, learning_rate, make_optimizer, train_step, training_batch

SCHEMES = ("nope", "learned", "sinusoidal", "rope", "alibi", "local", "t5", "kerple")
OBJECTIVES: dict[str, Objective] = {"mlm": Mlm(), "causal": Causal()}
# 4 heads of 64, bytes of the standard library
SHAPE = ["experiment=main", "name=bench", "seed=0", "model.d_model=256", "model.d_ff=1024"]
TRAINING = [
    *SHAPE,
    "model.n_layers=4",
    "train.train_len=256",
    "train.batch_size=16",
    "eval.lengths=[256]",
]  # 4 layers, 4,096 tokens a step
# long inputs: two layers, so that plain attention over 65,536 tokens can be waited for; trained for 200,000 tokens
LONG = [*SHAPE, "train.max_steps=200", "train.warmup_steps=20"]
WINDOW = 256  # of local attention over long inputs


class Trained(NamedTuple):
    """An encoder in evaluation mode, and the overrides that its config is composed from."""

    scheme: str
    objective: str
    overrides: list[str]
    encoder: Encoder


def configs(overrides: list[str], schemes: tuple[str, ...]) -> list[Config]:
    return compose_grid([*overrides, f"position={','.join(schemes)}"])


def encoder_of(config: Config, causal: bool, device: torch.device) -> Encoder:
    torch.manual_seed(config.seed)
    return Encoder(config.model, build_scheme(config, causal), 257, 256).to(device)


def batches_of(
    config: Config, source: Stdlib, objective: Objective, count: int, device: torch.device
) -> list[TrainingBatch]:
    made = (training_batch(source, objective, config.train, config.seed, step) for step in range(count))
    return [batch.to(device) for batch in made]


def training_steps(source: Stdlib, device: torch.device) -> Iterator[Contestant]:
    """A step of training of every scheme and objective, as `make sweep` takes it."""
    for config in configs(TRAINING, SCHEMES):
        precision = pick_precision(config.train.precision, device)
        for name, objective in OBJECTIVES.items():
            encoder = encoder_of(config, objective.causal, device).train()
            optimizer = make_optimizer(encoder, config.train)
            batches = batches_of(config, source, objective, 4, device)
            columns: Row = {
                "case": "training", "name": OURS, "scheme": config.scheme, "objective": name, "precision": precision.value,
                "params": sum(parameter.numel() for parameter in encoder.parameters()), "logits": len(batches[0].scored),
                "tokens": batches[0].inputs.numel(), "n": config.train.train_len,
                "flops": flops_of(config, len(batches[0].scored)),
            }  # fmt: skip
            step = partial(train_step, TrainingLoss(encoder, precision), optimizer, grad_clip=config.train.grad_clip)
            yield Contestant(columns, in_turn(step, batches))


def in_turn(step: Callable[[TrainingBatch], object], batches: list[TrainingBatch]) -> Callable[[], None]:
    """Each call takes the next batch."""
    calls = 0

    def run() -> None:
        nonlocal calls
        step(batches[calls % len(batches)])
        calls += 1

    return run


def flops_of(config: Config, n_logits: int) -> float:
    """Multiplications and additions in the matrix products of a step, the gradient's included: three times the forward.

    Counted as the definition has it: causal attention over all pairs, no token twice.
    """
    model, train = config.model, config.train
    n_tokens = train.batch_size * train.train_len
    a_token = model.n_layers * (n_in_matrices(model) + 2 * train.train_len * model.d_model)
    return 3 * 2.0 * (n_tokens * a_token + n_logits * model.d_model * 256)


def train_for_a_moment(source: Stdlib, schemes: tuple[str, ...], device: torch.device) -> list[Trained]:
    """Encoders for long inputs, one a scheme and objective; local attention has the WINDOW of the long cases."""
    jobs = [(scheme, name) for scheme in schemes for name in OBJECTIVES]
    found = []
    for scheme, name in tqdm(jobs, desc="training what is measured at long inputs", disable=None, leave=False):
        overrides = [*LONG, f"position={scheme}", *([f"position.window={WINDOW}"] if scheme == "local" else [])]
        (config,) = compose_grid(overrides)
        objective = OBJECTIVES[name]
        encoder = encoder_of(config, objective.causal, device).train()
        optimizer = make_optimizer(encoder, config.train)
        model = TrainingLoss(encoder, pick_precision(Precision.auto, device))
        for step in range(config.train.max_steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.train)
            batch = training_batch(source, objective, config.train, config.seed, step).to(device)
            train_step(model, optimizer, batch, config.train.grad_clip)
        found.append(Trained(config.scheme, name, overrides, encoder.eval()))
    return found


def long_text(source: Stdlib, n: int, device: torch.device) -> torch.Tensor:
    """(1, n) int64: held-out bytes, one document after the other."""
    text = b"".join(source.valid.values())[:n]
    return torch.tensor(list(text), device=device)[None]
