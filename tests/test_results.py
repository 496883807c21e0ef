"""Results on disk: whole files or none, one config a folder, reports that tell what made them."""

import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest
import yaml
from marks import slow
from refusing import refusal
from rows import both_protocols, many, scheme_rows

from experiments.report import draw_all
from extrap.config.compose import compose_grid
from extrap.data.documents import Documents
from extrap.files import is_locked, write_atomic
from extrap.report.about import scored_text
from extrap.report.report import all_or_nothing, gather, gather_several, report_again
from extrap.results.folders import RunFolder, as_now, differences, refuse_mixed
from extrap.results.provenance import load_provenance, provenance, told_of_some
from extrap.results.rows import (
    COSTS,
    MISSING,
    as_csv,
    collect,
    collect_missing,
    collect_training,
    load_costs,
    load_missing,
    load_rows,
    load_runs,
    load_training,
    row_tables,
    save_rows,
    save_training,
)
from extrap.sweep.progress import save_plan
from extrap.train.log import Entry, write_log

pytestmark = pytest.mark.usefixtures("svg_alone")

SOURCES = {"runs.csv", "rows.csv", "missing.csv", "training.csv", "provenance.yaml"}  # of a report; all else follows
CONFIG = {
    "seed": 0,
    "position": {"_target_": "rope", "base": 10000.0},
    "train": {"lr": 0.002, "max_steps": 20},
    "name": None,
    "data": {"_target_": "stdlib"},
    "model": {"output": "untied"},
    "objective": {"_target_": "mlm"},
    "eval": {"lengths": [128, 256]},
}


# writing


@pytest.mark.parametrize("content", ["", "text – ±\n", b"\0\xff", "x" * 1_000_000])
def test_write_atomic_writes_what_it_is_given(tmp_path, content):
    path = tmp_path / "file.csv"
    path.write_text("old")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [p.name for p in tmp_path.iterdir()] == ["file.csv"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch, step):
    path = tmp_path / "file.csv"
    path.write_text("old and whole")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fails)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new and torn")
    assert path.read_text() == "old and whole"


def test_a_file_left_over_from_a_killed_write_is_no_obstacle(tmp_path):
    (tmp_path / "file.csv.partial").write_text("left over from last time, and longer than what comes now")
    write_atomic(tmp_path / "file.csv", "new")
    assert (tmp_path / "file.csv").read_text() == "new"


# run folders


def test_a_folder_belongs_to_one_config(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.claim(CONFIG)
    assert folder.load_config() == CONFIG
    before = folder.config.stat().st_mtime_ns
    folder.claim(dict(reversed(CONFIG.items())))  # the order of keys is no difference
    assert folder.config.stat().st_mtime_ns == before
    other = CONFIG | {"train": {"lr": 0.1, "max_steps": 20}, "position": {"_target_": "alibi"}}
    message = refusal(folder.claim, other)
    assert str(folder.path) in message
    for change in ("train.lr: 0.002 -> 0.1", "position._target_: rope -> alibi", "position.base: 10000.0 -> nothing"):
        assert change in message
    assert "max_steps" not in message
    assert folder.load_config() == CONFIG
    RunFolder(tmp_path / "not there").refuse_other_config(other)


@pytest.mark.parametrize(
    "value", [1e-3, 1e-05, 2.0e-3, 1e22, 0.1 + 0.2, 2**31 - 1, True, None, "null", "1e-3", "a: b # c", [1, 2]]
)
def test_no_value_differs_from_itself_after_a_round_trip(tmp_path, value):
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        folder.claim({"a": {"b": value}})
    assert "a.b" in refusal(folder.claim, {"a": {"b": "another"}})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"a": 1}, {"b": 1}, ["a: 1 -> nothing", "b: nothing -> 1"]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c: 1 -> 2"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a.b: 1 -> nothing", "a: nothing -> 1"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] -> [2, 1]"]),
        ({"a": "1"}, {"a": 1}, ["a: 1 -> 1"]),
        ({"a": 1}, {"a": 1.0}, []),
    ],
)
def test_differences(old, new, expected):
    assert differences(old, new) == expected


# collecting


def score(path: Path, rows: pd.DataFrame) -> None:
    """The end of a run that has these rows."""
    folder = RunFolder(path)
    folder.finish(row_tables(folder.rows, rows))


def finished(runs: Path, scheme: str, seed: int, **config: object) -> None:
    """A run folder as a sweep leaves it."""
    folder = runs / f"{scheme}-seed{seed}"
    RunFolder(folder).claim(CONFIG | {"seed": seed, "position": {"_target_": scheme}} | config)
    rows = both_protocols({scheme: {128: [1.0 + seed], 256: [2.0 + seed]}})
    score(folder, rows.assign(experiment=runs.name, seed=seed, run=folder.name))


def test_collect_takes_runs_that_differ_in_seed_and_position(tmp_path):
    for scheme in ("rope", "alibi"):
        for seed in (0, 1):
            finished(tmp_path, scheme, seed)
    RunFolder(tmp_path / "unfinished").claim(CONFIG)
    rows = collect(tmp_path)
    assert list(rows["run"].unique()) == ["alibi-seed0", "alibi-seed1", "rope-seed0", "rope-seed1"]
    assert len(rows) == 4 * 8


def test_collect_refuses_runs_that_differ_in_more(tmp_path):
    finished(tmp_path, "rope", 0)
    finished(tmp_path, "rope", 1, train={"lr": 0.1, "max_steps": 20})
    message = refusal(collect, tmp_path)
    for part in ("rope-seed0", "rope-seed1", "train.lr: 0.002 -> 0.1", str(tmp_path)):
        assert part in message
    assert "position" not in message.replace("seed and position", "")


