"""Rows on disk: what the runs have written, checked and brought together. Imports no torch."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from extrap.config.varied import options_in
from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.folders import evaluated, finished, refuse_mixed

# what was trained for, on what, and what else varies in its sweep: schemes are compared within, never across
GROUP = ["objective", "data", "train_len", "setting"]
COLUMNS = [
    "experiment", "run", "kind", "scheme", "extension", "objective", "data", "protocol", "train_len", "setting", "eval_len",
    "seed", "document", "segment", "nll_sum", "n_tokens", "n_bytes",
]  # fmt: skip
TRAINING = ["experiment", "run", "scheme", *GROUP, "seed", "step", "tokens", "loss"]
MISSING = ["experiment", "run", "scheme", *GROUP, "seed", "extension", "protocol", "eval_len", "reason"]
SELECTION = "selection"  # the kind, and the protocol, of rows of text that is neither trained on nor scored
TRAINED = ("scheme", SELECTION)  # kinds of rows that runs have; the others are of references
COUNTS = ("train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes", "step", "tokens")
TYPES = dict.fromkeys(COUNTS, np.int64) | dict.fromkeys(("nll_sum", "loss"), np.float64)  # all else is text
# one segment scored once: two rows that agree in all of these are an error
KEY = ["scheme", "extension", *GROUP, "protocol", "eval_len", "seed", "document", "segment"]


def collect(runs: Path) -> pd.DataFrame:
    """The rows of every evaluated run below results/runs/<experiment>, in the order of their names.

    Raises UserError if there is none, or if runs differ in what their rows would not show.
    """
    folders = evaluated(runs)
    refuse_mixed(runs)
    tables = [load_rows(folder.rows) for folder in folders]
    for folder, table in zip(folders, tables, strict=True):
        if (found := table.loc[0, ["experiment", "run"]].tolist()) != [runs.name, folder.path.name]:
            raise UserError(
                f"{folder.path} holds the rows of {'/'.join(found)}: give it that name back, or move it out of {runs}"
            )
    return pd.concat(tables, ignore_index=True)


def collect_missing(runs: Path) -> pd.DataFrame:
    """What the runs below results/runs/<experiment> have no rows of, and why."""
    return stacked([pd.DataFrame(columns=MISSING), *(load_missing(folder.missing) for folder in finished(runs))])


def load_missing(path: Path) -> pd.DataFrame:
    """What a sweep has no rows of, and why; nothing where there is no such file."""
    return _table(path, MISSING) if path.exists() else pd.DataFrame(columns=MISSING)


def collect_training(runs: Path) -> pd.DataFrame:
    """The training losses of every evaluated run, named as its rows are; loss in nats per scored token of a batch."""
    tables = [pd.DataFrame(columns=TRAINING)]
    for folder in evaluated(runs):
        if folder.log.exists():  # references are not trained
            run = load_rows(folder.rows).loc[:0, TRAINING[:-3]]
            losses = _table(folder.log, TRAINING[-3:])
            tables.append(run.merge(losses, how="cross"))
    return stacked(tables)


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same columns, one below the other; empty ones would change the types of columns."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def load_training(path: Path) -> pd.DataFrame:
    """Training losses from CSV, checked: all columns, a finite loss once for every run and step."""
    losses = _table(path, TRAINING)
    if losses.duplicated([*TRAINING[:-3], "step"]).any() or not np.isfinite(losses["loss"]).all():
        raise UserError(f"{path}: expected a finite loss once for every run and step")
    return losses


def load_rows(path: Path) -> pd.DataFrame:
    """Rows from CSV, checked: all columns, no segment twice, nothing that is not a number where one must be."""
    rows = _table(path, COLUMNS)
    possible = np.isfinite(rows["nll_sum"]) & (rows["n_tokens"] >= 0) & (rows["n_bytes"] >= 0)
    if rows.empty or not possible.all():
        found = "no rows" if rows.empty else f"nll_sum, n_tokens, n_bytes = {tuple(rows[~possible].iloc[0, -3:])}"
        raise UserError(f"{path}: expected rows with a finite nll_sum and counts from 0 on, found {found}")
    if (again := rows.duplicated(KEY)).any():
        twice = rows[again].iloc[0]
        raise UserError(f"{path} scores a segment twice: {', '.join(f'{key}={twice[key]}' for key in KEY)}")
    return rows


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of what was scored: without those of text that rates are chosen on, and without references where no scheme
    has a number, as in a setting in which all runs diverged."""
    rows = rows[rows["kind"] != SELECTION]
    places = pd.MultiIndex.from_frame(rows[[*GROUP, "protocol"]])
    return rows[places.isin(places[rows["kind"] == "scheme"].unique())]


