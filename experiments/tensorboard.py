"""Losses and perplexities of runs as TensorBoard shows them, from their files alone, while a sweep writes them or later.

python -m experiments.tensorboard [--results RESULTS] [--once] [NAME ...]
"""

import argparse
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from extrap.errors import UserError
from extrap.files import as_path
from extrap.results.folders import RunFolder
from extrap.results.rows import load_rows
from extrap.stats.perplexity import perplexity
from extrap.sweep.door import through
from extrap.train.log import read_log

SECONDS = 5.0  # between looks
LOSSES = ("loss", "grad_norm", "lr")


class Board:
    """The event files of all runs of an experiment, below results/runs/<name>/tensorboard.

    A run that is resumed writes the same numbers again: what a step has shown stays.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.shown: dict[Path, int] = {}  # the last step of each file; a file of rows has none

    def update(self) -> None:
        """Adds what the runs have written since the last time."""
        from torch.utils.tensorboard import SummaryWriter

        for folder in _trained(self.runs):
            new = [entry for entry in read_log(folder.log) if entry.step > self.shown.get(folder.log, 0)]
            to_score = folder.is_evaluated and folder.rows not in self.shown
            if not new and not to_score:
                continue
            with SummaryWriter(self.runs / "tensorboard" / folder.path.name) as writer:
                for entry in new:
                    for name in LOSSES:
                        writer.add_scalar(f"training/{name}", getattr(entry, name), entry.step)
                    self.shown[folder.log] = entry.step
                if to_score:
                    by_length = perplexity(load_rows(folder.rows), ["extension", "protocol", "eval_len"])
                    for extension, protocol, eval_len, log_ppl in by_length[
                        ["extension", "protocol", "eval_len", "log_ppl"]
                    ].itertuples(index=False):
                        # the axis that TensorBoard names step is the evaluation length here
                        writer.add_scalar(f"perplexity/{protocol}, {extension}", np.exp(log_ppl), eval_len)
                    self.shown[folder.rows] = 0


def _trained(runs: Path) -> list[RunFolder]:
    """Those with a log, however far it is."""
    return [folder for path in sorted(runs.glob("*")) if (folder := RunFolder(path)).log.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs as TensorBoard shows them.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    parser.add_argument("--once", action="store_true", help="write the event files and end, without a server")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            "TensorBoard is not installed: make tensorboard installs it, or pip install 'extrap[tensorboard]'"
        ) from error
    root = arguments.results / "runs"
    names = arguments.names or sorted(path.name for path in root.glob("*") if _trained(path))
    if not any(_trained(root / name) for name in names):
        raise UserError(f"{root} holds no run of {', '.join(names) or 'any experiment'}; `make sweep` makes them")
    boards = [Board(root / name) for name in names]
    for board in boards:
        board.update()
    if arguments.once:
        return
    shown = boards[0].runs if len(boards) == 1 else root
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(shown)]
    with subprocess.Popen(line) as server, contextlib.suppress(KeyboardInterrupt):
        while server.poll() is None:
            time.sleep(SECONDS)
            for board in boards:
                board.update()


if __name__ == "__main__":
    sys.exit(through(main))