def test_collect_refuses_where_nothing_is_finished(tmp_path):
    RunFolder(tmp_path / "run").claim(CONFIG)
    for runs in (tmp_path, tmp_path / "nowhere"):
        assert f"{runs} holds no evaluated run" in refusal(collect, runs)
    finished(tmp_path / "mine", "rope", 1)
    assert refusal(collect, tmp_path / "mein").endswith("; did you mean mine?")
    runs = tmp_path / "results" / "runs" / "main"
    (tmp_path / "results" / "main").mkdir(parents=True)
    (tmp_path / "results" / "main" / "rows.csv").touch()  # as in a clone
    assert "`make figures` makes again from the rows there" in refusal(collect, runs)


def lacking(run: str, reason: str) -> str:
    values = {name: name for name in MISSING} | {"run": run, "train_len": 128, "seed": 0, "eval_len": 256, "reason": reason}
    return as_csv(pd.DataFrame([values]))


def test_tables_of_another_run_are_refused(tmp_path):
    """Copied over, as by a slip of the hand."""
    runs = tmp_path / "made"
    for seed in (0, 1):
        finished(runs, "rope", seed)
    for table in ("runs.csv", "eval.csv", "tables.sha256"):
        shutil.copy(runs / "rope-seed1" / table, runs / "rope-seed0" / table)
    assert f"{runs / 'rope-seed0'} holds the rows of made/rope-seed1: give it that name back" in refusal(collect, runs)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\0", b"[", b"{}", b"command: x", b"a: *b", b"experiment,run\n1\n2,3,4\n"]
)
def test_what_is_no_table_or_provenance_is_told_in_a_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for load in (load_rows, load_missing, load_training, load_provenance):
        assert str(path) in refusal(load, path)
    path.unlink()
    path.mkdir()
    for load in (load_rows, load_missing, load_training, load_provenance):
        assert str(path) in refusal(load, path)


def copied_run(results: Path) -> None:
    """The same rows in two folders, as after a folder was copied."""
    for name in ("rope", "copy"):
        finished(results / "runs" / "made", name, 0)
    copy, rows = (results / "runs" / "made" / f"{name}-seed0" for name in ("copy", "rope"))
    score(copy, load_rows(rows / "eval.csv").assign(run=copy.name))


def test_a_report_that_is_refused_leaves_the_last_one_as_it_was(tmp_path):
    copied_run(tmp_path)
    table = tmp_path / "made" / "table.md"
    table.parent.mkdir()
    table.write_text("of the last good report")
    assert "twice" in refusal(gather, tmp_path, "made", "a test")
    assert [path.read_text() for path in table.parent.iterdir()] == ["of the last good report"]


@pytest.mark.parametrize(("before", "after"), [("made/rope-seed0", "made/old-seed0"), ("made", "other")])
def test_a_folder_that_was_given_another_name_is_refused(tmp_path, before, after):
    finished(tmp_path / "made", "rope", 0)
    (tmp_path / before).rename(tmp_path / after)
    runs = (tmp_path / after).parent if "/" in after else tmp_path / after
    assert "holds the rows of made/rope-seed0: give it that name back" in refusal(collect, runs)


def test_the_end_of_a_run_leaves_nothing_of_an_earlier_end(tmp_path):
    finished(tmp_path, "rope", 0)
    run = tmp_path / "rope-seed0"
    for name in ("meta.json", "missing.csv"):
        (run / name).write_text("of a try that was killed")
    (run / "eval.csv").unlink()
    folder = RunFolder(run)
    folder.finish({folder.divergence: "diverged at step 7: loss nan\n"})
    assert {*run.iterdir()} == {folder.config, folder.divergence, folder.digests}


@pytest.mark.parametrize("name", ["eval.csv", "runs.csv", "missing.csv", "train.csv", "tables.sha256"])
def test_a_table_that_is_cut_is_told(tmp_path, name):
    """At the end of a line too, where what is left is a table."""
    finished(tmp_path, "rope", 0)
    folder = RunFolder(tmp_path / "rope-seed0")
    write_log(folder.log, [Entry(step, step, 0.1, 3.0, math.nan, 1.0, 1.0) for step in (10, 20)])
    folder.finish({folder.missing: lacking("rope-seed0", "out of memory"), **row_tables(folder.rows, collect(tmp_path))})
    assert len(collect(tmp_path)) == 8
    cut = folder.path / name
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[: 3 if name == "eval.csv" else -1]))
    told = refusal(collect, tmp_path)
    assert "is not what its run wrote" in told
    assert "remove eval.csv there" in told
    assert str(cut if name != "tables.sha256" else folder.rows) in told
    folder.digests.unlink()  # as of an earlier program
    if name != "runs.csv":
        collect(tmp_path)


def test_what_a_run_lacks_counts_when_it_is_over(tmp_path):
    finished(tmp_path, "rope", 0)
    finished(tmp_path, "rope", 1)
    (tmp_path / "rope-seed1" / "eval.csv").unlink()
    (tmp_path / "rope-seed1" / "missing.csv").write_text(lacking("rope-seed1", "out of memory"))
    assert collect_missing(tmp_path).empty


