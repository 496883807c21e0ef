"""All that a report says of its rows, each computed once. Imports no torch."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from extrap.results.rows import BROKEN, COSTS, GROUP, MISSING, NOT_A_NUMBER, TRAINING, as_trained, within
from extrap.stats.budget import stability
from extrap.stats.costs import cost_and_quality
from extrap.stats.extrapolates import extended, extrapolates, with_broken
from extrap.stats.floor import BELOW, BREAKS, ENDS, NOT_MEASURED, UNFIT, against_floor
from extrap.stats.null import early_token_null
from extrap.stats.output import interactions, outputs
from extrap.stats.pairs import PAIR, SHOWN, best, neither, one_way, pairs, unflattered, yardstick
from extrap.stats.perplexity import CONDITION, summarise

CHOICE = [*GROUP, "scheme", "option", "value", "loss", "n_tokens", "n_seeds", "chosen", "border"]  # see best_over
ONE_FOR_ALL = [*PAIR, "option", "value", *SHOWN, *(f"best_{column}" for column in SHOWN)]
ONE_FOR_ALL += ["change", "change_low", "change_high"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Rows, what they have no numbers of, the losses of their training, and what follows, when it is first asked for."""

    rows: pd.DataFrame
    missing: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=MISSING))
    training: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=TRAINING))
    choice: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CHOICE))
    one_for_all: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=ONE_FOR_ALL))
    costs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["run", *COSTS]))  # nan where not known
    held_out: int | None = None  # documents, where that is recorded and they are not made as they are asked for

    @cached_property
    def groups(self) -> dict[tuple[object, ...], "Statistics"]:
        """The same of every group that has rows, by the columns GROUP; by () where there is but one."""
        found = list(self.rows[GROUP].drop_duplicates().itertuples(index=False, name=None))
        if len(found) == 1 and self.unmeasured.empty:
            return {(): self}
        tables = {name: getattr(self, name) for name in ("rows", "missing", "training", "choice", "one_for_all")}
        parts = {of: replace(self, **{name: within(table, GROUP, of) for name, table in tables.items()}) for of in found}
        return parts if len(found) > 1 else {(): parts[found[0]]}

    @cached_property
    def unmeasured(self) -> pd.DataFrame:
        """What is missing of groups that have no rows."""
        of, known = (pd.MultiIndex.from_frame(table[GROUP]) for table in (self.missing, self.rows))
        return self.missing[~of.isin(known.unique())]

    @cached_property
    def sizes(self) -> set[int]:
        """How many parameters models have; empty unless that is known of all."""
        runs = {*self.rows.loc[self.rows["kind"] == "scheme", "run"]}
        known = self.costs[self.costs["run"].isin(runs)].dropna(subset="parameters")
        return {*known["parameters"].astype(int)} if runs <= {*known["run"]} else set()

    @cached_property
    def by_length(self) -> pd.DataFrame:
        """The rows whose eval_len is a length, not a place in the text."""
        return self.rows[self.rows["protocol"] != "position"]

    @cached_property
    def summary(self) -> pd.DataFrame:
        return summarise(self.by_length)

    @cached_property
    def by_position(self) -> pd.DataFrame:
        """The lines of summarise of the other rows, empty where there are none."""
        rows = self.rows[self.rows["protocol"] == "position"]
        return rows if rows.empty else summarise(rows)

    @cached_property
    def floor(self) -> pd.DataFrame:
        """The lines of against_floor; what ends because a seed lacks a number is not measured, and who has a loss that is
        not a number beyond L in some seed breaks."""
        found, scheme = against_floor(self.by_length, self.summary), [*CONDITION, "scheme", "extension"]
        of, verdict = pd.MultiIndex.from_frame(found[scheme]), found["verdict"]
        lost = of.isin(pd.MultiIndex.from_frame(self.missing[scheme]))
        breaks = of.isin(pd.MultiIndex.from_frame(self.no_number[scheme])) & ~verdict.isin(UNFIT)
        return found.assign(verdict=verdict.mask(lost & (verdict == ENDS), NOT_MEASURED).mask(breaks, BREAKS))

    @cached_property
    def impossible(self) -> set[tuple[object, ...]]:
        """(objective, ..., scheme) of what is below the floor anywhere as trained: it sees what it should predict."""
        lines = self.floor[(self.floor["verdict"] == BELOW) & (self.floor["extension"] == "none")]
        return set(lines[[*GROUP, "scheme"]].itertuples(index=False, name=None))

    @cached_property
    def null(self) -> pd.DataFrame:
        return early_token_null(self.by_length)

    @cached_property
    def sound_null(self) -> pd.DataFrame:
        """What is compared on the same tokens: table.csv says what its null comes from, a page has no room to."""
        return self.null[self.null["full_context"] != "same_targets"]

    @cached_property
    def costs_and_quality(self) -> pd.DataFrame:
        return cost_and_quality(self.summary, self.rows, self.costs)

    @cached_property
    def broken(self) -> pd.DataFrame:
        """What is missing because a model diverged or a loss is not a number: seeds that have one there would flatter it."""
        return self.missing[self.missing["reason"].str.startswith(BROKEN)]

    @cached_property
    def no_number(self) -> pd.DataFrame:
        """Of these the losses beyond L that are not a number."""
        return self.broken[(self.broken["reason"] == NOT_A_NUMBER) & (self.broken["eval_len"] > self.broken["train_len"])]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return unflattered(pairs(self.rows), self.broken)

    @cached_property
    def yardstick(self) -> str | None:
        """Of a group, see stats/pairs.py: None where every two schemes are compared."""
        return yardstick(self.rows)

    @cached_property
    def yardsticks(self) -> list[str]:
        """Those of all groups, each once."""
        return [*dict.fromkeys(part.yardstick for part in self.groups.values() if part.yardstick is not None)]

    @cached_property
    def extrapolates(self) -> pd.DataFrame:
        return with_broken(extrapolates(self.rows), self.broken)

    @cached_property
    def extended(self) -> pd.DataFrame:
        return unflattered(extended(self.by_length), self.broken)

    @cached_property
    def sound_pairs(self) -> pd.DataFrame:
        """Of pairs those that other trainings may be put beside: of no scheme that lacks a seed there, or is impossible.

        A seed is lacking where its run has no number, and where others of the same kind, of any setting, have one more.
        """
        if self.pairs.empty:
            return self.pairs
        lost = self.missing.loc[self.missing["extension"] == "none", [*CONDITION, "eval_len", "scheme"]]
        lines = as_trained(self.summary)
        most = lines.groupby([*GROUP[:-1], "protocol"])["n_seeds"].transform("max")
        fewer = lines.loc[lines["n_seeds"] < most, [*CONDITION, "eval_len", "scheme"]]
        below = pd.DataFrame([*self.impossible], columns=[*GROUP, "scheme"])
        return neither(neither(neither(self.pairs, lost), fewer), below)

    @cached_property
    def stability(self) -> pd.DataFrame:
        compared = one_way(self.pairs)
        return stability(self.rows, self.missing, compared, compared.loc[self.sound_pairs.index])

    @cached_property
    def outputs(self) -> pd.DataFrame:
        return outputs(self.rows, self.broken)

    @cached_property
    def interactions(self) -> pd.DataFrame:
        return interactions(self.rows, one_way(self.sound_pairs))

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The summary, and which of its lines are `best`: of schemes as trained that beat every other one at this length,
        each pair decided; never of who is below a known floor anywhere."""
        is_below = [of in self.impossible for of in self.summary[[*GROUP, "scheme"]].itertuples(index=False, name=None)]
        return self.summary.assign(best=best(self.pairs, self.summary) & ~np.array(is_below, dtype=bool))
