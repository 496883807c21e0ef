"""Rows on disk: what the runs have written, checked and brought together. Imports no torch."""

import io
import re
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.folders import MAY_DIFFER, differences, evaluated, finished, refuse_mixed

COLUMNS = [
    "experiment", "run", "kind", "scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len",
    "seed", "document", "segment", "nll_sum", "n_tokens", "n_bytes",
]  # fmt: skip
TRAINING = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "step", "tokens", "loss"]
MISSING = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "extension", "protocol", "eval_len",
           "reason"]  # fmt: skip
COUNTS = ["train_len", "eval_len", "seed", "segment", "n_tokens", "n_bytes"]
# one segment scored once: two rows that agree in all of these are an error
KEY = ["scheme", "extension", "objective", "data", "protocol", "train_len", "eval_len", "seed", "document", "segment"]
MADE_BY = (
    "version", "git_commit", "git_dirty", "python", "torch", "device", "instructions", "precision", "threads", "processes",
)  # fmt: skip


def refuse_to_lose(results: Path, config: dict[str, Any], planned: Collection[tuple[str, int]] = ()) -> None:
    """Raises UserError if a report of these (scheme, seed) would replace one of another config, or one that holds more.

    It may hold other schemes, whose rows are kept (see `kept`), if recipe, data and precision are the same. Another machine
    may have other data and another precision: there the same experiment is made anew.
    """
    if not (results / "rows.csv").exists():
        return
    old = load_provenance(results / "provenance.yaml")["config"]
    if changes := differences(_comparable(old), _comparable(config)):
        raise UserError(f"{results} holds results of another config: {'; '.join(changes)}. Choose another name=...")
    rows = load_rows(results / "rows.csv")
    if planned:  # a sweep makes the references again
        rows = rows[rows["kind"] == "scheme"]
    runs = results.parent / "runs" / results.name
    found = [collect_missing(runs), *(load_rows(folder.rows) for folder in finished(runs) if folder.is_evaluated)]
    made = {run for table in found for run in _runs_of(table)} | {*planned}
    if lost := sorted(_runs_of(rows) - made):
        changes = differences(_same_numbers(old), _same_numbers(config))
        if references := sorted({*rows.loc[rows["kind"] != "scheme", "scheme"]} & {scheme for scheme, _ in lost}):
            why = f"{references[0]} is no scheme"
        elif changes:
            why = f"nor can their rows stand beside these: {'; '.join(changes)}"
        elif partly := sorted({scheme for scheme, _ in lost} & {scheme for scheme, _ in made}):
            why = f"all seeds of {partly[0]} are made by one program"
        else:
            return  # they are kept
        named = ", ".join(f"{scheme} seed {seed}" for scheme, seed in lost[:3])
        raise UserError(
            f"{results} holds {len(lost)} runs that are neither planned now nor finished in {runs}, and would drop: {named}"
            f"{', ...' if len(lost) > 3 else ''}; {why}. Run the sweep that makes them, choose another name=..., or move "
            f"{results} away"
        )