def test_runs_to_come_are_compared_with_those_that_are_there(tmp_path):
    """At the start: at the end they would have been trained for nothing."""
    finished(tmp_path, "rope", 0, scheme_code="1")
    rope = CONFIG | {"position": {"_target_": "rope"}}
    refuse_mixed(tmp_path, {"rope-seed1": rope | {"seed": 1, "scheme_code": "1"}})
    refuse_mixed(tmp_path, {"alibi-seed1": CONFIG | {"position": {"_target_": "alibi"}, "scheme_code": "2"}})
    message = refusal(refuse_mixed, tmp_path, {"rope-seed1": rope | {"seed": 1, "scheme_code": "2"}})
    assert "between rope-seed0 and rope-seed1" in message
    assert "scheme_code: 1 -> 2" in message


def test_a_whole_number_is_the_option_that_it_is_in_the_name_of_a_run(tmp_path):
    """Rows of both are of rope(base=64.0)."""
    finished(tmp_path, "rope", 0, scheme_code="1", position={"_target_": "rope", "base": 64})
    run = CONFIG | {"position": {"_target_": "rope", "base": 64.0}, "seed": 1}
    refuse_mixed(tmp_path, {"rope-seed1": run | {"scheme_code": "1"}})
    assert "scheme_code: 1 -> 2" in refusal(refuse_mixed, tmp_path, {"rope-seed1": run | {"scheme_code": "2"}})


def test_a_run_that_is_over_has_no_checkpoint(tmp_path):
    finished(tmp_path, "rope", 0)
    folder = RunFolder(tmp_path / "rope-seed0")
    rows = folder.rows.read_text()
    folder.checkpoint.write_bytes(b"of a training that diverged, or was killed once its weights were written")
    folder.finish({folder.rows: rows})
    assert not folder.checkpoint.exists()


def test_of_a_class_from_outside_all_runs_are_of_one_code(tmp_path):
    """A default that was added since is an option in the config and none in the name, and so is another file."""
    mine = {"position": {"_target_": "mine.py:Mine", "rate": 1.0}}
    finished(tmp_path, "mine", 0, scheme_code="1", **mine)
    others = {
        "mine-seed1": {"_target_": "mine.py:Mine", "rate": 1.0, "gamma": 0.5},
        "mine-seed2": {"_target_": "copy.py:Mine", "rate": 1.0},
        "mine-rate=2.0-seed0": {"_target_": "mine.py:Mine", "rate": 2.0},
    }
    for name, position in others.items():
        run = CONFIG | {"position": position, "seed": 1}
        refuse_mixed(tmp_path, {name: run | {"scheme_code": "1"}})
        assert "scheme_code: 1 -> 2" in refusal(refuse_mixed, tmp_path, {name: run | {"scheme_code": "2"}}), name
    other = {"_target_": "mine.py:Other", "rate": 1.0}
    refuse_mixed(tmp_path, {"other-seed0": CONFIG | {"position": other, "scheme_code": "2"}})


@pytest.mark.slow
def test_a_report_that_would_drop_runs_is_refused(tmp_path, capsys):
    for seed in (0, 1):
        finished(tmp_path / "runs" / "made", "rope", seed)
    gather(tmp_path, "made", "a test")
    shutil.rmtree(tmp_path / "runs" / "made" / "rope-seed1")
    message = refusal(gather, tmp_path, "made", "a test")
    assert "1 runs that are neither planned now nor finished" in message
    assert "would drop: rope-seed1" in message
    finished(tmp_path / "runs" / "made", "rope", 1)
    floor = load_rows(tmp_path / "made" / "rows.csv").assign(kind="unigram", scheme="unigram", seed=0, run="reference")
    save_rows(tmp_path / "made" / "rows.csv", floor.drop_duplicates(["protocol", "eval_len", "document", "segment"]))
    assert "would drop: reference" in refusal(gather, tmp_path, "made", "a test")
    rows = (tmp_path / "made" / "rows.csv").read_bytes()
    (tmp_path / "made" / "provenance.yaml").unlink()  # then nobody knows of what they are
    assert "provenance.yaml is damaged or gone" in refusal(gather, tmp_path, "made", "a test")
    assert (tmp_path / "made" / "rows.csv").read_bytes() == rows


def other(results: Path, runs: Path, **config: object) -> dict[str, bytes]:
    """A report of rope and nope, seeds 0 and 1, whose runs are gone; and of another scheme the runs."""
    for scheme in ("rope", "nope"):
        for seed in (0, 1):
            finished(runs, scheme, seed)
    gather(results, runs.name, "the first sweep")
    shutil.rmtree(runs)
    finished(runs, "mine", 0, **config)
    return {path.name: path.read_bytes() for path in (results / runs.name).iterdir()}


DIVERGED = {
    "experiment": "made", "objective": "mlm", "data": "stdlib", "train_len": 128, "eval_len": 128,
    "reason": "diverged at step 7",
}  # fmt: skip


def sized(run: Path, n_params: int) -> None:
    RunFolder(run).meta.write_text(json.dumps({"costs": {"parameters": n_params, "train_seconds": 1, "eval_seconds": 1}}))


@pytest.mark.slow
def test_captions_tell_how_many_parameters_models_have(tmp_path, capsys):
    runs, place = tmp_path / "runs" / "made", tmp_path / "made"
    for scheme, n_params in (("rope", 432_100), ("learned", 448_600)):
        finished(runs, scheme, 0)
        sized(runs / f"{scheme}-seed0", n_params)
    gather(tmp_path, "made", "the first sweep")
    known, size = load_runs(place / "runs.csv").set_index("run")["parameters"], "0.432 to 0.449 M parameters"
    assert known.to_dict() == {"rope-seed0": 432_100, "learned-seed0": 448_600}
    captioned = ["table.md", "pairs.md", *(path.name for path in place.glob("table*.tex"))]
    assert len(captioned) > 3
    for name in captioned:
        assert f"odels of {size}" in (place / name).read_text(), name
    shutil.rmtree(runs)
    finished(runs, "mine", 0)
    gather(tmp_path, "made", "the second sweep")
    kept = load_runs(place / "runs.csv").set_index("run")["parameters"]
    assert kept.dropna().to_dict() == known.to_dict(), "of what was kept"
    assert kept.isna().to_dict() == {"learned-seed0": False, "mine-seed0": True, "rope-seed0": False}
    assert all("parameters" not in (place / name).read_text() for name in captioned), "one model's is not known"


