"""results/README.md says what every column of a report is."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest

from extrap.results.rows import COSTS, OF_RUN

RESULTS = Path(__file__).parents[1] / "results"
TEXT = (RESULTS / "README.md").read_text()


def told(file: str) -> list[str]:
    """The columns that the sections of this file name, and the labels; a star stands for what follows."""
    sections = re.split(r"^#+ ", TEXT, flags=re.MULTILINE)[1:]
    of_file = [part for part in sections if part.startswith("Labels") or f"{file}.csv" in part.splitlines()[0]]
    assert len(of_file) > 1, f"no section of {file}.csv"
    return [name for part in of_file for line in re.findall(r"^\| (`.*?) \|", part, flags=re.MULTILINE)
            for name in re.findall(r"`(.*?)`", line)]  # fmt: skip


@pytest.fixture(scope="module")
def written() -> dict[str, set[str]]:
    """Columns by file, of all tracked reports, which hold everything between them."""
    found: dict[str, set[str]] = {"runs": {*OF_RUN, *COSTS}}
    for path in RESULTS.glob("*/*.csv"):
        if (path.parent / "runs.csv").exists():  # not claims, papers, or what the benchmark measured
            name = re.sub(r"_(causal|mlm|rtd|electra|electra_generator)_.*", "", path.stem)  # of one of several groups
            found.setdefault(name, set()).update(pd.read_csv(path, nrows=0).columns)
    return found


def test_every_column_is_told_and_none_that_is_not_there(written):
    everything = set[str]().union(*written.values())
    for file, columns in written.items():
        unknown = {column for column in columns if not any(fnmatch(column, name) for name in told(file))}
        assert not unknown, f"{file}.csv: results/README.md does not say what {unknown} is"
        idle = {name for name in told(file) if not any(fnmatch(column, name) for column in everything)}
        assert not idle, f"results/README.md tells of {idle}, which no table holds"
