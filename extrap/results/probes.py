"""What probes have found in runs, on disk: sums and counts, checked and brought together. Imports no torch."""

from pathlib import Path

import numpy as np
import pandas as pd

from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.folders import evaluated
from extrap.results.rows import OF_RUN, RUNS, as_csv, load_runs

# sums over the places of a document, or of all, that a probe looks at, and how many these are; `distance` in tokens, 0 where
# it is not asked
FOUND = ["probe", "eval_len", "distance", "document", "metric", "value_sum", "n"]
COUNTS = ["eval_len", "distance", "n"]
KEY = ["run", *FOUND[:-2]]
NAME, MADE_BY = "probes.csv", "probes.yaml"


def save_probes(path: Path, found: pd.DataFrame) -> None:
    """CSV with every digit, of one run or of all; what its runs are says runs.csv beside it."""
    write_atomic(path, as_csv(found[[column for column in ("run", *FOUND) if column in found]]))


def over_documents(found: pd.DataFrame) -> pd.DataFrame:
    """The same sums over all documents, for a table of many runs: those of each stand in its folder."""
    by = [*OF_RUN, *(column for column in KEY[1:] if column != "document")]
    return found.groupby(by, sort=False)[["value_sum", "n"]].sum().reset_index()


def load_probes(path: Path) -> pd.DataFrame:
    """The columns OF_RUN and FOUND, checked; without lines where there is no such file. Raises UserError."""
    if not path.exists():
        return pd.DataFrame(columns=[*OF_RUN, *FOUND])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = (table if "document" in table else table.assign(document=""))[["run", *FOUND]]
        table = table.astype(dict.fromkeys(COUNTS, np.int64) | {"value_sum": np.float64})
    except (ValueError, KeyError, OSError) as error:
        mend = "remove it, and `make probes` writes it"
        raise UserError(one_line(f"{path} is no table of what probes found: {error}; {mend}")) from error
    if not np.isfinite(table["value_sum"]).all() or table.duplicated(KEY).any():
        raise UserError(f"{path}: expected finite sums, each once; remove it, and `make probes` writes it")
    runs = load_runs(path.with_name(RUNS))
    if unknown := {*table["run"]} - {*runs["run"]}:
        raise UserError(f"{path} holds {min(unknown)}, which {RUNS} beside it does not list; `make probes` writes it anew")
    return table.merge(runs[OF_RUN], on="run", how="left")[[*OF_RUN, *FOUND]]


def collect_probes(runs: Path) -> pd.DataFrame:
    """What probes found in the runs below results/runs/<experiment>, in the order of their names."""
    tables = [load_probes(folder.probes) for folder in evaluated(runs)]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
