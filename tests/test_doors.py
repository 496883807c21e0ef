"""What a shell, a container, a cluster or somebody else's repository leaves around a command changes nothing, or is told."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from marks import slow

from extrap.config import compose
from extrap.config.compose import compose_grid
from extrap.config.overrides import as_typed, texts
from extrap.data.text import Text
from extrap.errors import UserError
from extrap.files import as_path
from extrap.sweep.engines import places
from extrap.sweep.progress import Stage, progress_line
from extrap.sweep.sweep import refuse_left_over
from extrap.train.cores import cpu_quota

ROOT = Path(__file__).parents[1]
TINY = ["experiment=smoke", "position=rope", "seed=0", "data=markov", "objective=causal"]

torch.set_num_threads(1)


# text is what was typed


@pytest.mark.parametrize(
    "name",
    ["12e4567", "null", *slow("99e9999", "1e3", "true", "1_0", "0x10", "007", "nan", "2024-01-01", "1.50", "-1", "no")],
)
def test_a_name_is_what_was_typed(name):
    for given in (f"name={name}", f"++name={name}", f"name='{name}'"):
        assert compose_grid([*TINY, given])[0].results == Path("results", name)


def test_paths_are_what_was_typed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    text = ["data=text", "data.train=[2024, 1e3 ,a(1).txt,~/x,'b, c']", "data.valid=[null,it's.txt,007]"]
    for place in ("~/r", "'~/r'", '"~/r"'):
        [config] = compose_grid([*TINY, *text, f"runtime.results_dir={place}"])
        assert config.results == Path("/home/somebody/r/smoke")
    assert config.data["train"] == ["2024", "1e3", "a(1).txt", "~/x", "b, c"]
    assert config.data["valid"] == ["null", "it's.txt", "007"]
    assert compose_grid([*TINY, "runtime.results_dir=1e3"])[0].results == Path("1e3/smoke")


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert as_path("~") == Path("/home/somebody")
    assert as_path("a/~") == Path("a/~")
    with pytest.raises(UserError, match=r"~qxqx/a: nobody .* \./~qxqx/a"):
        as_path("~qxqx/a")


def test_the_home_of_a_text_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for part in ("train", "valid"):
        (tmp_path / f"{part}.txt").write_text(f"All happy families are alike in {part}. " * 200)
    source = Text(["~/train.txt"], ["~/valid.txt"])
    assert source.describe() == Text([f"{tmp_path}/train.txt"], [f"{tmp_path}/valid.txt"]).describe()


@pytest.mark.parametrize(
    "override",
    ["seed=1_0", "train.lr=1e-3", "position=glob(*)", "name=${oc.env:X}", "name='a'", "name=", "data.train=x",
     "position={}", "hydra.launcher.n_jobs=2", "~position.base", "nothing"],
)  # fmt: skip
def test_what_is_no_text_is_left_to_hydra(override):
    assert as_typed(override, texts(compose.CONF)) == override


@pytest.mark.slow
def test_an_experiment_whose_name_yaml_would_change_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "CONF", Path(shutil.copytree(compose.CONF, tmp_path / "conf")))
    file = compose.CONF / "experiment" / "mine.yaml"
    for name, read in (("12e4567", "inf"), ("1_0", "10"), ("010", "8"), ("true", "True"), ("2024", "2024")):
        file.write_text(f"# @package _global_\ndefaults: [smoke, _self_]\nname: {name}\n")
        with pytest.raises(UserError, match=rf"mine\.yaml: name is {read} in YAML; put it in quotes"):
            compose_grid(["experiment=mine"])
        file.write_text(f"# @package _global_\ndefaults: [smoke, _self_]\nname: '{name}'\n")
        assert compose_grid(["experiment=mine"])[0].name == name


# what a scheme takes


def test_an_option_of_the_swept_schemes_needs_none_of_the_default_one():
    found = compose_grid(["experiment=smoke", "seed=0", "position=glob(loc*)", "position.window=3"])
    assert [config.scheme for config in found] == ["local(rope, window=3)"]
    found = compose_grid(["experiment=smoke", "seed=0", "position=rope,sinusoidal", "position.base=10000,500"])
    assert [config.scheme for config in found] == ["rope", "rope(base=500.0)", "sinusoidal", "sinusoidal(base=500.0)"]


def test_help_shows_what_can_be_chosen_and_every_option():
    line = [sys.executable, "-m", "extrap", "position=local", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("position=alibi | ", "hydra/launcher=", "  position.window=64\n", "train.precision=auto\n"):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 125


# cores of a container


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {}, 2**31),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, 2**31),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        ("0::/docker/of/the/host\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/../..\n", {"cpu.max": "300000 100000"}, 3),
        ("5:memory:/\n4:cpu,cpuacct:/docker/x\n0::/\n",
         {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2**31),
        ("0::/\n", {"cpu.max": "nonsense"}, 2**31),
    ],
)  # fmt: skip
def test_the_quota_of_a_container_counts(tmp_path, groups, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert cpu_quota(tmp_path, groups) == cores


# sockets, processes, logs

SERVE = """
import multiprocessing, sys
from extrap.sweep.engines.places import keep_sockets_short
keep_sockets_short()
process = multiprocessing.get_context("forkserver").Process(target=print, args=("served",))
process.start(); process.join(); sys.exit(process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="multiprocessing does that itself")
def test_a_long_tmpdir_is_no_hindrance(tmp_path, monkeypatch):
    long = tmp_path / ("d" * 110)
    long.mkdir()
    before = set(Path(places.SHORT_TMPDIR).glob("pymp-*"))
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        env=os.environ | {"TMPDIR": str(long)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "served\n", "")
    assert set(Path(places.SHORT_TMPDIR).glob("pymp-*")) <= before, "the folder is gone again"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path)[:40])
    places.keep_sockets_short()
    assert tempfile.gettempdir() == str(tmp_path)[:40]


