"""What probes have found in runs, on disk: sums and counts, checked and brought together. Imports no torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.folders import RunFolder, evaluated
from extrap.results.rows import OF_RUN, RUNS, as_csv, load_runs, stacked

# sums over the places of a document, or of all, that a probe looks at, and how many these are; `distance` in tokens, 0 where
# it is not asked
FOUND = ["probe", "eval_len", "distance", "document", "metric", "value_sum", "n"]
CODE = "code"  # the digest of the probe that found it, in the table of a run alone
COUNTS = ["eval_len", "distance", "n"]
KEY = ["run", *FOUND[:-2]]
NAME, MADE_BY = "probes.csv", "probes.yaml"
RECALL_ENDS = (1 / 8, 1 / 2, 1, 4)  # where bins of the distances of `recall` end, in multiples of the training length


def recall_bins(train_len: int) -> list[int]:
    """The least distance of every bin: 0, that of what never stood before, 1, and one beyond each end; the last has none."""
    return [0, 1, *(int(train_len * end) + 1 for end in RECALL_ENDS)]


def highest_in(low: int, train_len: int) -> int | None:
    """The highest distance of the bin whose least is this; None of the last, which has no end."""
    return next((least - 1 for least in recall_bins(train_len) if least > low), None)


def save_probes(path: Path, found: pd.DataFrame) -> None:
    """CSV with every digit, of one run or of all; what its runs are says runs.csv beside it."""
    write_atomic(path, as_csv(found[[column for column in ("run", *FOUND, CODE) if column in found]]))


def over_documents(found: pd.DataFrame) -> pd.DataFrame:
    """The same sums over all documents, for a table of many runs: those of each stand in its folder."""
    by = [column for column in KEY if column != "document"]
    return found.groupby(by, sort=False)[["value_sum", "n"]].sum().reset_index()


def load_probes(path: Path) -> pd.DataFrame:
    """The columns OF_RUN and FOUND, checked; without lines where there is no such file. Raises UserError."""
    if not path.exists():
        return pd.DataFrame(columns=[*OF_RUN, *FOUND])
    table, runs = load_found(path), load_runs(path.with_name(RUNS))
    if unknown := {*table["run"]} - {*runs["run"]}:
        raise UserError(f"{path} holds {min(unknown)}, which {RUNS} beside it does not list; `make report` writes it anew")
    return table.merge(runs[OF_RUN], on="run", how="left")[[*OF_RUN, *FOUND]]


def load_found(path: Path) -> pd.DataFrame:
    """The columns run, FOUND and CODE, checked; without lines where there is no such file. Raises UserError."""
    columns = ["run", *FOUND, CODE]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.assign(**{column: "" for column in ("document", CODE) if column not in table})[columns]
        table = table.astype(dict.fromkeys(COUNTS, np.int64) | {"value_sum": np.float64})
    except (ValueError, KeyError, OSError) as error:
        mend = "remove it, and `make probes` writes it"
        raise UserError(one_line(f"{path} is no table of what probes found: {error}; {mend}")) from error
    if not np.isfinite(table["value_sum"]).all() or table.duplicated(KEY).any():
        raise UserError(f"{path}: expected finite sums, each once; remove it, and `make probes` writes it")
    return table


def names(found: pd.DataFrame) -> pd.Series:
    """Of each line the probe, without its arguments."""
    return found["probe"].str.split("(").str[0]


def refuse_versions(folders: Iterable[RunFolder], today: Mapping[str, str]) -> None:
    """Raises UserError where versions of a probe have looked into these runs, or another than today's, by names of probes:
    they may find different things of the same weights."""
    first = {name: ("today", code) for name, code in today.items()}
    for folder in folders:
        found = load_found(folder.probes)
        for name, code in dict.fromkeys(zip(names(found), found[CODE], strict=True)):
            when, known = first.setdefault(name, (f"in {folder.path.name}", code))
            if code != known:
                raise UserError(
                    f"{folder.path}: what the probe {name} found there is of another version of it than what it finds "
                    f"{when}; `make probes` with PROBES={name} for all runs of the experiment looks into them anew"
                )


class Collected(NamedTuple):
    """What probes found in the runs of a report."""

    found: pd.DataFrame  # the columns run and FOUND without document, in the order of the names of runs
    weights_of: list[str]  # the digests of the programs that trained those that are here
    kept: list[str]  # runs that are not here, of which the report holds what was found


def collect_probes(report: Path, runs: Path) -> Collected:
    """Of those below results/runs/<experiment>, and of those that the report has rows of from elsewhere what it holds.

    What it holds of other weights than those that are here, or of runs that it has no rows of, is left out. Raises UserError
    where versions of a probe found it.
    """
    folders = evaluated(runs)
    refuse_versions(folders, {})
    here = {folder: load_probes(folder.probes) for folder in folders}
    weights_of = sorted({folder.load_config()["code"] for folder, table in here.items() if len(table)})
    tables = [table[["run", *FOUND]] for table in here.values()]
    if (report / NAME).exists():
        elsewhere = {*load_runs(report / RUNS)["run"]} - {folder.path.name for folder in folders}
        held = load_found(report / NAME)[["run", *FOUND]]
        tables.append(held[held["run"].isin(elsewhere)])
    kept = sorted({*tables[-1]["run"]}) if len(tables) > len(folders) else []
    found = stacked(tables).sort_values("run", kind="stable", ignore_index=True)
    return Collected(over_documents(found), weights_of, kept)
