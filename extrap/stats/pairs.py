"""Who beats whom: differences of log-perplexity, paired by seed and by held-out text. Imports no torch."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtr

from extrap.results.rows import GROUP, NOT_A_NUMBER, as_trained
from extrap.stats.perplexity import ALPHA, CONDITION, Interval, over_seeds, perplexity, refuse_other_targets
from extrap.stats.power import ROUNDING, seeds_needed
from extrap.stats.text import text_interval

MOST_PAIRED = 12  # schemes, of which every two are compared

Opponents = list[tuple[tuple[str, str], tuple[str, str]]]  # (scheme, extension) of a, and of b
PAIR = [*CONDITION, "eval_len", "scheme_a", "scheme_b"]  # of schemes as they were trained
SHOWN = ["difference", "low", "high", "p_holm", "n_seeds", "verdict"]  # of each, beside another training
UNDECIDED, LACKING = "undecided", "not compared"  # verdicts: the second beside another training alone
SCHEMES = ["scheme_a", "extension_a", "scheme_b", "extension_b"]


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Schemes as they were trained, at every length: the lines of `compare` of every two, or of each with the yardstick."""
    trained = as_trained(rows)
    groups = [part for _, part in trained.groupby(GROUP, sort=False)]
    if all(yardstick(part) is None for part in groups):
        return compare(trained, _every_two(trained))
    found = [compare(part, _with_one(part, one) if (one := yardstick(part)) else _every_two(part)) for part in groups]
    return pd.concat(found, ignore_index=True)


def _every_two(rows: pd.DataFrame) -> Opponents:
    return list(combinations([(scheme, "none") for scheme in rows["scheme"].unique()], 2))


def _with_one(rows: pd.DataFrame, one: str) -> Opponents:
    return [((scheme, "none"), (one, "none")) for scheme in rows["scheme"].unique() if scheme != one]


def yardstick(rows: pd.DataFrame) -> str | None:
    """The scheme that all others of a group are compared with where they are more than MOST_PAIRED: RoPE, or the first.

    Of thirty schemes there are 435 pairs: nobody reads them, and after Holm over so many few are decided.
    """
    schemes = rows.loc[rows["kind"] == "scheme", "scheme"].unique()
    if len(schemes) <= MOST_PAIRED:
        return None
    return "rope" if "rope" in schemes else str(schemes[0])


def best(compared: pd.DataFrame, summary: pd.DataFrame) -> pd.Series:
    """Which lines of `summarise` are of a scheme, as it was trained, that every other one at that length decidedly loses to.

    compared holds the lines of `pairs` of the same rows.
    """
    cell = [*CONDITION, "eval_len"]
    trained = (summary["kind"] == "scheme") & (summary["extension"] == "none")
    if compared.empty:
        return trained & False
    lines = both_ways(compared)
    won = lines[lines["verdict"] == "a"].groupby([*cell, "scheme_a"]).size().rename("n_won")
    n_won = summary.join(won, on=[*cell, "scheme"])["n_won"]
    n_others = trained.groupby([summary[column] for column in cell]).transform("sum") - 1
    return trained & (n_won == n_others)  # nan, where nothing is won, equals nothing


def unflattered(compared: pd.DataFrame, broken: pd.DataFrame) -> pd.DataFrame:
    """The lines of `compare`, in which none wins that some seed has no number for because it broke (see Statistics.broken):
    the seeds that are compared are then those that did not. Who loses on these loses all the more."""
    if compared.empty or broken.empty:
        return compared
    at = [*CONDITION, "eval_len"]
    known, verdict = pd.MultiIndex.from_frame(broken[[*at, "scheme", "extension"]]), compared["verdict"]
    # whatever is done to weights that diverged
    diverged = broken[(broken["extension"] == "none") & (broken["reason"] != NOT_A_NUMBER)]
    whole = pd.MultiIndex.from_frame(diverged[[*at, "scheme"]])
    for side in ("a", "b"):
        of = pd.MultiIndex.from_frame(compared[[*at, f"scheme_{side}", f"extension_{side}"]])
        is_lost = of.isin(known) | of.droplevel(-1).isin(whole)
        verdict = verdict.mask(is_lost & (verdict == side), UNDECIDED)
    return compared.assign(verdict=verdict)


