"""What make says and does before Python is at work: slips are refused, and the environment is made when it has to be."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
# notes what it is asked to do, and makes an environment whose python is this one
echo "$@" >> {log}
if [ "$1 $2" = "-m venv" ]; then mkdir -p .venv/bin; rm -f .venv/bin/python; cp {python} .venv/bin/python; fi
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Checkout:
    """What make reads, and a Python that only notes what it is asked to do."""

    def __init__(self, place: Path) -> None:
        self.place, self.log, self.python = place / "checkout", place / "log", place / "python"
        shutil.copytree(ROOT / "conf", self.place / "conf")
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.place)
        self.python.write_text(PYTHON.format(log=self.log, python=self.python))
        self.python.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        self.log.write_text("")
        line = ["make", "--no-print-directory", f"PYTHON={self.python}", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(line, capture_output=True, text=True, cwd=self.place, timeout=60, env=clean | environment)

    def commands(self, *arguments: str) -> list[str]:
        """What make asks Python to do, but for its looks at the environment."""
        done = self.make(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return [line for line in self.log.read_text().splitlines() if line.startswith("-m")]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", "position=twist"], "position=...: make sweep takes ARGS EXPERIMENT"),
        (["sweep", "experiment=smoke"], 'options of a run go into ARGS="option=value ..."'),
        (["sweep", "data.train=[a b]"], "data.train=...: make sweep takes"),
        (["sweep", "EXPERIMNT=smoke"], "EXPERIMNT=..."),
        (["sweep", "FIGURE=su2021_figure3"], "FIGURE=...: make sweep takes"),
        (["report", "SCHEME=mine.py"], "SCHEME=...: make report takes"),
        (["check-scheme", "EXPERIMENT=main"], "EXPERIMENT=...: make check-scheme takes ARGS PYTHON REFERENCE SCHEME"),
        (["sweep", "name=mine"], "name=...: make sweep takes ARGS EXPERIMENT"),
        (["report", "ARGS=position=rope"], "ARGS=...: make report takes BEST EXPERIMENT PYTHON RESULTS TABLE"),
        (["test", "ARGS=-k x"], "ARGS=...: make test takes PYTHON"),
        (["sweep", "ARGS=position=rope,", "alibi"], "alibi: no such target; there are help setup sweep"),
        (["sweeep"], "sweeep: no such target"),
        (["sweep", "LAUNCHER=ray", "JOBS=2"], "JOBS is for LAUNCHER=local"),
        (["smoke", "RESULTS=my results"], "RESULTS=my results: expected the name of a folder, without spaces"),
        (["smoke", "RESULTS="], "RESULTS=: expected the name of a folder"),
    ],
)
def test_a_slip_is_refused_before_anything_runs(checkout, arguments, told):
    done = checkout.make(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert checkout.log.read_text() == ""


def test_windows_is_told_in_one_line(checkout):
    done = checkout.make("sweep", OS="Windows_NT")
    assert "within WSL" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_environment_is_made_once_and_again_when_what_it_holds_has_changed(checkout):
    first = checkout.commands("setup")
    assert [line.split()[1] for line in first] == ["venv", "pip", "compileall"]
    assert checkout.commands("setup") == []
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(checkout.place / name)  # git pull moves clocks
    assert checkout.commands("setup") == []
    pyproject = checkout.place / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("line-length = 125", "line-length = 100"))
    assert checkout.commands("setup") == [], "nothing of what is installed has changed"
    with (checkout.place / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    assert checkout.commands("setup") == ["-m venv .venv", *first[1:]]
    assert len(list((checkout.place / ".venv").glob("ready*"))) == 1


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.commands("setup")
    python = checkout.place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python")
    assert checkout.commands("setup")[0] == "-m venv --clear .venv"
    assert checkout.commands("setup") == []


def test_what_python_is_asked_to_do(checkout):
    checkout.commands("setup")
    run = "-m extrap experiment="
    local = "hydra/launcher=local hydra.launcher.n_jobs"
    assert checkout.commands("sweep", "ARGS=data.train=[a(1).txt] position=glob(*)") == [
        f"{run}main {local}=-1 data.train=[a(1).txt] position=glob(*)"
    ]
    assert checkout.commands("sweep", "ARGS='name=a b' seed=0", "JOBS=2", "RESULTS=r") == [
        f"{run}main {local}=2 runtime.results_dir=r name=a b seed=0"
    ]
    mine = "my dir/mine.py:Mine(alpha=2, kind='log') b.py"
    assert checkout.commands("sweep", f"SCHEME={mine}", "ARGS=seed=0") == [f"{run}main {local}=-1 scheme={mine} seed=0"]
    check = ["check-scheme", f"SCHEME={mine}"]
    assert checkout.commands(*check) == [f"-m extrap.sweep.check {mine}"]
    assert checkout.commands(*check, "REFERENCE=a b.py:f", "ARGS=position.window=[1,2]") == [
        f"-m extrap.sweep.check {mine} --reference a b.py:f position.window=[1,2]"
    ]
    (checkout.place / ".venv" / "extra-ray").touch()
    assert checkout.commands("smoke", "LAUNCHER=ray") == [f"{run}smoke hydra/launcher=ray"]
    assert checkout.commands("corpus", "NAME=wikitext-2") == ["-m extrap.sweep.corpus wikitext-2"]
    assert checkout.commands("status") == ["-m extrap.sweep.progress --results results"]
    assert checkout.commands("status", "RESULTS=~", "EXPERIMENT=a") == [
        f"-m extrap.sweep.progress --results {Path.home()} a"
    ]
    assert checkout.commands("report", "EXPERIMENT=a", "RESULTS=r", "TABLE=lengths=128,256 schemes=rope") == [
        "-m experiments.report --results r gather a --table lengths=128,256 schemes=rope"
    ]
    assert checkout.commands("report", "EXPERIMENT=a b") == ["-m experiments.report --results results gather a b"]


@pytest.mark.parametrize(
    ("machine", "mac", "libc", "told"),
    [
        ("x86_64", "13.6", ("", ""), "macOS 14 or later on Apple silicon"),
        ("arm64", "12.7.1", ("", ""), "macOS 12.7.1 on arm64"),
        ("arm64", "14.0", ("", ""), ""),
        ("arm64", "26.1", ("", ""), ""),
        ("x86_64", "", ("glibc", "2.17"), "glibc 2.28 or later"),
        ("x86_64", "", ("glibc", "2.28"), ""),
        ("aarch64", "", ("glibc", "2.41"), ""),
        ("x86_64", "", ("", ""), "another C library"),
        ("x86_64", "", ("musl", "1.2.5"), "musl 1.2.5"),
        ("ppc64le", "", ("glibc", "2.34"), "Linux on ppc64le"),
    ],
)
def test_platforms_without_pytorch_are_named(monkeypatch, machine, mac, libc, told):
    import platform
    import sys

    text = (ROOT / "Makefile").read_text()
    code = text.partition("define PLATFORM\n")[2].partition("endef")[0]
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: (mac, ("", "", ""), machine))
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(sys, "platform", "darwin" if mac else "linux")
    if told:
        with pytest.raises(SystemExit, match=told):
            exec(compile(code, "Makefile", "exec"), {})
    else:
        exec(compile(code, "Makefile", "exec"), {})
