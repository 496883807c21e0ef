"""Our side: steps of training, and encoders that were trained for a moment."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from experiments.speed.rounds import Contestant, Row
from experiments.speed.timings import OURS
from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.model.encoder import Encoder
from extrap.runs.prepare import Run, prepare_all
from extrap.runs.run import build_encoder
from extrap.score.references import labels
from extrap.train.device import pick_precision
from extrap.train.flops import flops_of_step
from extrap.train.loop import TrainingBatch, TrainingLoss, train, train_step, training_batch
from extrap.train.optimizer import make_optimizers

SCHEMES = ("nope", "learned", "sinusoidal", "rope", "alibi", "local", "t5", "kerple")
OBJECTIVES = "objective=mlm,causal"
N_BATCHES = 4  # that steps of training take in turn
# 4 heads of 64, bytes of the standard library; AdamW, as the peers have it
SHAPE = ("experiment=main", "name=bench", "seed=0", "train=adamw", "model.d_model=256", "model.d_ff=1024")
# 4 layers, 4,096 tokens a step
TRAINING = (*SHAPE, "model.n_layers=4", "train.train_len=256", "train.batch_size=16", "eval.lengths=[256]")
# long inputs: two layers, so that plain attention over 65,536 tokens can be waited for; trained for 50,000 tokens
LONG = (*SHAPE, OBJECTIVES, "train.max_steps=50", "train.warmup_steps=20")


class Trained(NamedTuple):
    """An encoder in evaluation mode."""

    scheme: str
    objective: str
    encoder: Encoder

    def columns(self, n: int) -> Row:
        """What is told of whatever is measured of it on one sequence of n tokens."""
        return {"name": OURS, "scheme": self.scheme, "objective": self.objective, "n": n, "tokens": n, "precision": "fp32"}


def training_step(run: Run, device: torch.device) -> Contestant:
    """A step of training as `make sweep` takes it; its multiplications and additions in matrix products are counted."""
    encoder, batches, train = build_encoder(run), batches_of(run, device), run.config.train
    contestant = step(run, device, encoder, batches)
    flops = flops_of_step(encoder, train, pick_precision(train.precision, device), batches[0])
    return contestant._replace(columns=contestant.columns | {"flops": flops})


def step(run: Run, device: torch.device, encoder: Encoder, batches: list[TrainingBatch]) -> Contestant:
    """A step of training by this recipe of an encoder, which goes to the device."""
    train = run.config.train
    precision, encoder = pick_precision(train.precision, device), encoder.to(device).train()
    optimizers = make_optimizers(encoder, train)
    take = partial(train_step, TrainingLoss(encoder, precision), optimizers, grad_clip=train.grad_clip)
    columns: Row = {"name": OURS, "scheme": run.config.scheme, "logits": len(batches[0].scored)}
    return Contestant(columns | columns_of(run, encoder, precision, batches[0]), in_turn(take, batches))


def columns_of(run: Run, network: nn.Module, precision: Precision, batch: TrainingBatch) -> Row:
    """What is told of a step of training, whoever takes it."""
    told: Row = {"case": "training", "objective": labels(run.config)["objective"], "precision": precision.value}
    n_params = sum(parameter.numel() for parameter in network.parameters())
    return told | {"n": run.config.train.train_len, "tokens": batch.inputs.numel(), "params": n_params}


def batches_of(run: Run, device: torch.device) -> list[TrainingBatch]:
    config = run.config
    made = (training_batch(run.source, run.objective, config.train, config.seed, step) for step in range(N_BATCHES))
    return [batch.to(device) for batch in made]


def in_turn(step: Callable[[TrainingBatch], object], batches: list[TrainingBatch]) -> Callable[[], object]:
    """Each call takes the next batch."""
    ahead = cycle(batches)
    return lambda: step(next(ahead))


def train_for_a_moment(schemes: Sequence[str], device: torch.device) -> list[Trained]:
    """Encoders for long inputs, one a scheme and objective; each scheme a name with its options, if any."""
    runs = prepare_all([config for scheme in schemes for config in compose_grid([*LONG, *f"position={scheme}".split()])])
    found = []
    for run in tqdm(runs, desc="training what is measured at long inputs", disable=None, leave=False):
        config, encoder = run.config, build_encoder(run).to(device)
        precision = pick_precision(config.train.precision, device)
        with TemporaryDirectory() as folder:
            log, checkpoint = Path(folder, "train.csv"), Path(folder, "checkpoint.pt")
            train(
                encoder, run.source, run.objective, config.train, seed=config.seed, precision=precision, log=log,
                checkpoint=checkpoint, checkpoint_every=config.train.max_steps, of="",
            )  # fmt: skip
        found.append(Trained(config.scheme, str(labels(config)["objective"]), encoder))
    return found
