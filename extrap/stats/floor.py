"""How far schemes are from the best possible predictor, where it is known, and what that says. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.stats.perplexity import CONDITION, ONSET

FLOORS = ["floor", "window_floor", "plateau"]  # the kinds of rows that a source with a known floor has


def against_floor(rows: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """How far each scheme is from the best possible predictor, and what it makes of more context: of rows and of what
    `summarise` makes of them, for a floor is the same for all seeds.

    One line a (condition, scheme, eval_len); none without a floor:
    excess, excess_half  log_ppl minus that of the floor, which sees the same tokens (nats); t interval over seeds
    learned              at this length, the share of the way from the plateau to the floor; nan where they are too near to
                         tell one from the other: no farther apart than the interval of log_ppl is wide, or by less than
                         `plateau` nats in one context. The plateau is the better of those who know nothing of order: counts
                         of symbols in the context, and the unigram reference, which on `markov` is a uniform guess
    gained, gained_half  of what context beyond the training length L is worth at this length, the share that a scheme
                         has (nan at L and below, and where it is worth nothing): (null - log_ppl) / (window_floor - floor),
                         where window_floor is the floor for who looks back L tokens at most, and null = log_ppl(L) +
                         window_floor - floor(L) is the scheme if it did so too, as far above that floor as it is at L
    impossible           below the floor by more than `plateau` nats in one context, a symbol's worth. It is no luck: who
                         does not see its targets leads the floor by log V nats in each of D documents at most once in
                         V^D texts (Markov's inequality), and the floor leaves out less (see Markov.posterior_nll)
    verdict              of the scheme, the same on all its lines (see verdict)
    """
    kinds = [*FLOORS, "unigram"]
    references = summary[summary["kind"].isin(kinds)]
    known = references.pivot(index=[*CONDITION, "eval_len"], columns="kind", values="log_ppl")
    known = known.reindex(columns=kinds).dropna(subset=FLOORS)
    known["plateau"] = known[["plateau", "unigram"]].min(axis="columns")
    known["per_context"] = rows[rows["kind"] == "floor"].groupby([*CONDITION, "eval_len"])["n_tokens"].max()
    known = known.reset_index()
    start = known.loc[known["eval_len"] == known["train_len"], [*CONDITION, "floor"]]
    scheme = [*CONDITION, "scheme", "extension"]
    lines = summary[summary["kind"] == "scheme"].merge(known, on=[*CONDITION, "eval_len"])
    lines = lines.merge(start, on=CONDITION, suffixes=("", "_start"))
    targets = lines[["per_context", "eval_len"]].min(axis="columns")  # that are scored in one context
    way, symbol = lines["plateau"] - lines["floor"], lines["plateau"] / targets
    near = way <= np.fmax(2 * lines["log_ppl_half"], symbol)  # fmax: a single seed has no interval
    worth = lines["window_floor"] - lines["floor"]
    worth = worth.where((lines["eval_len"] > lines["train_len"]) & (worth > 0))
    excess = lines["log_ppl"] - lines["floor"]
    table = lines[[*scheme, "eval_len", "n_seeds", "ratio", "ratio_low", "ratio_high"]].assign(
        excess=excess, excess_half=lines["log_ppl_half"], learned=(1 - excess / way).mask(near),
        gained=(lines["window_floor"] - lines["floor_start"] - np.log(lines["ratio"])) / worth,
        gained_half=np.log(lines["ratio_high"] / lines["ratio"]) / worth,
        impossible=excess < -symbol, verdict="",
    )  # fmt: skip
    longest = known.groupby(CONDITION)["eval_len"].max()
    for key, own in table.groupby(scheme, sort=False):
        table.loc[own.index, "verdict"] = verdict(own, longest[key[: len(CONDITION)]])
    return table


LEARNED = 0.5  # of the way from the plateau to the floor: below it a scheme has not learned to count transitions
GAINED = 0.05  # of what context beyond the training length is worth: what is less is no use of it
BELOW, TOO_NEAR, PLATEAU = "below the floor: impossible", "floor and plateau too near", "still on the plateau"
BREAKS = "breaks"
ENDS, NOT_MEASURED = "ends", "not measured"  # the second where a seed lacks a number, see Statistics.floor
UNFIT = (BELOW, TOO_NEAR, PLATEAU)  # verdicts that leave nothing to be said of a scheme's use of context


def verdict(scheme: pd.DataFrame, scored: int) -> str:
    """What a scheme does with more context than it was trained on; its lines, and the longest length scored.

    below the floor: impossible  at some length better than the best possible predictor: it sees what it should predict
    floor and plateau too near   at the training length nothing tells whether it has learned
    still on the plateau         at the training length not half of the way from the plateau to the floor
    not asked                    nothing was scored beyond the training length
    ends                         not defined there, or not at the longest length
    breaks                       perplexity exceeds that at the training length by 5 % at some longer length, by the whole
                                 interval over seeds
    unclear                      at some longer length the interval holds that limit
    uses more context            at the longest length it gained, beyond the interval over seeds, more than 5 % of what
                                 context beyond the training length is worth
    survives                     none of these
    """
    if scheme["impossible"].any():
        return BELOW
    learned = scheme.loc[scheme["eval_len"] == scheme["train_len"], "learned"].iloc[0]
    if np.isnan(learned):
        return TOO_NEAR
    if learned < LEARNED:
        return PLATEAU
    longer = scheme[scheme["eval_len"] > scheme["train_len"]].sort_values("eval_len")
    if longer.empty:
        return ENDS if scored > scheme["train_len"].iloc[0] else "not asked"
    low, high = (longer[column].fillna(longer["ratio"]) for column in ("ratio_low", "ratio_high"))
    if (low > ONSET).any():
        return BREAKS
    if (high > ONSET).any():
        return "unclear"
    longest = longer.iloc[-1]
    if longest["eval_len"] < scored or longest["n_seeds"] < scheme["n_seeds"].max():
        return ENDS
    # a single seed has an interval of nan: nothing is beyond it
    return "uses more context" if longest["gained"] - longest["gained_half"] > GAINED else "survives"
