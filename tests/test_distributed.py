"""One run over several processes against one process: real ones under torchrun, and parts of them pretended in this one."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from marks import slow
from torch.testing import assert_close

from extrap.config.choices import Device, Precision
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.results.rows import load_rows
from extrap.runs.prepare import Run
from extrap.runs.run import build_encoder, execute
from extrap.score.evaluate import evaluate
from extrap.sweep.checks import prepare_grid
from extrap.train import distributed
from extrap.train import loop as training
from extrap.train.device import pick_device

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "seed=0", "train.train_len=16", "train.max_steps=12", "train.precision=fp32", "eval.lengths=[16,48]",
    "eval.n_segments=10", "eval.n_targets=8", "eval.stride=4", "eval.n_pseudo=5", "runtime.checkpoint_every=5",
]  # fmt: skip
CAUSAL = ["objective=causal", "position=rope", "eval.protocols=[nonoverlap,sliding]"]
# of three sequences one process has one and the other two, so their counts of scored tokens are not the same
MLM = ["objective=mlm", "position=rope,learned", "train.batch_size=3", "eval.protocols=[nonoverlap,pseudo]"]
# A gradient is summed in another order: the rounding of float32, 6e-8, comes to 9e-8 in rows after the 12 steps here (1.4e-7
# after 600); elsewhere it may be some times that. If counts did not weigh, rows would be off by 4e-3 and losses by 0.03.
RTOL = 3e-6
LAST_DIGIT = 1.01e-6  # of losses in train.csv

FAILING = """
import sys
from datetime import timedelta
from extrap.sweep import ranks
from extrap.sweep import sweep as run
from extrap.train import distributed, loop as train

ranks.GRACE = timedelta(seconds=1)
real = train.training_batch

def fail_alone(source, objective, config, seed, step):
    if step == 7 and distributed.rank() == 1 and "learned" in heard[-1].run:
        raise OSError("this disk is gone")
    return real(source, objective, config, seed, step)