@pytest.mark.slow
def test_an_own_scheme_joins_the_rows_that_stand_there(tmp_path, capsys):
    runs = tmp_path / "runs" / "made"
    other(tmp_path, runs)
    before = load_rows(tmp_path / "made" / "rows.csv")
    known = pd.DataFrame([dict.fromkeys(COSTS, np.nan) | {"run": "rope-seed1", "parameters": 7.0, "tokens": 8.0}])
    save_rows(tmp_path / "made" / "rows.csv", before, known)
    sized(runs / "mine-seed0", 5)
    capsys.readouterr()
    gather(tmp_path, "made", "the second sweep")
    costs = load_costs(tmp_path / "made" / "runs.csv").set_index("run")
    assert costs["parameters"].dropna().to_dict() == {"mine-seed0": 5, "rope-seed1": 7}
    assert costs["tokens"].dropna().to_dict() == {"rope-seed1": 8}
    assert "kept from the earlier report" in capsys.readouterr().out
    rows = load_rows(tmp_path / "made" / "rows.csv")
    assert list(dict.fromkeys(rows["run"])) == ["mine-seed0", "nope-seed0", "nope-seed1", "rope-seed0", "rope-seed1"]
    of_before = rows[rows["scheme"] != "mine"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_before, before, check_exact=True)
    for name in ("table.md", "pairs.md", "perplexity.csv"):
        assert "mine" in (tmp_path / "made" / name).read_text()
    told = load_provenance(tmp_path / "made" / "provenance.yaml")
    assert told["command"] == "the second sweep"
    assert [(part["command"], part["runs"]) for part in told["kept"]] == [
        ("the first sweep", ["nope-seed0", "nope-seed1", "rope-seed0", "rope-seed1"])
    ]


@pytest.mark.slow
def test_runs_that_diverged_stay_told_when_others_join(tmp_path, capsys):
    """They have no rows: all that tells of them is missing.csv."""
    runs, place = tmp_path / "runs" / "made", tmp_path / "made"
    other(tmp_path, runs)
    gone = pd.DataFrame([
        dict.fromkeys(MISSING, "") | DIVERGED | {"run": f"{scheme}-seed{seed}", "scheme": scheme, "seed": seed}
        for scheme, seed in (("rope", 2), ("t5", 0))
    ])  # fmt: skip
    write_atomic(place / "missing.csv", as_csv(gone))
    gather(tmp_path, "made", "the second sweep")
    assert {*load_missing(place / "missing.csv")["run"]} == {"rope-seed2", "t5-seed0"}
    told = capsys.readouterr().out
    assert "diverged at step 7" in told
    finished(runs, "rope", 0)
    finished(runs, "rope", 1)
    assert "would drop: rope-seed2" in refusal(gather, tmp_path, "made", "a test")


@pytest.mark.slow
def test_what_is_kept_stays_told_and_gives_way_to_runs_made_here(tmp_path, capsys):
    runs = tmp_path / "runs" / "made"
    other(tmp_path, runs)
    gather(tmp_path, "made", "the second sweep")
    for seed in (0, 1):
        finished(runs, "rope", seed)
    gather(tmp_path, "made", "the third sweep")
    (part,) = load_provenance(tmp_path / "made" / "provenance.yaml")["kept"]
    assert (part["command"], part["runs"]) == ("the first sweep", ["nope-seed0", "nope-seed1"])
    for seed in (0, 1):
        finished(runs, "nope", seed)
    gather(tmp_path, "made", "the whole sweep")
    assert "kept" not in load_provenance(tmp_path / "made" / "provenance.yaml")
    assert load_rows(tmp_path / "made" / "rows.csv")["scheme"].nunique() == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"data": {"_target_": "stdlib", "sha256": "other"}}, "data.sha256"),
        *slow(
            ({"train": CONFIG["train"] | {"precision": "fp32"}}, "train.precision: nothing -> fp32"),
            ({"train": CONFIG["train"] | {"lr": 0.1}}, "train.lr: 0.002 -> 0.1"),
            ({"eval": {"lengths": [128]}}, "eval.lengths"),
        ),
    ],
)
def test_rows_of_another_recipe_data_or_precision_are_never_joined(tmp_path, capsys, changed, told):
    before = other(tmp_path, tmp_path / "runs" / "made", **changed)
    assert told in refusal(gather, tmp_path, "made", "a test")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == before


@pytest.mark.slow
def test_seeds_of_one_scheme_are_of_one_making(tmp_path, capsys):
    runs = tmp_path / "runs" / "made"
    before = other(tmp_path, runs)
    finished(runs, "rope", 2)
    message = "would drop: rope-seed0, rope-seed1. Rows stay only where all seeds of a scheme in a setting are made by one"
    assert message in refusal(gather, tmp_path, "made", "a test")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == before


