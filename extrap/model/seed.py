"""The random numbers of a model."""

import torch


def seed_generators(seed: int) -> None:
    """Seeds what draws for torch, on the CPU and on a GPU that is in use.

    torch.manual_seed draws the same, but notes a traceback at each call for every kind of device that has not been used yet.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
