"""How far a sweep is, read from the files of its runs: the bar of the sweep itself, and `make status` beside it.

python -m extrap.sweep.progress [--results RESULTS] [NAME ...]
"""

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd
import yaml
from tqdm import tqdm

from extrap.config.schema import Config
from extrap.errors import UserError
from extrap.files import as_path, is_locked, write_atomic
from extrap.results.folders import RunFolder
from extrap.sweep.door import through
from extrap.train.log import read_log

SECONDS = 1.0  # between looks
MINUTE = 60.0
EVALUATION = 0.3  # of the training of a run, until a run has shown what it is
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

    def share(self, evaluation: float = EVALUATION) -> float:
        """0 to 1, how much of the run is done; `evaluation` takes this much of the time of its training."""
        return 1.0 if self.is_over else min(1.0, self.step / self.max_steps) / (1 + evaluation)


def save_plan(configs: list[Config], command: str) -> None:
    """Leaves the runs of a sweep where `make status` finds them, those too that have not begun."""
    plan = {"command": command, "runs": {config.run: config.train.max_steps for config in configs}}
    write_atomic(configs[0].folder.parent / "sweep.yaml", yaml.safe_dump(plan, sort_keys=False))


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


def _last_line(path: Path) -> str:
    return path.read_text(errors="replace").strip().rpartition("\n")[2]


class Progress:
    """The bar of a sweep: counts training steps and finished runs while the workers write.

    Where the output is no terminal a line is told instead: every minute, and every ten after the first ten.
    """

    def __init__(self, configs: list[Config]) -> None:
        self.configs = configs
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _look(self) -> list[Stage]:
        return [look(RunFolder(config.folder), config.train.max_steps) for config in self.configs]

    def _watch(self) -> None:
        runs = self._look()
        layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"
        already = sum(run.share() for run in runs)
        began, told = time.monotonic(), 0.0
        with tqdm(total=len(runs), initial=already, disable=None, bar_format=layout, smoothing=0, leave=False) as bar:
            while True:
                stopped = self.stop.wait(SECONDS)
                runs = self._look()
                bar.set_description_str(f"{sum(run.is_over for run in runs)} of {len(runs)} runs", refresh=False)
                bar.update(sum(run.share() for run in runs) - bar.n)
                if stopped:
                    return
                gone = time.monotonic() - began
                if bar.disable and gone - told >= (MINUTE if gone < 11 * MINUTE else 10 * MINUTE):
                    print(progress_line(runs, already, gone), file=sys.stderr, flush=True)
                    told = gone


def progress_line(runs: list[Stage], already: float, seconds: float) -> str:
    """How far a sweep is that began `seconds` ago with `already` runs' worth of work done before."""
    done = sum(run.share() for run in runs)
    left = (
        f"about {_time(seconds * (len(runs) - done) / (done - already))} left" if done > already else "no step is done yet"
    )
    over = sum(run.is_over for run in runs)
    return f"{over} of {len(runs)} runs, {done / len(runs):.0%}; {_time(seconds)} gone, {left}"


def status(results: Path, name: str) -> str:
    """A line for the sweep and a table of its runs."""
    folder = results / "runs" / name
    if not (folder / "sweep.yaml").exists():
        known = ", ".join(sorted(path.parent.name for path in results.glob("runs/*/sweep.yaml"))) or "none"
        raise UserError(f"{folder} holds no sweep; there are {known}")
    planned = _planned(folder / "sweep.yaml")
    runs = [look(RunFolder(folder / run), max_steps) for run, max_steps in planned.items()]
    seconds, evaluation = _pace(folder, [run for run in runs if run.state == "done"], runs)
    lines = []
    for run in runs:
        to_go = (1 - run.share(evaluation)) * run.max_steps * seconds * (1 + evaluation)
        of = "" if run.state == "waiting" and not run.step else f"{run.step:,} of {run.max_steps:,}"
        lines.append({"run": run.name, "state": run.state, "steps": of, "left": _time(to_go), "": run.told[:60]})
    counts = Counter(run.state for run in runs)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    todo = sum((1 - run.share(evaluation)) * run.max_steps for run in runs) * seconds * (1 + evaluation)
    if at_work := counts["running"]:
        told += f"; about {_time(todo / at_work)} left" if seconds else ""
    elif todo:
        told += "; no sweep is at work on it"
    return f"{name}: {told}\n\n{pd.DataFrame(lines).to_markdown(index=False, tablefmt='simple')}"


def _planned(path: Path) -> dict[str, int]:
    """Runs, and how many steps each takes."""
    try:
        planned = yaml.safe_load(path.read_text())["runs"]
        if planned and all(isinstance(run, str) and max_steps > 0 for run, max_steps in planned.items()):
            return dict(planned)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is damaged, expected the runs of a sweep; the same sweep, started again, writes it")


def _pace(folder: Path, done: list[Stage], runs: list[Stage]) -> tuple[float, float]:
    """Seconds a training step, and how much longer than its training a run takes to be scored as well."""
    metas = [RunFolder(folder / run.name).load_meta()["seconds"] for run in done]
    trained = sum(run.seconds for run in runs)
    training = sum(one["train"] for one in metas)
    evaluation = sum(one["evaluate"] for one in metas) / training if training else EVALUATION
    return trained / max(1, sum(run.step for run in runs)), evaluation


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not seconds:
        return ""
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def main() -> int:
    parser = argparse.ArgumentParser(description="How far the sweeps are.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.parent.name for path in arguments.results.glob("runs/*/sweep.yaml"))
    if not names:
        raise UserError(f"{arguments.results / 'runs'} holds no sweep; `make sweep` makes one")
    failed = False
    for name in names:
        try:
            print(status(arguments.results, name), end="\n\n")
        except UserError as error:  # the others are told
            print(f"error: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(through(main))
