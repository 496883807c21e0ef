"""Statistics of the rows in a folder, and of a report that stands there, whose comparisons are read. Imports no torch."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from extrap.results.provenance import load_provenance
from extrap.results.rows import GROUP, RUNS, load_costs, load_missing, load_rows, load_training, scored
from extrap.stats.choice import load_choice
from extrap.stats.statistics import Statistics

COMPARISONS = ("pairs", "extrapolates", "extensions", "stability")
TEXT = (*GROUP, "protocol", "scheme", "scheme_a", "scheme_b", "extension_a", "extension_b", "unit", "verdict", "stability")
COUNTS = ("seeds_needed", "self_seeds_needed", "control_seeds_needed", "since")


def load(folder: Path) -> Statistics:
    """Of the rows that stand there; all else is made of them."""
    rows, missing = scored(load_rows(folder / "rows.csv")), load_missing(folder / "missing.csv")
    choice, together = load_choice(folder)
    found = Statistics(rows, missing, choice=choice, one_for_all=together, costs=load_costs(folder / RUNS))
    if not (path := folder / "provenance.yaml").exists():
        return found
    told = load_provenance(path)
    n_documents = told.get("used", {}).get("valid_documents", told["config"]["data"].get("valid_documents"))
    return replace(found, held_out=n_documents)


@dataclass(frozen=True, eq=False)
class Written(Statistics):
    """Who beats whom as its tables say, in six digits: with resampled text these comparisons take nearly all the time. Where
    there is no such table they are made."""

    compared: dict[str, pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return self._of("pairs") if "pairs" in self.compared else super().pairs

    @cached_property
    def extrapolates(self) -> pd.DataFrame:
        return self._of("extrapolates") if "extrapolates" in self.compared else super().extrapolates

    @cached_property
    def extended(self) -> pd.DataFrame:
        return self._of("extensions") if "extensions" in self.compared else super().extended

    @cached_property
    def stability(self) -> pd.DataFrame:
        return self.compared["stability"] if "stability" in self.compared else super().stability

    def _of(self, name: str) -> pd.DataFrame:
        """The lines of the groups that rows are here of."""
        table = self.compared[name]
        known = pd.MultiIndex.from_frame(self.rows[GROUP].drop_duplicates())
        return table[pd.MultiIndex.from_frame(table[GROUP]).isin(known)].reset_index(drop=True)


def load_trained(folder: Path) -> Statistics:
    """The same with the losses of training, where they stand there."""
    found, training = load(folder), folder / "training.csv"
    return replace(found, training=load_training(training)) if training.exists() else found


def load_written(folder: Path) -> Written:
    """The same with the comparisons of the tables beside the rows, whether or not they are of these."""
    found = load_trained(folder)
    paths = {name: folder / f"{name}.csv" for name in COMPARISONS}
    tables = {name: _table(path) for name, path in paths.items() if path.exists()}
    return Written(**{one.name: getattr(found, one.name) for one in fields(found)}, compared=tables)


def _table(path: Path) -> pd.DataFrame:
    """A table of comparisons as it was made."""
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str) | {"train_len": int}, keep_default_na=False, na_values=[""])
    table = table.assign(setting=table["setting"].fillna("") if "setting" in table else "")
    return table.astype({column: "Int64" for column in COUNTS if column in table})
