"""Training to the same held-out loss: everybody by a recipe of its own, in turns, over the whole of its schedule."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from experiments.speed.ours import columns_of
from experiments.speed.peers import VOCAB, Nano, scored_loss
from experiments.speed.rounds import Row, seconds_of
from experiments.speed.timings import LOOK, OURS, PART, RECIPE
from extrap.config.choices import Optimizer
from extrap.config.compose import compose_grid
from extrap.config.schema import TrainConfig
from extrap.runs.prepare import Run, prepare_all
from extrap.runs.run import build_encoder
from extrap.train.device import pick_precision
from extrap.train.loop import TrainingLoss, autocast, held_out_sequences, loss_on, train_step, training_batch
from extrap.train.optimizer import learning_rate, make_optimizers, set_rates

# the models of main and of causal, and what each is trained by
MODELS = {"mlm": (), "causal": ("model.n_layers=4",)}
RECIPES = {"mlm": "train=default", "causal": "train=causal"}
# the whole schedule of AdamW, and shorter ones, by which it might get there sooner
ADAMW = ("train=adamw", "train.max_steps=600,1200,2400")
# what nanoGPT's README gives for a CPU and a model of this size, with what config/train_shakespeare_char.py adds to it (the
# length is ours); it knows no masked language model, of which as much is hidden as is scored
PEER = ("train=adamw", "train.batch_size=12", "train.max_steps=500,1000,2000", "train.lr=1e-3", "train.warmup_steps=100")
BETAS, LAST_RATE = (0.9, 0.99), 0.1  # of AdamW; of its peak


class Learner(NamedTuple):
    """A model in training: `step` takes step n of its schedule, `look` tells its loss on held-out text in nats."""

    columns: Row
    step: Callable[[int], object]
    look: Callable[[], float]
    n_steps: int
    tokens: int  # of a step


def learners(device: torch.device) -> Iterator[Learner]:
    """Per objective: ours by its recipe with RoPE and learned positions, ours by AdamW with RoPE, and the plain baseline."""
    for objective, model in MODELS.items():
        shape = ("experiment=main", "name=bench", "seed=0", f"objective={objective}", *model)
        for how in ((RECIPES[objective], "position=rope,learned"), (*ADAMW, "position=rope")):
            yield from (our_learner(run, device) for run in prepare_all(compose_grid([*shape, *how])))
        theirs = compose_grid([*shape, *PEER, "position=learned"])
        yield from (plain_learner(run, device) for run in prepare_all(theirs))


def our_learner(run: Run, device: torch.device) -> Learner:
    """As `make sweep` trains it."""
    config = run.config.train
    precision = pick_precision(config.precision, device)
    encoder = build_encoder(run).to(device).train()
    model, optimizers = TrainingLoss(encoder, precision), make_optimizers(encoder, config)

    def step(number: int) -> None:
        set_rates(optimizers, number, config)
        batch = training_batch(run.source, run.objective, config, run.config.seed, number).to(device)
        train_step(model, optimizers, batch, config.grad_clip)

    held_out = held_out_sequences(run.source, run.objective, config).to(device)
    setting = RECIPE if config.optimizer is Optimizer.muon else f"AdamW, {config.max_steps:,} steps"
    told = columns_of(run, encoder, precision, held_out) | {"name": OURS, "scheme": run.config.scheme, "setting": setting}
    look = partial(loss_on, encoder, held_out, config.batch_size)
    return Learner(told, step, look, config.max_steps, config.batch_size * config.train_len)


def plain_learner(run: Run, device: torch.device) -> Learner:
    """The plain baseline of peers.py as nanoGPT trains it, on the texts of a run of ours."""
    config, model = run.config.train, run.config.model
    precision = pick_precision(config.precision, device)
    torch.manual_seed(run.config.seed)
    network = Nano(VOCAB, config.train_len, model.d_model, model.n_layers, model.n_heads, run.objective.causal)
    network = network.to(device).train()
    decayed = [parameter for parameter in network.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=True)

    def step(number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = plain_rate(number, config)
        batch = training_batch(run.source, run.objective, config, run.config.seed, number).to(device)
        with autocast(device, precision):
            loss = scored_loss(network, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    held_out = held_out_sequences(run.source, run.objective, config).to(device)

    @torch.no_grad()
    def look() -> float:
        loss: Tensor = scored_loss(network, held_out)
        return loss.item()

    told = columns_of(run, network, precision, held_out) | {"name": "nanoGPT-like", "scheme": "learned"}
    told |= {"setting": f"AdamW, {config.max_steps:,} steps"}
    return Learner(told, step, look, config.max_steps, config.batch_size * config.train_len)


def plain_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from the peak down to LAST_RATE of it."""
    share = learning_rate(step, config)
    return config.lr * (share if step < config.warmup_steps else LAST_RATE + (1 - LAST_RATE) * share)


def train_in_turns(contestants: list[Learner], looks: int) -> list[Row]:
    """Seconds of each of `looks` equal parts of everybody's schedule, and the loss on held-out text after it.

    A loss that is no number counts as infinite.
    In every round each takes a part, so that whatever slows the machine meets all of them alike; every other round goes
    backwards. Looks are not among the seconds.
    """
    rows: list[Row] = []
    with tqdm(total=looks * len(contestants), desc="training to the same loss", disable=None, leave=False) as bar:
        for number in range(looks):
            for one in contestants[:: -1 if number % 2 else 1]:
                first, last = (one.n_steps * n // looks for n in (number, number + 1))
                seconds = seconds_of(partial(take, one.step, range(first, last)))
                told = one.columns | {"round": number, "tokens": last * one.tokens}
                rows.append(told | {"case": PART, "value": seconds, "unit": "s"})
                loss = one.look()
                rows.append(told | {"case": LOOK, "value": math.inf if math.isnan(loss) else loss, "unit": "nats"})
                bar.update()
    return rows


def take(step: Callable[[int], object], numbers: range) -> None:
    for number in numbers:
        step(number)
