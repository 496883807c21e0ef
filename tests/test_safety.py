"""No config, corpus or checkpoint that somebody was handed runs code, or writes outside the results."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from marks import slow

from extrap.config import compose
from extrap.config.compose import compose_grid
from extrap.config.specs import target
from extrap.errors import UserError
from extrap.files import write_sealed
from extrap.sweep import sweep as run
from extrap.sweep.checks import prepare_grid
from extrap.sweep.sweep import main
from extrap.train.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]
TINY = ["experiment=smoke", "position=rope", "seed=0", "data=markov", "objective=causal"]

torch.set_num_threads(1)


class NotRefused(Exception):
    """A sweep would begin."""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """An experiment file by somebody else -> the line that refuses it."""

    def begin(*_):
        raise NotRefused

    monkeypatch.setattr(run, "_run_and_report", begin)
    monkeypatch.setattr(compose, "CONF", Path(shutil.copytree(compose.CONF, tmp_path / "conf")))

    def refusal(content: str | bytes, *overrides: str) -> str:
        content = content.encode() if isinstance(content, str) else content
        (compose.CONF / "experiment" / "stranger.yaml").write_bytes(content.replace(b"OWNED", str(owned).encode()))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError) as error:
            compose_grid(["experiment=stranger", *overrides])
        assert sorted(tmp_path.rglob("*")) == before
        assert not owned.exists()
        assert str(error.value).isprintable()
        return str(error.value)

    owned = tmp_path / "owned"
    return refusal


HEAD = """# @package _global_
defaults: [smoke, {override /data: markov}, _self_]
name: stranger
"""
MKDIR = "{_target_: os.mkdir, path: OWNED}"


@pytest.mark.parametrize(
    ("hydra", "told"),
    [
        (f"callbacks: {{x: {MKDIR}}}", "hydra.callbacks.x._target_"),
        (f"launcher: {MKDIR}", "hydra"),
        ("launcher: {_target_: os.mkdir}", "hydra.launcher._target_"),
        (f"launcher: {{n_jobs: {MKDIR}}}", "n_jobs"),
        (f"sweeper: {MKDIR}", "hydra"),
        ("sweeper: {_target_: os.mkdir}", "hydra.sweeper._target_"),
        ("sweeper: {max_batch_size: 1}", "hydra.sweeper.max_batch_size"),
        ("sweeper: {params: {+hydra.callbacks.x._target_: os.mkdir}}", "of hydra only"),
        *slow(
            ("sweeper: {params: {hydra.launcher.n_jobs: 2}}", "of hydra only"),
            ("sweeper: {params: {hydra/job_logging: default}}", "of hydra only"),
            ("sweeper: {params: {+position@hydra.callbacks.x: rope}}", "of hydra only"),
            ("sweeper: {params: 7}", "params"),
            ("sweeper: {params: {seed: }}", "seed"),
            ("sweeper: {params: {--config-dir: /tmp}}", "--config-dir"),
            ("searchpath: [pkg://antigravity]", "hydra.searchpath"),
            ("job: {env_set: {LD_PRELOAD: evil.so}}", "hydra.job.env_set.LD_PRELOAD"),
            ("job: {env_copy: [HOME]}", "hydra.job.env"),
            ("job: {env_copy: [NOT_SET]}", "NOT_SET"),
            ("job: {chdir: true}", "hydra.job.chdir"),
            ("sweep: {dir: OWNED}", "hydra.sweep.dir"),
            ("sweep: {subdir: OWNED}", "hydra.sweep.subdir"),
            ("run: {dir: OWNED}", "hydra.run.dir"),
            ("runtime: {output_dir: OWNED}", "hydra.runtime.output_dir"),
            ("output_subdir: OWNED", "hydra.output_subdir"),
            ("overrides: {hydra: ['+hydra.callbacks.x._target_=os.mkdir']}", "hydra.overrides.hydra"),
            ("mode: RUN", "hydra.mode"),
            ("verbose: true", "hydra.verbose"),
            ("job_logging: {version: 1, handlers: {x: {'()': os.mkdir, path: OWNED}}}", "hydra.job_logging"),
            ("hydra_logging: {version: 1, handlers: {x: {class: os.mkdir}}}", "hydra.hydra_logging"),
            ("help: {template: x}", "hydra.help"),
            ("7", "HydraConf"),
            ("[callbacks]", "Composition"),
            ("{qx: 1}", "qx"),
        ),
    ],
)
def test_an_experiment_cannot_make_hydra_do_anything(stranger, monkeypatch, hydra, told):
    monkeypatch.delenv("NOT_SET", raising=False)
    assert told in stranger(f"{HEAD}hydra:\n  {hydra}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "defaults: [smoke, {/position@hydra.callbacks.x: rope}, _self_]",
        "defaults: [smoke, {/position@hydra.launcher.x: rope}, _self_]",
        "defaults: [smoke, {override /schema@hydra.callbacks: schema}, _self_]",
        f"defaults: [smoke, {{override /data: markov}}, _self_]\nposition: {MKDIR}",
        "defaults: [smoke, {override /data: markov}, {override /position: local}, _self_]\n"
        f"position: {{inner: {MKDIR}}}",
        f"defaults: [smoke, _self_]\ndata: {MKDIR}",
        f"defaults: [smoke, {{override /data: markov}}, _self_]\nobjective: {MKDIR}",
        f"defaults: [smoke, _self_]\nmodel: {MKDIR}",
        f"defaults: [smoke, _self_]\nevil: {MKDIR}",
        "defaults: [smoke, _self_]\nname: !!python/object/apply:os.mkdir [OWNED]",
        "defaults: [smoke, _self_]\nname: !!python/name:os.mkdir",
        "defaults: [smoke, _self_]\nname: ${oc.decode:'{_target_: os.mkdir}'}",
        "defaults: [../../../../etc/passwd]",
        "defaults: [/etc/passwd]",
        "defaults: [stranger]",
        "defaults: 7",
        "defaults: [7]",
        "a: [",
        "\ta: 1",
        "a: 1\na: 2\nb: &x [*x]",
        "[1, 2]",
        "just words",
        "",
        "a: " + "[" * 3000,
        "\0",
        b"\xff\xfe",
        "? [a, b]\n: 1",
        "1: 2",
    ],
)
def test_broken_and_malicious_experiments_are_refused(stranger, text):
    head = b"# @package _global_\n"
    content = head + (text if isinstance(text, bytes) else text.encode())
    try:
        stranger(content)
    except pytest.fail.Exception:  # composed: refused where its parts are built
        with pytest.raises(UserError, match="_target_"):
            prepare_grid(compose_grid(["experiment=stranger"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "hydra: {sweeper: {params: {seed: '3,4'}}}",
        *slow("hydra: {launcher: {n_jobs: 2}}", "train: {max_steps: 7}", "hydra: {}"),
    ],
)
def test_an_experiment_may_say_what_to_sweep_and_how_much_at_once(stranger, tmp_path, text):
    (compose.CONF / "experiment" / "stranger.yaml").write_text(f"{HEAD}{text}\n")
    with pytest.raises(NotRefused):
        main(["experiment=stranger", "data=markov", "objective=causal", f"runtime.results_dir={tmp_path}"])


def test_nothing_is_imported_that_a_config_names(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("evil.Evil", "evil", "extrap.positions.evil.Evil", "extrap.positions.rope.evil.Evil", "antigravity.x"):
        with pytest.raises(UserError):
            target({"_target_": path}, "position", "extrap.positions")
    assert not {"evil", "antigravity"} & sys.modules.keys()


@pytest.mark.parametrize("path", ["extrap.positions.base.Tensor", "extrap.positions.base.nn", "extrap.positions.t5.math"])
def test_what_a_module_has_imported_is_none_of_its_schemes(path):
    with pytest.raises(UserError, match=r"expected a class of extrap\.positions"):
        target({"_target_": path}, "position", "extrap.positions")


class Malicious:
    """What unpickles itself into a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def cell(tmp_path):
    (cell,) = prepare_grid(compose_grid([*TINY, f"runtime.results_dir={tmp_path / 'results'}"]))
    cell.folder.claim(cell.identity)
    return cell


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.pt"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_malicious_checkpoint_is_not_run(tmp_path, cell, name, sealed):
    """With the seal of a whole file, too: whoever hands over a checkpoint can make one."""
    content, path = io.BytesIO(), cell.config.folder / name
    torch.save({"model": Malicious(tmp_path / "owned"), "step": 1, "seconds": 0.0}, content)
    if sealed:
        write_sealed(path, content.getvalue(), "this run")
        with pytest.raises(UserError, match="something other than weights"):
            load_checkpoint(path, torch.device("cpu"), "this run")
    else:
        path.write_bytes(content.getvalue())
        assert load_checkpoint(path, torch.device("cpu"), "this run") is None
    assert not (tmp_path / "owned").exists()
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)
    assert (tmp_path / "owned").exists(), "it would have run"


