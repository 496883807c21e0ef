"""Rows on disk: what the runs have written, checked and brought together. Imports no torch.

A table of rows, or of losses, says what is of each alone; what all of a run share stands once, in runs.csv beside it. On
disk the rows of a segment are one line, with a column of nll_sum a length.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from extrap.config.varied import options_in
from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.folders import evaluated, finished, refuse_mixed

# text is of one type with pyarrow, an extra, and without; of the other, tables of a few rows take half as long again
pd.set_option("mode.string_storage", "python")

# what was trained for, on what, and what else varies in its sweep: schemes are compared within, never across
GROUP = ["objective", "data", "train_len", "setting"]
COLUMNS = [
    "experiment", "run", "kind", "scheme", "extension", "objective", "data", "protocol", "train_len", "setting", "eval_len",
    "seed", "document", "segment", "nll_sum", "n_tokens", "n_bytes",
]  # fmt: skip
OF_RUN = ["experiment", "run", "kind", "scheme", *GROUP, "seed"]
OF_ROW = ["run", *(column for column in COLUMNS if column not in OF_RUN)]
OF_SEGMENT, OF_COUNTS = ["run", "extension", "protocol", "document", "segment"], ["n_tokens", "n_bytes"]
OF_LENGTH = "nll_sum_"  # and an evaluation length: columns of the lines of segments
OF_LOSS = ["run", "step", "tokens", "loss", "held_out_loss"]
TRAINING = [*(column for column in OF_RUN if column != "kind"), *OF_LOSS[1:]]
# what a run took, where that is known; of the machine, and never compared: see results/README.md
COSTS = ["parameters", "tokens", "train_flops", "train_seconds", "eval_seconds", "peak_memory"]
MISSING = ["experiment", "run", "scheme", *GROUP, "seed", "extension", "protocol", "eval_len", "reason"]
NOT_A_NUMBER = "not a number"  # the loss at a length
BROKEN = ("diverged", NOT_A_NUMBER)  # how reasons begin that lie in the model: seeds that have a number would flatter it
SELECTION = "selection"  # the kind, and the protocol, of rows of text that is neither trained on nor scored
TRAINED = ("scheme", SELECTION)  # kinds of rows that runs have; the others are of references
COUNTS = ("train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes", "step", "tokens")
TYPES = dict.fromkeys(COUNTS, np.int64) | dict.fromkeys(("nll_sum", "loss", "held_out_loss"), np.float64)  # all else is text
Reading = Callable[[pd.DataFrame], pd.DataFrame]  # what a table is that was read as text
# columns that are left out where they say nothing else: nothing varies, a token is a byte, nobody looked
PLAIN: dict[str, Callable[[pd.DataFrame], Any]] = {
    "setting": lambda table: "",
    "n_bytes": lambda table: table["n_tokens"],
    "held_out_loss": lambda table: "",
}
# one segment scored once: two rows that agree in all of these are an error
KEY = ["scheme", "extension", *GROUP, "protocol", "eval_len", "seed", "document", "segment"]


NUMBER = re.compile(r"((?:(?<==)-)?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")  # within the text of a setting
RUNS = "runs.csv"
MEND = "move the rows beside it away, and `make sweep` writes both"  # what is wrong with runs.csv


def collect(runs: Path) -> pd.DataFrame:
    """The rows of every evaluated run below results/runs/<experiment>, in the order of their names.

    Raises UserError if there is none, if runs differ in what their rows would not show, or if a table is damaged.
    """
    folders = evaluated(runs)
    refuse_mixed(runs)
    for folder in finished(runs):
        folder.refuse_damage()
    tables = [load_rows(folder.rows) for folder in folders]
    for folder, table in zip(folders, tables, strict=True):
        of, run = table.loc[0, ["experiment", "run"]]
        if (of, run.partition("/")[0]) != (runs.name, folder.path.name):  # reference/floor stands in reference/
            raise UserError(f"{folder.path} holds the rows of {of}/{run}: give it that name back, or move it out of {runs}")
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
            told = load_runs(folder.runs)[OF_RUN]
            own = told[told["run"] == folder.path.name]  # not what is scored apart of the same training
            tables.append(own.merge(_table(folder.log, OF_LOSS[1:]), how="cross")[TRAINING])
    return stacked(tables)


def collect_costs(runs: Path) -> pd.DataFrame:
    """A line a run: its name, and of COSTS what its meta.json tells; of references nothing is told."""
    folders = [folder for folder in evaluated(runs) if folder.meta.exists()]
    lines = [{"run": folder.path.name} | folder.load_meta()["costs"] for folder in folders]
    return pd.DataFrame(lines, columns=["run", *COSTS]).astype(dict.fromkeys(COSTS, np.float64))


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same columns, one below the other; empty ones would change the types of columns."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def load_training(path: Path) -> pd.DataFrame:
    """Training losses from CSV, checked: all columns, a finite loss once for every run and step."""
    losses = _of_runs(path, OF_LOSS)[TRAINING]
    if losses.duplicated(["run", "step"]).any() or not np.isfinite(losses["loss"]).all():
        raise UserError(f"{path}: expected a finite loss once for every run and step")
    return losses


def load_rows(path: Path) -> pd.DataFrame:
    """Rows from CSV, checked: all columns, no segment twice, nothing that is not a number where one must be."""
    rows = _of_runs(path, OF_ROW, by_row)[COLUMNS]
    rows["kind"] = rows["kind"].mask(rows["protocol"] == SELECTION, SELECTION)
    possible = np.isfinite(rows["nll_sum"]) & (rows[["nll_sum", "n_tokens", "n_bytes"]] >= 0).all(axis="columns")
    if rows.empty or not possible.all():
        found = "no rows" if rows.empty else f"nll_sum, n_tokens, n_bytes = {tuple(rows[~possible].iloc[0, -3:])}"
        raise UserError(f"{path}: expected rows with a finite nll_sum and counts, from 0 on, found {found}")
    if (again := rows.duplicated(KEY)).any():
        twice = rows[again].iloc[0]
        raise UserError(f"{path} scores a segment twice: {', '.join(f'{key}={twice[key]}' for key in KEY)}")
    return rows


def load_runs(path: Path) -> pd.DataFrame:
    """The columns OF_RUN and COSTS of runs.csv, checked: every run once; a cost that is not known is nan."""
    if not path.exists():
        raise UserError(f"{path} does not exist: it says what all rows of a run share; {MEND}")
    runs = _table(path, OF_RUN, COSTS, MEND)
    if (again := runs.duplicated("run")).any():
        raise UserError(f"{path}: expected every run once, found {runs.loc[again, 'run'].iloc[0]} twice; {MEND}")
    return runs


def load_costs(path: Path) -> pd.DataFrame:
    """Of runs.csv the columns run and COSTS."""
    return load_runs(path)[["run", *COSTS]]


def by_segment(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns OF_ROW as a line a segment: nll_sum_128, nll_sum_256, ..., blank where a length is not scored, and counts.

    These are most often the same at all lengths; where they differ, as under `position`, a segment has several lines.
    """
    keys = [*OF_SEGMENT, *OF_COUNTS]
    lines = rows.groupby(keys, sort=False).ngroup()
    told = rows.assign(line=lines, nll_sum=rows["nll_sum"].astype(str))  # with every digit
    sums = told.pivot(index="line", columns="eval_len", values="nll_sum").add_prefix(OF_LENGTH)
    of_lines = rows[keys].drop_duplicates(ignore_index=True)
    return of_lines[OF_SEGMENT].join(sums).join(of_lines[OF_COUNTS])