def within(table: pd.DataFrame, columns: list[str], values: tuple[object, ...]) -> pd.DataFrame:
    """The lines that hold these values."""
    return table[(table[columns] == list(values)).all(axis=1)]


def apart(table: pd.DataFrame, option: str) -> pd.DataFrame:
    """The value of an option that varies as a column of its own, `value`, beside a setting without it; empty where a setting
    does not name it. Option by the last part of its name: lr, max_steps."""
    parts = [options_in(setting) for setting in table["setting"]]
    values = [of.pop(option, "") for of in parts]
    return table.assign(value=values, setting=[", ".join(map("=".join, of.items())) for of in parts])


def load_one_setting(path: Path) -> pd.DataFrame:
    """Scored rows that may be averaged over. Raises UserError where they are of several objectives, texts, settings, ..."""
    rows = scored(load_rows(path))
    if len(found := rows[GROUP].drop_duplicates()) > 1:
        told = " and ".join(" ".join(map(str, of)).strip() for of in found.head(2).itertuples(index=False, name=None))
        raise UserError(
            f"{path} holds {len(found)} settings ({told}, ...), expected rows of one; nothing is averaged over them"
        )
    return rows


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    """These columns of a CSV file; it has no setting where nothing varies.

    Raises UserError where it is no such table, or something is not the number that it must be.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; `make sweep` writes it")
    try:
        # numbers are read as text first: a column that is not what it must be is then an error, not another type
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.assign(**{column: "" for column in columns if column == "setting" not in table})[columns]
        return table.astype({column: TYPES[column] for column in columns if column in TYPES})
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            one_line(
                f"{path} is no table with the columns {', '.join(columns)}: {error}; remove it, and `make sweep` writes it"
            )
        ) from error


def save_rows(path: Path, rows: pd.DataFrame) -> None:
    """CSV with every digit: what is read again is what was written, bit for bit."""
    write_atomic(path, as_csv(rows))


DIGITS = 6  # of what is shown: what processors differ by is far below, and what is seen far above
P_DIGITS = 3  # of a p value: of differences near 0 much less is known


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Every number with the digits that are shown: six, and no more than six behind the point; three of a p value.

    Logarithms, exponentials and sums of vectors differ from processor to processor in the sixteenth digit, and differences
    of like numbers in earlier ones. What is drawn and written is rounded here, once.
    """
    return table.assign(**{
        column: [_rounded(value, is_p=re.fullmatch(r"(\w+_)?p(_holm)?", str(column)) is not None) for value in table[column]]
        for column in table.select_dtypes("float")
    })  # fmt: skip


def _rounded(value: float, is_p: bool) -> float:
    return float(f"{value:.{P_DIGITS}g}" if is_p else f"{round(value, DIGITS):.{DIGITS}g}")


def save_table(path: Path, table: pd.DataFrame) -> None:
    """CSV of numbers as they are shown (see rounded)."""
    write_atomic(path, as_csv(rounded(table), "%.10g"))


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """The table as CSV, without the column of settings where nothing varies."""
    if {*GROUP} <= {*table} and not table["setting"].any():
        table = table.drop(columns="setting")
    end = "\r\n\0"  # signs of it are quoted within names, a carriage return too; with NUL, which no name holds, it is unique
    return str(table.to_csv(index=False, lineterminator=end, float_format=float_format)).replace(end, "\n")
