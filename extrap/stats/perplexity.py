"""Perplexities with their uncertainty, from rows and from the losses of training. Imports no torch."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from extrap.errors import UserError
from extrap.results.rows import GROUP
from extrap.results.shown import IN_NATS, logarithm

CONFIDENCE, ALPHA = 0.95, 0.05  # of intervals, and the level of tests
ONSET = 1.05  # the factor between perplexities from which on a difference counts: a blow-up, or anything learned at all

# protocols by what is told first: at L which scores all tokens, beyond it which scores the same ones at every length
AT_L, BEYOND_L = ("nonoverlap", "same_targets"), ("same_targets", "nonoverlap")

CONDITION = [*GROUP, "protocol"]  # what a scheme's numbers are for; perplexities are compared within, never across
SCHEME = ["kind", "scheme", "extension"]


def perplexity(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """log_ppl = sum(nll_sum) / sum(n_tokens) in nats, and bpb = sum(nll_sum) / (ln 2 * sum(n_bytes)), for each group.

    The one place where a perplexity is made: sums over whole groups, never a mean of means. ppl = exp(log_ppl).
    """
    sums = rows.groupby(by, sort=False)[["nll_sum", "n_tokens", "n_bytes"]].sum().reset_index()
    sums["log_ppl"] = sums["nll_sum"] / sums["n_tokens"]
    sums["bpb"] = sums["nll_sum"] / (np.log(2) * sums["n_bytes"])
    return sums


class Interval(NamedTuple):
    """Of values over seeds: a number each, or a Series of them where the values came in groups."""

    mean: Any
    low: Any
    high: Any
    n: Any

    @property
    def half(self) -> Any:
        return self.high - self.mean

    def exp(self) -> "Interval":
        return Interval(np.exp(self.mean), np.exp(self.low), np.exp(self.high), self.n)


def over_seeds(values: Any, confidence: float = CONFIDENCE) -> Interval:
    """The mean of n values and its t interval, mean -+ t_{(1 + confidence) / 2, n-1} s / sqrt(n); nan for a single seed.

    A value a seed: a Series, or many by columns (DataFrame) or groups (SeriesGroupBy).
    """
    mean, n = values.mean(), values.count()
    half = stdtrit(n - 1, 0.5 + confidence / 2) * values.std() / np.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a (condition, scheme, eval_len): means over seeds with 95 % t intervals.

    log_ppl, log_ppl_half   mean over seeds of log-perplexity, half width of its interval (nats)
    ppl, ppl_low, ppl_high  exp of the mean and of its bounds; of an objective that predicts no tokens (IN_NATS) these
                            themselves: nats per token
    ratio, _low, _high      to ppl at the training length, paired by seed: exp of the mean of the logarithm, and its bounds
    limit                   of this ratio, from which on it counts: 1.05; of IN_NATS 1 + 5 % of explained / (1 - explained),
                            that is a loss of 5 % of what is explained at the training length, inf of who explains nothing
    bpb                     bits per byte
    n_seeds, n_tokens       seeds, and tokens scored for each of them
    beats_unigram           at the training length more than 5 % better than frequencies in the training text, or (IN_NATS)
                            better than what two neighbours tell; missing where rows hold no such reference, the same on all
                            lines of a scheme
    explained               of IN_NATS, where there are any: 1 - log_ppl over that of the reference `rate`; of a whole text
                            that is the entropy of the share of tokens that are replaced
    onset_low, onset_high   blow-up bracket, the same on all lines of a scheme (see onset)

    Raises UserError if not all scored the same tokens, or the training length was not scored.
    """
    refuse_other_targets(rows)
    keys = [*CONDITION, *SCHEME]
    by_seed = perplexity(rows, [*keys, "eval_len", "seed"])
    by_seed["log"] = logarithm(by_seed["objective"], by_seed["log_ppl"])
    at_train_len = by_seed[by_seed["eval_len"] == by_seed["train_len"]].set_index([*keys, "seed"])
    by_seed = by_seed.join(at_train_len["log"].rename("start"), on=[*keys, "seed"])
    if by_seed["start"].isna().any():
        raise UserError("rows: perplexity at the training length is missing for some scheme; eval.multiples must hold 1")
    groups = by_seed.assign(log_ratio=by_seed["log"] - by_seed["start"]).groupby([*keys, "eval_len"], sort=False)
    log_ppl = over_seeds(groups["log_ppl"])
    ratio = over_seeds(groups["log_ratio"]).exp()
    in_nats = log_ppl.mean.index.get_level_values("objective").isin(IN_NATS)
    ppl, ppl_low, ppl_high = (part.where(in_nats, np.exp(part)) for part in log_ppl[:3])
    summary = pd.DataFrame({
        "n_seeds": log_ppl.n, "n_tokens": groups["n_tokens"].first(), "bpb": groups["bpb"].mean(),
        "log_ppl": log_ppl.mean, "log_ppl_half": log_ppl.half, "ppl": ppl, "ppl_low": ppl_low, "ppl_high": ppl_high,
        "ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high,
    }).reset_index()  # fmt: skip
    summary = _explained(summary)
    brackets = {key: onset(scheme) for key, scheme in summary.groupby(keys, sort=False)}
    onsets = pd.DataFrame(
        brackets.values(), pd.MultiIndex.from_tuples(brackets, names=keys), ["onset_low", "onset_high"], dtype="Int64"
    )
    return summary.join(_beats_unigram(summary), on=keys).join(onsets, on=keys)


FALL = np.log(ONSET)  # nats: less is not worth a sentence


