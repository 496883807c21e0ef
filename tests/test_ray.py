"""Ray itself, as real processes of this machine: two nodes of which one dies, runs that are killed again and again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc of Linux")]

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,learned", "seed=0,1", "train.max_steps=120",
    "train.warmup_steps=5", "runtime.checkpoint_every=20",
]  # fmt: skip
# a token of its own: the tests neither read nor write the one in the home of whoever runs them
ENVIRONMENT = os.environ | {
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"
}  # fmt: skip


def start(results: Path, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={results}", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True, stdout=pipe, stderr=pipe)


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen]:
    """A machine of a cluster, as `ray start` makes it, with one core; what it started has its session."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0", *options]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
    process = subprocess.Popen(
        command, cwd="/", env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """SIGKILL to everything of its session: what a machine that goes off does to its processes."""
    for pid in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
        try:
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def holder(lock: Path) -> int | None:
    """The process that is at work on a run."""
    inode = lock.stat().st_ino if lock.exists() else None
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(line[4]) for line in locks if line[5].endswith(f":{inode}")), None)


def wait_for(condition, process: subprocess.Popen):
    until = time.monotonic() + 120
    while not (found := condition()):
        assert process.poll() is None, f"it ended too early: {process.communicate()}"
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> bytes:
    results = tmp_path_factory.mktemp("local")
    sweep = start(results, "hydra.launcher.n_jobs=2")
    assert sweep.communicate(timeout=120)[1] == ""
    return (results / "smoke" / "rows.csv").read_bytes()


def test_runs_of_a_node_that_dies_go_on_elsewhere_to_the_same_rows(tmp_path, rows):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch,  # sockets want a short path
        node("--head", f"--port={port}", f"--temp-dir={scratch}", "--include-dashboard=false") as head,
        node(f"--address=127.0.0.1:{port}") as other,
    ):
        sweep = start(tmp_path, "hydra/launcher=ray", f"hydra.launcher.address=127.0.0.1:{port}")
        runs = tmp_path / "runs" / "smoke"

        def of_the_other() -> Path | None:
            for checkpoint in runs.glob("*/checkpoint.pt"):
                pid = holder(runs / "locks" / f"{checkpoint.parent.name}.lock")
                if pid and os.getsid(pid) == other.pid:
                    return checkpoint.parent
            return None

        lost = wait_for(of_the_other, sweep)
        end(other)
        assert not (lost / "eval.csv").exists(), "the kill came too late to test anything"
        log = (lost / "train.csv").read_text().splitlines()[:3]  # up to the first checkpoint, with its times
        stdout, stderr = sweep.communicate(timeout=120)
        assert head.poll() is None
    assert (sweep.returncode, stderr) == (0, "")
    assert "raylet" not in stdout
    assert (lost / "train.csv").read_text().splitlines()[:3] == log, "was trained from the start again"
    assert (tmp_path / "smoke" / "rows.csv").read_bytes() == rows


def test_a_run_that_is_killed_again_and_again_costs_itself_alone(tmp_path):
    runs = tmp_path / "runs" / "smoke"
    (runs / "learned-seed0" / "train.csv").mkdir(parents=True)
    sweep = start(tmp_path, "hydra/launcher=ray")
    killed = set()
    while not (runs / "rope-seed0" / "error.log").exists():
        if pid := wait_for(lambda: holder(runs / "locks" / "rope-seed0.lock"), sweep):
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            wait_for(lambda: holder(runs / "locks" / "rope-seed0.lock") != pid, sweep)
    stdout, stderr = sweep.communicate(timeout=120)
    assert (sweep.returncode, stdout) == (1, "")
    assert "2 of 4 runs are finished" in stderr
    assert "rope-seed0: its process was lost 3 times" in stderr
    assert "learned-seed0: " in stderr
    assert len(killed) == 3
    for name in ("rope-seed1", "learned-seed1"):
        assert (runs / name / "eval.csv").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.launcher.cores=1000", "no node of the cluster has that; give hydra.launcher.cores=..."),
        ("hydra.launcher.address=127.0.0.1:1", "expected HOST:PORT of a Ray cluster"),
    ],
)
def test_what_cannot_be_is_told_at_once(tmp_path, override, told):
    sweep = start(tmp_path, "hydra/launcher=ray", override)
    stdout, stderr = sweep.communicate(timeout=60)
    assert (sweep.returncode, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("error: hydra.launcher")
    assert told in stderr
