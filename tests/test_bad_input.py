"""Bad input gets one line before any training, says what was found and what was expected, and loses nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.sweep.checks import prepare_grid
from extrap.sweep.sweep import sweep

ROOT = Path(__file__).parents[1]
TINY = ["experiment=smoke", "position=rope", "seed=0", "data=markov", "objective=causal"]


@pytest.fixture(autouse=True)
def without_corpora(monkeypatch):
    monkeypatch.delenv("EXTRAP_CORPORA", raising=False)


def refusal(results: Path, *overrides: str) -> str:
    told = [*TINY, f"runtime.results_dir={results}", *overrides]
    with pytest.raises(UserError) as error:
        prepare_grid(compose_grid(told))
    message = str(error.value)
    assert "\n" not in message
    assert not list(results.glob("runs/*/*")), "no run folder is made"
    return message


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["position=ropee"], ["position=ropee", "did you mean", "rope"]),
        (["experiment=smoek"], ["experiment=smoek", "did you mean smoke"]),
        (["data=books"], ["data=books", "markov, stdlib, text"]),
        (["train.mask_rate=0.15,0.3"], ["train.mask_rate: 2 of 2 runs do not read it", "objective=mlm"]),
        (["objective=mlm,causal", "train.mask_rate=0.15,0.3"], ["train.mask_rate: 2 of 4 runs do not read it"]),
        (["model.output=tied", "train.weight_decay=0.1,0.2"], ["train.weight_decay: 2 of 2", "model.output=untied"]),
        (["train=adamw", "train.muon_ratio=1,5"], ["train.muon_ratio", "train.optimizer=muon"]),
        (["objective=clm"], ["objective=clm", "mlm"]),
        (["trian.lr=1"], ["trian.lr: no such option", "did you mean train.lr"]),
        (["train.learning_rate=1"], ["train.learning_rate: no such option"]),
        (["position.bass=3"], ["position.bass: position=rope has no such option", "did you mean position.base"]),
        (["+train.lrr=3"], ["train.lrr: no such option", "did you mean lr"]),
        (["+position.windw=3"], ["position.windw: no such option", "base"]),
        (["+foo=3"], ["foo: no such option"]),
        (["model.tie=true"], ["model.tie=true: is model.output now, untied where it was false, tied or tied_head where it"]),
        (["+model.tie=false,true"], ["model.tie=false,true: is model.output now"]),
        (["model.output=tie"], ["model.output", "expected one of [untied, tied, tied_head]"]),
        (["train.lr=abc"], ["train.lr=abc", "Float"]),
        (["train.max_steps=1.5"], ["train.max_steps=1.5", "Integer"]),
        (["train.precision=fp8"], ["fp8", "auto, fp32, bf16"]),
        (["position.base=abc"], ["position.base: expected float, found 'abc'"]),
        (["seed=one"], ["seed=one", "Integer"]),
        (["seed=-1"], ["seed", "found -1"]),
        (["train.lr=-1"], ["train.lr: expected a positive number, found -1"]),
        (["train.lr=nan"], ["train.lr: expected a positive number, found nan"]),
        (["train.max_steps=0"], ["train.max_steps: expected at least 1", "found 0"]),
        (["train.warmup_steps=20"], ["train.warmup_steps: expected less than train.max_steps=20, found 20"]),
        (["model.n_heads=3"], ["model.n_heads: 3 heads do not divide model.d_model=32"]),
        (["model.d_model=0"], ["model.d_model: expected at least 1"]),
        (["model.dropout=1"], ["model.dropout", "found 1"]),
        (["model.d_model=6", "model.n_heads=2"], ["position", "even head_dim, found 3"]),
        (["position=sinusoidal", "model.d_model=5", "model.n_heads=1"], ["even d_model, found 5"]),
        (["position=local", "position.window=0"], ["position", "window >= 1, found 0"]),
        (["eval.lengths=[64,128]"], ["eval.lengths", "train.train_len=32", "[64, 128]"]),
        (["eval.lengths=[]"], ["eval.lengths"]),
        (["eval.lengths=[32,32]"], ["eval.lengths", "once", "[32, 32]"]),
        (["eval.extensions=[none,windw]"], ["no extension windw", "did you mean window?"]),
        (["eval.extensions=[none,window+none]"], ["window+none: none stands for no extension"]),
        (["eval.extension_multiples=[-3]"], ["eval.extension_multiples: expected multiples above 1", "[-3.0]"]),
        (["eval.extension_multiples=[nan]"], ["eval.extension_multiples: expected multiples above 1", "[nan]"]),
        (["eval.extensions=[window]"], ["eval.extensions: expected 'none' (no extension) among them", "['window']"]),
        (["eval.windows=[200]"], ["eval.windows", "128", "found [200]"]),
        (["eval.windows=[64]"], ["eval.windows", "train.train_len=32", "found [64]"]),
        (["eval.protocols=[position]"], ["eval.protocols", "nonoverlap, same_targets, sliding", "found ['position']"]),
        (["objective=mlm", "eval.protocols=[nonoverlap,position]", "eval.lengths=[32,48]"],
         ["eval.lengths", "2 * train.train_len=64", "found [32, 48]"]),
        (["eval.stride=33"], ["eval.windows", "eval.stride=33", "found [32]"]),
        (["eval.stride=0"], ["eval.stride: expected at least 1"]),
        (["eval.protocols=[pseudo]"], ["pseudo", "objective=mlm"]),
        (["objective=mlm", "eval.protocols=[pseudo]", "eval.n_pseudo=99"], ["eval.n_pseudo", "eval.n_targets=16", "99"]),
        (["experiment=prose"], ["EXTRAP_CORPORA is not set", "EXTRAP_CORPORA=..."]),
        (["eval.n_targets=33"], ["eval.n_targets: 33 targets do not fit", "32"]),
        (["eval.n_targets=33", "eval.protocols=[nonoverlap]", "eval.probes=[recall]"], ["33 targets do not fit", "32"]),
        (["eval.protocols=[slidng]"], ["no protocol slidng", "did you mean sliding?"]),
        (["data.vocab_size=1"], ["data.vocab_size", "2 to 256", "found 1"]),
        (["data.alpha=0.0"], ["data.alpha", "positive", "found 0.0"]),
        (["objective=mlm", "objective.mask_rate=1.0"], ["objective.mask_rate", "between 0 and 1", "1.0"]),
        (["name=../x"], ["name: expected 1 to 100 letters", "../x"]),
        (["name=runs"], ["name: expected a name other than runs", "found 'runs'"]),
        (["name=claims"], ["found 'claims'"]),
        (["name=papers"], ["found 'papers'"]),
        (["name=speed"], ["found 'speed'"]),
        (["eval.stride=1,2"], ["eval.stride=1,2: a sweep is over seed, position, model, data, objective, train", "name="]),
        (["name=a,b"], ["a sweep is over seed, position", "name=..."]),
        (["position=rope,", "alibi"], ["position=rope,: expected option=value", "option=a,b"]),
        (["alibi"], ["alibi: expected option=value"]),
        (["position=[rope,alibi]"], ["position=NAME, or names with commas and no brackets", "kerple"]),
        (["position="], ["position=: expected position=NAME", "kerple"]),
        (["data=stdlib", "data.train=[x]", "data.valid=[y]"], ["data.train: data=stdlib has no such option; data=text has"]),
        (["data=text", "data.train=x"], ["data.train: expected list[str], found 'x'; in brackets"]),
        (["position=alibi,rope", "position.base=500"], ["position.base: position=alibi has no", "sinusoidal and xpos have"]),
        (["position=local,t5", "position.window=3"], ["position.window: position=t5 has no", "position=local has"]),
        (["position=alibi", "position.base=500,600"], ["position.base: position=alibi has no such option"]),
        (["position=nope", "position.qx=1"], ["position.qx: position=nope has no such option; it takes none"]),
        (["runtime.results_dir=~qxqx/r"], ["~qxqx/r", "./~qxqx/r"]),
        (["position._target_=os.system"], ["position._target_", "os.system"]),
        (["position._target_=extrap.positions.rope.Roppe"], ["expected a class of", "extrap.positions.rope.Roppe"]),
        (["position._target_=extrap.positions.rope.rotate_by"], ["expected a class"]),
        (["position=rope rope"], ["rope rope"]),
        (["train.lr="], ["train.lr"]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_in_one_line(tmp_path, overrides, parts):
    message = refusal(tmp_path, *overrides)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("jobs", "found"), [("", "''"), ("all", "'all'"), ("0", "0"), ("-2", "-2")])
def test_how_many_runs_side_by_side_is_told(jobs, found):
    with pytest.raises(UserError, match=f"JOBS of make: .*, or -1 .*; found {found}$"):
        sweep([*TINY, f"hydra.launcher.n_jobs={jobs}"])


def test_targets_that_nobody_scores_need_no_room(tmp_path):
    asked = ["eval.n_targets=1000", "eval.protocols=[nonoverlap]", f"runtime.results_dir={tmp_path}"]
    prepare_grid(compose_grid([*TINY, *asked]))


def text(tmp_path: Path, train: object, valid: object) -> str:
    return refusal(tmp_path / "results", "data=text", f"data.train=[{train}]", f"data.valid=[{valid}]")


def test_bad_text_is_refused(tmp_path):
    good, missing, empty, binary = (tmp_path / name for name in ("good.txt", "missing.txt", "empty.txt", "binary.txt"))
    good.write_text("All happy families are alike. " * 200)
    empty.touch()
    binary.write_bytes(bytes(range(256)) * 20)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert f"{missing}: cannot be read" in text(tmp_path, missing, good)
    assert "is empty" in text(tmp_path, good, empty)
    assert "is not UTF-8" in text(tmp_path, binary, good)
    assert "holds no files" in text(tmp_path, folder, good)
    assert "in data.train too" in text(tmp_path, good, good)
    assert "data.train names no files" in text(tmp_path, "", good)
    short = tmp_path / "short.txt"
    short.write_text("short")
    assert "the longest has 5 bytes" in text(tmp_path, short, good)
    message = text(tmp_path, good, short)
    assert "hold 0 segments of 129 bytes, expected 8" in message
    assert "eval.n_segments" in message


def test_a_training_length_longer_than_the_documents_is_refused(tmp_path):
    good = tmp_path / "good.txt"
    good.write_text("All happy families are alike. " * 10)
    overrides = ["data=text", f"data.train=[{good}]", f"data.valid=[{ROOT / 'LICENSE'}]"]
    message = refusal(tmp_path / "results", *overrides, "train.train_len=500", "eval.lengths=[500,1000]")
    assert "the longest has 300 bytes" in message
    assert "501" in message


def test_cuda_is_refused_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refusal(tmp_path, "runtime.device=cuda")


def test_a_run_folder_with_another_config_is_refused_with_the_difference(tmp_path):
    results = [*TINY, f"runtime.results_dir={tmp_path}"]
    cell = prepare_grid(compose_grid(results))[0]
    cell.folder.claim(cell.identity)
    prepare_grid(compose_grid(results))
    prepare_grid(compose_grid([*results, "runtime.checkpoint_every=7"]))  # speed is no part of a run's identity
    with pytest.raises(UserError, match=r"train\.lr: 0\.008 -> 0\.1.*name=") as error:
        prepare_grid(compose_grid([*results, "train.lr=0.1"]))
    assert "max_steps" not in str(error.value)


def test_changed_data_under_an_old_run_are_refused(tmp_path):
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text("All happy families are alike. " * 20)
    valid.write_text("Call me Ishmael. Some years ago. " * 200)
    overrides = [
        *TINY,
        "data=text",
        f"data.train=[{train}]",
        f"data.valid=[{valid}]",
        f"runtime.results_dir={tmp_path / 'r'}",
    ]
    cell = prepare_grid(compose_grid(overrides))[0]
    cell.folder.claim(cell.identity)
    train.write_text("All happy families are alikE. " * 20)
    with pytest.raises(UserError, match=r"data\.sha256"):
        prepare_grid(compose_grid(overrides))


@pytest.mark.slow
def test_a_report_that_would_lose_results_is_refused(tmp_path):
    from extrap.results.provenance import load_provenance, refuse_to_lose
    from extrap.results.rows import load_rows

    told, *tables = ((ROOT / "results" / "main" / name).read_text() for name in ("provenance.yaml", "runs.csv", "rows.csv"))
    results = tmp_path / "main"
    results.mkdir()
    (results / "provenance.yaml").write_text(told)
    for name, table in zip(("runs.csv", "rows.csv"), tables, strict=True):
        (results / name).write_text(table)
    refusals = [
        (["experiment=smoke", "name=main"], r"holds results of another config: .*train\.max_steps: 400 -> 20"),
        (["experiment=main", "position=rope", "train.precision=bf16"], r"would drop: alibi-seed0.*precision: .*name="),
        (["experiment=main", "seed=0"], r"holds 24 runs .* would drop: alibi-seed1"),
    ]
    for overrides, message in refusals:
        with pytest.raises(UserError, match=message):
            prepare_grid(compose_grid([*overrides, f"runtime.results_dir={tmp_path}"]))
    prepare_grid(compose_grid(["experiment=main", f"runtime.results_dir={tmp_path}"]))
    other_machine = load_provenance(results / "provenance.yaml")["config"]
    other_machine["data"]["sha256"], other_machine["train"]["precision"] = "other", "bf16"
    planned = load_rows(results / "rows.csv")
    refuse_to_lose(results, dict.fromkeys(zip(planned["scheme"], planned["run"], strict=True), other_machine))


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/version").exists(), reason="needs a place that nobody can write")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    for place in (in_the_way, Path("/proc/results")):
        with pytest.raises(OSError) as error:  # of which the command makes a line
            prepare_grid(compose_grid([*TINY, f"runtime.results_dir={place}"]))
        assert str(place) in str(error.value)


def test_the_command_ends_with_one_line_and_code_2(tmp_path):
    command = [sys.executable, "-m", "extrap", *TINY, f"runtime.results_dir={tmp_path}", "position=ropee"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: position=ropee: no such position; did you mean rope")
    assert not list(tmp_path.iterdir())