def still_falling(training: pd.DataFrame) -> pd.Series:
    """By how many nats the training loss fell from the third to the last quarter of the steps, of the schemes where it
    certainly did by 5 % of perplexity or more: mean over seeds, by scheme. Of IN_NATS by which share of itself it did, the
    difference of logarithms.

    Certainly: the whole 95 % interval lies above that. It holds the noise of batches: means of a quarter's entries differ
    by their two sample variances, of all seeds together (Welch), so that a single run has one, too. Only entries of the
    log count, each of one batch. A loss that falls because the learning rate does is falling none the less; one that
    would fall if it were trained longer, or at another rate, need not show.
    """
    training = training.assign(loss=logarithm(training["objective"], training["loss"]))
    quarter = np.ceil(4 * training["step"] / training.groupby(["scheme", "seed"])["step"].transform("max"))
    entries = training[quarter.isin((3, 4))].groupby(["scheme", "seed", quarter], sort=False)["loss"]
    n, mean, variance = (part.unstack().reindex(columns=[3, 4]) for part in (entries.size(), entries.mean(), entries.var()))
    runs = pd.DataFrame(
        {"fall": mean[3] - mean[4], "variance": (variance / n).sum(axis=1), "n": n.min(axis=1, skipna=False)}
    )
    schemes = runs[runs["n"] > 1].groupby("scheme", sort=False)
    n_seeds, fall = schemes.size(), schemes["fall"].mean()
    error = np.sqrt(schemes["variance"].sum()) / n_seeds
    half = stdtrit(schemes["n"].sum() - n_seeds, 0.5 + CONFIDENCE / 2) * error
    return fall[fall - half > FALL]


def refuse_other_targets(rows: pd.DataFrame) -> None:
    """Raises UserError unless, within a setting, all schemes, extensions, lengths and seeds scored the same tokens.

    Under `position` a length stands for a place in the text: there the tokens of each length are its own.
    """
    by_length = rows["eval_len"].where(rows["protocol"] == "position", 0)
    for (*condition, _), part in rows.groupby([*(rows[column] for column in CONDITION), by_length], sort=False):
        scored = part.pivot(index=["document", "segment"], columns=[*SCHEME, "eval_len", "seed"], values="n_tokens")
        if (differs := scored.ne(scored.iloc[:, 0], axis=0).any()).any():
            raise UserError(
                f"rows: in {tuple(condition)} {differs.idxmax()} scored other tokens than {scored.columns[0]} "
                f"({scored.loc[:, differs].iloc[:, 0].sum():.0f} and {scored.iloc[:, 0].sum():.0f}); "
                "numbers of different texts are not compared"
            )


def told_first(wanted: Sequence[str], protocols: Iterable[str]) -> str:
    """The first of these protocols that is there, or whichever is."""
    protocols = list(protocols)
    return next((name for name in wanted if name in protocols), protocols[0])


def landmarks(lengths: Iterable[int], train_len: int) -> list[int]:
    """Of these lengths the training length, four times that or what is nearest, and the longest, each once."""
    four_times = min(lengths := sorted(lengths), key=lambda n: abs(np.log(n / (4 * train_len))))
    return list(dict.fromkeys((train_len, four_times, lengths[-1])))


def is_control(summary: pd.DataFrame) -> pd.Series:
    """Which lines are of an extension that goes beyond the training length: up to there it is a copy."""
    longest = summary.groupby([*CONDITION, *SCHEME])["eval_len"].transform("max")
    return (summary["extension"] != "none") & (longest > summary["train_len"])


def onset(scheme: pd.DataFrame) -> tuple[int, int | None]:
    """(last length, first length) around the point where the ratio to the training length exceeds its limit.

    The ratio is paired by seed: seeds that have no number at some length do not shift it. The second is None if it never
    does; only lengths from the training length on count.
    """
    beyond = scheme[scheme["eval_len"] >= scheme["train_len"]].sort_values("eval_len")
    lengths = [*beyond["eval_len"], None]
    first = np.append(beyond["ratio"] > beyond["limit"], True).argmax()
    return lengths[first - 1], lengths[first]


KNOWN = ("unigram", "neighbours")  # kinds of references that who has learned from context is better than


def _beats_unigram(summary: pd.DataFrame) -> pd.Series:
    start = summary[summary["eval_len"] == summary["train_len"]].set_index(CONDITION)
    known = start.loc[start["kind"].isin(KNOWN), "log_ppl"].rename("known")
    schemes = start[start["kind"] == "scheme"].join(known)
    margin = np.where(schemes.index.get_level_values("objective").isin(IN_NATS), 0.0, np.log(ONSET))
    schemes = schemes.assign(margin=margin).set_index(SCHEME, append=True)
    beats = (schemes["log_ppl"] + schemes["margin"] < schemes["known"]).astype("boolean")
    return beats.mask(schemes["known"].isna()).rename("beats_unigram")


def _explained(summary: pd.DataFrame) -> pd.DataFrame:
    if not (told := summary["objective"].isin(IN_NATS)).any():
        return summary.assign(limit=ONSET)
    place = [*CONDITION, "eval_len"]
    rate = summary[summary["kind"] == "rate"].set_index(place)["log_ppl"].rename("rate")
    summary = summary.join(rate, on=place)
    summary["explained"] = (1 - summary["log_ppl"] / summary["rate"]).where(told)
    keys = [*CONDITION, *SCHEME]
    start = summary[summary["eval_len"] == summary["train_len"]].set_index(keys)["explained"].rename("start")
    known = summary.join(start, on=keys)["start"]
    limit = (1 + (ONSET - 1) * known / (1 - known)).fillna(ONSET).mask(known <= 0, np.inf)
    return summary.assign(limit=limit, bpb=summary["bpb"].where(~told)).drop(columns="rate")