def by_row(table: pd.DataFrame) -> pd.DataFrame:
    """What by_segment makes, read as text, as rows again: of each run, extension and protocol by length.

    A table without lengths is a line a row, as they were written once, or none of rows. Raises ValueError where a length
    lacks a segment, for all segments of a protocol are scored at each of its lengths.
    """
    lengths = {column: int(column.removeprefix(OF_LENGTH)) for column in table if column.startswith(OF_LENGTH)}
    if not lengths and len(table):
        return table
    table = table.rename(columns=lengths).assign(block=table.groupby(["run", "extension", "protocol"], sort=False).ngroup())
    rows = table.melt([*table.columns.drop(lengths.values())], var_name="eval_len", value_name="nll_sum")
    rows = rows[rows["nll_sum"] != ""].astype({"eval_len": np.int64})
    segments = table.drop_duplicates(["block", "document", "segment"]).groupby("block").size()
    if (short := rows.groupby(["block", "eval_len"]).size().lt(segments, level="block")).any():
        raise ValueError(f"nll_sum is blank for some of the segments that are scored at {short[short].index[0][1]}")
    return rows.sort_values(["block", "eval_len"], kind="stable", ignore_index=True)


def _of_runs(path: Path, columns: list[str], read: Reading = lambda table: table) -> pd.DataFrame:
    """A table, joined with what runs.csv beside it says of the runs."""
    table, runs = _table(path, columns, read=read), load_runs(beside := path.with_name(RUNS))
    if unknown := [run for run in table["run"].unique() if run not in {*runs["run"]}]:
        raise UserError(
            f"{path} holds {unknown[0]}, which {beside} does not list; move {path.name} away, and `make sweep` writes both"
        )
    return table.merge(runs[OF_RUN], on="run", how="left")


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of what was scored: without those of text that rates are chosen on, and without references where no scheme
    has a number, as in a setting in which all runs diverged. Training lengths and settings in the order of their numbers."""
    rows = rows[rows["kind"] != SELECTION]
    places = pd.MultiIndex.from_frame(rows[[*GROUP, "protocol"]])
    rows = rows[places.isin(places[rows["kind"] == "scheme"].unique())]
    return rows.sort_values(GROUP, kind="stable", key=_in_order) if len(rows[GROUP].drop_duplicates()) > 1 else rows


def _in_order(column: pd.Series) -> pd.Series:
    """Numbers within text by their size; objectives and texts as they come."""
    values = column.unique()
    if column.name == "setting":  # of words and numbers in turn
        values = sorted(values, key=lambda text: [float(s) if i % 2 else s for i, s in enumerate(NUMBER.split(text))])
    elif column.name == "train_len":
        values = sorted(values)
    return column.map({value: i for i, value in enumerate(values)})


def within(table: pd.DataFrame, columns: list[str], values: tuple[object, ...]) -> pd.DataFrame:
    """The lines that hold these values."""
    return table[(table[columns] == list(values)).all(axis=1)]


def as_trained(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of schemes without an extension."""
    return table[(table["kind"] == "scheme") & (table["extension"] == "none")]


