"""What probes say of schemes: means over seeds with intervals. Imports no torch."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.results.rows import GROUP
from extrap.stats.perplexity import ONSET, over_seeds

RISE = float(np.log(ONSET))  # nats: of perplexity the 5 % from which on a change counts everywhere
OTHER = "reach(other)"
SCHEME = [*GROUP, "scheme"]
LINE = [*SCHEME, "probe", "eval_len", "distance", "metric"]


def by_seed(probes: pd.DataFrame) -> pd.DataFrame:
    """A line a seed: `value` is the quotient of the sums over all documents."""
    sums = probes.groupby([*LINE, "seed"], sort=False)[["value_sum", "n"]].sum().reset_index()
    return sums.assign(value=sums["value_sum"] / sums["n"])


def summarise_probes(probes: pd.DataFrame) -> pd.DataFrame:
    """One line a (scheme, probe, eval_len, distance, metric): `value`, the mean over seeds, low and high, its t interval,
    n_seeds, and n of one seed.
    """
    return _over_seeds(by_seed(probes))


def against(probes: pd.DataFrame, base: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """The lines of summarise_probes of differences to the values of `base`, paired by seed where `on` agree."""
    known = by_seed(base)[[*on, "seed", "value"]].rename(columns={"value": "base"})
    lines = by_seed(probes).merge(known, on=[*on, "seed"])
    return _over_seeds(lines.assign(value=lines["value"] - lines["base"]))


def _over_seeds(lines: pd.DataFrame) -> pd.DataFrame:
    groups = lines.groupby(LINE, sort=False)
    told = over_seeds(groups["value"])
    table = pd.DataFrame({"value": told.mean, "low": told.low, "high": told.high, "n_seeds": told.n})
    return table.assign(n=groups["n"].max()).reset_index()


def rises(probes: pd.DataFrame) -> pd.DataFrame:
    """By how much the loss of `reach` rises where text beyond a distance is replaced, over that of the whole window."""
    lines = probes[probes["probe"].str.startswith("reach(")]
    whole = lines["distance"] == lines["eval_len"]
    return against(lines[~whole], lines[whole], [*SCHEME, "probe", "eval_len", "metric"])


class Reach(NamedTuple):
    """How far a scheme reads, in tokens: farther than `above`, if at all, no farther than `within` as far as was asked."""

    above: int  # the farthest distance where what lies beyond it costs more than RISE, the whole interval; 0 where none does
    within: int | None  # from here on it costs less, the whole interval; None where that is not decided


def reach_of(lines: pd.DataFrame) -> Reach:
    """Of the lines of `rises` of one scheme and kind of replacement."""
    lines = lines.sort_values("distance")
    more = lines.loc[lines["low"] > RISE, "distance"]
    not_less = lines.loc[~(lines["high"] < RISE), "distance"]  # nan too: a single seed decides nothing
    farther = lines["distance"] > (not_less.max() if len(not_less) else 0)
    return Reach(int(more.max()) if len(more) else 0, int(lines.loc[farther, "distance"].min()) if farther.any() else None)


def recalled(probes: pd.DataFrame) -> pd.DataFrame:
    """Nats above the floor of each bin of `recall`: of schemes, and of `window_floor`, who looks back L tokens at most."""
    within = probes["distance"] <= probes["eval_len"]  # farther, nothing is recalled
    lines = probes[(probes["probe"] == "recall") & within]
    on = [*SCHEME, "probe", "eval_len", "distance"]
    floor = lines[lines["metric"] == "floor"]
    excess = against(lines[lines["metric"] == "nll"], floor, on)
    return pd.concat([excess, against(lines[lines["metric"] == "window_floor"], floor, on)], ignore_index=True)


def recalled_around(probes: pd.DataFrame) -> pd.DataFrame:
    """The lines of `recalled` of schemes in the longest input, in two bins of all symbols that stood there before: under
    distance 1 of those within the training length L, under L + 1 of those beyond it."""
    again = probes[(probes["probe"] == "recall") & (probes["distance"] > 0)]
    again = again[again["eval_len"] == again["eval_len"].max()]
    beyond = again["distance"] > again["train_len"]
    found = recalled(again.assign(distance=(again["train_len"] * beyond + 1).astype(int)))
    return found[found["metric"] == "nll"]


def turned(probes: pd.DataFrame) -> pd.DataFrame:
    """By how much the loss of `order` rises on text that is reversed or shuffled."""
    lines = probes[probes["probe"].str.startswith("order(")]
    base = lines["probe"] == "order(as_is)"
    return against(lines[~base], lines[base], [*SCHEME, "eval_len", "metric"])