OTHER_WAY = {"scheme_a": "scheme_b", "low": "high", "text_low": "text_high"}
OTHER_WAY |= {column: other for other, column in OTHER_WAY.items()}


def both_ways(compared: pd.DataFrame) -> pd.DataFrame:
    """The lines of `pairs`, and again each with b in the place of a."""
    turned = compared.rename(columns=OTHER_WAY)
    turned["verdict"] = turned["verdict"].map({"a": "b", "b": "a", "undecided": "undecided"})
    for column in ("difference", "low", "high", "text_low", "text_high"):
        turned[column] = -turned[column]
    return pd.concat([compared, turned], ignore_index=True)


def one_way(compared: pd.DataFrame) -> pd.DataFrame:
    """The lines of `pairs`, the two of a pair in one order in all groups: with a yardstick in some and none in others they
    would stand either way."""
    if compared.empty:
        return compared
    pair = pd.Series([*map(frozenset, zip(compared["scheme_a"], compared["scheme_b"], strict=True))], compared.index)
    stays = compared["scheme_a"] == compared.groupby(pair)["scheme_a"].transform("first")
    turned = both_ways(compared).iloc[len(compared) :].set_axis(compared.index)
    return pd.concat([compared[stays], turned[~stays]]).sort_index()


def neither(compared: pd.DataFrame, of: pd.DataFrame) -> pd.DataFrame:
    """The lines of `pairs` neither of whose schemes stands in a line of this table, there: as far as it says where."""
    at = [column for column in (*CONDITION, "eval_len") if column in of]
    known = pd.MultiIndex.from_frame(of[[*at, "scheme"]])
    sides = (pd.MultiIndex.from_frame(compared[[*at, side]]) for side in ("scheme_a", "scheme_b"))
    return compared[~np.logical_or(*(side.isin(known) for side in sides))]


