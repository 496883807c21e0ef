"""A whole sweep as people run it: one-thread runs side by side against runs one after the other with all threads."""

import resource
import time
from tempfile import TemporaryDirectory

from tqdm import tqdm

from experiments.speed.rounds import Row, in_a_process
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
    count = cores()
    settings = {
        "side by side": [f"hydra.launcher.n_jobs={count}", "runtime.threads=1"],
        "one after the other": ["hydra.launcher.n_jobs=1", f"runtime.threads={count}"],
    }
    rows: list[Row] = []
    for number in tqdm(range(rounds), desc="sweeps", disable=None, leave=False):
        for setting, overrides in settings.items():
            seconds, busy = sweep(overrides)
            columns: Row = {"name": OURS, "setting": setting, "round": number, "n": 128, "tokens": TOKENS}
            columns |= {"objective": "mlm", "threads": 1 if setting == "side by side" else count}
            rows.append(columns | {"case": "sweep", "value": seconds, "unit": "s"})
            rows.append(columns | {"case": "busy", "value": busy, "unit": "cores"})
    return rows


def sweep(overrides: list[str]) -> tuple[float, float]:
    """Seconds, and the mean number of busy cores."""
    with TemporaryDirectory() as folder:
        worked, began = _processor_seconds(), time.perf_counter()
        in_a_process("extrap", *SWEEP, *overrides, f"runtime.results_dir={folder}")
        seconds = time.perf_counter() - began
    return seconds, (_processor_seconds() - worked) / seconds


def _processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
