"""Rows and training losses on disk: what is read is what was written, bit for bit, and what is no table is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusing import refusal
from rows import many, scheme_rows

from extrap.report.report import write_report
from extrap.results.rows import (
    COLUMNS,
    COSTS,
    KEY,
    OF_ROW,
    OF_RUN,
    PLAIN,
    SELECTION,
    as_csv,
    load_rows,
    load_runs,
    load_training,
    runs_table,
    save_rows,
    save_training,
)
from extrap.stats.statistics import Statistics

pytestmark = pytest.mark.usefixtures("svg_alone")

NAMES = ["a,b", '"quoted"', "it's", "位置 ±", "nan", "NaN", "None", "NA", "null", "", " spaced ", "007", "1e5", "True", "-",
         "two\nlines", "a\tb", "local(rope, window=32)", "\\n", "#x"]  # fmt: skip


def there_and_back(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    save_rows(path, rows)
    first = path.read_bytes()
    loaded = load_rows(path)
    save_rows(path, loaded)
    assert path.read_bytes() == first
    return loaded


@pytest.mark.parametrize("column", ["scheme", "document", "run", "extension"])
def test_any_name_comes_back(tmp_path, column):
    runs = {name: {"run": f"a-seed{seed}", "seed": seed} for seed, name in enumerate(NAMES)}
    rows = pd.concat([scheme_rows("a", {128: [1.0]}, **runs[name] | {column: name}) for name in NAMES], ignore_index=True)
    if column == "document":
        rows = rows.drop_duplicates("document", ignore_index=True)
    loaded = there_and_back(tmp_path / "rows.csv", rows)
    assert loaded[column].to_list() == rows[column].to_list()
    assert len(loaded) == len(rows)


@pytest.mark.slow
@given(
    losses=st.lists(st.floats(min_value=0, allow_infinity=False, allow_nan=False), min_size=1, max_size=20),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_every_bit_comes_back(tmp_path, losses, name):
    rows = scheme_rows(name, {128: [1.0] * len(losses)}).iloc[::2]
    rows = rows.assign(nll_sum=losses).reset_index(drop=True)
    loaded = there_and_back(tmp_path / "rows.csv", rows)
    assert loaded["nll_sum"].to_numpy().tobytes() == rows["nll_sum"].to_numpy().tobytes()
    assert loaded["scheme"].to_list() == rows["scheme"].to_list()


@pytest.mark.slow
def test_many_random_floats_come_back(tmp_path):
    bits = np.random.default_rng(0).integers(0, 0x7FF0000000000000, size=5000, dtype=np.int64)  # every positive finite float
    rows = scheme_rows("a", {128: [1.0] * 2500}).assign(nll_sum=bits.view(np.float64))
    loaded = there_and_back(tmp_path / "rows.csv", rows)
    np.testing.assert_array_equal(loaded["nll_sum"].to_numpy().view(np.int64), bits)


def test_columns_have_their_types(tmp_path):
    loaded = there_and_back(tmp_path / "rows.csv", many({"a": {128: [1.0, 2.0], 256: [1.0, 2.0]}}))
    assert list(loaded.columns) == COLUMNS
    for column in ("train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes"):
        assert loaded[column].dtype == np.int64
    assert loaded["nll_sum"].dtype == np.float64


def without(path: Path, column: str) -> None:
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=column).to_csv(path, index=False)


@pytest.mark.parametrize("column", [column for column in COLUMNS if column not in PLAIN])  # which may be left out
def test_a_missing_column_is_refused(tmp_path, column):
    of_run = column in OF_RUN
    file = tmp_path / ("runs.csv" if of_run else "rows.csv")
    save_rows(tmp_path / "rows.csv", scheme_rows("a", {128: [1.0]}))
    without(file, {"eval_len": "nll_sum_128", "nll_sum": "nll_sum_128"}.get(column, column))
    message = refusal(load_rows, tmp_path / "rows.csv")
    assert message.startswith(f"{file} is no table with the columns ")
    assert column in message


def test_what_all_rows_of_a_run_share_is_said_once(tmp_path):
    rows = pd.concat([
        many({"a": {128: [1.0, 2.0], 256: [1.0, 2.0]}}),
        scheme_rows("a", {128: [1.5, 2.5]}, kind=SELECTION, protocol=SELECTION, document="held back"),
        *(scheme_rows(f, {128: [1.0]}, kind=f, run=f"reference/{f}") for f in ("floor", "unigram")),
    ], ignore_index=True)  # fmt: skip
    rows = rows.drop_duplicates(KEY, ignore_index=True).sort_values(["run", "kind"], kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(there_and_back(tmp_path / "rows.csv", rows), rows, check_exact=True)
    runs, alone = (pd.read_csv(tmp_path / name) for name in ("runs.csv", "rows.csv"))
    assert list(runs["run"]) == ["a-seed0", "a-seed1", "reference/floor", "reference/unigram"]
    assert list(runs["kind"]) == ["scheme", "scheme", "floor", "unigram"]
    segment = ["run", "extension", "protocol", "document", "segment"]
    assert list(alone) == [*segment, "nll_sum_128", "nll_sum_256", "n_tokens"]
    assert not alone.duplicated(segment).any()
    wide = rows.assign(n_bytes=2 * rows["n_tokens"])
    pd.testing.assert_frame_equal(there_and_back(tmp_path / "rows.csv", wide), wide, check_exact=True)


def test_lengths_that_are_not_scored_stay_so_and_counts_may_hang_on_the_length(tmp_path):
    """As of extensions, scored at some lengths, and under `position`, whose bins hold other tokens each."""
    whole, some = scheme_rows("a", {128: [1.0], 256: [1.1], 512: [1.2]}), scheme_rows("a", {128: [1.0], 512: [1.3]})
    bins = scheme_rows("a", {16: [1.0], 24: [1.1]}, protocol="position").assign(
        n_tokens=[16, 16, 8, 8], n_bytes=[16, 16, 8, 8]
    )
    rows = pd.concat([whole, some.assign(extension="window"), bins], ignore_index=True)
    pd.testing.assert_frame_equal(there_and_back(tmp_path / "rows.csv", rows), rows, check_exact=True)
    assert len(pd.read_csv(tmp_path / "rows.csv")) == 2 + 2 + 4


def test_a_line_a_row_is_read_as_well(tmp_path):
    rows = many({"a": {128: [1.0, 2.0], 256: [1.0, 2.0]}})
    save_rows(path := tmp_path / "rows.csv", rows)
    path.write_text(as_csv(rows[OF_ROW].drop(columns="n_bytes")))
    pd.testing.assert_frame_equal(load_rows(path), rows, check_exact=True)
    path.write_text(path.read_text().replace("nll_sum", "sum"))
    assert "is no table with the columns" in refusal(load_rows, path)


def test_a_length_that_lacks_a_segment_is_refused(tmp_path):
    save_rows(path := tmp_path / "rows.csv", many({"a": {128: [1.0], 256: [1.1], 512: [1.2]}}))
    table = pd.read_csv(path, dtype=str)
    table.loc[1, "nll_sum_256"] = ""
    table.to_csv(path, index=False)
    assert "nll_sum is blank for some of the segments that are scored at 256" in refusal(load_rows, path)


def test_runs_that_are_not_listed_or_listed_twice_are_refused(tmp_path):
    path, runs = tmp_path / "rows.csv", tmp_path / "runs.csv"
    save_rows(path, rows := many({"a": {128: [1.0, 2.0]}}))
    whole = runs.read_text()
    runs.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert refusal(load_rows, path).startswith(f"{path} holds a-seed1, which {runs} does not list; ")
    runs.write_text(whole + whole.splitlines()[-1].replace("stdlib", "text") + "\n")
    assert refusal(load_rows, path).startswith(f"{runs}: expected every run once, found a-seed1 twice; ")
    save_rows(path, rows.assign(train_len=[128, 128, 256, 128]))
    assert "found a-seed1 twice" in refusal(load_rows, path), "nor do rows of a run disagree"
    runs.unlink()
    assert refusal(load_rows, path).startswith(f"{runs} does not exist: it says what all rows of a run share; ")


def test_rows_as_they_were_are_told_what_is_expected(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(as_csv(scheme_rows("a", {128: [1.0]})))
    assert f"{tmp_path / 'runs.csv'} does not exist" in refusal(load_rows, path)


def test_costs_come_back_and_what_is_not_known_stays_unknown(tmp_path):
    rows = many({"a": {128: [1.0, 2.0]}})
    of_one = {"run": "a-seed1", "parameters": 431_104.0, "tokens": 2**40, "train_flops": 1e18, "train_seconds": 12.34,
              "eval_seconds": 0.1 + 0.2, "peak_memory": np.nan}  # fmt: skip
    costs = pd.DataFrame([of_one]).astype(dict.fromkeys(COSTS, float))
    save_rows(tmp_path / "rows.csv", rows, costs)
    told = load_runs(tmp_path / "runs.csv").set_index("run")[COSTS]
    assert told.loc["a-seed0"].isna().all()
    pd.testing.assert_frame_equal(told.loc[["a-seed1"]], costs.set_index("run"), check_exact=True)
    assert (
        (tmp_path / "runs.csv")
        .read_text()
        .endswith(",431104,1099511627776,1000000000000000000,12.34,0.30000000000000004,\n")
    )
    assert there_and_back(tmp_path / "rows.csv", rows).equals(rows), "costs are no part of rows"
    (tmp_path / "runs.csv").write_text(runs_table(rows, costs).replace("12.34", "long"))
    assert "is no table with the columns" in refusal(load_runs, tmp_path / "runs.csv")


@pytest.mark.parametrize("content", [b"", b"\n", b"a,b\n1,2\n", b"\xff\xfe\0\0", b"\x89PNG\r\n\x1a\n", b"a,b\n1,2,3\n4\n"])
def test_what_is_no_table_of_rows_is_refused(tmp_path, content):
    (tmp_path / "rows.csv").write_bytes(content)
    assert "is no table with the columns" in refusal(load_rows, tmp_path / "rows.csv")


def test_missing_files_are_refused(tmp_path):
    assert f"{tmp_path / 'rows.csv'} does not exist" in refusal(load_rows, tmp_path / "rows.csv")


def test_a_table_without_rows_is_refused(tmp_path):
    save_rows(tmp_path / "rows.csv", pd.DataFrame(columns=COLUMNS))
    assert "found no rows" in refusal(load_rows, tmp_path / "rows.csv")
    assert str(tmp_path / "rows.csv") in refusal(load_rows, tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("nll_sum", ""), ("nll_sum", "nan"), ("nll_sum", "inf"), ("nll_sum", "1,5"), ("nll_sum", "lots"),
        ("nll_sum", "-0.5"), ("n_tokens", "19.5"), ("n_tokens", ""), ("n_tokens", "-3"), ("n_bytes", "many"),
        ("eval_len", "abc"), ("train_len", ""), ("seed", "x"), ("segment", "0.5"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused(tmp_path, column, value):
    rows = scheme_rows("a", {128: [1.0]}).astype({column: object})
    of_run = column in OF_RUN
    rows.loc[slice(None) if of_run else 1, column] = value
    save_rows(tmp_path / "rows.csv", rows)
    assert str(tmp_path / ("runs.csv" if of_run else "rows.csv")) in refusal(load_rows, tmp_path / "rows.csv")


def test_a_segment_in_which_nothing_was_hidden_is_a_row_like_any_other(tmp_path):
    rows = scheme_rows("a", {128: [1.0]})
    rows.loc[0, ["nll_sum", "n_tokens", "n_bytes"]] = 0
    assert there_and_back(tmp_path / "rows.csv", rows)["n_tokens"].to_list() == [0, 70]


def test_a_file_cut_short_is_refused(tmp_path):
    save_rows(tmp_path / "rows.csv", scheme_rows("a", {128: [1.0]}))
    content = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(content[: content.rindex(",")])
    refusal(load_rows, tmp_path / "rows.csv")


def test_a_segment_scored_twice_is_refused(tmp_path):
    rows = many({"a": {128: [1.0, 2.0]}, "b": {128: [1.0]}})
    save_rows(path := tmp_path / "rows.csv", rows)
    _, _, second, *_ = path.read_text().splitlines(keepends=True)
    path.write_text(path.read_text() + second)
    message = refusal(load_rows, tmp_path / "rows.csv")
    for part in ("twice", "scheme=a", "seed=0", "document=document-1"):
        assert part in message


@pytest.mark.slow
def test_a_single_scheme_is_held_against_its_window(tmp_path):
    nll = {128: [1.0, 1.1], 256: [0.9, 1.0]}
    window = scheme_rows("a", {128: [1.0, 1.1], 256: [1.0, 1.1]}, extension="window", protocol="same_targets")
    rows = pd.concat([scheme_rows("a", nll, protocol="same_targets"), window])
    write_report(Statistics(rows), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"extrapolates.csv", "pairs.md"} <= written
    assert "pairs.svg" not in written
    assert list(pd.read_csv(tmp_path / "extrapolates.csv")["eval_len"]) == [256]


# training losses


LOSSES = pd.DataFrame({"experiment": "made", "run": ["nan-seed0"] * 2 + ["nan-seed1"] * 2, "scheme": "nan",
                       "objective": "mlm", "data": "stdlib", "train_len": 128, "setting": "", "seed": [0, 0, 1, 1],
                       "step": [10, 20] * 2,
                       "tokens": [10240, 20480] * 2, "loss": [2.5, 0.1 + 0.2, 2.4, 1.9],
                       "held_out_loss": [np.nan, 2.6, np.nan, 0.1 + 0.7]})  # fmt: skip


def save_losses(folder: Path, losses: pd.DataFrame) -> None:
    """As beside rows, which bring runs.csv."""
    save_training(folder / "training.csv", losses)
    (folder / "runs.csv").write_text(runs_table(LOSSES.assign(kind="scheme")))


def test_training_losses_come_back(tmp_path):
    save_losses(tmp_path, LOSSES)
    pd.testing.assert_frame_equal(load_training(tmp_path / "training.csv"), LOSSES, check_exact=True)
    nobody_looked = LOSSES.assign(held_out_loss=np.nan)
    for losses in (nobody_looked, nobody_looked[:0]):
        save_losses(tmp_path, losses)
        assert "held_out_loss" not in (tmp_path / "training.csv").read_text()
        pd.testing.assert_frame_equal(load_training(tmp_path / "training.csv"), losses, check_exact=True, check_dtype=False)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (LOSSES.assign(run="other"), "training.csv holds other, which "),
        (LOSSES.assign(loss="lots"), "is no table"),
        (LOSSES.assign(step=1.5), "is no table"),
        (LOSSES.assign(loss=[1.0, np.inf, 1.0, 1.0]), "expected a finite loss once"),
        (LOSSES.assign(loss=[1.0, np.nan, 1.0, 1.0]), "could not convert"),
        (pd.concat([LOSSES, LOSSES[1:2]]), "expected a finite loss once"),
    ],
)
def test_bad_training_losses_are_refused(tmp_path, bad, message):
    assert "does not exist" in refusal(load_training, tmp_path / "training.csv")
    save_losses(tmp_path, bad)
    assert message in refusal(load_training, tmp_path / "training.csv")
