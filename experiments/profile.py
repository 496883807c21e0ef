"""Where a step of training goes: torch's profiler, operators by the time that is their own.

python -m experiments.profile [position=rope] [objective=mlm] [any other Hydra override of one run]
"""

import os
import sys
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.speed.ours import TRAINING
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.sweep.door import through
from extrap.train.device import cores, pick_device, pick_precision
from extrap.train.loop import TrainingLoss, make_optimizer, train_step, training_batch

WARMUP, STEPS, LINES = 2, 5, 25


def main(overrides: list[str]) -> None:
    run, *others = map(prepare, compose_grid([*TRAINING, "position=rope", *overrides]))
    if others:
        raise UserError(f"a profile is of one run, found {len(others) + 1}: give one position and one seed")
    config, source, objective, *_ = run
    device = pick_device(config.runtime.device)
    precision = pick_precision(config.train.precision, device)
    torch.set_num_threads(cores())
    encoder = build_encoder(run).to(device).train()
    optimizer = make_optimizer(encoder, config.train)
    model = TrainingLoss(encoder, precision)

    def steps(first: int, last: int) -> None:
        for step in range(first, last):
            batch = training_batch(source, objective, config.train, config.seed, step).to(device)
            train_step(model, optimizer, batch, config.train.grad_clip)

    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler tells of its own beginning and end
    steps(0, WARMUP)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiled:
        steps(WARMUP, WARMUP + STEPS)
    where = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(f"{STEPS} steps of {config.scheme}, {type(objective).__name__.lower()}, {precision.value}, {device.type}:")
    print(profiled.key_averages().table(sort_by=where, row_limit=LINES, max_name_column_width=45))


if __name__ == "__main__":
    sys.exit(through(partial(main, sys.argv[1:])))
