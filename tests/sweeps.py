"""Sweeps as real processes, and who is at work on a run of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,learned", "train.max_steps=120",
    "train.warmup_steps=5", "runtime.checkpoint_every=20",
]  # fmt: skip
ON_LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc of Linux")


def start(results: Path, *overrides: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={results}", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, start_new_session=True, text=True, stdout=pipe, stderr=pipe
    )


def rows_of(results: Path, *overrides: str) -> bytes:
    """What the engine of this machine makes of a sweep."""
    sweep = start(results, "hydra.launcher.n_jobs=2", *overrides)
    assert (sweep.communicate(timeout=120)[1], sweep.returncode) == ("", 0)
    return (results / "smoke" / "rows.csv").read_bytes()


def holder(run: Path) -> int | None:
    """The process that is at work on a run."""
    lock = run.parent / "locks" / f"{run.name}.lock"
    inode = lock.stat().st_ino if lock.exists() else None
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(line[4]) for line in locks if line[5].endswith(f":{inode}")), None)


def wait_for(condition, sweep: subprocess.Popen):
    until = time.monotonic() + 120
    while not (found := condition()):
        assert sweep.poll() is None, f"it ended too early: {sweep.communicate()}"
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def first_entries(run: Path) -> list[str]:
    """Of its training log up to the first checkpoint, times included: they stay what they were if it goes on from there."""
    return (run / "train.csv").read_text().splitlines()[:3]