heard = []
hear = ranks.Ranks.hear
ranks.Ranks.hear = lambda self: heard.append(hear(self)) or heard[-1]
train.training_batch = fail_alone
sys.exit(run.main_of_several(sys.argv[1:]))
"""


def grid(results: Path, *overrides: str) -> list[Run]:
    return prepare_grid(compose_grid([*TINY, f"runtime.results_dir={results}", *overrides]))


def torchrun(*command: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, command)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=120, env=environment)


@contextmanager
def as_rank(rank: int, n: int):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distributed, "rank", lambda: rank)
        patched.setattr(distributed, "n_processes", lambda: n)
        yield


def assert_same_rows(a: Path, b: Path) -> None:
    mine, theirs = (load_rows(folder / "eval.csv") for folder in (a, b))
    assert mine.drop(columns="nll_sum").equals(theirs.drop(columns="nll_sum"))
    np.testing.assert_allclose(mine["nll_sum"], theirs["nll_sum"], rtol=RTOL)
    mine, theirs = (pd.read_csv(folder / "train.csv") for folder in (a, b))
    assert mine[["step", "tokens", "lr"]].equals(theirs[["step", "tokens", "lr"]])
    np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=0, atol=LAST_DIGIT)


def by_one_process(results: Path, *overrides: str) -> Path:
    """The same runs, and their results."""
    for cell in grid(results, *overrides):
        execute(cell)
    return results


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path):
    alone = by_one_process(tmp_path / "alone", *CAUSAL)
    done = torchrun("-m", "extrap", *TINY, *CAUSAL, f"runtime.results_dir={tmp_path}")
    assert done.returncode == 0
    (remark,) = done.stderr.splitlines()
    assert remark.startswith("held-out documents: "), "told once, not by each process"
    assert done.stdout.count("written:") == 1
    mine, theirs = (results / "runs" / "smoke" / "rope-seed0" for results in (tmp_path, alone))
    assert {p.name for p in mine.iterdir()} == {p.name for p in theirs.iterdir()}
    assert (mine / "config.yaml").read_bytes() == (theirs / "config.yaml").read_bytes()
    assert [json.loads((run / "meta.json").read_text())["processes"] for run in (mine, theirs)] == [2, 1]
    assert_same_rows(mine, theirs)


@pytest.mark.slow
def test_a_run_changes_hands_and_a_failure_of_one_process_ends_all(tmp_path, monkeypatch):
    """RoPE is begun by one process and ended by two; of these one fails in the next run, which one process ends."""
    rope, learned = grid(tmp_path, *MLM)
    real = training.training_batch

    def until(source, objective, config, seed, step):
        if step == 7:
            raise KeyboardInterrupt
        return real(source, objective, config, seed, step)

    with monkeypatch.context() as patched:
        patched.setattr(training, "training_batch", until)
        with pytest.raises(KeyboardInterrupt):
            execute(rope)
    assert (rope.config.folder / "checkpoint.pt").exists()
    (tmp_path / "failing.py").write_text(FAILING)
    done = torchrun(tmp_path / "failing.py", *TINY, *MLM, f"runtime.results_dir={tmp_path}")  # would time out if it hung
    assert done.returncode == 1
    assert "learned-seed0: OSError: this disk is gone (process 1 alone" in done.stderr
    assert rope.folder.is_finished
    assert not learned.folder.is_finished
    assert "in fail_alone" in (learned.config.folder / "error.log").read_text()
    state = torch.load(learned.config.folder / "checkpoint.pt", weights_only=True)
    assert (state["step"], set(state["model"])) == (5, set(build_encoder(learned).state_dict()))
    execute(learned)
    assert not (learned.config.folder / "error.log").exists()
    alone = by_one_process(tmp_path / "alone", *MLM)
    for cell in (rope, learned):
        assert json.loads((cell.config.folder / "meta.json").read_text())["processes"] == 2, "the most that took part"
        assert_same_rows(cell.config.folder, alone / "runs" / "smoke" / cell.config.run)


def test_processes_that_have_read_different_programs_do_not_begin(tmp_path, monkeypatch):
    (cell,) = grid(tmp_path, *CAUSAL)
    monkeypatch.setattr(distributed, "gathered", lambda compute: [compute(), "another"])
    with pytest.raises(UserError, match="different programs or data"):
        execute(cell)
    assert not (cell.config.folder / "train.csv").exists()


@pytest.mark.slow
def test_an_error_is_one_line_of_rank_0_and_the_exit_code_of_all(tmp_path):
    done = torchrun("-m", "extrap", *TINY, *CAUSAL, "train.batch_size=1", f"runtime.results_dir={tmp_path}")
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert told == [
        "error: train.batch_size: expected at least one sequence a process, found 1 for 2 processes; start fewer"
    ]
    assert "exitcode  : 2" in done.stderr  # as torchrun reports it
    assert "exitcode  : 1" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("n", [2, *slow(1, 3)])
def test_the_gradient_is_that_of_the_mean_over_all_scored_tokens(tmp_path, n):
    encoder = build_encoder(grid(tmp_path, *CAUSAL)[0])
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (5, 16), generator=generator)
    index = torch.cat([16 * row + torch.tensor([0, 5, 9]) for row in range(5)])  # processes have 2 and 3 of the rows
    batch = training.TrainingBatch(tokens, index, tokens.flatten()[index])

    def gradient(part, weight):
        encoder.zero_grad()
        loss = weight * training.TrainingLoss(encoder, Precision.fp32)(*part)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters()]), loss.item()

    expected, loss = gradient(batch, 1.0)
    parts = [batch.share(rank, n) for rank in range(n)]
    assert torch.equal(torch.cat([inputs for (inputs, _, _), _ in parts]), tokens)
    found, losses = zip(*(gradient(*part) for part in parts), strict=True)
    assert_close(sum(found) / n, expected, rtol=1e-5, atol=1e-7)
    assert sum(losses) / n == pytest.approx(loss, rel=1e-6)
    if n > 1:  # what would be if counts did not weigh
        plain = sum(gradient(part, 1.0)[0] for part, _ in parts) / n
        assert (plain - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("overrides", [CAUSAL, MLM])
@pytest.mark.parametrize("n", [2, *slow(3)])
def test_the_same_weights_have_the_same_rows_bit_for_bit(tmp_path, monkeypatch, overrides, n):
    cell = grid(tmp_path, *overrides)[-1]
    monkeypatch.setattr("extrap.score.reads.FORWARD_TOKENS", 160)  # several forward passes a read
    encoder = build_encoder(cell)
    alone = evaluate(encoder, cell.source, cell.objective, cell.config.eval).rows

    def of_all(compute):
        found = []
        for rank in range(n):
            with as_rank(rank, n):
                found.append(compute())
        return found

    monkeypatch.setattr(distributed, "gathered", of_all)
    together = evaluate(encoder, cell.source, cell.objective, cell.config.eval).rows
    pd.testing.assert_frame_equal(together, alone, check_exact=True)
    monkeypatch.setattr(distributed, "gathered", lambda compute: of_all(compute)[:-1])  # one is forgotten
    less = evaluate(encoder, cell.source, cell.objective, cell.config.eval).rows
    assert less["n_tokens"].sum() < alone["n_tokens"].sum()


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed, "n_processes_here", lambda: 3)
    with pytest.raises(UserError, match="nproc-per-node=3: expected at most one process a CUDA device, found 2"):
        pick_device(Device.auto)
    assert pick_device(Device.cpu).type == "cpu"
