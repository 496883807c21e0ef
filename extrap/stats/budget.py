"""From which training budget on a verdict holds, where a sweep varies train.max_steps. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.results.rows import GROUP, apart, within
from extrap.stats.pairs import LACKING, PAIR, SHOWN, UNDECIDED, moves

BUDGET = "max_steps"  # as settings name it
STABLE, NEW, CHANGES, OPEN = "stable", "not yet stable", "changes", "open"
STABILITIES = (STABLE, NEW, CHANGES, OPEN, LACKING)


class Held(NamedTuple):
    """What becomes of a verdict with the budget."""

    stability: str
    since: int | None  # the first budget from which on every verdict is the final one, by its index; None if undecided
    otherwise: bool  # whether another verdict than the last was decided at some smaller budget


def held(verdicts: Sequence[str]) -> Held:
    """The verdicts of one question at growing budgets, each a test of its own, as one answer:

    stable          decided the same way at the largest budget and at all from `since` on, two or more
    changes         decided at the largest, not that way at the one before, and the opposite at that or a smaller one
    not yet stable  decided at the largest, not at the one before, the opposite nowhere: no evidence that it stays
    open            undecided at the largest, whatever was decided before
    not compared    no comparison at the largest

    Nothing is adjusted for there being several budgets, and need not be: to go down from the largest until one is not
    decided that way is a test of hypotheses in a fixed order, each at 5 %, that ends with the first that is kept, and so
    names a budget at which the verdict does not hold in 5 % of all cases at most, however budgets hang together (Maurer et
    al. 1995). Where it does hold it may be missed, for want of seeds: it begins at `since` at the latest.
    """
    last = verdicts[-1]
    otherwise = not {*verdicts} <= {last, UNDECIDED, LACKING}
    if last in (UNDECIDED, LACKING):
        return Held(OPEN if last == UNDECIDED else LACKING, None, otherwise)
    since = next((i for i in range(len(verdicts), 0, -1) if verdicts[i - 1] != last), 0)
    if since < len(verdicts) - 1:
        return Held(STABLE, since, otherwise)
    return Held(CHANGES if otherwise else NEW, since, otherwise)


def stability(rows: pd.DataFrame, missing: pd.DataFrame, compared: pd.DataFrame, sound: pd.DataFrame) -> pd.DataFrame:
    """Of every two schemes at every length, what becomes of their verdict with the budget; of the lines of `pairs`, and of
    those of them that count (see Statistics.sound_pairs). Empty where no budget varies.

    One line a (pair, budget), within what else varies:
    steps                             of training: the budget
    difference, low, high, p_holm, n_seeds, verdict   as `pairs` has them at this budget; verdict is `not compared` where a
                                      scheme ends, has fewer seeds than others, or sees what it should predict
    stability, since, otherwise       of the pair, the same on all its lines (see held); `since` in steps
    change, change_low, change_high   by how much the lead of who wins at the largest budget is larger there than at the one
                                      before it, nats, and its 95 % t interval over seeds: below 0 the lead shrinks, and more
                                      training may take it away; missing where not both have numbers and the last a winner
    """
    made = apart(pd.concat([rows[GROUP], missing[GROUP]]).drop_duplicates(), BUDGET)
    made = made[made["value"] != ""]
    if compared.empty or made.empty:
        return pd.DataFrame()
    rows, asked, whole = (apart(table, BUDGET) for table in (rows, compared, sound))
    asked, whole = asked[PAIR].drop_duplicates(), whole[[*PAIR, *SHOWN, "value"]]
    tables = []
    for of, part in made.groupby(GROUP, sort=False):
        budgets = sorted(map(int, part["value"].unique()))
        if len(budgets) > 1 and len(own := within(asked, GROUP, of)):
            lines = own.merge(pd.DataFrame({"steps": budgets, "value": map(str, budgets)}), how="cross")
            tables.append(_of_group(lines.merge(whole, how="left"), within(rows, GROUP, of)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _of_group(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    lines = lines.assign(verdict=lines["verdict"].fillna(LACKING))
    *_, before, last = steps = [*lines["steps"].unique()]
    answers = {pair: held([*part["verdict"]]) for pair, part in lines.groupby(PAIR, sort=False)}
    answers = {
        pair: one._replace(since=one.since if one.since is None else steps[one.since]) for pair, one in answers.items()
    }
    told = pd.DataFrame(answers.values(), pd.MultiIndex.from_tuples(answers, names=PAIR)).astype({"since": "Int64"})
    at = {n: lines[lines["steps"] == n].set_index(PAIR) for n in (before, last)}
    both = at[last]["verdict"].isin(("a", "b")) & (at[before]["verdict"] != LACKING)
    ahead = at[last][both].reset_index()
    change = moves(ahead, *(rows[rows["value"] == str(n)] for n in (before, last)))
    # of a lead: who is better has the lower perplexity; where there is none, text that is mapped stays text
    sign = ahead["verdict"].map({"a": -1.0, "b": 1.0}).astype(float)
    ends = np.sort([sign * change.low, sign * change.high], axis=0)
    moved = ahead[PAIR].assign(change=sign * change.mean, change_low=ends[0], change_high=ends[1])
    return lines.drop(columns="value").join(told, on=PAIR).merge(moved, on=PAIR, how="left")
