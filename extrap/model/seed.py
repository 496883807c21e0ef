"""The random numbers of a model."""

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seeds what draws for torch, on the CPU and on a GPU that is in use.

    torch.manual_seed draws the same, but notes a traceback at each call for every kind of device that has not been used yet.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def seed_of(*numbers: int) -> int:
    """One seed, of 32 bits, for several numbers: of a longer one torch's generator on a CPU keeps the last 32 alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