def finished_at(runs: Path, lr: float, *seeds: int, unigram: float = 1.0, **config: object) -> None:
    """Runs of rope, and the reference, of a sweep that varies the rate; with what is scored apart, as electra has it."""
    train = {"lr": lr, "max_steps": 20}
    rows = both_protocols({"rope": {128: [lr], 256: [2.0]}}).assign(experiment=runs.name, setting=f"lr={lr}")
    shared = CONFIG | {"train": train, "vary": ["train.lr"]} | config
    for seed in seeds:
        name = f"rope-lr={lr}-seed{seed}"
        RunFolder(runs / name).claim(shared | {"seed": seed})
        own = rows.assign(run=name, seed=seed, nll_sum=rows["nll_sum"] * (1 + seed / 100))
        apart = own.assign(run=f"{name}/generator", objective="electra_generator")
        score(runs / name, pd.concat([own, apart], ignore_index=True))
    reference = f"reference-lr={lr}"
    RunFolder(runs / reference).claim({key: value for key, value in shared.items() if key not in ("seed", "position")})
    told = rows.assign(kind="unigram", scheme="unigram", run=f"{reference}/unigram", nll_sum=unigram * rows["n_tokens"])
    score(runs / reference, told)


@pytest.mark.slow
def test_another_value_of_what_varies_joins_the_rows_of_the_others(tmp_path, capsys):
    """The same schemes, each value of one making; a part of a value's seeds is refused."""
    runs, place = tmp_path / "runs" / "made", tmp_path / "made"
    for lr in (0.1, 0.2):
        finished_at(runs, lr, 0, 1)
    gather(tmp_path, "made", "the first sweep")
    before = load_rows(place / "rows.csv")
    shutil.rmtree(runs)
    finished_at(runs, 0.4, 0, 1)
    gather(tmp_path, "made", "the second sweep")
    rows = load_rows(place / "rows.csv")
    assert rows["setting"].value_counts().to_dict() == dict.fromkeys(("lr=0.1", "lr=0.2", "lr=0.4"), len(before) // 2)
    of_before = rows[rows["setting"] != "lr=0.4"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_before, before, check_exact=True)
    told = load_provenance(place / "provenance.yaml")
    (part,) = told["kept"]
    names = [f"rope-lr={lr}-seed{seed}" for lr in (0.1, 0.2) for seed in (0, 1)]
    assert part["runs"] == ["reference-lr=0.1", "reference-lr=0.2", *names]
    (some,) = told_of_some(told, rows[rows["setting"] == "lr=0.2"])["kept"]  # as when each scheme is at its best
    assert (some["command"], some["runs"]) == ("the first sweep", names[2:])
    finished_at(runs, 0.2, 1)
    assert "would drop: rope-lr=0.2-seed0" in refusal(gather, tmp_path, "made", "a test")


def test_what_is_told_of_some_rows_counts_no_others():
    rows = both_protocols({"rope": {128: [1.0], 256: [2.0]}})
    told = {"command": "the sweep", "made_by": [], "config": {"code": "1"}}
    assert told_of_some(told | {"runs": 54, "seconds_of_all_runs": 489}, rows) == told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"vary": ["data.join", "train.lr"]}, "would drop: rope-lr=0.1-seed0"),  # texts, whose digests vary with them
        ({"position": {"_target_": "mine.py:Rope"}}, "would drop: rope-lr=0.1-seed0"),  # it may have been edited since
        ({"unigram": 1.1}, "holds other references than the runs here: unigram at"),
    ],
)
def test_another_value_joins_those_of_one_text_and_of_our_own_code_alone(tmp_path, capsys, changed, told):
    runs = tmp_path / "runs" / "made"
    finished_at(runs, 0.1, 0, **{key: value for key, value in changed.items() if key != "unigram"})
    gather(tmp_path, "made", "the first sweep")
    shutil.rmtree(runs)
    finished_at(runs, 0.2, 0, **changed)
    assert told in refusal(gather, tmp_path, "made", "a test")


def test_every_run_is_told_to_be_of_the_last_command_that_planned_it(tmp_path):
    results = [f"runtime.results_dir={tmp_path}", "experiment=smoke", "name=made", "seed=0"]
    runs = tmp_path / "runs" / "made"
    finished(runs, "copied", 0)
    for command, planned in (("first", "rope,alibi,nope"), ("second", "t5"), ("third", "t5,nope")):
        save_plan(compose_grid([*results, f"position={planned}"]), command)
        for scheme in planned.split(","):
            finished(runs, scheme, 0)
        told = provenance(runs, "make report")
    others = [{"command": "first", "runs": ["alibi-seed0", "rope-seed0"]}, {"command": "unknown", "runs": ["copied-seed0"]}]
    assert (told["command"], told["commands"]) == ("third", others)
    kept = told_of_some(told, collect(runs))["kept"]  # as of an earlier report
    made = {part["command"]: part["runs"] for part in kept}
    assert made == {part["command"]: part["runs"] for part in others} | {"third": ["nope-seed0", "t5-seed0"]}
    save_plan(compose_grid([*results, "position=rope,alibi,nope,t5"]), "all")
    shutil.rmtree(runs / "copied-seed0")
    told = provenance(runs, "make report")
    assert told["command"] == "all"
    assert "commands" not in told
    (runs / "sweep.yaml").unlink()
    assert provenance(runs, "make report")["command"] == "make report"