def apart(table: pd.DataFrame, option: str) -> pd.DataFrame:
    """The value of an option that varies as a column of its own, `value`, beside a setting without it; empty where a setting
    does not name it. Option as settings call it: lr, max_steps."""
    parts = [options_in(setting) for setting in table["setting"]]
    values = [of.pop(option, "") for of in parts]
    return table.assign(value=values, setting=[", ".join(map("=".join, of.items())) for of in parts])


def _table(
    path: Path,
    columns: list[str],
    costs: Sequence[str] = (),
    mend: str = "remove it, and `make sweep` writes it",
    read: Reading = lambda table: table,
) -> pd.DataFrame:
    """These columns of a CSV file, of PLAIN what they are where left out; and costs, where they are told.

    Raises UserError where it is no such table, or something is not the number that it must be.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; `make sweep` writes it")
    try:
        # numbers are read as text first: a column that is not what it must be is then an error, not another type
        table = read(pd.read_csv(path, dtype=str, keep_default_na=False))
        for column, plain in PLAIN.items():
            if column in columns and column not in table:
                table[column] = plain(table)
        told = (
            table[columns]
            .replace({"held_out_loss": {"": "nan"}})
            .astype({column: TYPES[column] for column in columns if column in TYPES})
        )
        return told.join(table.reindex(columns=costs).replace("", np.nan).astype(np.float64))
    except (ValueError, KeyError, OSError) as error:
        expected = ", ".join(columns)
        raise UserError(one_line(f"{path} is no table with the columns {expected}: {error}; {mend}")) from error


def save_rows(path: Path, rows: pd.DataFrame, costs: pd.DataFrame | None = None) -> None:
    """Writes row_tables."""
    for file, content in row_tables(path, rows, costs).items():
        write_atomic(file, content)


def row_tables(path: Path, rows: pd.DataFrame, costs: pd.DataFrame | None = None) -> dict[Path, str]:
    """What is written of rows, `path` last: CSV with every digit; what is read again is what was written, bit for bit."""
    alone = by_segment(rows)
    if (alone["n_bytes"] == alone["n_tokens"]).all():
        alone = alone.drop(columns="n_bytes")
    return {path.with_name(RUNS): runs_table(rows, costs), path: as_csv(alone)}


def runs_table(labelled: pd.DataFrame, costs: pd.DataFrame | None = None) -> str:
    """runs.csv: a line a run of these rows; `costs` are known by the column run."""
    runs = labelled[OF_RUN].assign(kind=labelled["kind"].replace(SELECTION, "scheme")).drop_duplicates()
    if costs is not None:
        whole = [cost for cost in COSTS if not cost.endswith("seconds")]
        runs = runs.merge(costs[["run", *COSTS]].astype(dict.fromkeys(whole, "Int64")), on="run", how="left")
    return as_csv(runs)


def save_training(path: Path, losses: pd.DataFrame) -> None:
    """CSV as above; runs.csv is that of the rows beside it."""
    idle = ["held_out_loss"] if losses["held_out_loss"].isna().all() else []
    write_atomic(path, as_csv(losses[OF_LOSS].drop(columns=idle)))


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """The table as CSV, without the column of settings where nothing varies."""
    if {*GROUP} <= {*table} and not table["setting"].any():
        table = table.drop(columns="setting")
    end = "\r\n\0"  # signs of it are quoted within names, a carriage return too; with NUL, which no name holds, it is unique
    return str(table.to_csv(index=False, lineterminator=end, float_format=float_format)).replace(end, "\n")
