"""Perplexities with their uncertainty, from rows. Imports no torch."""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from extrap.errors import UserError

CONFIDENCE = 0.95
ONSET = 1.05  # the factor between perplexities from which on a difference counts: a blow-up, or anything learned at all

GROUP = ["objective", "data", "train_len"]  # what was trained for, and on what
SETTING = [*GROUP, "protocol"]  # what a scheme's numbers are for; perplexities are compared within, never across
SCHEME = ["kind", "scheme", "extension"]


def perplexity(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """log_ppl = sum(nll_sum) / sum(n_tokens) in nats, and bpb = sum(nll_sum) / (ln 2 * sum(n_bytes)), for each group.

    The one place where a perplexity is made: sums over whole groups, never a mean of means. ppl = exp(log_ppl).
    """
    sums = rows.groupby(by, sort=False)[["nll_sum", "n_tokens", "n_bytes"]].sum().reset_index()
    sums["log_ppl"] = sums["nll_sum"] / sums["n_tokens"]
    sums["bpb"] = sums["nll_sum"] / (np.log(2) * sums["n_bytes"])
    return sums


def t_half_width(values: np.ndarray, confidence: float = CONFIDENCE) -> float:
    """Half of the t interval of the mean over seeds: t_{(1 + confidence) / 2, n-1} * s / sqrt(n); nan for a single seed."""
    n = len(values)
    if n < 2:
        return float("nan")
    return float(stdtrit(n - 1, 0.5 + confidence / 2) * np.std(values, ddof=1) / np.sqrt(n))


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a (setting, scheme, eval_len): means over seeds with 95 % t intervals.

    log_ppl, log_ppl_half   mean over seeds of log-perplexity, half width of its interval (nats)
    ppl, ppl_low, ppl_high  exp of the mean and of its bounds
    ratio, _low, _high      to the perplexity at the training length, paired by seed
    bpb                     bits per byte
    n_seeds, n_tokens       seeds, and tokens scored for each of them
    beats_unigram           at the training length more than 5 % better than frequencies in the training text; missing where
                            rows hold no such reference, the same on all lines of a scheme
    onset_low, onset_high   blow-up bracket, the same on all lines of a scheme (see onset)

    Raises UserError if not all scored the same tokens, or the training length was not scored.
    """
    refuse_other_targets(rows)
    by_seed = perplexity(rows, [*SETTING, *SCHEME, "eval_len", "seed"])
    at_train_len = by_seed[by_seed["eval_len"] == by_seed["train_len"]]
    per_seed = by_seed.merge(at_train_len[[*SETTING, *SCHEME, "seed", "log_ppl"]], on=[*SETTING, *SCHEME, "seed"],
                             how="left", suffixes=("", "_at_train_len"))  # fmt: skip
    if per_seed["log_ppl_at_train_len"].isna().any():
        raise UserError("rows: perplexity at the training length is missing for some scheme; eval.lengths must hold it")
    lines = []
    for key, group in per_seed.groupby([*SETTING, *SCHEME, "eval_len"], sort=False):
        log_ppl, half = group["log_ppl"].mean(), t_half_width(group["log_ppl"].to_numpy())
        log_ratio = group["log_ppl"] - group["log_ppl_at_train_len"]
        ratio_half = t_half_width(log_ratio.to_numpy())
        lines.append(
            dict(zip([*SETTING, *SCHEME, "eval_len"], key, strict=True))
            | {"n_seeds": len(group), "n_tokens": group["n_tokens"].iloc[0], "bpb": group["bpb"].mean()}
            | {"log_ppl": log_ppl, "log_ppl_half": half}
            | {"ppl": np.exp(log_ppl), "ppl_low": np.exp(log_ppl - half), "ppl_high": np.exp(log_ppl + half)}
            | {"ratio": np.exp(log_ratio.mean())}
            | {"ratio_low": np.exp(log_ratio.mean() - ratio_half), "ratio_high": np.exp(log_ratio.mean() + ratio_half)}
        )
    summary = pd.DataFrame(lines)
    brackets = {key: onset(group) for key, group in summary.groupby([*SETTING, *SCHEME], sort=False)}
    keys = list(summary[[*SETTING, *SCHEME]].itertuples(index=False, name=None))
    beats = _beats_unigram(summary)
    summary["beats_unigram"] = pd.array([beats.get(key, pd.NA) for key in keys], dtype="boolean")
    summary["onset_low"] = pd.array([brackets[key][0] for key in keys], dtype="Int64")
    summary["onset_high"] = pd.array([brackets[key][1] for key in keys], dtype="Int64")
    return summary


def refuse_other_targets(rows: pd.DataFrame) -> None:
    """Raises UserError unless, within a setting, all schemes, extensions, lengths and seeds scored the same tokens.

    Under `position` a length stands for a place in the text: there the tokens of each length are its own.
    """
    by_length = rows["eval_len"].where(rows["protocol"] == "position", 0)
    for (*setting, _), part in rows.groupby([*(rows[column] for column in SETTING), by_length], sort=False):
        scored = part.pivot(index=["document", "segment"], columns=[*SCHEME, "eval_len", "seed"], values="n_tokens")
        if (differs := scored.ne(scored.iloc[:, 0], axis=0).any()).any():
            raise UserError(
                f"rows: in {tuple(setting)} {differs.idxmax()} scored other tokens than {scored.columns[0]} "
                f"({scored.loc[:, differs].iloc[:, 0].sum():.0f} and {scored.iloc[:, 0].sum():.0f}); "
                "numbers of different texts are not compared"
            )


def is_doubling(lines: pd.DataFrame) -> pd.Series:
    """Which lengths are the training length times a power of two."""
    return np.log2(lines["eval_len"] / lines["train_len"]) % 1 == 0


def onset(scheme: pd.DataFrame) -> tuple[int, int | None]:
    """(last length, first length) around the point where the ratio to the training length exceeds 1.05.

    The ratio is paired by seed: seeds that have no number at some length do not shift it. The second is None if it never
    does; only lengths from the training length on count.
    """
    beyond = scheme[scheme["eval_len"] >= scheme["train_len"]].sort_values("eval_len")
    above = beyond["ratio"].to_numpy() > ONSET
    lengths = beyond["eval_len"].to_list()
    if not above.any():
        return lengths[-1], None
    first = int(above.argmax())
    return lengths[first - 1], lengths[first]


def _beats_unigram(summary: pd.DataFrame) -> dict[tuple[object, ...], bool]:
    at_train_len = summary[summary["eval_len"] == summary["train_len"]]
    unigram = at_train_len.loc[at_train_len["kind"] == "unigram", [*SETTING, "log_ppl"]]
    lines = at_train_len[at_train_len["kind"] == "scheme"].merge(unigram, on=SETTING, suffixes=("", "_unigram"))
    beats = lines["log_ppl"] + np.log(ONSET) < lines["log_ppl_unigram"]
    return dict(zip(lines[[*SETTING, *SCHEME]].itertuples(index=False, name=None), beats, strict=True))


FLOORS = ["floor", "window_floor", "plateau"]  # the kinds of rows that a source with a known floor has


def against_floor(rows: pd.DataFrame) -> pd.DataFrame:
    """How far each scheme is from the best possible predictor, and what it makes of more context; empty without a floor.

    One line a (setting, scheme, eval_len):
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
    references = perplexity(rows[rows["kind"].isin(kinds)], [*SETTING, "kind", "eval_len"])
    if not references["kind"].isin(FLOORS).any():
        return pd.DataFrame()
    known = references.pivot(index=[*SETTING, "eval_len"], columns="kind", values="log_ppl").dropna(subset=FLOORS)
    known["plateau"] = known[known.columns.intersection(["plateau", "unigram"])].min(axis="columns")
    per_context = rows[rows["kind"] == "floor"].groupby([*SETTING, "eval_len"])["n_tokens"].max().rename("per_context")
    known = known[FLOORS].join(per_context).reset_index()
    known["per_context"] = known[["per_context", "eval_len"]].min(axis="columns")  # targets that are scored in one context
    by_seed = perplexity(rows[rows["kind"] == "scheme"], [*SETTING, "scheme", "extension", "eval_len", "seed"])
    joined = by_seed.merge(known, on=[*SETTING, "eval_len"])
    start = joined[joined["eval_len"] == joined["train_len"]]
    joined = joined.merge(start[[*SETTING, "scheme", "extension", "seed", "log_ppl", "floor"]],
                          on=[*SETTING, "scheme", "extension", "seed"], suffixes=("", "_start"))  # fmt: skip
    lines = []
    for key, group in joined.groupby([*SETTING, "scheme", "extension", "eval_len"], sort=False):
        excess = (group["log_ppl"] - group["floor"]).to_numpy()
        excess_half = t_half_width(excess)
        way, symbol = (group["plateau"] - group["floor"]).iloc[0], (group["plateau"] / group["per_context"]).iloc[0]
        near = way <= np.fmax(2 * excess_half, symbol)  # fmax: a single seed has no interval
        worth = (group["window_floor"] - group["floor"]).iloc[0]
        null = group["log_ppl_start"] + group["window_floor"] - group["floor_start"]
        longer = group["eval_len"].iloc[0] > group["train_len"].iloc[0]
        gained = (null - group["log_ppl"]).to_numpy() / worth if longer and worth > 0 else np.full(len(group), np.nan)
        lines.append(
            dict(zip([*SETTING, "scheme", "extension", "eval_len"], key, strict=True))
            | {"n_seeds": len(group), "excess": excess.mean(), "excess_half": excess_half}
            | {"learned": np.nan if near else 1 - excess.mean() / way}
            | {"gained": gained.mean(), "gained_half": t_half_width(gained)}
            | {"impossible": excess.mean() < -symbol}
            | {"ratio": np.exp((group["log_ppl"] - group["log_ppl_start"]).mean()), "log_ppl": group["log_ppl"].mean()}
        )
    table = pd.DataFrame(lines)
    scheme = [*SETTING, "scheme", "extension"]
    longest = known.groupby(SETTING)["eval_len"].max().rename("longest")
    asked = table.join(longest, on=SETTING)
    table["asked_beyond"] = asked["longest"] > asked["train_len"]
    verdicts = {key: verdict(group) for key, group in table.groupby(scheme, sort=False)}
    table["verdict"] = [verdicts[key] for key in table[scheme].itertuples(index=False, name=None)]
    return table.drop(columns="asked_beyond")


LEARNED = 0.5  # of the way from the plateau to the floor: below it a scheme has not learned to count transitions
GAINED = 0.05  # of what context beyond the training length is worth: what is less is no use of it
BELOW, TOO_NEAR, PLATEAU = "below the floor: impossible", "floor and plateau too near", "still on the plateau"
ENDS = "ends"
UNFIT = (BELOW, TOO_NEAR, PLATEAU)  # verdicts that leave nothing to be said of a scheme's use of context


def verdict(scheme: pd.DataFrame) -> str:
    """What a scheme does with more context than it was trained on; the lines of one scheme, all lengths.

    below the floor: impossible  at some length better than the best possible predictor: it sees what it should predict
    floor and plateau too near   at the training length nothing tells whether it has learned
    still on the plateau         at the training length not half of the way from the plateau to the floor
    not asked                    nothing was scored beyond the training length
    ends                         not defined there
    breaks                       perplexity exceeds that at the training length by 5 % at some longer length
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
        return ENDS if scheme["asked_beyond"].any() else "not asked"
    if (longer["ratio"] > ONSET).any():
        return "breaks"
    longest = longer.iloc[-1]
    # a single seed has an interval of nan: nothing is beyond it
    return "uses more context" if longest["gained"] - longest["gained_half"] > GAINED else "survives"
