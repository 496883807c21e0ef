"""Rounds: every contestant once a round, so that whatever slows the machine meets all of them alike."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from extrap.errors import UserError, one_line
from extrap.train.device import cores

ROOT = Path(__file__).parents[2]
Row = dict[str, object]  # column of timings.csv -> value


class Contestant(NamedTuple):
    """One call of `run` is `repeats` times what is measured."""

    columns: Row
    run: Callable[[], object]
    repeats: int = 1


def interleave(contestants: list[Contestant], rounds: int, title: str, warmup: int = 1) -> list[Row]:
    """Seconds of each contestant in each round; warm-up rounds are run and forgotten.

    Every other round goes backwards: nobody always runs in the caches that the same other one has left.
    """
    rows: list[Row] = []
    with tqdm(total=(warmup + rounds) * len(contestants), desc=title, disable=None, leave=False) as bar:
        for number in range(-warmup, rounds):
            for contestant in contestants[:: -1 if number % 2 else 1]:
                seconds = seconds_of(contestant.run) / contestant.repeats
                bar.update()
                if number >= 0:
                    rows.append(contestant.columns | {"round": number, "value": seconds, "unit": "s"})
    return rows


def seconds_of(run: Callable[[], object]) -> float:
    _wait()
    began = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    """A GPU works on after a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_a_process(*arguments: object, **variables: str) -> str:
    """What a module of this project prints, `python -m ...` in a process of its own with these environment variables.

    Raises UserError where it fails.
    """
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UserError(one_line(f"{arguments[0]} ended with {done.returncode} and said: {said[-1]}"))
    return done.stdout


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities()
    return f"{capabilities.get('cpu_name', 'CPU')}, {cores()} cores"


def peak_of_products(device: torch.device, size: int = 2048, repeats: int = 5) -> list[Contestant]:
    """Large square matrix products in each precision: as fast as this machine multiplies."""
    found = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for _ in range(repeats):
                torch.mm(a, b)

        columns: Row = {"case": "peak", "name": "matrix product", "setting": precision, "precision": precision, "n": size}
        found.append(Contestant(columns | {"flops": 2.0 * size**3}, multiply, repeats))
    return found
