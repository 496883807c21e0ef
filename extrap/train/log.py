"""The log of a training, train.csv. Imports no torch."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from extrap.files import write_atomic


class Entry(NamedTuple):
    """What is logged of a training after some of its steps."""

    step: int  # steps done
    tokens: int  # read so far
    lr: float
    loss: float  # of the last step, nats per scored token
    held_out_loss: float  # of held-out text at the training length, as it is scored; not a number where it was not looked at
    grad_norm: float
    seconds: float  # so far

    def line(self) -> str:
        losses = f"{self.loss:.6f},{self.held_out_loss:.6f}"
        return f"{self.step},{self.tokens},{self.lr:.6g},{losses},{self.grad_norm:.4f},{self.seconds:.2f}\n"


def write_log(path: Path, entries: Iterable[Entry]) -> None:
    write_atomic(path, ",".join(Entry._fields) + "\n" + "".join(entry.line() for entry in entries))


def read_log(path: Path, last: int = 0) -> list[Entry]:
    """The last entries, 0: all of them; none where there is no log. What is half written or damaged is no entry."""
    *lines, _ = path.read_text(errors="replace").split("\n") if path.is_file() else [""]
    entries = []
    for line in lines[1:][-last:]:
        with suppress(ValueError, TypeError):
            step, tokens, *rest = line.split(",")
            entries.append(Entry(int(step), int(tokens), *map(float, rest)))
    return entries