def test_processes_that_torchrun_has_not_started_are_told():
    refuse_left_over({"WORLD_SIZE": "4"})  # alone it says nothing
    refuse_left_over({"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"})
    with pytest.raises(UserError, match=r"no torchrun is at work: unset WORLD_SIZE RANK MASTER_ADDR; .* torchrun"):
        refuse_left_over({"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "127.0.0.1"})
    gone = {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "TORCHELASTIC_RUN_ID": "x"}
    refuse_left_over({**gone, "TORCHELASTIC_USE_AGENT_STORE": "False"})
    with pytest.raises(UserError, match=r"no torchrun is at work: unset WORLD_SIZE .* TORCHELASTIC_RUN_ID TORCHELASTIC_USE"):
        refuse_left_over({**gone, "TORCHELASTIC_USE_AGENT_STORE": "True"})


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "no torchrun is at work"),
        *slow(({"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}, "no torchrun is at work")),
    ],
)
def test_the_command_tells_of_left_over_processes_within_seconds(tmp_path, more, told):
    line = [sys.executable, "-m", "extrap", *TINY, f"runtime.results_dir={tmp_path}"]
    left = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=100, env=os.environ | left | more)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_log_is_told_how_far_a_sweep_is():
    runs = [
        Stage("a", "done", 100, 100, 10.0, ""),
        Stage("b", "running", 65, 100, 6.5, ""),
        Stage("c", "waiting", 0, 100, 0, ""),
    ]
    assert progress_line(runs, already=0.0, seconds=90.0, evaluation=0.3) == "1 of 3 runs, 50%; 01:30 elapsed, 01:30 left"
    assert progress_line(runs, already=1.0, seconds=90.0, evaluation=0.3) == "1 of 3 runs, 50%; 01:30 elapsed, 04:30 left"
    assert progress_line(runs, already=1.5, seconds=90.0, evaluation=0.3) == "1 of 3 runs, 50%; 01:30 elapsed, ? left"
    told = progress_line(runs, already=0.0, seconds=90.0, evaluation=1.6)  # as a run that is done has taken
    assert told == "1 of 3 runs, 42%; 01:30 elapsed, 02:06 left"


# whose commit it is


def git(place: Path, *arguments: str) -> str:
    line = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def recorded(place: Path, **environment: str) -> dict:
    code = "from extrap.runs.run import git_state; print(git_state())"
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)} | environment,
    )
    return eval(done.stdout)


@pytest.mark.slow
def test_the_commit_of_somebody_elses_repository_is_not_recorded(tmp_path):
    thesis = tmp_path / "thesis"
    copy = thesis / "extrap"
    for part in ("extrap", "conf"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    nothing = {"git_commit": None, "git_dirty": None}
    assert recorded(copy) == nothing
    git(tmp_path, "init", "-q", "thesis")
    git(thesis, "commit", "-q", "--allow-empty", "-m", "x")
    assert recorded(copy) == nothing
    git(thesis, "add", ".")
    git(thesis, "commit", "-q", "-m", "the whole of it")
    assert recorded(copy) == nothing, "of what else it holds a commit says more than of the program"
    git(thesis, "init", "-q", "extrap")
    git(copy, "commit", "-q", "--allow-empty", "-m", "x")
    assert recorded(copy) == nothing, "a repository at the right place that tracks nothing of it"
    git(copy, "add", "extrap", "conf")
    git(copy, "commit", "-q", "-m", "the program")
    own = {"git_commit": git(copy, "rev-parse", "HEAD"), "git_dirty": False}
    assert recorded(copy) == own
    assert recorded(copy, GIT_DIR=str(thesis / ".git"), GIT_WORK_TREE=str(thesis), GIT_INDEX_FILE="x") == own, "as in a hook"
