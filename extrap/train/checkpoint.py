"""Weights on disk: sealed with the identity of their run, told when damaged, and never more than numbers."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from extrap.errors import UserError
from extrap.files import Damaged, read_sealed, write_sealed
from extrap.train import distributed
from extrap.train.device import arithmetic
from extrap.train.log import Entry


class History(NamedTuple):
    """Of a training, from its first step on, whatever interrupted it."""

    seconds: float
    log: list[Entry]
    processes: int  # the most that took part
    peak_memory: int = 0  # bytes, the most that any process of it has held
    began_on: tuple[dict[str, str | int], ...] = ()  # what other arithmetic it began with, see `arithmetic`, in order


def save_checkpoint(path: Path, state: dict[str, Any], history: History, device: torch.device, of: str) -> None:
    """Weights and what else `state` holds, with their history; `of` says of what run."""
    buffer = io.BytesIO()
    log, began_on = [tuple(entry) for entry in history.log], [*history.began_on]
    plain = (history.seconds, log, history.processes, history.peak_memory, began_on)
    torch.save(state | {"history": plain, "arithmetic": arithmetic(device)}, buffer)
    write_sealed(path, buffer.getvalue(), of)


def load_state(path: Path, of: str) -> dict[str, Any]:
    """All that was saved. Raises Damaged, or UserError for a file that holds other things than numbers."""
    content = io.BytesIO(read_sealed(path, of))
    try:
        return dict(torch.load(content, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # it would run code, or was made by something else
        raise UserError(f"{path} holds something other than weights, and is not read; remove it") from error


def load_checkpoint(path: Path, device: torch.device, of: str) -> tuple[dict[str, Any], History] | None:
    """What was saved; None if there is nothing. A damaged file, or one of another run, is told and removed.

    Raises UserError for one that holds other things than numbers.
    """
    try:
        state = load_state(path, of)
    except FileNotFoundError:
        return None
    except Damaged as error:
        if distributed.rank() == 0:
            print(f"{error}; what it held is trained again", file=sys.stderr)
            path.unlink(missing_ok=True)
        return None
    stage = f"step {state['step']}" if "step" in state else "its trained weights"
    seconds, log, processes, peak_memory, began_on = state["history"]
    if _other_arithmetic(path.parent.name, stage, state["arithmetic"], device):
        began_on.append(state["arithmetic"])
    return state, History(seconds, [Entry(*entry) for entry in log], processes, peak_memory, tuple(began_on))


def _other_arithmetic(run: str, stage: str, before: dict[str, Any], device: torch.device) -> bool:
    """Whether a run goes on otherwise than it began, which a line tells: its rows differ in bits from those of one that
    nothing has stopped."""
    changed = [f"{key} {before[key]} -> {value}" for key, value in arithmetic(device).items() if before[key] != value]
    if changed and distributed.rank() == 0:
        print(
            f"{run} goes on from {stage} with {', '.join(changed)}: sums are rounded in another order, and its rows may "
            "differ from the eighth digit on from those of a run that nothing has stopped",
            file=sys.stderr,
        )
    return bool(changed)
