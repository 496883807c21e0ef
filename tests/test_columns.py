"""results/README.md says what every column of a report is."""

import re
from fnmatch import fnmatch
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from rows import both_protocols, scheme_rows, with_floor

from extrap.report import drawing
from extrap.report.report import write_report
from extrap.results.rows import COSTS, MISSING, OF_LOSS, OF_ROW, OF_RUN
from extrap.stats.pairs import MOST_PAIRED
from extrap.stats.statistics import CHOICE, ONE_FOR_ALL, Statistics

TEXT = (Path(__file__).parents[1] / "results" / "README.md").read_text()
NLL = {"a": {128: [1.5, 1.6], 256: [1.4, 1.5]}, "b": {128: [1.6, 1.7], 256: [1.5, 1.7]}}


def told(file: str) -> list[str]:
    """The columns that the sections of this file name, and the labels; a star stands for what follows."""
    sections = re.split(r"^#+ ", TEXT, flags=re.MULTILINE)[1:]
    of_file = [part for part in sections if part.startswith("Labels") or file in part.splitlines()[0]]
    assert len(of_file) > 1, f"no section of {file}"
    return [name for part in of_file for line in re.findall(r"^\| (`.*?) \|", part, flags=re.MULTILINE)
            for name in re.findall(r"`(.*?)`", line)]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, list[str]]:
    """Columns by file, of reports that hold everything."""
    folder = tmp_path_factory.mktemp("report")
    window = [scheme_rows(s, n, extension="window", protocol="same_targets") for s, n in NLL.items()]
    sliding = [scheme_rows(s, {128: n[128]}, protocol="sliding(stride=32)") for s, n in NLL.items()]
    place = [scheme_rows(s, n, protocol="position") for s, n in NLL.items()]
    found: dict[str, list[str]] = {"runs.csv": [*OF_RUN, *COSTS], "rows.csv": OF_ROW, "missing.csv": MISSING}
    found |= {"training.csv": OF_LOSS, "choice.csv": CHOICE, "one_for_all.csv": ONE_FOR_ALL}
    budgets = pd.concat([both_protocols(NLL, setting=f"max_steps={steps}") for steps in (100, 200)])
    crowd = both_protocols({f"s{i}": NLL["a"] for i in range(MOST_PAIRED + 1)})
    outputs = pd.concat([both_protocols(NLL, setting=f"output={output}") for output in ("untied", "tied")])
    replaced = both_protocols(NLL).assign(objective="rtd")
    plain = pd.concat([both_protocols(NLL), *window, *sliding, *place])
    for rows in (plain, with_floor(NLL), budgets, outputs, crowd, replaced):
        with patch.dict(drawing.FORMATS, clear=True):
            costs = rows[["run"]].drop_duplicates().assign(**dict.fromkeys(COSTS, 1.0))
            write_report(Statistics(rows, costs=costs), folder)
            for path in folder.glob("*.csv"):
                name = re.sub(r"_mlm_.*(?=\.csv)", "", path.name)  # of one of several groups
                found[name] = [*found.get(name, []), *pd.read_csv(path).columns]
    return found


def test_every_column_is_told_and_none_that_is_not_there(written):
    files = (
        "table",
        "pairs",
        "extrapolates",
        "perplexity",
        "position",
        "floor",
        "costs",
        "budget",
        "stability",
        "outputs",
        "interactions",
        "families",
        "trade_off",
    )
    assert {f"{name}.csv" for name in files} <= set(written)
    everything = {column for columns in written.values() for column in columns}
    for file, columns in written.items():
        unknown = {column for column in columns if not any(fnmatch(column, name) for name in told(file))}
        assert not unknown, f"{file}: results/README.md does not say what {unknown} is"
        idle = {name for name in told(file) if not any(fnmatch(column, name) for column in everything)}
        assert not idle, f"results/README.md tells of {idle}, which no table holds"