def moves(lines: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> Interval:
    """By how much the difference of each of these pairs changes from one training to another (nats per token): mean over
    the seeds that both have, paired by them, and its 95 % t interval; a Series each, in the order of the lines."""
    return over_seeds(moved(lines, before, after))


def moved(lines: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The same of every seed: a row a seed, a column a line."""
    place = [*CONDITION, "eval_len"]
    trained = (as_trained(rows) for rows in (before, after))
    old, new = (perplexity(rows, [*place, "scheme", "seed"]).set_index([*place, "scheme", "seed"]) for rows in trained)
    change = (new["log_ppl"] - old["log_ppl"]).unstack("seed")
    a, b = (change.reindex(pd.MultiIndex.from_frame(lines[[*place, side]])).to_numpy() for side in ("scheme_a", "scheme_b"))
    return pd.DataFrame((a - b).T, columns=lines.index)


def compare(rows: pd.DataFrame, opponents: Opponents) -> pd.DataFrame:
    """Differences of log-perplexity between opponents, for every setting and length at which both have rows.

    One line a (condition, eval_len, pair):
    difference                   mean over common seeds of log_ppl(a) - log_ppl(b), nats per token; below 0: a is better
    low, high                    its 95 % t interval over seeds: other seeds, this text
    p, p_holm                    two-sided: the larger of the paired t test over seeds and, unless unit is none, of that over
                                 text, for both have to find it (intersection-union test, Berger 1982); times Holm's factors
                                 over the n_pairs pairs of opponents that are compared in this condition at this length
    text_low, text_high          95 % interval over text: other text, these trained models
    unit, n_units                what that text is sampled in, and how many there are (see text_interval):
                                 documents: it speaks of other documents like these
                                 segments: of other parts of these very documents, where they are fewer than six
                                 none: there is no such interval, and the verdict is about this text alone
    n_seeds, n_documents, n_pairs
    verdict                      a or b, whichever is better, if p_holm < 0.05 and the intervals lie on its side of 0, that
                                 over seeds and, unless unit is none, that over text; else undecided, as with a single seed
    seeds_needed                 see seeds_needed

    Raises UserError if not all scored the same tokens.
    """
    refuse_other_targets(rows)
    at_place = rows.groupby([*CONDITION, "eval_len"], sort=False)
    found = {place: table for place, cell in at_place if len(table := _compare_cell(cell, opponents))}
    if not found:
        return pd.DataFrame()
    return pd.concat(found, names=[*CONDITION, "eval_len"]).reset_index([*CONDITION, "eval_len"]).reset_index(drop=True)


def _compare_cell(cell: pd.DataFrame, opponents: Opponents) -> pd.DataFrame:
    log_ppl = perplexity(cell, ["scheme", "extension", "seed"])
    log_ppl = log_ppl.pivot(index="seed", columns=["scheme", "extension"], values="log_ppl")
    of = dict(zip(log_ppl.columns, log_ppl.to_numpy().T, strict=True))
    by_seed = {(a, b): of[a] - of[b] for a, b in opponents if a in of and b in of}  # nan where one of them lacks a seed
    by_seed = {pair: difference for pair, difference in by_seed.items() if not np.isnan(difference).all()}
    if not by_seed:
        return pd.DataFrame()
    by_segment = cell.groupby(["scheme", "extension", "seed", "document", "segment"])[["nll_sum", "n_tokens"]].sum()
    nll = by_segment["nll_sum"].unstack(["document", "segment"]).sort_index(axis="columns")
    n_tokens = by_segment["n_tokens"].loc[nll.index[0]].to_numpy()  # all scored the same
    scored = n_tokens > 0
    document = pd.factorize(nll.columns.get_level_values("document")[scored])[0]
    nll_of = dict(zip(nll.index, nll.to_numpy()[:, scored], strict=True))
    deltas = [
        np.mean([nll_of[*a, seed] - nll_of[*b, seed] for seed in log_ppl.index[~np.isnan(difference)]], axis=0)
        for (a, b), difference in by_seed.items()
    ]
    text = text_interval(np.transpose(deltas), n_tokens[scored], document)
    differences = [difference[~np.isnan(difference)] for difference in by_seed.values()]
    p = np.array([paired_p(difference) for difference in differences])
    p = p if text.unit == "none" else np.maximum(p, text.p)
    p_holm = holm(p)
    mean, low, high, n_seeds = (part.to_numpy() for part in over_seeds(pd.DataFrame(np.transpose([*by_seed.values()]))))
    decided = (p_holm < ALPHA) & (abs(mean) > ROUNDING)
    anywhere = text.unit == "none"  # the seeds alone decide
    a_wins = decided & (high < 0) & (anywhere | (text.high < 0))
    b_wins = decided & (low > 0) & (anywhere | (text.low > 0))
    return pd.DataFrame([(*a, *b) for a, b in by_seed], columns=SCHEMES).assign(
        difference=mean, low=low, high=high, p=p, p_holm=p_holm, text_low=text.low, text_high=text.high, unit=text.unit,
        n_units=text.n_units, n_seeds=n_seeds, n_documents=document.max() + 1, n_pairs=len(by_seed),
        verdict=np.select([a_wins, b_wins], ["a", "b"], "undecided"),
        seeds_needed=pd.array([seeds_needed(difference) for difference in differences], "Int64"),
    )  # fmt: skip


def paired_p(difference: np.ndarray) -> float:
    """Two-sided p of the t test that the mean over seeds is 0; nan for a single seed, 1 if all differ by rounding only."""
    if len(difference) < 2:
        return float("nan")
    if np.abs(difference).max() <= ROUNDING:
        return 1.0  # p of noise in the last bit would be small by chance, and first in Holm's order
    with np.errstate(divide="ignore"):
        t = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    return float(2 * stdtr(len(difference) - 1, -abs(t)))


def holm(p: np.ndarray) -> np.ndarray:
    """p values adjusted for being m at once: the i-th smallest times m - i + 1, none below the one before. Holm 1979."""
    order = np.argsort(p)  # nan, where nothing was tested, comes last and stays
    factors = np.maximum(np.isfinite(p).sum() - np.arange(len(p)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted
