"""One run over several processes, as torchrun starts them: who this process is, and what they tell each other.

Unless `start` was called this process is the only one, and everything here leaves things as they are.
"""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def start() -> Store:
    """Joins the processes that torchrun started, each with a CUDA device of its own where there are any.

    Tensors on CUDA go by NCCL, all else by gloo. Returns the store of keys and values that the processes share.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    store: Store
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    # who is done with what it scores waits for the others, for which half an hour, the default, may be too short
    dist.init_process_group(backend, timeout=timedelta(days=1), store=store, rank=rank, world_size=size)
    return store


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def n_processes() -> int:
    return dist.get_world_size() if _several() else 1


def n_processes_here() -> int:
    """On this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if _several() else 1


def rank() -> int:
    """0 for the process that writes and speaks."""
    return dist.get_rank() if _several() else 0


def parallel(model: nn.Module) -> nn.Module:
    """The same module; its gradients will be means over all processes."""
    return DistributedDataParallel(model) if _several() else model


def mean(value: Tensor) -> Tensor:
    """Over processes; all of them must call it."""
    if _several():
        value = value.clone()
        dist.all_reduce(value)
        value /= n_processes()
    return value


def gathered(compute: Callable[[], T]) -> list[T]:
    """What each process computes, in the order of ranks; all of them must call it. What one raises, all raise."""
    if not _several():
        return [compute()]
    mine: Any
    try:
        mine = compute()
    except Exception as error:  # noqa: BLE001  raised below, by all
        error.add_note(f"in process {rank()}: {traceback.format_exc()}")
        mine = error
    found: list[Any] = [None] * n_processes()
    dist.all_gather_object(found, mine)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found
