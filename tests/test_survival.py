"""What happens to a sweep costs nothing that was finished and never gives another number: real processes, really killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TINY = [
    "experiment=smoke", "data=markov", "objective=causal", "position=rope,alibi", "seed=0", "train.max_steps=60",
    "train.warmup_steps=5", "runtime.checkpoint_every=10", "hydra.launcher.n_jobs=2", "eval.extensions=[none]",
]  # fmt: skip
LONG = ["train.max_steps=100000"]


def command(results: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "experiments.run", *TINY, f"runtime.results_dir={results}", *overrides]


def run(results: Path, *overrides: str, root: Path = ROOT, **options) -> subprocess.CompletedProcess:
    line = command(results, *overrides)
    return subprocess.run(line, capture_output=True, text=True, cwd=root, timeout=300, **options)


def start(results: Path, *overrides: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(results, *overrides), cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
    return found


def holders(lock: Path) -> list[int]:
    """The processes that have this file open."""
    found = []
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.path.realpath(one) == str(lock) for one in descriptors.iterdir()):
                found.append(int(descriptors.parent.name))
        except OSError:  # gone meanwhile
            continue
    return found


def rows(results: Path) -> bytes:
    return (results / "smoke" / "rows.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    results = tmp_path_factory.mktemp("undisturbed")
    done = run(results)
    assert (done.returncode, done.stderr) == (0, "")
    return rows(results)


# ---- killed


def kill_after(results: Path, seconds: float) -> None:
    process = start(results)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


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
    process = start(results, env=os.environ | {"PYTHONPATH": str(place)})
    process.communicate()


def moments(count: int) -> list[tuple[str, float, bool]]:
    """Half of them anywhere in the life of a sweep, half at renames: of a checkpoint, weights, rows, a table."""
    rng = random.Random(count)
    anywhere = [("", rng.uniform(0.5, 9.0), False) for _ in range(count - count // 2)]
    return anywhere + [("/", float(rng.randint(1, 16)), bool(rng.randint(0, 1))) for _ in range(count // 2)]


def assert_survives(moment, results, undisturbed):
    where, when, after = moment
    if where:
        kill_at_rename(results, results / "patch", where, int(when), after)
    else:
        kill_after(results, when)
    done = run(results)
    assert done.returncode == 0, done.stderr
    assert rows(results) == undisturbed
    assert not [*results.rglob("*.partial"), *results.rglob(".draft-*")]


@pytest.mark.parametrize("moment", moments(3))
def test_a_sweep_killed_at_some_moments_comes_to_the_same_rows(moment, tmp_path, undisturbed):
    assert_survives(moment, tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("moment", moments(25))
def test_a_sweep_killed_at_any_moment_comes_to_the_same_rows(moment, tmp_path, undisturbed):
    assert_survives(moment, tmp_path, undisturbed)


def test_a_killed_worker_ends_its_own_run_alone(tmp_path, undisturbed):
    lock = tmp_path / "runs" / "smoke" / "locks" / "rope-seed0.lock"
    process = start(tmp_path)
    worker = wait_for(lambda: holders(lock))[0]
    os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 of 2 runs are finished" in stderr
    assert "rope-seed0: its process was ended by SIGKILL; a machine that runs out of memory does that" in stderr
    assert "Traceback" not in stderr
    assert run(tmp_path).returncode == 0
    assert rows(tmp_path) == undisturbed


def test_workers_end_with_their_sweep(tmp_path):
    lock = tmp_path / "runs" / "smoke" / "locks" / "rope-seed0.lock"
    process = start(tmp_path, *LONG)
    (worker,) = wait_for(lambda: holders(lock))
    process.kill()  # it alone, so that nobody tells them
    process.communicate()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), seconds=10)


# ---- two at once


def test_a_second_sweep_on_the_same_folder_is_refused(tmp_path):
    process = start(tmp_path, *LONG)
    try:
        wait_for(lambda: list(tmp_path.glob("runs/smoke/*/train.csv")))
        second = run(tmp_path, *LONG)
        assert second.returncode == 2
        assert second.stderr.startswith("error: another sweep is at work on ")
        assert second.stderr.count("\n") == 1
        told = subprocess.run(
            [sys.executable, "-m", "experiments.progress", "--results", tmp_path], capture_output=True, text=True, cwd=ROOT
        )
        assert "smoke: 2 running" in told.stdout
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# ---- damaged, changed, full


@pytest.mark.parametrize("damage", ["truncated", pytest.param("altered", marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_told_and_made_again(damage, tmp_path, undisturbed):
    checkpoint = tmp_path / "runs" / "smoke" / "rope-seed0" / "checkpoint.pt"
    process = start(tmp_path)
    wait_for(checkpoint.exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content if damage == "altered" else content[: len(content) // 2])
    done = run(tmp_path)
    assert done.returncode == 0
    assert "checkpoint.pt is damaged" in done.stderr
    assert rows(tmp_path) == undisturbed


def test_damaged_weights_are_told_and_made_again(tmp_path, undisturbed):
    assert run(tmp_path).returncode == 0
    folder = tmp_path / "runs" / "smoke" / "rope-seed0"
    (folder / "eval.csv").unlink()
    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-1])
    done = run(tmp_path)
    assert done.returncode == 0
    assert "model.pt is damaged" in done.stderr
    assert rows(tmp_path) == undisturbed


def test_what_else_is_damaged_in_a_run_is_told_or_made_again(tmp_path, undisturbed):
    """One after the other in one folder: rows that were changed, a torn log, a run that says of what no more."""
    assert run(tmp_path).returncode == 0
    folder = tmp_path / "runs" / "smoke" / "rope-seed0"
    rows_of_run = (folder / "eval.csv").read_text()
    (folder / "eval.csv").write_text(rows_of_run[: rows_of_run.rindex("\n", 0, -1) + 1])  # the last row is gone
    done = run(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "eval.csv is not what was written; remove it, and its run is scored again" in done.stderr
    for name in ("eval.csv", "model.pt"):
        (folder / name).unlink()
    (folder / "train.csv").write_bytes(b"step\n\xff\xfe,x\n10,1,")
    assert run(tmp_path).returncode == 0
    assert rows(tmp_path) == undisturbed
    (folder / "config.yaml").unlink()
    done = run(tmp_path, "train.lr=0.5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_pickle_in_place_of_a_checkpoint_is_not_run(tmp_path, undisturbed):
    assert run(tmp_path).returncode == 0
    folder = tmp_path / "runs" / "smoke" / "rope-seed0"
    for name in ("eval.csv", "model.pt"):
        (folder / name).unlink()
    (folder / "checkpoint.pt").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    done = run(tmp_path)
    assert done.returncode == 0
    assert "is damaged" in done.stderr
    assert not (tmp_path / "run").exists()
    assert rows(tmp_path) == undisturbed


def copy_of_the_project(place: Path) -> Path:
    for part in ("extrap", "experiments", "conf"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.slow
def test_rows_of_another_version_of_the_program_are_not_mixed(tmp_path):
    results, project = tmp_path / "results", copy_of_the_project(tmp_path / "project")
    assert run(results, "position=rope").returncode == 0
    rope = project / "extrap" / "positions" / "rope.py"
    source = rope.read_text()
    rope.write_text(source + "\n# a remark\n")
    assert run(results, "position=rope,alibi", root=project).returncode == 0, "a remark changes no answer"
    rope.write_text(source + "\nHALF = 0.5\n")
    done = run(results, "position=rope,alibi", "seed=1,0", root=project)
    assert done.returncode == 2
    assert "holds a run of another version of the program: scheme_code: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (results / "runs" / "smoke" / "rope-seed1").exists()
    assert run(results, "name=other", "position=rope", root=project).returncode == 0


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
def test_a_disk_that_becomes_full_costs_nothing_that_was_finished(small_disk, undisturbed):
    process = start(small_disk)
    wait_for(lambda: list(small_disk.glob("runs/smoke/*/checkpoint.pt")))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert "Traceback" not in stderr
    assert "No space left on device" in stderr
    filler.unlink()
    assert run(small_disk).returncode == 0
    assert rows(small_disk) == undisturbed


def test_a_disk_that_is_too_small_is_told_before_anything_is_trained(small_disk):
    done = run(small_disk, "model.d_model=256", "model.d_ff=1024", "model.n_layers=4")
    assert done.returncode == 2
    assert "runtime.results_dir: weights and checkpoints take " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(small_disk.rglob("*-seed0"))


# ---- what has no number


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
import experiments.engines.local, experiments.report  # all that a sweep imports, before it is measured
from experiments.run import main
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
    table = (tmp_path / "smoke" / "rows.csv").read_text()
    assert ",alibi,none,causal,markov,nonoverlap,32,64," in table
    assert ",alibi,none,causal,markov,nonoverlap,32,2048," not in table
    assert ",2048,out of memory" in (tmp_path / "smoke" / "missing.csv").read_text()


# ---- seen from outside


def test_status_is_read_from_files_alone(tmp_path, undisturbed):
    def status(*names: str) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "experiments.progress", "--results", str(tmp_path), *names]
        return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60)

    nothing = status()
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    runs = tmp_path / "runs" / "smoke"
    (runs / "rope-seed0").mkdir(parents=True)
    (runs / "rope-seed0" / "train.csv").mkdir()
    assert run(tmp_path).returncode == 1
    told = status()
    assert told.stdout.startswith("smoke: 1 done, 1 failed; no sweep is at work on it")
    assert "IsADirectoryError" in told.stdout
    plan = yaml.safe_load((runs / "sweep.yaml").read_text())
    plan["runs"]["alibi-seed1"] = 60
    (runs / "sweep.yaml").write_text(yaml.safe_dump(plan))
    assert "1 waiting" in status("smoke").stdout
    assert status("smoek").stderr.endswith("holds no sweep; there are smoke\n")