# the command itself


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with an experiment that makes a folder where Hydra calls what it names."""
    place = tmp_path_factory.mktemp("checkout")
    for part in ("conf", "extrap", "experiments"):
        shutil.copytree(ROOT / part, place / part)
    callbacks = f"callbacks: {{x: {{_target_: os.mkdir, path: {place / 'owned'}}}}}"
    (place / "conf" / "experiment" / "stranger.yaml").write_text(f"{HEAD}hydra: {{{callbacks}}}\n")
    return place


def command(checkout: Path, *arguments: str | bytes) -> str:
    before = sorted(path for path in checkout.rglob("*") if "__pycache__" not in path.parts)
    done = subprocess.run(
        [sys.executable, "-m", "extrap", *TINY, *arguments],
        capture_output=True, text=True, cwd=checkout, timeout=300, env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    assert sorted(path for path in checkout.rglob("*") if "__pycache__" not in path.parts) == before
    return done.stderr


def test_the_command_does_not_run_what_a_stranger_wrote(checkout):
    assert "hydra.callbacks.x._target_" in command(checkout, "experiment=stranger")
    calls = (
        "from hydra import compose, initialize_config_dir; from hydra._internal.callbacks import Callbacks\n"
        f"with initialize_config_dir({str(checkout / 'conf')!r}, version_base='1.3'):\n"
        "    Callbacks(compose('config', ['experiment=stranger'], return_hydra_config=True))"
    )
    subprocess.run([sys.executable, "-c", f"import extrap.config.compose\n{calls}"], cwd=checkout, timeout=300, check=True)
    assert (checkout / "owned").exists(), "Hydra would have run it"
    (checkout / "owned").rmdir()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--multirun"], ["--config-dir=/tmp"], ["--experimental-rerun=x.pickle"], ["-cn", "x"],
        ["hydra.searchpath=[pkg://antigravity]"], ["+hydra.callbacks.x._target_=os.mkdir"], ["hydra.sweep.dir=/tmp/x"],
        [b"name=\xff\xfe"], [b"\xff"], ["name='a\nb'"], ["name='\x1b[31mred'"], ["seed=range(0,3000000000)"],
        ["model.n_layers=2000000000"], ["eval.lengths=[32,2000000000]", "eval.n_segments=2000000000"],
        ["data=text", "data.train=[/dev/zero]", "data.valid=[/dev/stdin]"],
        ["data=text", "data.train=[conf]", "data.valid=[fifo]"],
        ["runtime.results_dir=/proc/x"], ["runtime.results_dir=conf/config.yaml/x"],
    ],
)  # fmt: skip
def test_the_command_ends_with_one_line(checkout, arguments):
    if not (checkout / "fifo").exists():
        os.mkfifo(checkout / "fifo")
    command(checkout, *arguments)
