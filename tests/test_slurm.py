"""Slurm jobs without Slurm: what would be submitted, and submitit's jobs as processes of this machine."""

import os
import signal

import pytest
from sweeps import ON_LINUX, first_entries, holder, rows, start, wait_for

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher",
    reason="hydra-submitit-launcher is not installed: pip install -c constraints.txt -e '.[slurm]'",
)
pytestmark = [pytest.mark.slow, ON_LINUX]

JOBS = ["hydra/launcher=submitit_local", "hydra.launcher.submitit_folder=${hydra.sweep.dir}/slurm/%j"]


def test_a_preempted_job_goes_on_in_its_place_to_the_same_rows(tmp_path, swept):
    run = tmp_path / "runs" / "smoke" / "rope-seed0"
    sweep = start(tmp_path, *JOBS)
    wait_for((run / "checkpoint.pt").exists, sweep)
    os.kill(holder(run), signal.SIGUSR2)
    log = first_entries(run)
    _, stderr = sweep.communicate(timeout=120)
    assert (sweep.returncode, stderr) == (0, "")
    told = [path.read_text() for path in run.parent.glob("slurm/*/*_log.out")]
    assert sorted(text.count("Starting with JobEnvironment") for text in told) == [1, 2]
    assert first_entries(run) == log, "was trained from the start again"
    assert rows(tmp_path) == rows(swept)


def test_after_a_killed_job_the_same_command_goes_on_to_the_same_rows(tmp_path, swept):
    run = tmp_path / "runs" / "smoke" / "nope-seed0"
    sweep = start(tmp_path, *JOBS)
    wait_for((run / "checkpoint.pt").exists, sweep)
    os.kill(holder(run), signal.SIGKILL)
    log = first_entries(run)
    _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "nope-seed0: was not run to its end; the same command resumes from its last checkpoint" in stderr
    again = start(tmp_path, *JOBS)
    assert (again.communicate(timeout=120)[1], again.returncode) == ("", 0)
    assert first_entries(run) == log, "was trained from the start again"
    assert rows(tmp_path) == rows(swept)


def test_what_would_be_submitted(tmp_path):
    """Slurm's own command is replaced by one that keeps the script that it is given."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun"):  # submitit looks for the second
        (commands / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho "no Slurm here" >&2; exit 1\n')
        (commands / name).chmod(0o755)
    options = ["hydra.launcher.partition=short", "hydra.launcher.gpus_per_node=1", "runtime.threads=2"]
    sweep = start(tmp_path, "hydra/launcher=slurm", *options, PATH=f"{commands}:{os.environ['PATH']}")
    _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "no Slurm here" in stderr
    script = (tmp_path / "script").read_text()
    for option in (
        "array=0-1%2", "cpus-per-task=2", "gpus-per-node=1", "job-name=extrap-smoke", "mem=8GB", "open-mode=append",
        "partition=short", "requeue", "signal=USR2@60", "time=240",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in script
    assert f"{tmp_path}/runs/smoke/slurm/%A_%a/" in script
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n" in script