@pytest.mark.slow
def test_other_references_are_another_text(tmp_path, capsys):
    runs = tmp_path / "runs" / "made"
    floor = both_protocols({"unigram": {128: [1.0], 256: [2.0]}}).assign(kind="unigram", run="reference", experiment="made")
    shared = {key: value for key, value in CONFIG.items() if key not in ("seed", "position")}
    for nll in (1.0, 1.1):
        RunFolder(runs / "reference").claim(shared)
        score(runs / "reference", floor.assign(nll_sum=nll * floor["nll_sum"]))
        if nll == 1.0:
            finished(runs, "rope", 0)
            gather(tmp_path, "made", "the first sweep")
            shutil.rmtree(runs)
    finished(runs, "mine", 0)
    assert "holds other references than the runs here: unigram" in refusal(gather, tmp_path, "made", "a test")
    finished(runs, "rope", 0)  # nothing stays: it is the same sweep on another text, as on another Python
    gather(tmp_path, "made", "a test")


def two_reports(results: Path, mine: str = "mine", **config: object) -> None:
    """What a report is made of: of rope and nope in one, of a scheme of one's own in the other; and the same reference."""
    for name, schemes, changes in (("made", ("rope", "nope"), {}), ("own", (mine,), config)):
        runs, folder = results / "runs" / name, results / name
        for scheme, seed in product(schemes, (0, 1)):
            finished(runs, scheme, seed, **changes)
        floor = both_protocols({"unigram": {128: [1.0], 256: [2.0]}}).assign(kind="unigram", run="reference")
        RunFolder(runs / "reference").claim(
            {key: value for key, value in CONFIG.items() if key not in ("seed", "position")} | changes
        )
        score(runs / "reference", floor.assign(experiment=name))
        folder.mkdir()
        save_rows(folder / "rows.csv", collect(runs))
        save_training(folder / "training.csv", collect_training(runs))
        (folder / "provenance.yaml").write_text(yaml.safe_dump(provenance(runs, f"the sweep of {name}")))


def files(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*.*") if path.is_file()}


@pytest.mark.slow
def test_reports_of_several_names_are_joined_in_one(tmp_path, capsys):
    two_reports(tmp_path)
    for name, run, size in (("made", "nope-seed0", 7.0), ("own", "mine-seed1", 5.0)):
        known = pd.DataFrame([dict.fromkeys(COSTS, np.nan) | {"run": run, "parameters": size}])
        save_rows(tmp_path / name / "rows.csv", load_rows(tmp_path / name / "rows.csv"), known)
    before = files(tmp_path)
    gather_several(tmp_path, ["made", "own"])
    assert before.items() <= files(tmp_path).items(), "what it was made from stays as it is"
    place = tmp_path / "made+own"
    rows = load_rows(place / "rows.csv")
    assert list(dict.fromkeys(rows["run"])) == [f"{s}-seed{n}" for s in ("mine", "nope") for n in (0, 1)] + [
        "reference", "rope-seed0", "rope-seed1"
    ]  # fmt: skip
    for name in ("made", "own"):
        of_one = rows[(rows["experiment"] == name) & (rows["kind"] == "scheme")].reset_index(drop=True)
        source = load_rows(tmp_path / name / "rows.csv")
        pd.testing.assert_frame_equal(of_one, source[source["kind"] == "scheme"].reset_index(drop=True), check_exact=True)
    assert set(rows.loc[rows["kind"] != "scheme", "experiment"]) == {"made"}, "a reference stands there once"
    for name in ("table.md", "pairs.md", "perplexity.csv"):
        assert "mine" in (place / name).read_text()
    costs = load_costs(place / "runs.csv").set_index("run")
    assert list(costs.index) == list(dict.fromkeys(rows["run"])), "a run is told once"
    assert costs["parameters"].dropna().to_dict() == {"mine-seed1": 5, "nope-seed0": 7}
    told = load_provenance(place / "provenance.yaml")
    assert told["command"] == "python -m experiments.report gather made own"
    assert [(part["command"], part["runs"]) for part in told["kept"]] == [
        ("the sweep of made", ["nope-seed0", "nope-seed1", "rope-seed0", "rope-seed1"]),
        ("the sweep of own", ["mine-seed0", "mine-seed1"]),
    ]
    assert all("made_by" in part for part in told["kept"])
    reported = files(place)
    report_again(place)
    assert files(place) == reported, "as every other"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"data": {"_target_": "stdlib", "sha256": "other"}}, "data.sha256"),
        ({"train": CONFIG["train"] | {"precision": "fp32"}}, "train.precision: nothing -> fp32"),
        ({"eval": {"lengths": [128]}}, "eval.lengths"),
        ({"mine": "rope"}, "both hold rope, and a scheme stands in a report once; make one of them without"),
    ],
)
def test_reports_whose_rows_cannot_stand_side_by_side_are_not_joined(tmp_path, capsys, config, told):
    two_reports(tmp_path, **config)
    before = files(tmp_path)
    message = refusal(gather_several, tmp_path, ["made", "own"])
    assert told in message
    assert f"{tmp_path / 'made'} and {tmp_path / 'own'}" in message
    assert not (tmp_path / "made+own").exists()
    assert files(tmp_path) == before


def test_reports_with_other_references_or_other_targets_are_not_joined(tmp_path, capsys):
    two_reports(tmp_path)
    path = tmp_path / "own" / "rows.csv"
    rows = load_rows(path)
    save_rows(path, rows.assign(nll_sum=rows["nll_sum"].where(rows["kind"] == "scheme", 1.1 * rows["nll_sum"])))
    assert "their references differ: unigram at" in refusal(gather_several, tmp_path, ["made", "own"])
    save_rows(path, rows.assign(n_tokens=rows["n_tokens"] + 1))
    assert "scored other tokens" in refusal(gather_several, tmp_path, ["made", "own"])
    shutil.rmtree(tmp_path / "own")
    assert "does not exist; `make sweep` writes it" in refusal(gather_several, tmp_path, ["made", "own"])
    assert not (tmp_path / "made+own").exists()


