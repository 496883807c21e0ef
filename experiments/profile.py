"""Where a step of training goes: torch's profiler, operators by the time that is their own.

python -m experiments.profile [position=rope] [objective=mlm] [any other Hydra override of one run]
"""

import os
import sys
from functools import partial

import torch
from torch.profiler import profile

from experiments.speed.ours import TRAINING, training_step
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.runs.prepare import prepare
from extrap.sweep.door import through
from extrap.train.cores import cores
from extrap.train.device import pick_device

WARMUP, STEPS, LINES = 2, 5, 25


def main(overrides: list[str]) -> None:
    config, *others = compose_grid([*TRAINING, "position=rope", *overrides])
    if others:
        raise UserError(f"a profile is of one run, found {len(others) + 1}: give one position and one seed")
    device = pick_device(config.runtime.device)
    torch.set_num_threads(cores())
    told, step, _ = training_step(prepare(config), device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler tells of its own beginning and end
    for _ in range(WARMUP):
        step()
    with profile() as profiled:
        for _ in range(STEPS):
            step()
    where = f"self_{device.type}_time_total"
    print(f"{STEPS} steps of {told['scheme']}, {told['objective']}, {told['precision']}, {device.type}:")
    print(profiled.key_averages().table(sort_by=where, row_limit=LINES, max_name_column_width=45))


if __name__ == "__main__":
    sys.exit(through(partial(main, sys.argv[1:])))
