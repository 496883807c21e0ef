"""Ray itself, as real processes of this machine: two nodes of which one dies, runs that are killed again and again."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sweeps import ON_LINUX, first_entries, holder, rows, run, start, wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'")
pytestmark = [pytest.mark.slow, ON_LINUX]

SEEDS = "seed=0,1"
# a token of its own: the tests neither read nor write the one in the home of whoever runs them
RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen]:
    """A machine of a cluster, as `ray start` makes it, with one core; what it started has its session."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0", *options]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd="/", env=os.environ | RAY, start_new_session=True, stdout=null, stderr=null)
    try:
        yield process
    finally:
        end(process)


def end(node: subprocess.Popen) -> None:
    """SIGKILL to everything of its session: what a machine that goes off does to its processes."""
    for pid in [int(path.name) for path in Path("/proc").glob("[0-9]*")]:
        try:
            if os.getsid(pid) == node.pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    node.wait()


def test_runs_of_a_node_that_dies_go_on_elsewhere_to_the_same_rows(tmp_path):
    assert run(tmp_path / "local", SEEDS).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch,  # sockets want a short path
        node("--head", f"--port={address.partition(':')[2]}", f"--temp-dir={scratch}", "--include-dashboard=false"),
        node(f"--address={address}") as other,
    ):
        sweep = start(tmp_path, SEEDS, "hydra/launcher=ray", f"hydra.launcher.address={address}", **RAY)

        def of_the_other() -> Path | None:
            for checkpoint in tmp_path.glob("runs/smoke/*/checkpoint.pt"):
                pid = holder(checkpoint.parent)
                if pid and os.getsid(pid) == other.pid:
                    return checkpoint.parent
            return None

        lost = wait_for(of_the_other, sweep)
        end(other)
        assert not (lost / "eval.csv").exists(), "the kill came too late to test anything"
        log = first_entries(lost)
        stdout, stderr = sweep.communicate(timeout=120)
    told = [line for line in stderr.splitlines() if " elapsed, " not in line]  # a slow machine says how far it is
    assert (sweep.returncode, told) == (0, [])
    assert "raylet" not in stdout
    assert first_entries(lost) == log, "was trained from the start again"
    assert rows(tmp_path) == rows(tmp_path / "local")


def test_a_run_that_is_killed_again_and_again_costs_itself_alone(tmp_path):
    runs = tmp_path / "runs" / "smoke"
    (runs / "nope-seed0" / "train.csv").mkdir(parents=True)  # an error of Python's
    victim = runs / "rope-seed0"
    sweep = start(tmp_path, SEEDS, "hydra/launcher=ray", **RAY)
    for _ in range(3):
        pid = wait_for(lambda: holder(victim), sweep)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: holder(victim) != pid, sweep)
    stdout, stderr = sweep.communicate(timeout=120)
    assert (sweep.returncode, stdout) == (1, "")
    assert "2 of 4 runs are finished" in stderr
    assert "rope-seed0: its process was lost 3 times" in stderr
    assert "nope-seed0: " in stderr
    for name in ("rope-seed1", "nope-seed1"):
        assert (runs / name / "eval.csv").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.launcher.cores=1000", "no node of the cluster has that; give hydra.launcher.cores=..."),
        ("hydra.launcher.address=127.0.0.1:1", "expected HOST:PORT of a Ray cluster"),
    ],
)
def test_what_cannot_be_is_told_at_once(tmp_path, override, told):
    sweep = start(tmp_path, "hydra/launcher=ray", override, **RAY)
    stdout, stderr = sweep.communicate(timeout=60)
    assert (sweep.returncode, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("error: hydra.launcher")
    assert told in stderr
