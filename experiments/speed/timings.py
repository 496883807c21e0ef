"""Timings, one row a measurement, and the ratios that follow from them. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from extrap.errors import UserError, one_line
from extrap.files import write_atomic
from extrap.results.rows import as_csv

OURS = "extrap"
YARDSTICK = "torch SDPA"
COMPARED = ("rope", "alibi")  # the schemes of ours that stand against the peers
PART, LOOK = "part of a training", "held-out loss"  # cases: one follows the other, `tokens` are those trained on so far
STEP, ALL_SCORED, LARGE = "step", "all scored", "V = 4,096"  # the case of steps by objective, and two of its settings
# (objective, setting) of a step, and of the one that it stands beside
BESIDE = (
    (("rtd", ""), ("mlm", ALL_SCORED)),
    (("electra", ""), ("mlm", "")),
    (("causal", ""), ("mlm", "")),
    (("mlm", LARGE), ("mlm", "")),
    (("causal", LARGE), ("causal", "")),
)
RECIPE = "recipe"  # the setting of ours whose final loss the others have to reach
LEARNER = ["objective", "name", "scheme", "setting"]  # tells one training from another
# what is told of every measurement: `value` in `unit` is what was measured; a step or call worked on `tokens`, multiplied
# and added `flops` times in matrix products, and computed `logits` rows of logits, with a model of `params` parameters
COLUMNS = {
    "case": str, "name": str, "setting": str, "scheme": str, "objective": str, "n": int, "round": int, "value": float,
    "unit": str, "tokens": int, "flops": float, "params": int, "logits": int, "threads": int, "precision": str,
    "machine": str,
}  # fmt: skip
RATIOS = ["case", "peer", "setting", "ours", "theirs", "ratio", "unit", "machine"]
COMPARABLE = {"tokens/s": "tokens / value", "FLOP/s": "flops / value", "s": "value", "bytes": "value"}  # by unit, of columns
ATTENTION = {"mlm": "bidirectional", "causal": "causal"}  # what the objective means for attention


def save_timings(path: Path, rows: list[dict[str, object]]) -> None:
    empty = {column: kind() for column, kind in COLUMNS.items()}
    write_atomic(path, as_csv(pd.DataFrame([empty | row for row in rows], columns=list(COLUMNS))))


def load_timings(path: Path) -> pd.DataFrame:
    """Timings of one machine from CSV. Raises UserError for a file that is not such, or that holds a measurement twice."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)[list(COLUMNS)].astype(COLUMNS)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(one_line(f"{path} is no table with the columns {', '.join(COLUMNS)}: {error}")) from error
    twice = rows.duplicated(["case", "name", "setting", "scheme", "objective", "n", "round"]).any()
    if len({*rows["machine"]}) != 1 or twice:
        raise UserError(f"{path}: expected every measurement once, of one machine")
    return rows


