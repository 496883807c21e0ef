"""The command itself, in real processes: a whole sweep, a second one, kills, failures, reports."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from marks import slow
from sweeps import LONG, copy_of, report, rows, run, start, status, wait_for

from extrap.results.rows import load_rows, load_training
from extrap.sweep import sweep as sweeping


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sweep_writes_and_prints_everything(swept):
    folder = swept / "smoke"
    expected = {
        f"{name}.{suffix}"
        for name in ("perplexity", "perplexity_column", "floor", "costs")
        for suffix in ("png", "pdf", "svg")
    }
    assert {p.name for p in folder.iterdir()} == expected | {
        "perplexity.csv",
        "floor.csv",
        "page.html",
        "costs.csv",
        "costs.md",
        "pairs.csv",
        "runs.csv",
        "rows.csv",
        "missing.csv",
        "training.csv",
        "provenance.yaml",
        "table.csv",
        "table.md",
        "table_narrow.tex",
        "table_nonoverlap.tex",
        "table_nonoverlap_floor.tex",
        "table_same_targets.tex",
        "table_same_targets_floor.tex",
        "pairs.md",
    }
    runs = swept / "runs" / "smoke"
    for run_folder in (runs / "rope-seed0", runs / "nope-seed0"):
        expected = {"config.yaml", "train.csv", "model.pt", "meta.json", "runs.csv", "eval.csv", "tables.sha256"}
        assert {p.name for p in run_folder.iterdir()} == expected
    told = yaml.safe_load((folder / "provenance.yaml").read_text())
    assert told["command"].startswith("python -m extrap experiment=smoke data=markov")
    assert told["runs"] == 2
    assert len(told["made_by"]) == 1
    assert told["config"]["train"]["max_steps"] == 100
    losses = load_training(folder / "training.csv")
    assert losses.groupby("scheme")["step"].max().to_dict() == {"rope": 100, "nope": 100}
    assert (losses["loss"] > 0).all()
    rows = load_rows(folder / "rows.csv")
    assert set(rows["scheme"]) == {"rope", "nope", "unigram", "floor", "floor, last 32", "symbol counts"}
    stdout = (swept / "stdout.txt").read_text()
    for part in ("rope", "nope", "written:", "perplexity.png"):
        assert part in stdout
    assert max(map(len, stdout.splitlines())) <= 100


@pytest.mark.slow
def test_a_second_sweep_trains_nothing(swept):
    before = state(swept / "runs" / "smoke" / "rope-seed0")
    done = run(swept)
    assert done.returncode == 0
    assert state(swept / "runs" / "smoke" / "rope-seed0") == before
    assert done.stdout == (swept / "stdout.txt").read_text()


@pytest.mark.slow
def test_tables_and_figures_come_back_byte_for_byte(swept):
    folder = swept / "smoke"
    before = {p: content for p, (_, content) in state(folder).items()}
    for path in before:
        if path.name not in ("runs.csv", "rows.csv", "missing.csv", "training.csv", "provenance.yaml"):
            path.unlink()
    (folder / "page.html").write_text("a page of a sweep that was made here is written again; who has none gets none")
    done = report("--results", swept, "draw")
    assert (done.returncode, done.stderr) == (0, "")
    assert {p: content for p, (_, content) in state(folder).items()} == before


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on(tmp_path):
    sweep = start(tmp_path, *LONG)
    wait_for(lambda: list(tmp_path.glob("runs/smoke/*/train.csv")), sweep)
    os.killpg(sweep.pid, signal.SIGINT)
    _, stderr = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "interrupted: 0 of 2 runs are finished; run the same command again to resume" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
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
    assert (tmp_path / "runs" / "smoke" / "nope-seed0" / "eval.csv").exists()
    assert not (tmp_path / "smoke" / "rows.csv").exists()
    told = status(tmp_path)
    assert told.stdout.startswith("smoke: 1 done, 1 failed; no sweep is at work on it")
    assert "IsADirectoryError" in told.stdout
    (broken / "train.csv").rmdir()
    assert run(tmp_path).returncode == 0
    assert not (broken / "error.log").exists()
    assert rows(tmp_path) == rows(swept)


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone_is_shown_the_table(tmp_path, swept):
    copy_of(swept, tmp_path)
    done = report("--results", tmp_path, "gather", "smoke", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "causal LM on markov, trained on L = 32" in done.stdout
    assert rows(tmp_path) == rows(swept)


@pytest.mark.slow
def test_a_report_tells_the_sweep_that_made_its_runs_and_not_one_before(tmp_path, swept):
    runs = copy_of(swept, tmp_path) / "runs" / "smoke"
    told, plan = tmp_path / "smoke" / "provenance.yaml", yaml.safe_load((runs / "sweep.yaml").read_text())
    assert yaml.safe_load(told.read_text())["command"] == plan["command"]
    (runs / "sweep.yaml").write_text(yaml.safe_dump(plan | {"command": "python -m extrap of today"}))
    assert report("--results", tmp_path, "gather", "smoke").returncode == 0
    assert yaml.safe_load(told.read_text())["command"] == "python -m extrap of today"


@pytest.mark.parametrize("arguments", [["gather", "nothing"], *slow(["draw"])])
def test_reports_of_nothing_end_with_one_line(tmp_path, arguments):
    done = report("--results", tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_what_another_machine_has_finished_may_be_seen_a_little_later(tmp_path, monkeypatch):
    """As on NFS, which answers for a while from what it knew."""

    told = iter([False, False, True])

    class Folder(SimpleNamespace):
        @property
        def is_finished(self):
            return next(told)

    monkeypatch.setattr(sweeping.time, "sleep", lambda seconds: None)
    worked = []
    late = SimpleNamespace(folder=Folder(path=tmp_path, error=tmp_path / "none"))
    sweeping._elsewhere(lambda: worked.append(1), [late])
    assert worked == [1]
    assert next(told, "asked until it was") == "asked until it was"
    failed = SimpleNamespace(folder=SimpleNamespace(is_finished=False, error=tmp_path / "error.log"))
    sweeping._elsewhere((tmp_path / "error.log").touch, [failed])
    told = iter([False, False, True])
    again = SimpleNamespace(folder=Folder(path=tmp_path, error=tmp_path / "error.log"))
    sweeping._elsewhere(lambda: None, [again])
    assert next(told, "the error of an earlier try is no end") == "the error of an earlier try is no end"
    monkeypatch.setattr(sweeping, "SEEN_WITHIN", 0.0)
    lost = SimpleNamespace(folder=SimpleNamespace(is_finished=False, path=tmp_path / "gone", error=tmp_path / "none"))
    sweeping._elsewhere(lambda: None, [lost])
