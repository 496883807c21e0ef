"""Does context beyond L help: a scheme against itself at the training length L, and against its window. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.results.rows import NOT_A_NUMBER
from extrap.stats.pairs import UNDECIDED, compare
from extrap.stats.perplexity import CONDITION

CONTROL = "window"  # no layer attends beyond the training length; n of them pass on what n windows hold
AT_TRAIN_LEN = "at the training length"  # stands in for an extension: the same weights and targets with less context
QUESTIONS = {"window": ("none", CONTROL), "self": ("none", AT_TRAIN_LEN), "control": (CONTROL, AT_TRAIN_LEN)}
ANSWER = ["difference", "low", "high", "p", "p_holm", "text_low", "text_high", "verdict", "seeds_needed"]


def extrapolates(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether a scheme makes use of context beyond its training length L, at n = 2 L, 4 L, ... and the longest length.

    Three differences of log_ppl under same_targets, each with the columns of `compare` and Holm over the schemes at n:
    difference, ...          the scheme at n less its extension `window`, in which every layer attends to the last L only
    self_difference, ...     the scheme at n less itself at L
    control_difference, ...  its window at n less the scheme at L
    window_verdict, self_verdict, control_verdict: better, worse or undecided, by the rule of `compare`

    The first of these that holds is the verdict, one a (condition, scheme, eval_len) that has a window:
    no              the scheme is worse than itself at L, or than its window: longer inputs do harm
    control breaks  its window is worse than the scheme at L: to be better than that proves nothing
    yes             the scheme is better than itself at L, and than its window
    undecided       none of these

    *Yes* asks for two tests of 5 % and is wrong no more often than one (intersection-union test, Berger 1982); *no* asks for
    one of two, each wrong in 2.5 % on that side.
    seeds_needed: were differences to stay as they are, for what keeps the verdict from being *no* or *yes*: the fewest of
    those that point at *no*, else the more of the two that *yes* asks for; missing where the control breaks.
    """
    rows = rows[(rows["protocol"] == "same_targets") & (rows["kind"] == "scheme")]
    control = rows[(rows["extension"] == CONTROL) & (rows["eval_len"] > rows["train_len"])]
    longest = control.groupby(CONDITION)["eval_len"].transform("max")
    is_doubling = np.log2(control["eval_len"] / control["train_len"]) % 1 == 0
    lengths = control.loc[is_doubling | (control["eval_len"] == longest), [*CONDITION, "eval_len"]].drop_duplicates()
    start = rows[(rows["extension"] == "none") & (rows["eval_len"] == rows["train_len"])]
    start = start.drop(columns="eval_len").merge(lengths, on=CONDITION).assign(extension=AT_TRAIN_LEN)
    beside = pd.concat([rows.merge(lengths, on=[*CONDITION, "eval_len"]), start])
    schemes = control["scheme"].unique()
    answers = [compare(beside, [((s, one), (s, other)) for s in schemes]) for one, other in QUESTIONS.values()]
    if any(answer.empty for answer in answers):
        return pd.DataFrame()
    of_window, of_itself, of_control = (answer.set_index([*CONDITION, "eval_len", "scheme_a"]) for answer in answers)
    lines = of_window.rename(columns={"verdict": "window_verdict"})
    # one by one: a list is joined through a union of all places, which makes floats of counts where one has no window
    lines = lines.join(of_itself[ANSWER].add_prefix("self_")).join(of_control[ANSWER].add_prefix("control_")).reset_index()
    for name in QUESTIONS:
        lines[f"{name}_verdict"] = lines[f"{name}_verdict"].map({"a": "better", "b": "worse"}).fillna("undecided")
    window, itself, control = (lines[f"{name}_verdict"] for name in QUESTIONS)
    lines["verdict"] = np.select(
        [(window == "worse") | (itself == "worse"), control == "worse", (window == "better") & (itself == "better")],
        ["no", "control breaks", "yes"],
        "undecided",
    )
    needed = lines[["seeds_needed", "self_seeds_needed"]].astype("Float64")
    worse = lines[["difference", "self_difference"]].to_numpy() > 0
    seeds = needed.where(worse).min(axis="columns").where(worse.any(axis=1), needed.max(axis="columns", skipna=False))
    lines["seeds_needed"] = seeds.mask(lines["verdict"] == "control breaks").astype("Int64")
    unused = ["extension_a", "scheme_b", "extension_b", "self_seeds_needed", "control_seeds_needed"]
    return lines.drop(columns=unused).rename(columns={"scheme_a": "scheme"})


def with_broken(lines: pd.DataFrame, broken: pd.DataFrame) -> pd.DataFrame:
    """The lines of `extrapolates`, of a scheme or window that is not a number in some seed, which is to break, whatever the
    other seeds say: `no` and `control breaks`. No `yes` of a scheme some of whose seeds diverged. What is a number in no
    seed has no line, and stands in the table of what is missing."""
    if lines.empty or broken.empty:
        return lines
    at, verdict = [*CONDITION, "eval_len", "scheme"], lines["verdict"]
    is_number = broken["reason"] != NOT_A_NUMBER

    def among(part: pd.DataFrame) -> pd.Series:
        return pd.Series(pd.MultiIndex.from_frame(lines[at]).isin(pd.MultiIndex.from_frame(part[at])), lines.index)

    whole, of_window = broken["extension"] == "none", broken["extension"] == CONTROL
    verdict = verdict.mask(among(broken[whole & is_number]) & (verdict == "yes"), UNDECIDED)
    verdict = verdict.mask(among(broken[of_window & ~is_number]) & (lines["self_verdict"] != "worse"), "control breaks")
    return lines.assign(verdict=verdict.mask(among(broken[whole & ~is_number]), "no"))


def extended(rows: pd.DataFrame) -> pd.DataFrame:
    """Every extension beyond L but the window, against the window of its scheme and the scheme as trained: see `compare`."""
    rows = rows[(rows["kind"] == "scheme") & (rows["eval_len"] > rows["train_len"])]
    there = list(rows[["scheme", "extension"]].drop_duplicates().itertuples(index=False, name=None))
    extensions = [(scheme, extension) for scheme, extension in there if extension not in ("none", CONTROL)]
    return compare(rows, [(one, (one[0], other)) for one in extensions for other in (CONTROL, "none")])