def where(rows: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows that hold these values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def ratios(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a comparison: ours / theirs, the median over rounds of the ratio within a round.

    Within a round both meet the same load of the machine, so this ratio is steadier than that of the medians, `ours` and
    `theirs`. Rates (tokens/s) are better when they are high, seconds and bytes when they are low. Times to a loss are sums
    over rounds; of a training that never arrives the unit is `s or more`, and the ratio an upper bound.
    """
    found = [*of_training(timings), *of_steps(timings), *of_lengths(timings), *of_sweeps(timings), *of_learning(timings)]
    return pd.DataFrame(found, columns=RATIOS)


def compare(case: str, ours: pd.DataFrame, theirs: pd.DataFrame, unit: str, peer: str = "") -> dict[str, object]:
    """Of a contestant's rows and another's, whose name is told unless `peer` says who that is."""
    mine, other = (rows.set_index("round").eval(COMPARABLE[unit]) for rows in (ours, theirs))
    whose = theirs.iloc[0]
    told = {"case": case, "peer": peer or whose["name"], "setting": whose["setting"], "machine": whose["machine"]}
    return told | {"ours": mine.median(), "theirs": other.median(), "ratio": (mine / other).dropna().median(), "unit": unit}


def of_training(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Each scheme of ours over our NoPE, ours against each setting of each peer, and ours over the peak of matrix products.

    A peer that has all schemes that are compared stands against the same one of ours. The peak is that in the precision that
    we train in.
    """
    training = where(rows, case="training")
    ours = dict(list(where(training, name=OURS).groupby(["objective", "scheme"], sort=False)))
    for (objective, scheme), group in ours.items():
        if scheme != "nope" and (objective, "nope") in ours:
            yield compare(f"training {objective} {scheme}", group, ours[objective, "nope"], "tokens/s", f"{OURS} nope")
    peers = training[training["name"] != OURS]
    schemes = peers.groupby("name")["scheme"].agg(set)
    for (objective, name, scheme, _), theirs in peers.groupby(["objective", "name", "scheme", "setting"], sort=False):
        for mine in [scheme] if schemes[name] >= set(COMPARED) else COMPARED:
            if (objective, mine) in ours:
                yield compare(f"training {objective} {mine}", ours[objective, mine], theirs, "tokens/s")
    for (objective, scheme), group in ours.items():
        peak = where(rows, case="peak", precision=group["precision"].iloc[0])
        if len(peak):
            yield compare(f"training {objective} {scheme}", group, peak, "FLOP/s")


def of_steps(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Steps by objective, each over the one that it stands beside."""
    steps = dict(list(where(rows, case=STEP).groupby(["objective", "setting"], sort=False)))
    for of, beside in BESIDE:
        if of in steps and beside in steps:
            yield compare(f"step {called(*of)}", steps[of], steps[beside], "s", f"{OURS} {called(*beside)}")


def called(objective: str, setting: str) -> str:
    return f"{objective}, {setting}" if setting else objective


def of_lengths(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Attention against plain SDPA and FlexAttention of the same scheme; what twice the length costs: time and memory."""
    ours, others = where(rows, name=OURS), rows[rows["name"] != OURS]
    for (objective, scheme, n), group in where(ours, case="attention").groupby(["objective", "scheme", "n"], sort=False):
        for name, theirs in where(others, case="attention", objective=objective, n=n).groupby("name", sort=False):
            theirs = theirs if name == YARDSTICK else where(theirs, scheme=scheme)
            if len(theirs):
                yield compare(f"attention {ATTENTION[objective]} {scheme} {n:,}", group, theirs, "s")
    growing = ours[ours["case"].isin(["attention", "evaluation", "memory"])]
    for (case, objective, scheme), group in growing.groupby(["case", "objective", "scheme"], sort=False):
        lengths = dict(list(group.groupby("n")))
        for n, long in lengths.items():
            if n / 2 in lengths:
                title, unit = f"{case} {ATTENTION[objective]} {scheme} {n:,}", group["unit"].iloc[0]
                yield compare(title, long, lengths[n / 2], unit, f"{OURS} at {n // 2:,}")


def of_sweeps(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Runs side by side against one after the other."""
    ours, theirs = (where(rows, case="sweep", setting=setting) for setting in ("side by side", "one after the other"))
    if len(ours) and len(theirs):
        yield compare("sweep", ours, theirs, "tokens/s")


def of_learning(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Ours by its recipe against all others to the same loss."""
    for (objective, scheme), group in times_to_loss(rows).groupby(["objective", "scheme"], sort=False):
        ours = where(group, name=OURS, setting=RECIPE).iloc[0]
        for theirs in group.drop(index=ours.name).to_dict("records"):
            told = {"case": f"time to loss {objective} {scheme}", "peer": theirs["name"], "setting": theirs["setting"]}
            told |= {"ours": ours["seconds"], "theirs": theirs["seconds"], "ratio": ours["seconds"] / theirs["seconds"]}
            yield told | {"unit": "s" if theirs["arrives"] else "s or more", "machine": rows["machine"].iloc[0]}


def times_to_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a training, named by LEARNER: `goal`, the held-out loss at which ours of the same objective and scheme ends by
    its recipe; `loss`, its own in the end; `arrives`; `seconds` until its loss is first at most the goal, or all of its own.
    """
    looks = learning_curves(rows).dropna(subset="goal")
    lines = []
    for learner, curve in looks.groupby(LEARNER, sort=False):
        there = curve[curve["at_goal"]]
        seconds, end = (there["seconds"].iloc[0] if len(there) else curve["seconds"].iloc[-1]), curve.iloc[-1]
        lines.append((*learner, end["tokens"], end["goal"], end["loss"], len(there) > 0, seconds))
    return pd.DataFrame(lines, columns=[*LEARNER, "tokens", "goal", "loss", "arrives", "seconds"])


def learning_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a look of a training at held-out text, named by LEARNER: `tokens` and `seconds` of training until then, without
    looks, `loss`, and `goal`, the last loss of ours of the same objective and scheme by its recipe; `at_goal`, whether the
    loss is at most that.
    """
    parts, looks = (where(rows, case=case).set_index([*LEARNER, "round"]) for case in (PART, LOOK))
    seconds = parts.sort_index(level="round", kind="stable").groupby(LEARNER, sort=False)["value"].cumsum()
    curves = looks[["tokens", "value"]].rename(columns={"value": "loss"}).join(seconds.rename("seconds")).reset_index()
    curves = curves.sort_values("round", kind="stable", ignore_index=True)
    ends = where(curves, name=OURS, setting=RECIPE).drop_duplicates(["objective", "scheme"], keep="last")
    ends = ends[ends["loss"] < np.inf]  # where ours diverges there is no loss to reach
    curves = curves.join(ends.set_index(["objective", "scheme"])["loss"].rename("goal"), on=["objective", "scheme"])
    return curves.assign(at_goal=curves["loss"] <= curves["goal"])