def kept(results: Path, rows: pd.DataFrame, missing: pd.DataFrame) -> list[str]:
    """The runs of an earlier report that `rows` and `missing` of the runs here do not hold, and which stay in it.

    Raises UserError where both score the references, which nobody trains, and get other numbers.
    """
    if not (results / "rows.csv").exists():
        return []
    old = load_rows(results / "rows.csv")
    if change := _other_reference(old, rows):
        raise UserError(f"{results} holds other references than the runs here: {change}; choose another name=...")
    made = _runs_of(rows) | _runs_of(missing)
    trained = old[old["kind"] == "scheme"]
    runs = trained[["run", "scheme", "seed"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(run for run, scheme, seed in runs if (scheme, seed) not in made)


def _other_reference(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """Where both score the same reference and get other numbers: it hangs on the text alone."""
    both = old[old["kind"] != "scheme"].merge(new[new["kind"] != "scheme"], on=["kind", *KEY], suffixes=("", "_new"))
    if np.allclose(both["nll_sum"], both["nll_sum_new"], rtol=1e-6, atol=0):
        return ""
    worst = both.loc[(both["nll_sum"] - both["nll_sum_new"]).abs().idxmax()]
    return f"{worst['scheme']} at {worst['eval_len']} has nll_sum={worst['nll_sum']} there and {worst['nll_sum_new']} here"


def join(reports: Sequence[Path], command: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """Rows, what is missing, training losses and provenance of several reports in one; a reference stands there once.

    Raises UserError where they differ in recipe, data, precision, evaluation or references, or two hold the same scheme.
    """
    rows = [load_rows(report / "rows.csv") for report in reports]
    told = [load_provenance(report / "provenance.yaml") for report in reports]
    missing = [load_missing(report / "missing.csv") for report in reports]
    losses = [load_training(report / "training.csv") for report in reports]
    trained = [
        _runs_of(table[table["kind"] == "scheme"]) | _runs_of(gone) for table, gone in zip(rows, missing, strict=True)
    ]
    for i, j in combinations(range(len(reports)), 2):
        these = f"{reports[i]} and {reports[j]}"
        if changes := differences(_same_numbers(told[i]["config"]), _same_numbers(told[j]["config"])):
            raise UserError(f"the rows of {these} cannot stand in one report, they differ in {'; '.join(changes)}")
        if change := _other_reference(rows[j], rows[i]):
            raise UserError(f"the rows of {these} cannot stand in one report, their references differ: {change}")
        if both := sorted(set.intersection(*({scheme for scheme, _ in trained[k]} for k in (i, j)))):
            seeds = sorted({seed for scheme, seed in trained[i] | trained[j] if scheme in both})
            raise UserError(
                f"{these} both hold {', '.join(both)} (seeds {', '.join(map(str, seeds))}); all seeds of a scheme are made "
                "by one program: sweep what only one of them holds under another name=..."
            )
    parts = [
        part
        for table, one in zip(rows, told, strict=True)
        for part in _told_of(sorted({*table.loc[table["kind"] == "scheme", "run"]}), one)["kept"]
    ]
    shared = {key: value for key, value in told[0]["config"].items() if key != "code"}
    made_by = {"command": command, "config": shared, "used": told[0].get("used", {}), "kept": parts}
    return (
        _together(rows).drop_duplicates(["kind", *KEY], ignore_index=True),
        _together(missing),
        _together(losses),
        yaml.safe_dump(made_by, sort_keys=False, width=125),
    )


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """In the order of the names of runs."""
    filled = [table for table in tables if len(table)] or [*tables[:1]]
    return pd.concat(filled, ignore_index=True).sort_values("run", kind="stable", ignore_index=True)


def with_kept(table: pd.DataFrame, old: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    """A table of the runs here, and of an earlier report the lines of these runs, in the order of their names."""
    return _together([table, old[old["run"].isin(runs)]]) if runs else table


def _runs_of(table: pd.DataFrame) -> set[tuple[str, int]]:
    return set(table[["scheme", "seed"]].drop_duplicates().itertuples(index=False, name=None))


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """What is the same on other machines: not their text, and not the precision that suits them."""
    train = {key: value for key, value in config["train"].items() if key != "precision"}
    data = {key: value for key, value in config["data"].items() if not key.startswith(("sha256", "train", "valid"))}
    return {key: config[key] for key in ("model", "objective", "eval")} | {"train": train, "data": data}


def _same_numbers(config: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of rows that stand side by side, whoever made them: all but where their text lay."""
    data = {key: value for key, value in config["data"].items() if key not in ("train", "valid")}
    return {key: config[key] for key in ("model", "objective", "eval", "train")} | {"data": data}


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
    rows = pd.concat(tables, ignore_index=True)
    refuse_duplicates(rows, runs)
    return rows


def collect_missing(runs: Path) -> pd.DataFrame:
    """What the runs below results/runs/<experiment> have no rows of, and why."""
    tables = [load_missing(folder.missing) for folder in finished(runs)]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MISSING)


def load_missing(path: Path) -> pd.DataFrame:
    """What a sweep has no rows of, and why; nothing where there is no such file."""
    return _table(path, MISSING, ["train_len", "seed", "eval_len"]) if path.exists() else pd.DataFrame(columns=MISSING)


def collect_training(runs: Path) -> pd.DataFrame:
    """The training losses of every evaluated run, named as its rows are; loss in nats per scored token of a batch."""
    tables = [pd.DataFrame(columns=TRAINING)]
    for folder in evaluated(runs):
        if folder.log.exists():  # references are not trained
            run = load_rows(folder.rows).loc[:0, TRAINING[:-3]]
            losses = _table(folder.log, TRAINING[-3:], ["step", "tokens"], ["loss"])
            tables.append(run.merge(losses, how="cross"))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def load_training(path: Path) -> pd.DataFrame:
    """Training losses from CSV, checked: all columns, a finite loss once for every run and step."""
    losses = _table(path, TRAINING, ["train_len", "seed", "step", "tokens"], ["loss"])
    if losses.duplicated([*TRAINING[:-3], "step"]).any() or not np.isfinite(losses["loss"]).all():
        raise UserError(f"{path}: expected a finite loss once for every run and step")
    return losses


def provenance(runs: Path, command: str, kept_runs: Sequence[str] = (), earlier: dict[str, Any] | None = None) -> str:
    """YAML: the command that made the rows, what its runs share, and the machines and versions they ran on.

    Under `kept`, what `earlier` told of the runs that stay of another report.
    """
    folders = evaluated(runs)
    config = folders[0].load_config()
    metas = [folder.load_meta() for folder in folders if folder.meta.exists()]
    made_by = [{key: meta[key] for key in MADE_BY if key in meta} for meta in metas]
    text: str = yaml.safe_dump(
        {
            "command": command,
            "runs": len(metas),
            "seconds_of_all_runs": round(sum(sum(meta["seconds"].values()) for meta in metas)),
            "made_by": [one for i, one in enumerate(made_by) if one not in made_by[:i]],
            "config": {key: value for key, value in config.items() if key not in MAY_DIFFER},
            "used": metas[0].get("used", {}) if metas else {},  # of the data
        }
        | _told_of(kept_runs, earlier or {}),
        sort_keys=False,
        width=125,
    )
    return text


def _told_of(runs: Sequence[str], earlier: dict[str, Any]) -> dict[str, Any]:
    """What made the runs that are kept: of one report, or of several one after the other."""
    before = [part | {"runs": [run for run in part["runs"] if run in runs]} for part in earlier.get("kept", [])]
    rest = [run for run in runs if not any(run in part["runs"] for part in before)]
    parts = [part for part in before if part["runs"]]
    if rest:
        parts.append({"command": earlier["command"], "runs": rest, "made_by": earlier["made_by"]})
        parts[-1] |= {"code": earlier["config"]["code"]} if "code" in earlier["config"] else {}
    return {"kept": parts} if parts else {}


def load_provenance(path: Path) -> dict[str, Any]:
    """What made the rows beside it. Raises UserError where it is damaged."""
    try:
        told = yaml.safe_load(path.read_text())
        if isinstance(told["command"], str) and _comparable(told["config"]):
            return dict(told)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path} is damaged or gone, expected what made the rows beside it; bring it back, or remove "
        "them, and `make report` writes both"
    )


def load_rows(path: Path) -> pd.DataFrame:
    """Rows from CSV, checked: all columns, no segment twice, nothing that is not a number where one must be."""
    rows = _table(path, COLUMNS, COUNTS, ["nll_sum"])
    possible = np.isfinite(rows["nll_sum"]) & (rows["n_tokens"] >= 0) & (rows["n_bytes"] >= 0)
    if rows.empty or not possible.all():
        found = "no rows" if rows.empty else f"nll_sum, n_tokens, n_bytes = {tuple(rows[~possible].iloc[0, -3:])}"
        raise UserError(f"{path}: expected rows with a finite nll_sum and counts from 0 on, found {found}")
    refuse_duplicates(rows, path)
    return rows


def _table(path: Path, columns: list[str], counts: list[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """These columns of a CSV file. Raises UserError where it is none, or something is not the number that it must be."""
    if not path.exists():
        raise UserError(f"{path} does not exist; `make sweep` writes it")
    try:
        # numbers are read as text first: a column that is not what it must be is then an error, not another type
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[columns]
        return table.astype(dict.fromkeys(counts, np.int64) | dict.fromkeys(numbers, np.float64))
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            one_line(
                f"{path} is no table with the columns {', '.join(columns)}: {error}; remove it, and `make report` writes it"
            )
        ) from error


def refuse_duplicates(rows: pd.DataFrame, place: Path) -> None:
    if rows.duplicated(KEY).any():
        twice = rows[rows.duplicated(KEY)].iloc[0]
        raise UserError(f"{place} scores a segment twice: {', '.join(f'{k}={twice[k]}' for k in KEY)}")


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
    buffer = _Lines()
    table.to_csv(buffer, index=False, lineterminator="\r\n", float_format=float_format)
    return buffer.getvalue()


class _Lines(io.StringIO):
    """Rows as CSV writes them, one a call, with "\\n" at their ends.

    A carriage return within a name would end a row too, unless quoted; Python before 3.13 quotes what rows end in.
    """

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")
