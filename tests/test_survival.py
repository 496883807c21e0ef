"""What happens to a sweep costs nothing that was finished and never gives another number: real processes, really killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sweeps import LONG, ON_LINUX, ROOT, TINY, command, copy_of, holder, kill, rows, run, start, status, wait_for

from extrap.config.compose import compose_grid
from extrap.results.folders import RunFolder
from extrap.results.rows import load_rows
from extrap.runs.run import execute
from extrap.sweep import progress
from extrap.sweep.checks import prepare_grid
from extrap.sweep.door import through

# ---- killed


def kill_after(results: Path, seconds: float) -> None:
    sweep = start(results)
    try:
        sweep.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(sweep)


AT_A_RENAME = """
import os, pathlib, signal
real, calls = pathlib.Path.replace, []
def replace(self, target):
    calls.append(1)
    now = len(calls) == {n} and ({where!r} in str(target))
    if now and not {after}:
        os.killpg(0, signal.SIGKILL)
    found = real(self, target)
    if now:
        os.killpg(0, signal.SIGKILL)
    return found
pathlib.Path.replace = replace
"""


def kill_at_rename(results: Path, place: Path, where: str, n: int, after: bool) -> None:
    """Ends everything at the n-th rename of whichever process comes to it first, if it is one of these files."""
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(AT_A_RENAME.format(n=n, where=where, after=after))
    start(results, PYTHONPATH=str(place)).communicate()


def moments(count: int) -> list[tuple[str, float, bool]]:
    """Half of them anywhere in the life of a sweep, half at renames: of a checkpoint, weights, rows, a table."""
    rng = random.Random(count)
    anywhere = [("", rng.uniform(0.5, 9.0), False) for _ in range(count - count // 2)]
    return anywhere + [("/", float(rng.randint(1, 16)), bool(rng.randint(0, 1))) for _ in range(count // 2)]


def assert_survives(moment, results, swept):
    where, when, after = moment
    if where:
        kill_at_rename(results, results / "patch", where, int(when), after)
    else:
        kill_after(results, when)
    done = run(results)
    assert done.returncode == 0, done.stderr
    assert rows(results) == rows(swept)
    assert not [*results.rglob("*.partial"), *results.rglob(".draft-*")]


@pytest.mark.slow
@pytest.mark.parametrize("moment", moments(25))
def test_a_sweep_killed_at_any_moment_comes_to_the_same_rows(moment, tmp_path, swept):
    assert_survives(moment, tmp_path, swept)


@pytest.mark.slow
@ON_LINUX
def test_a_killed_worker_ends_its_own_run_alone(tmp_path, swept):
    sweep = start(tmp_path)
    os.kill(wait_for(lambda: holder(tmp_path / "runs" / "smoke" / "rope-seed0"), sweep), signal.SIGKILL)
    _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "1 of 2 runs are finished" in stderr
    assert "rope-seed0: its process was ended by SIGKILL; a machine that runs out of memory does that" in stderr
    assert "Traceback" not in stderr
    assert run(tmp_path).returncode == 0
    assert rows(tmp_path) == rows(swept)


@pytest.mark.slow
@ON_LINUX
def test_workers_end_with_their_sweep(tmp_path):
    folder = tmp_path / "runs" / "smoke" / "rope-seed0"
    sweep = start(tmp_path, *LONG)
    wait_for(lambda: holder(folder), sweep)
    sweep.kill()  # it alone, so that nobody tells them
    sweep.communicate(timeout=10)  # its pipes are theirs too: they end with the last of them
    assert holder(folder) is None


# ---- two at once


@pytest.mark.slow
def test_a_second_sweep_on_the_same_folder_is_refused(tmp_path):
    sweep = start(tmp_path, *LONG)
    try:
        wait_for(lambda: list(tmp_path.glob("runs/smoke/*/train.csv")), sweep)
        second = run(tmp_path, *LONG)
        assert second.returncode == 2
        assert second.stderr.startswith("error: another sweep is at work on ")
        assert second.stderr.count("\n") == 1
        assert " running" in status(tmp_path).stdout
        assert sweep.poll() is None
    finally:
        kill(sweep)


# ---- damaged, changed, full


def altered(content: bytes) -> bytes:
    return content[: (half := len(content) // 2)] + bytes([content[half] ^ 1]) + content[half + 1 :]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def test_a_killed_run_goes_on_and_a_damaged_checkpoint_is_told_and_made_again(tmp_path, swept, capsys):
    sweep = start(tmp_path / "killed", "position=rope")
    wait_for((tmp_path / "killed" / "runs" / "smoke" / "rope-seed0" / "checkpoint.pt").exists, sweep)
    kill(sweep)
    for damage in (bytes, altered, truncated):  # none, and two
        results = copy_of(tmp_path / "killed", tmp_path / damage.__name__)
        (cell,) = prepare_grid(compose_grid([*TINY, "position=rope", f"runtime.results_dir={results}"]))
        checkpoint = cell.config.folder / "checkpoint.pt"
        checkpoint.write_bytes(damage(checkpoint.read_bytes()))
        execute(cell)
        assert ("checkpoint.pt is damaged" in capsys.readouterr().err) == (damage is not bytes)
        undisturbed = swept / "runs" / "smoke" / "rope-seed0" / "eval.csv"
        assert (cell.config.folder / "eval.csv").read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_what_is_damaged_in_a_finished_run_is_told_or_made_again(tmp_path, swept):
    """One after the other in one folder: torn rows, torn weights and log, a run that says of what no more."""
    folder = copy_of(swept, tmp_path) / "runs" / "smoke" / "rope-seed0"
    rows_of_run = (folder / "eval.csv").read_text()
    (folder / "eval.csv").write_text(rows_of_run[: rows_of_run.rindex(",")])  # within the last row
    done = run(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "eval.csv is not what its run wrote" in done.stderr
    (folder / "eval.csv").unlink()
    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-1])
    (folder / "train.csv").write_bytes(b"step\n\xff\xfe,x\n10,1,")
    done = run(tmp_path)
    assert done.returncode == 0
    assert "model.pt is damaged" in done.stderr
    assert rows(tmp_path) == rows(swept)
    (folder / "config.yaml").unlink()
    done = run(tmp_path, "train.lr=0.5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_pickle_in_place_of_a_checkpoint_is_not_run(tmp_path, swept):
    folder = copy_of(swept, tmp_path) / "runs" / "smoke" / "rope-seed0"
    for name in ("eval.csv", "model.pt"):
        (folder / name).unlink()
    (folder / "checkpoint.pt").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    done = run(tmp_path)
    assert done.returncode == 0
    assert "is damaged" in done.stderr
    assert not (tmp_path / "run").exists()
    assert rows(tmp_path) == rows(swept)


def copy_of_the_project(place: Path) -> Path:
    for part in ("extrap", "experiments", "conf"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.slow
def test_rows_of_another_version_of_the_program_are_not_mixed(tmp_path):
    results, project = tmp_path / "results", copy_of_the_project(tmp_path / "project")
    assert run(results, "position=kerple").returncode == 0
    kerple = project / "extrap" / "positions" / "kerple.py"  # which is part of no extension
    source = kerple.read_text()
    kerple.write_text(source + "\n# a remark\n")
    assert run(results, "position=kerple,nope", root=project).returncode == 0, "a remark changes no answer"
    kerple.write_text(source + "\nHALF = 0.5\n")
    done = run(results, "position=kerple,nope", "seed=1,0", root=project)
    assert done.returncode == 2
    assert "holds a run of another version of its scheme: scheme_code: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (results / "runs" / "smoke" / "kerple-seed1").exists()
    assert run(results, "name=other", "position=kerple", root=project).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edited", "old", "new"),
    [
        ("train/optimizer.py", "return 1 - done", "return 0.1 - 0.1 * done"),
        ("positions/nope.py", "class Nope(PositionScheme):", "class Nope(PositionScheme):\n    embed = None\n"),
    ],
)
def test_a_sweep_whose_program_is_edited_meanwhile_ends_as_what_it_began(tmp_path, swept, edited, old, new):
    results, project = tmp_path / "results", copy_of_the_project(tmp_path / "project")
    (project / "extrap" / ".#errors.py").symlink_to("nobody@nowhere")  # as an editor leaves it
    sweep = start(results, "hydra.launcher.n_jobs=1", root=project)
    wait_for((results / "runs" / "smoke" / "rope-seed0" / "config.yaml").exists, sweep)
    source = (project / "extrap" / edited).read_text()
    assert old in source
    (project / "extrap" / edited).write_text(source.replace(old, new))
    assert sweep.communicate(timeout=120)[1] == ""
    assert rows(results) == rows(swept)
    done = run(results, root=project)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds a run of another version of the program: " in done.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sweep.yaml", "{}"), ("sweep.yaml", "runs: {}"), ("sweep.yaml", "runs: {1: 5}"), ("sweep.yaml", "runs: {a: 0}"),
        ("sweep.yaml", "[\0"), ("rope-seed0/meta.json", '{"costs": {}}'),
        ("rope-seed0/meta.json", '{"costs": {"train_seconds": "x", "eval_seconds": 1}}'),
        ("rope-seed0/train.csv", "10,1,1,1,1,1.2.3\n"),
    ],
)  # fmt: skip
def test_status_of_what_is_damaged_is_a_line_and_hides_no_other(tmp_path, swept, capsys, name, content):
    runs = copy_of(swept, tmp_path) / "runs"
    shutil.copytree(runs / "smoke", runs / "other")
    (runs / "smoke" / name).write_text(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["progress", "--results", str(tmp_path)])
        code = through(progress.main)
    told = capsys.readouterr()
    assert "other: 2 done" in told.out
    assert (code, told.err.count("\n")) == ((2, 1) if "train.csv" not in name else (0, 0))


@pytest.mark.slow
def test_other_data_under_an_old_run_are_refused_with_the_difference(tmp_path):
    corpus = tmp_path / "corpus"
    for part in ("train", "valid"):
        (corpus / part).mkdir(parents=True)
        for i in range(3):
            (corpus / part / f"{i}.txt").write_text("".join(random.Random(f"{part}{i}").choices("abcdef ", k=4000)))
    text = ["data=text", f"data.train=[{corpus}/train]", f"data.valid=[{corpus}/valid]", "eval.lengths=[32,64]"]
    results = tmp_path / "results"
    assert run(results, *text).returncode == 0
    before = rows(results)
    (corpus / "train" / "1.txt").write_text("something else " * 300)
    done = run(results, *text)
    assert done.returncode == 2
    assert "data.sha256: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert rows(results) == before


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 8 MB; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_disk_that_becomes_full_costs_nothing_that_was_finished(small_disk, swept):
    sweep = start(small_disk)
    wait_for(lambda: list(small_disk.glob("runs/smoke/*/checkpoint.pt")), sweep)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode in (1, 2)
    assert "Traceback" not in stderr
    assert "No space left on device" in stderr
    filler.unlink()
    assert run(small_disk).returncode == 0
    assert rows(small_disk) == rows(swept)


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_told_before_anything_is_trained(small_disk):
    done = run(small_disk, "model.d_model=256", "model.d_ff=1024", "model.n_layers=4")
    assert done.returncode == 2
    assert "runtime.results_dir: weights and checkpoints take " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(small_disk.rglob("*-seed0"))


# ---- what has no number


@pytest.mark.slow
def test_a_run_that_diverges_is_told_and_has_no_number(tmp_path):
    done = run(tmp_path, "train.lr=1e20", "position=rope,nope")
    assert done.returncode == 2, "there is nothing to report"
    assert "rope-seed0: diverged at step " in done.stderr
    assert "no run has rows" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/smoke/*-seed0/eval.csv"))
    again = run(tmp_path, "train.lr=1e20", "position=rope,nope")
    assert again.stderr == done.stderr, "it is not tried again"


SHORT_OF_MEMORY = """
import resource, sys
import extrap.sweep.engines.local, extrap.report.report  # all that a sweep imports, before it is measured
from extrap.sweep.sweep import main
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + {more}, used + {more}))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_length_that_does_not_fit_into_memory_says_so_and_shorter_ones_keep_their_numbers(tmp_path):
    wide = ["model.d_model=64", "model.d_ff=16384", "eval.n_segments=1", "eval.protocols=[nonoverlap]"]
    long = [*wide, "eval.lengths=[32,64,2048]", "position=alibi", "train.max_steps=6"]
    code = SHORT_OF_MEMORY.format(more=200 * 2**20)
    overrides = command(tmp_path, *long)[3:]
    done = subprocess.run([sys.executable, "-c", code, *overrides], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "out of memory" in done.stdout
    scored = load_rows(tmp_path / "smoke" / "rows.csv").query("run == 'alibi-seed0' and extension == 'none'")
    assert {*scored["protocol"], *scored["eval_len"]} == {"nonoverlap", 32, 64}
    assert ",2048,out of memory" in (tmp_path / "smoke" / "missing.csv").read_text()


# ---- seen from outside


def test_an_error_that_is_gone_by_the_time_it_is_read_is_none(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "rope-seed0")
    folder.path.mkdir()
    folder.log.touch()
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert progress.look(folder, 60).told == ""


@pytest.mark.slow
def test_status_is_read_from_files_alone(tmp_path, swept):
    nothing = status(tmp_path)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    runs = copy_of(swept, tmp_path) / "runs" / "smoke"
    assert status(tmp_path).stdout.startswith("smoke: 2 done\n")
    plan = yaml.safe_load((runs / "sweep.yaml").read_text())
    plan["runs"]["nope-seed1"] = 60
    (runs / "nope-seed1" / "error.log").mkdir(parents=True)  # nobody's log
    (runs / "sweep.yaml").write_text(yaml.safe_dump(plan))
    assert "2 done, 1 waiting; no sweep is at work on it" in status(tmp_path, "smoke").stdout
    assert status(tmp_path, "smoek").stderr.endswith("holds no sweep; there are smoke\n")
