"""Losses and perplexities of runs as TensorBoard shows them, from their files alone, while a sweep writes them or later.

python -m experiments.tensorboard [--results RESULTS]
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from extrap.errors import UserError
from extrap.files import as_path
from extrap.report.typesetting import measure
from extrap.results.folders import RunFolder
from extrap.results.rows import load_rows
from extrap.results.shown import logarithm
from extrap.stats.perplexity import perplexity
from extrap.sweep.door import through
from extrap.train.log import read_log

SECONDS = 5.0  # between looks
LOSSES = ("loss", "held_out_loss", "grad_norm", "lr")
LINE = ["objective", "extension", "protocol", "eval_len"]


def update(folders: Iterable[RunFolder], shown: dict[Path, int]) -> None:
    """Adds what the runs have written since the last time to their event files, results/runs/<name>/tensorboard/<run>.

    `shown` holds the last step of each log, and the rows that are shown: a run that is resumed writes the same numbers
    again, and what a step has shown stays.
    """
    from torch.utils.tensorboard import SummaryWriter

    for folder in folders:
        new = [entry for entry in read_log(folder.log) if entry.step > shown.get(folder.log, 0)]
        to_score = folder.is_evaluated and folder.rows not in shown
        if not new and not to_score:
            continue
        with SummaryWriter(folder.path.parent / "tensorboard" / folder.path.name) as writer:
            for entry in new:
                for name in LOSSES:
                    if np.isfinite(value := getattr(entry, name)):
                        writer.add_scalar(f"training/{name}", value, entry.step)
                shown[folder.log] = entry.step
            if to_score:
                lines = perplexity(load_rows(folder.rows), LINE)
                values = np.exp(logarithm(lines["objective"], lines["log_ppl"]))
                for objective, extension, protocol, eval_len, value in zip(*(lines[c] for c in LINE), values, strict=True):
                    part = ", generator" if objective.endswith("_generator") else ""
                    # the axis that TensorBoard names step is the evaluation length here
                    writer.add_scalar(f"{measure([objective])}{part}/{protocol}, {extension}", value, eval_len)
                shown[folder.rows] = 0


def trained(runs: Path) -> list[RunFolder]:
    """Those with a log, however far it is."""
    return [folder for path in sorted(runs.glob("*/*")) if (folder := RunFolder(path)).log.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs as TensorBoard shows them.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    runs = parser.parse_args().results / "runs"
    if find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed: make tensorboard installs it, or pip install 'extrap[tensorboard]'")
    if not trained(runs):
        raise UserError(f"{runs} holds no run; `make sweep` makes them")
    shown: dict[Path, int] = {}
    update(trained(runs), shown)
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs)]
    with subprocess.Popen(line) as server, contextlib.suppress(KeyboardInterrupt):
        while server.poll() is None:
            time.sleep(SECONDS)
            update(trained(runs), shown)


if __name__ == "__main__":
    sys.exit(through(main))
