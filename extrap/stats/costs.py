"""What training a scheme costs, and the quality that it buys. Imports no torch."""

import pandas as pd

from extrap.results.rows import COSTS, GROUP, as_trained
from extrap.stats.perplexity import AT_L, BEYOND_L, CONDITION, told_first

RATE = "tokens_per_second"  # of training
# of the best seed, since what else a machine does only adds to times, and of the worst
OF_MACHINE = dict.fromkeys(("train_seconds", "eval_seconds", "peak_memory"), ("min", "max")) | {RATE: ("max", "min")}
OF_SCHEME = [*GROUP, "scheme"]


def costs_of_schemes(rows: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """A line a (group, scheme) of which any costs of training are known: COSTS and RATE.

    Each of OF_MACHINE is that of the seed that took least of it, <cost>_worst that of the one that took most.
    """
    runs = rows.loc[rows["kind"] == "scheme", [*OF_SCHEME, "run"]].drop_duplicates().merge(costs, on="run")
    runs = runs.dropna(subset="train_seconds").assign(**{RATE: lambda run: run["tokens"] / run["train_seconds"]})
    schemes = runs.groupby(OF_SCHEME, sort=False)
    best = dict.fromkeys(COSTS, "mean") | {cost: of for cost, (of, _) in OF_MACHINE.items()}
    worst = {f"{cost}_worst": (cost, of) for cost, (_, of) in OF_MACHINE.items()}
    return schemes.agg(**{cost: (cost, of) for cost, of in best.items()} | worst).reset_index()


def cost_and_quality(summary: pd.DataFrame, rows: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Lines of `summary` of schemes as trained, at the training length and at the longest, with costs_of_schemes.

    At the training length under the protocol that scores all tokens (nonoverlap), at the longest under the one that scores
    the same at every length (same_targets), where rows hold them. Lines of which no costs are known are left out.
    """
    lines = as_trained(summary)
    found = [lines[:0]]
    for _, part in lines.groupby(GROUP, sort=False):
        longest, train_len = part["eval_len"].max(), part["train_len"].iloc[0]
        for wanted, eval_len in ((AT_L, train_len), *([(BEYOND_L, longest)] if longest > train_len else [])):
            protocol = told_first(wanted, part["protocol"])
            found.append(part[(part["protocol"] == protocol) & (part["eval_len"] == eval_len)])
    wanted = pd.concat(found)[[*CONDITION, "scheme", "eval_len", "n_seeds", "ppl", "ppl_low", "ppl_high"]]
    return wanted.drop_duplicates([*CONDITION, "scheme", "eval_len"]).merge(costs_of_schemes(rows, costs), on=OF_SCHEME)
