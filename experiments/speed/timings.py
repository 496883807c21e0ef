"""Timings, one row a measurement, and the ratios that follow from them. Imports no torch."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd

from extrap.errors import UserError, one_line
from extrap.results.rows import save_rows

OURS = "extrap"
YARDSTICK = "torch SDPA"
COMPARED = ("rope", "alibi")  # the schemes of ours that stand against the peers
# what is told of every measurement: `value` in `unit` is what was measured; a step or call worked on `tokens`, multiplied
# and added `flops` times in matrix products, and computed `logits` rows of logits, with a model of `params` parameters
COLUMNS = {
    "case": str, "name": str, "setting": str, "scheme": str, "objective": str, "n": int, "round": int, "value": float,
    "unit": str, "tokens": int, "flops": float, "params": int, "logits": int, "threads": int, "precision": str,
    "machine": str,
}  # fmt: skip
RATIOS = ["case", "peer", "setting", "ours", "theirs", "ratio", "unit", "machine"]
ATTENTION = {"causal": "causal", "mlm": "bidirectional"}  # what the objective means for attention


def save_timings(path: Path, rows: list[dict[str, object]]) -> None:
    empty = {column: kind() for column, kind in COLUMNS.items()}
    save_rows(path, pd.DataFrame([empty | row for row in rows], columns=list(COLUMNS)))


def load_timings(path: Path) -> pd.DataFrame:
    """Timings from CSV, checked. Raises UserError for a file that is not one, or that holds a measurement twice."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)[list(COLUMNS)].astype(COLUMNS)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(one_line(f"{path} is no table with the columns {', '.join(COLUMNS)}: {error}")) from error
    key = ["case", "name", "setting", "scheme", "objective", "n", "round", "machine"]
    if rows.empty or rows.duplicated(key).any():
        raise UserError(f"{path}: expected every measurement once, found {'one twice' if len(rows) else 'none'}")
    return rows


def ratios(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a comparison: ours / theirs, the median over rounds of the ratio within a round.

    Within a round both meet the same load of the machine, so this ratio is steadier than that of the medians, `ours` and
    `theirs`. Rates (tokens/s) are better when they are high, seconds and bytes when they are low.
    """
    found = []
    for _, rows in timings.groupby("machine", sort=False):
        for part in (over_nope, against_peers, of_peak, against_sdpa, by_doubling, of_sweeps):
            found += list(part(rows))
    return pd.DataFrame(found, columns=RATIOS)


def tokens_per_second(rows: pd.DataFrame) -> pd.Series:
    """By round."""
    rows = rows.set_index("round")
    return rows["tokens"] / rows["value"]


def values(rows: pd.DataFrame) -> pd.Series:
    """By round."""
    return rows.set_index("round")["value"]


def compare(case: str, ours: pd.Series, theirs: pd.Series, unit: str, theirs_is: pd.Series) -> dict[str, object]:
    """`theirs_is` is a row of theirs, which says who that is; `ours` and `theirs` are by round."""
    ratio = (ours / theirs).dropna().median()
    told = {"peer": theirs_is["name"], "setting": theirs_is["setting"], "machine": theirs_is["machine"]}
    return {"case": case, "ours": ours.median(), "theirs": theirs.median(), "ratio": ratio, "unit": unit} | told


def where(rows: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows that hold these values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def over_nope(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Training: each scheme of ours over our NoPE."""
    ours = where(rows, case="training", name=OURS)
    for (objective, scheme), group in ours.groupby(["objective", "scheme"], sort=False):
        base = where(ours, objective=objective, scheme="nope")
        if scheme != "nope" and len(base):
            case = f"training {objective} {scheme}"
            line = compare(case, tokens_per_second(group), tokens_per_second(base), "tokens/s", base.iloc[0])
            yield line | {"peer": f"{OURS} nope"}


def against_peers(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Training: ours against each setting of each peer, with its own scheme where it has all that are compared."""
    training = where(rows, case="training")
    peers = training[training["name"] != OURS]
    schemes = peers.groupby("name")["scheme"].agg(set)
    for (objective, name, scheme, _), theirs in peers.groupby(["objective", "name", "scheme", "setting"], sort=False):
        for mine in [scheme] if schemes[name] >= set(COMPARED) else COMPARED:
            ours = where(training, name=OURS, objective=objective, scheme=mine)
            if len(ours):
                case = f"training {objective} {mine}"
                yield compare(case, tokens_per_second(ours), tokens_per_second(theirs), "tokens/s", theirs.iloc[0])


def of_peak(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Training: the share of the measured peak of matrix products, in the precision that we train in."""
    ours = where(rows, case="training", name=OURS)
    for (objective, scheme, precision), group in ours.groupby(["objective", "scheme", "precision"], sort=False):
        peak = where(rows, case="peak", precision=precision)
        if len(peak):
            done, possible = (part.set_index("round").eval("flops / value") for part in (group, peak))
            yield compare(f"training {objective} {scheme}", done, possible, "FLOP/s", peak.iloc[0])


def against_sdpa(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Attention by length: ours against plain SDPA, and against FlexAttention of the same scheme."""
    attention = where(rows, case="attention")
    for (objective, scheme, n), ours in where(attention, name=OURS).groupby(["objective", "scheme", "n"], sort=False):
        same = where(attention, objective=objective, n=n)
        same = same[(same["name"] == YARDSTICK) | ((same["name"] != OURS) & (same["scheme"] == scheme))]
        for _, theirs in same.groupby("name", sort=False):
            case = f"attention {ATTENTION[objective]} {scheme} {n:,}"
            yield compare(case, values(ours), values(theirs), "s", theirs.iloc[0])


def by_doubling(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """What twice the length costs: time of attention, time and memory of evaluation."""
    growing = rows[rows["case"].isin(["attention", "evaluation", "memory"]) & (rows["name"] == OURS)]
    for (case, objective, scheme), group in growing.groupby(["case", "objective", "scheme"], sort=False):
        for short, long in pairwise(sorted(group["n"].unique())):
            if long == 2 * short:
                small, large = where(group, n=short), where(group, n=long)
                title = f"{case} {ATTENTION[objective]} {scheme} {long:,}"
                line = compare(title, values(large), values(small), group["unit"].iloc[0], small.iloc[0])
                yield line | {"peer": f"{OURS} at {short:,}"}


def of_sweeps(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A sweep: runs side by side against one after the other."""
    ours, theirs = (where(rows, case="sweep", setting=setting) for setting in ("side by side", "one after the other"))
    if len(ours) and len(theirs):
        yield compare("sweep", tokens_per_second(ours), tokens_per_second(theirs), "tokens/s", theirs.iloc[0])