def test_a_report_of_runs_that_are_not_finished_says_so(tmp_path):
    runs = tmp_path / "runs" / "made"
    RunFolder(runs / "rope-seed0").claim(CONFIG)
    shared = {key: value for key, value in CONFIG.items() if key not in ("seed", "position")}
    RunFolder(runs / "reference").claim(shared)
    floor = both_protocols({"rope": {128: [1.0], 256: [2.0]}}).assign(kind="floor", scheme="floor", run="reference")
    score(runs / "reference", floor)
    assert f"{runs}: no run has rows yet" in refusal(gather, tmp_path, "made", "a test")


@pytest.mark.slow
def test_a_folder_in_the_place_of_a_table_is_told_before_anything_is_replaced(tmp_path, capsys):
    finished(tmp_path / "runs" / "made", "rope", 0)
    gather(tmp_path, "made", "a test")
    (tmp_path / "made" / "table.md").unlink()
    (tmp_path / "made" / "table.md").mkdir()
    (tmp_path / "made" / "perplexity.csv").write_text("of the last report")
    assert f"{tmp_path / 'made' / 'table.md'} is a folder" in refusal(gather, tmp_path, "made", "a test")
    assert (tmp_path / "made" / "perplexity.csv").read_text() == "of the last report"


@pytest.mark.slow
def test_runs_are_collected_while_no_other_report_can_be_written(tmp_path, monkeypatch, capsys):
    """Else a slow report would put older rows in place of those of the sweep that ended meanwhile."""
    finished(tmp_path / "runs" / "made", "rope", 0)
    lock = tmp_path / "runs" / "made" / "locks" / "report.lock"
    seen = []
    monkeypatch.setattr("extrap.results.provenance.collect", lambda runs: seen.append(is_locked(lock)) or collect(runs))
    gather(tmp_path, "made", "a test")
    assert seen == [True]
    assert not is_locked(lock)


def test_two_who_write_one_report_take_turns(tmp_path, monkeypatch):
    """Else the second would remove the draft of the first."""
    folder, writing, other = tmp_path / "made", Event(), Event()
    folder.mkdir()
    save_rows(folder / "rows.csv", many({"a": {128: [1.0], 256: [2.0]}}))
    seen = []

    def slow_report(found, draft, table=""):
        writing.set()
        seen.append(other.wait(0.3))  # nobody begins meanwhile
        (draft / "table.md").write_text("whole")
        other.set()

    monkeypatch.setattr("extrap.report.report.write_report", slow_report)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(report_again, folder)
        writing.wait()
        second = pool.submit(lambda: report_again(folder))
        assert first.result() == second.result() == [folder / "table.md"]
    assert seen == [False, True]
    assert {path.name for path in folder.iterdir()} == {"runs.csv", "rows.csv", "table.md"}


def test_a_report_that_is_killed_while_it_replaces_another_leaves_rows_that_can_be_read(tmp_path, monkeypatch):
    """And kept: who was told to remove them lost those of runs that are not here."""
    rows = {scheme: {128: [1.0], 256: [2.0]} for scheme in ("alibi", "rope")}
    save_rows(tmp_path / "rows.csv", many({"alibi": rows["alibi"]}))
    replace = Path.replace

    def killed(path, target):
        replace(path, target)
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), all_or_nothing(tmp_path) as draft:
        save_rows(draft / "rows.csv", many(rows))
        monkeypatch.setattr(Path, "replace", killed)
    assert set(load_rows(tmp_path / "rows.csv")["scheme"]) == {"alibi"}


@pytest.mark.slow
def test_a_report_that_fails_halfway_leaves_the_last_one_as_it_was(tmp_path, capsys):
    finished(tmp_path / "runs" / "made", "rope", 0)
    gather(tmp_path, "made", "a test")
    before = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    run = tmp_path / "runs" / "made" / "rope-seed0"
    rows = load_rows(run / "eval.csv")
    score(run, rows[rows["eval_len"] > 128])
    assert "training length is missing" in refusal(gather, tmp_path, "made", "a test")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == before
    draw_all(tmp_path)


@pytest.mark.slow
def test_a_report_leaves_no_table_of_an_earlier_one(tmp_path, capsys):
    finished(tmp_path / "runs" / "made", "rope", 0)
    (tmp_path / "made").mkdir()
    for left in ("table.tex", "table_floor.tex"):
        (tmp_path / "made" / left).write_text("of other rows")
    gather(tmp_path, "made", "a test", "lengths=256")
    tables = {path.name for path in (tmp_path / "made").glob("*.tex")}
    assert tables == {"table_nonoverlap.tex", "table_same_targets.tex", "table_narrow.tex"}
    assert "scheme & 256 " in (tmp_path / "made" / "table_narrow.tex").read_text()
    message = refusal(gather, tmp_path, "made", "a test", "lengths=77")
    assert message.startswith("TABLE: no rows of lengths=77 under same_targets; expected one of 128, 256")


@pytest.mark.slow
def test_a_bad_folder_is_told_in_a_line_and_stops_no_other(tmp_path, capsys):
    rows = many({"a": {128: [1.0], 256: [2.0]}})
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        save_rows(tmp_path / name / "rows.csv", rows if name != "b" else rows[rows["eval_len"] > 128])
    message = refusal(draw_all, tmp_path)
    assert message.startswith("1 of ")
    assert message.endswith(f" could not be made: {tmp_path / 'b'}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'b'}: rows: perplexity at the training length is missing")
    assert all((tmp_path / name / "table.md").exists() for name in ("a", "c"))
    assert (tmp_path / "claims" / "claims.md").exists()


