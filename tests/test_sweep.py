"""The command itself, in real processes: a whole sweep, a second one, kills, failures, reports."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,learned", "seed=0", "train.max_steps=300",
    "train.warmup_steps=5", "runtime.checkpoint_every=20", "hydra.launcher.n_jobs=2",
]  # fmt: skip


def command(results: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={results}", *overrides]


def run(results: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(results, *overrides), capture_output=True, text=True, cwd=ROOT, timeout=300)


def report(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "experiments.report", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=120)


def wait_for(condition, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("results")
    done = run(results)
    assert (done.returncode, done.stderr) == (0, "")
    (results / "stdout.txt").write_text(done.stdout)
    return results


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sweep_writes_and_prints_everything(swept):
    folder = swept / "smoke"
    expected = {
        f"{name}.{suffix}"
        for name in ("perplexity", "floor", "pairs", "controls")
        for suffix in ("png", "pdf", "svg", "csv")
    }
    assert {p.name for p in folder.iterdir()} == expected | {
        "rows.csv",
        "missing.csv",
        "training.csv",
        "provenance.yaml",
        "table.csv",
        "table.md",
        "table.tex",
        "pairs.md",
        "extrapolates.csv",
    }
    runs = swept / "runs" / "smoke"
    for run_folder in (runs / "rope-seed0", runs / "learned-seed0"):
        assert {p.name for p in run_folder.iterdir()} == {"config.yaml", "train.csv", "model.pt", "meta.json", "eval.csv"}
    told = yaml.safe_load((folder / "provenance.yaml").read_text())
    assert told["command"].startswith("python -m experiments.run experiment=smoke data=markov")
    assert told["runs"] == 2
    assert len(told["made_by"]) == 1
    assert told["config"]["train"]["max_steps"] == 300
    losses = pd.read_csv(folder / "training.csv")
    assert losses.groupby("scheme")["step"].max().to_dict() == {"rope": 300, "learned": 300}
    assert (losses["loss"] > 0).all()
    rows = pd.read_csv(folder / "rows.csv")
    assert set(rows["scheme"]) == {"rope", "learned", "unigram", "floor", "floor, last 32", "symbol counts"}
    stdout = (swept / "stdout.txt").read_text()
    for part in ("rope", "learned", "ends at 32", "written:", "perplexity.png"):
        assert part in stdout
    assert max(map(len, stdout.splitlines())) <= 130


def test_a_second_sweep_trains_nothing(swept):
    before = state(swept / "runs" / "smoke" / "rope-seed0")
    done = run(swept)
    assert done.returncode == 0
    assert state(swept / "runs" / "smoke" / "rope-seed0") == before
    assert done.stdout == (swept / "stdout.txt").read_text()


def test_tables_and_figures_come_back_byte_for_byte(swept):
    folder = swept / "smoke"
    before = {p: content for p, (_, content) in state(folder).items()}
    for path in before:
        if path.name not in ("rows.csv", "missing.csv", "training.csv", "provenance.yaml"):
            path.unlink()
    done = report("--results", swept, "draw")
    assert (done.returncode, done.stderr) == (0, "")
    assert {p: content for p, (_, content) in state(folder).items()} == before


def test_a_sweep_killed_in_training_goes_on_to_the_same_rows(swept, tmp_path):
    process = subprocess.Popen(
        command(tmp_path), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: list(tmp_path.glob("runs/smoke/*/checkpoint.pt")), process)
    os.killpg(process.pid, signal.SIGKILL)  # the parent and its workers
    process.wait()
    assert not list(tmp_path.glob("runs/smoke/rope-seed0/eval.csv")), "the kill came too late to test anything"
    assert run(tmp_path).returncode == 0
    assert (tmp_path / "smoke" / "rows.csv").read_bytes() == (swept / "smoke" / "rows.csv").read_bytes()


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "train.max_steps=100000"), cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # whoever runs the tests in the background of a shell ignores Ctrl-C, and what he starts would do so too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: list(tmp_path.glob("runs/smoke/*/train.csv")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: 0 of 2 runs are finished; the same command goes on from there" in stderr
    assert "Traceback" not in stderr


def test_a_failed_run_does_not_stop_the_others_and_is_told(tmp_path, swept):
    broken = tmp_path / "runs" / "smoke" / "rope-seed0"
    (broken / "train.csv").mkdir(parents=True)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "1 of 2 runs are finished" in done.stderr
    assert "rope-seed0: " in done.stderr
    assert "error.log" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (broken / "error.log").read_text()
    assert (tmp_path / "runs" / "smoke" / "learned-seed0" / "eval.csv").exists()
    assert not (tmp_path / "smoke" / "rows.csv").exists()
    (broken / "train.csv").rmdir()
    assert run(tmp_path).returncode == 0
    assert not (broken / "error.log").exists()
    assert (tmp_path / "smoke" / "rows.csv").read_bytes() == (swept / "smoke" / "rows.csv").read_bytes()


def test_reports_of_nothing_end_with_one_line(tmp_path):
    for arguments in (["draw"], ["gather", "nothing"]):
        done = report("--results", tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
