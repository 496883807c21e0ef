"""The launcher of Slurm jobs, without Slurm: what it would submit, and the same jobs as processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

submitit = pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher",
    reason="hydra-submitit-launcher is not installed: pip install -c constraints.txt -e '.[slurm]'",
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc of Linux")]

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,learned", "seed=0", "train.max_steps=120",
    "train.warmup_steps=5", "runtime.checkpoint_every=20",
]  # fmt: skip
JOBS = ["hydra/launcher=submitit_local", "hydra.launcher.submitit_folder=${hydra.sweep.dir}/slurm/%j"]


def start(results: Path, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={results}", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, stdout=pipe, stderr=pipe)


def wait_for_checkpoint(folder: Path, sweep: subprocess.Popen) -> int:
    """The process that is at work on a run, once it has left a checkpoint."""
    until = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert sweep.poll() is None, f"it ended too early: {sweep.communicate()}"
        assert time.monotonic() < until
        time.sleep(0.02)
    inode = (folder.parent / "locks" / f"{folder.name}.lock").stat().st_ino
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next(int(line[4]) for line in locks if line[5].endswith(f":{inode}"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> bytes:
    results = tmp_path_factory.mktemp("local")
    assert start(results, "hydra.launcher.n_jobs=2").communicate(timeout=120)[1] == ""
    return (results / "smoke" / "rows.csv").read_bytes()


def test_a_preempted_job_goes_on_in_its_place_to_the_same_rows(tmp_path, rows):
    run = tmp_path / "runs" / "smoke" / "rope-seed0"
    sweep = start(tmp_path, *JOBS)
    os.kill(wait_for_checkpoint(run, sweep), signal.SIGUSR2)
    log = (run / "train.csv").read_text().splitlines()[:3]  # up to the first checkpoint, with its times
    _, stderr = sweep.communicate(timeout=120)
    assert (sweep.returncode, stderr) == (0, "")
    told = [path.read_text() for path in run.parent.glob("slurm/*/*_log.out")]
    assert len(told) == 2
    assert sum("preempted" in text and text.count("Starting with JobEnvironment") == 2 for text in told) == 1
    assert (run / "train.csv").read_text().splitlines()[:3] == log, "was trained from the start again"
    assert (tmp_path / "smoke" / "rows.csv").read_bytes() == rows


def test_after_a_killed_job_the_same_command_goes_on_to_the_same_rows(tmp_path, rows):
    run = tmp_path / "runs" / "smoke" / "learned-seed0"
    sweep = start(tmp_path, *JOBS)
    os.kill(wait_for_checkpoint(run, sweep), signal.SIGKILL)
    _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "learned-seed0: was not run to its end; the same command goes on from its last checkpoint" in stderr
    log = (run / "train.csv").read_text().splitlines()[:3]
    again = start(tmp_path, *JOBS)
    assert again.communicate(timeout=120)[1] == ""
    assert (run / "train.csv").read_text().splitlines()[:3] == log, "was trained from the start again"
    assert (tmp_path / "smoke" / "rows.csv").read_bytes() == rows


def test_what_would_be_submitted(tmp_path):
    """Slurm's own commands are replaced by one that keeps the script that it is given."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho "no Slurm here" >&2; exit 1\n')
        (tmp_path / "bin" / name).chmod(0o755)
    command = [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={tmp_path}", "hydra/launcher=slurm"]
    command += ["hydra.launcher.partition=short", "hydra.launcher.gpus_per_node=1", "runtime.threads=2"]
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Slurm here" in done.stderr
    script = (tmp_path / "script").read_text()
    for option in (
        "array=0-1%2", "cpus-per-task=2", "gpus-per-node=1", "job-name=extrap-smoke", "mem=8GB", "open-mode=append",
        "partition=short", "requeue", "signal=USR2@60", "time=240",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in script
    assert f"{tmp_path}/runs/smoke/slurm/%A_%a/" in script
