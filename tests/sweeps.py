"""Sweeps as real processes, and who is at work on a run of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,nope", "seed=0", "train.max_steps=100",
    "train.warmup_steps=5", "runtime.checkpoint_every=20", "eval.extensions=[none]",
    "eval.protocols=[nonoverlap,same_targets]",
]  # fmt: skip
LONG = ["train.max_steps=100000"]
ON_LINUX = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc of Linux")


def command(results: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "extrap", *TINY, f"runtime.results_dir={results}", *overrides]


def run(results: Path, *overrides: str, root: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(command(results, *overrides), capture_output=True, text=True, cwd=root, timeout=300)


def start(results: Path, *overrides: str, root: Path = ROOT, **environment: str) -> subprocess.Popen:
    """In a session of its own, so that all its processes can be ended at once."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(results, *overrides), cwd=root, env=os.environ | environment, start_new_session=True, text=True,
        stdout=pipe, stderr=pipe,
        # whoever runs the tests in the background of a shell ignores Ctrl-C, and what he starts would do so too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def kill(sweep: subprocess.Popen) -> None:
    """The parent and its workers."""
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.communicate()


def report(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    line, environment = [sys.executable, "-m", "experiments.report", *map(str, arguments)], os.environ | environment
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=120, env=environment)


def status(results: Path, *names: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "extrap.sweep.progress", "--results", str(results), *names]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60)


def rows(results: Path) -> bytes:
    return (results / "smoke" / "rows.csv").read_bytes()


def copy_of(results: Path, place: Path) -> Path:
    """A finished sweep, to be damaged."""
    return Path(shutil.copytree(results, place, dirs_exist_ok=True))


def holder(folder: Path) -> int | None:
    """The process that is at work on a run."""
    lock = folder.parent / "locks" / f"{folder.name}.lock"
    inode = lock.stat().st_ino if lock.exists() else None
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(line[4]) for line in locks if line[5].endswith(f":{inode}")), None)


def wait_for(condition, sweep: subprocess.Popen):
    """What the condition gives as soon as it gives something, while the sweep is at work."""
    until = time.monotonic() + 120
    while not (found := condition()):
        assert sweep.poll() is None, f"it ended too early: {sweep.communicate()}"
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
    return found


def first_entries(folder: Path) -> list[str]:
    """Of its training log up to the first checkpoint, times included: they stay what they were if it goes on from there."""
    return (folder / "train.csv").read_text().splitlines()[:3]