@pytest.mark.slow
def test_a_report_can_be_made_again_from_its_rows_byte_for_byte(tmp_path, capsys):
    for scheme in ("rope", "alibi"):
        for seed in (0, 1):
            finished(tmp_path / "runs" / "made", scheme, seed)
    gather(tmp_path, "made", "a test")
    printed = capsys.readouterr().out
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert files.keys() == {
        *SOURCES, "table.csv", "table.md",
        "table_nonoverlap.tex", "table_same_targets.tex", "table_narrow.tex",
        "perplexity.csv", "perplexity.svg", "perplexity_column.svg",
        "pairs.csv", "pairs.md",  # a picture of two schemes says less than a line
        "page.html",
    }  # fmt: skip
    _, _, paths = printed.partition(f"written: {tmp_path / 'made'}\n")
    assert set(paths.split()) == files.keys()
    for name in files.keys() - {*SOURCES, "page.html"}:
        (tmp_path / "made" / name).unlink()
    (tmp_path / "made" / "page.html").write_text("of other rows")
    report_again(tmp_path / "made")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == files


def test_nothing_to_draw_is_refused(tmp_path):
    assert f"{tmp_path} holds no */rows.csv" in refusal(draw_all, tmp_path)


# which text was scored


def scored_rows(valid: dict[str, bytes], n_segments: int) -> pd.DataFrame:
    """Rows of the segments that a run would score."""
    held_out = Documents({"train": b"-"}, valid).held_out(4, n_segments)
    rows = scheme_rows("a", {128: [1.0]}).iloc[[0]]
    parts = zip(held_out.documents, held_out.segments, strict=True)
    return pd.concat([rows.assign(document=d, segment=s, seed=seed) for d, s in parts for seed in (0, 1)])


def test_a_report_says_which_protocols_scored_fewer_segments():
    rows = scored_rows({"a.txt": b"12345", "b.txt": b"12345"}, 2)
    some = rows.assign(protocol="same_targets")
    told = scored_text(pd.concat([rows[rows["document"] == "a.txt"], some]), 2)
    assert told == "Scored: 2 segments of all 2 held-out documents (under nonoverlap 1 of them): a.txt, b.txt."


def test_a_report_says_which_documents_were_scored():
    valid = {"a.txt": b"123", "b.txt": b"12345678", "c.txt": b"12345", "d.txt": b"1234"}
    assert scored_text(scored_rows(valid, 4), 4) == (
        "Scored: 4 segments of 3 of 4 held-out documents: b.txt (2), c.txt, d.txt."
    )
    assert scored_text(scored_rows(valid, 2), 4) == (
        "Scored: 2 segments of 2 of 4 held-out documents: c.txt, d.txt."  # the first by hash
    )
    del valid["a.txt"]
    assert scored_text(scored_rows(valid, 3), 3) == "Scored: 3 segments of all 3 held-out documents: b.txt, c.txt, d.txt."
    assert scored_text(scored_rows(valid, 3)) == "Scored: 3 segments of 3 documents: b.txt, c.txt, d.txt."
    assert (
        scored_text(scored_rows({"a.txt": b"12345678"}, 2), 1) == "Scored: 2 segments of the held-out document: a.txt (2)."
    )
    assert scored_text(scored_rows({"dbm/__init__.py": b"1234"}, 1), 1).endswith(r": dbm/\_\_init\_\_.py.")
    forty = scored_text(scored_rows({f"{i:03}": b"1234" for i in range(40)}, 40), 40)
    assert forty.replace("\n", " ").endswith(", 031 and 8 others, see rows.csv.")
    assert max(map(len, forty.splitlines())) <= 120


@pytest.mark.slow
def test_tables_and_pairs_say_which_documents_were_scored(tmp_path):
    rows = many({"a": {128: [1.0, 1.1]}, "b": {128: [2.0, 2.2]}})
    config = {"model": {}, "objective": {}, "eval": {}, "train": {}, "data": {"valid_documents": 7}}
    (tmp_path / "provenance.yaml").write_text(yaml.safe_dump({"command": "made", "config": config}))
    save_rows(tmp_path / "rows.csv", rows)
    report_again(tmp_path)
    for page in ("table.md", "pairs.md"):
        text = " ".join((tmp_path / page).read_text().split())
        assert "2 segments of 2 of 7 held-out documents: document-0, document-1." in text


@pytest.mark.parametrize(("before", "now"), [({"tie": False}, "untied"), ({"tie": True}, "tied, std 0.5")])
def test_what_an_option_was_called_before_is_read_as_it_is_called_now(tmp_path, before, now):
    then = CONFIG | {"model": {"d_model": 8} | before}
    as_told = CONFIG | {"model": {"d_model": 8, "output": now}}
    folder = RunFolder(tmp_path / "rope-seed0")
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump(then))
    assert folder.load_config() == as_told
    folder.refuse_other_config(as_told)
    told = {"command": "make", "config": then, "used": {"valid_documents": 3}}
    (tmp_path / "provenance.yaml").write_text(yaml.safe_dump(told))
    assert load_provenance(tmp_path / "provenance.yaml") == told | {"config": as_told}
    other = as_told | {"model": {"d_model": 8, "output": "tied"}}
    assert refusal(folder.refuse_other_config, other).startswith(
        f"{folder.path} holds a run with another config: model.output: {now} -> tied"
    ), "a table of before is not taken for one of today"


def test_what_says_nothing_of_a_model_is_read_as_it_is():
    assert as_now({"data": 3}) == {"data": 3}
    assert as_now(CONFIG) == CONFIG
