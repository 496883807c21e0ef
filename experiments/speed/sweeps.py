"""A whole sweep as people run it: one-thread runs side by side against runs one after the other with all threads."""

import resource
import subprocess
import sys
from functools import partial
from tempfile import TemporaryDirectory

from experiments.speed.rounds import Row, seconds_of
from experiments.speed.timings import OURS
from extrap.train.device import cores

RUNS, STEPS = 4, 600
# the sizes of main, a quarter of its steps, and little to evaluate
SWEEP = [
    "experiment=main", "name=bench", "position=rope,alibi", "seed=0,1", f"train.max_steps={STEPS}", "eval.lengths=[128,512]",
    "eval.n_segments=8",
]  # fmt: skip
TOKENS = RUNS * STEPS * 1_024


def measure(rounds: int) -> list[Row]:
    """Seconds of the whole command, start-up included, and how many cores it kept busy."""
    rows: list[Row] = []
    for number in range(rounds):
        for setting, n_jobs, threads in (("side by side", cores(), 1), ("one after the other", 1, cores())):
            before = processor_seconds()
            with TemporaryDirectory() as folder:
                options = [f"hydra.launcher.n_jobs={n_jobs}", f"runtime.threads={threads}", f"runtime.results_dir={folder}"]
                command = [sys.executable, "-m", "extrap", *SWEEP, *options]
                seconds = seconds_of(partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL))
            columns: Row = {"name": OURS, "setting": setting, "round": number, "n": 128, "tokens": TOKENS}
            columns |= {"objective": "mlm", "threads": threads}
            rows.append(columns | {"case": "sweep", "value": seconds, "unit": "s"})
            rows.append(columns | {"case": "busy", "value": (processor_seconds() - before) / seconds, "unit": "cores"})
    return rows


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
