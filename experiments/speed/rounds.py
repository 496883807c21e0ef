"""Rounds: every contestant once a round, so that whatever slows the machine meets all of them alike."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from tqdm import tqdm

from extrap.config.choices import Precision
from extrap.train.cores import cores
from extrap.train.device import arithmetic

Row = dict[str, object]  # column of timings.csv -> value
SIZE, PRODUCTS = 2048, 5  # of the matrices whose products tell the peak, and how many products a call makes


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


def if_it_compiles(contestant: Contestant) -> list[Contestant]:
    """Compiles it; what cannot be compiled here is left out with a word."""
    try:
        contestant.run()
    except Exception as error:  # noqa: BLE001  the compiler has many ways to fail
        told = contestant.columns
        print(f"{told['name']}, {told['scheme']}, {told['objective']} compiled was left out: {type(error).__name__}")
        return []
    return [contestant]


def machine(device: torch.device) -> str:
    name = str(arithmetic(device)["device"])
    return name if device.type == "cuda" else f"{name}, {cores()} cores"


def peak_of_products(precision: Precision, device: torch.device) -> Contestant:
    """Large square matrix products: as fast as this machine multiplies."""
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    a, b = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    columns: Row = {"case": "peak", "name": "matrix product", "setting": precision.value, "precision": precision.value}
    return Contestant(columns | {"n": SIZE, "flops": 2 * SIZE**3}, lambda: [a @ b for _ in range(PRODUCTS)], PRODUCTS)
