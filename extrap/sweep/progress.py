"""How far a sweep is, read from the files of its runs: the bar of the sweep itself, and `make status` beside it.

python -m extrap.sweep.progress [--results RESULTS] [NAME ...]
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from tqdm import tqdm

from extrap.config.schema import Config
from extrap.errors import UserError
from extrap.files import as_path, is_locked, write_atomic
from extrap.results.folders import RunFolder, plans
from extrap.sweep.door import through
from extrap.train.log import read_log

SECONDS = 1.0  # between looks
MINUTE = 60.0
EVALUATION = 0.3  # of the time of training, until a run has shown what it is
STATES = ("done", "diverged", "running", "failed", "waiting")


class Stage(NamedTuple):
    """What the files of a run say about it; `state` is one of STATES."""

    name: str
    state: str
    step: int
    max_steps: int
    seconds: float  # spent in training
    told: str  # why it failed or diverged

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "diverged")

    def share(self, evaluation: float) -> float:
        """0 to 1, how much of the run is done; `evaluation` takes this much of the time of its training."""
        return 1.0 if self.is_over else min(1.0, self.step / self.max_steps) / (1 + evaluation)


def save_plan(configs: list[Config], command: str) -> None:
    """Leaves the runs of a sweep where `make status` finds them, those too that have not begun; and what made the others."""
    folder, runs, earlier = configs[0].folder.parent, {config.run: config.train.max_steps for config in configs}, []
    with suppress(UserError):  # a damaged one is written anew
        others = [part | {"runs": [run for run in part["runs"] if run not in runs]} for part in plans(folder)]
        earlier = [part for part in others if part["runs"]]
    plan = {"command": command, "runs": runs, **({"earlier": earlier} if earlier else {})}
    write_atomic(folder / "sweep.yaml", yaml.safe_dump(plan, sort_keys=False))


def look(folder: RunFolder, max_steps: int) -> Stage:
    """How far a run is, from its files alone."""
    step, seconds = next(((entry.step, entry.seconds) for entry in read_log(folder.log, last=1)), (0, 0.0))
    told = ""
    if folder.is_evaluated:
        state, step = "done", max_steps
    elif folder.has_diverged:
        state, told = "diverged", _last_line(folder.divergence)
    elif is_locked(folder.lock):
        state = "running"
    elif folder.error.is_file():
        state, told = "failed", _last_line(folder.error)
    else:
        state = "waiting"
    return Stage(folder.path.name, state, step, max_steps, seconds, told)


def evaluation_of(runs: Iterable[RunFolder]) -> float:
    """What evaluation takes of the time of training, in these finished runs."""
    done = [run.load_meta()["costs"] for run in runs]
    trained = sum(costs["train_seconds"] for costs in done)
    return sum(costs["eval_seconds"] for costs in done) / trained if trained else EVALUATION


def _last_line(path: Path) -> str:
    with suppress(FileNotFoundError):  # by now: who runs it again removes what its last try left
        return path.read_text(errors="replace").strip().rpartition("\n")[2]
    return ""


@contextmanager
def shown(configs: list[Config]) -> Iterator[None]:
    """The bar of a sweep: counts training steps and finished runs while the workers write.

    Where the output is no terminal a line is told instead: every minute, and every ten after the first ten.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(configs, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(configs: list[Config], stop: threading.Event) -> None:
    folders = [(RunFolder(config.folder), config.train.max_steps) for config in configs]
    first = runs = [look(*folder) for folder in folders]
    layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left"
    began, told, n_done, evaluation = time.monotonic(), 0.0, 0, EVALUATION
    with tqdm(total=len(runs), disable=None, bar_format=layout, smoothing=0, leave=False) as bar:
        while True:
            stopped = stop.wait(SECONDS)
            runs = [look(*folder) for folder in folders]
            done = [folder for (folder, _), run in zip(folders, runs, strict=True) if run.state == "done"]
            if len(done) > n_done:
                n_done = len(done)
                with suppress(UserError):  # a damaged file is told where it is needed
                    evaluation = evaluation_of(done)
            # who goes on from a checkpoint takes steps of its log again
            first = [min(before, run, key=lambda stage: stage.step) for before, run in zip(first, runs, strict=True)]
            bar.set_description_str(f"{sum(run.is_over for run in runs)} of {len(runs)} runs", refresh=False)
            bar.initial = already = sum(run.share(evaluation) for run in first)
            bar.update(sum(run.share(evaluation) for run in runs) - bar.n)
            if stopped:
                return
            gone = time.monotonic() - began
            if bar.disable and gone - told >= (MINUTE if gone < 11 * MINUTE else 10 * MINUTE):
                print(progress_line(runs, already, gone, evaluation), file=sys.stderr, flush=True)
                told = gone


def progress_line(runs: list[Stage], already: float, seconds: float, evaluation: float) -> str:
    """How far a sweep is that began `seconds` ago with `already` runs' worth of work done before."""
    done, over = sum(run.share(evaluation) for run in runs), sum(run.is_over for run in runs)
    layout = f"{over} of {len(runs)} runs, {{percentage:.0f}}%; {{elapsed}} elapsed, {{remaining}} left"
    return str(tqdm.format_meter(done, len(runs), seconds, initial=already, bar_format=layout))


def status(results: Path, name: str) -> str:
    """A line for the sweep and a table of its runs."""
    folder = results / "runs" / name
    if not (folder / "sweep.yaml").exists():
        known = ", ".join(sorted(path.parent.name for path in results.glob("runs/*/sweep.yaml"))) or "none"
        raise UserError(f"{folder} holds no sweep; there are {known}")
    planned = plans(folder)[0]["runs"]
    runs = [look(RunFolder(folder / run), max_steps) for run, max_steps in planned.items()]
    evaluation = evaluation_of(RunFolder(folder / run.name) for run in runs if run.state == "done")
    pace = (1 + evaluation) * sum(run.seconds for run in runs) / max(1, sum(run.step for run in runs))  # of a step, scored
    left = [(1 - run.share(evaluation)) * run.max_steps * pace for run in runs]
    table = pd.DataFrame({
        "run": [run.name for run in runs],
        "state": [run.state for run in runs],
        "steps": [f"{run.step:,} of {run.max_steps:,}" if run.step or run.state != "waiting" else "" for run in runs],
        "left": [tqdm.format_interval(seconds) if seconds else "" for seconds in left],
        "why": [run.told[:60] for run in runs],
    })  # fmt: skip
    if not table["why"].any():
        table = table.drop(columns="why")
    counts = Counter(run.state for run in runs)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    if at_work := counts["running"]:
        told += f"; about {tqdm.format_interval(sum(left) / at_work)} left" if pace else ""
    elif not all(run.is_over for run in runs):
        told += "; no sweep is at work on it"
    return f"{name}: {told}\n\n{table.to_markdown(index=False, tablefmt='simple')}"


def main() -> int:
    parser = argparse.ArgumentParser(description="How far the sweeps are.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.parent.name for path in arguments.results.glob("runs/*/sweep.yaml"))
    if not names:
        raise UserError(f"{arguments.results / 'runs'} holds no sweep; `make sweep` makes one")

    def tell(name: str) -> None:
        print(status(arguments.results, name), end="\n\n")

    return max(through(partial(tell, name)) for name in names)  # where one cannot be told, the others are


if __name__ == "__main__":
    sys.exit(through(main))
