"""Rows -> tables of perplexity for people (Markdown; LaTeX takes its blocks) and machines (CSV). Imports no torch."""

from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.report.typesetting import NONE, bits_per, interval, length, markdown, name, number, trained_on
from extrap.stats.floor import BELOW, ENDS, FLOORS, against_floor
from extrap.stats.null import early_token_null
from extrap.stats.pairs import best
from extrap.stats.perplexity import SCHEME, SETTING, summarise

NOTHING = pd.DataFrame(columns=[*SETTING, "run", "scheme", "extension", "eval_len", "reason"])  # is missing
MOST = 8  # lengths side by side


class Block(NamedTuple):
    """One table of a report."""

    setting: tuple[object, ...]
    kind: str  # perplexity, controls, excess or floor
    title: str
    table: pd.DataFrame  # text; the first column names schemes


def csv_table(rows: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Everything that the other tables show, and all lengths, one line a (setting, scheme, extension, eval_len).

    `compared`, here and below, holds the lines of `pairs` of the same rows. To those of summarise, against_floor and
    early_token_null comes
    best  the scheme, as it was trained, beats every other one at this length, each pair decided; never below a known floor
    """
    rows = _tabulated(rows)
    floor, null = against_floor(rows), early_token_null(rows)
    summary = summary_with_best(rows, compared, floor)
    keys = [*SETTING, "scheme", "extension", "eval_len"]
    if not floor.empty:
        summary = summary.merge(floor.drop(columns=["ratio", "log_ppl", "n_seeds", "impossible"]), on=keys, how="left")
    if not null.empty:  # `excess` is over the floor where there is one
        renamed = {column: f"null_{column}" for column in ("excess", "excess_low", "excess_high")}
        summary = summary.merge(null.drop(columns="n_seeds").rename(columns=renamed), on=keys, how="left")
    return summary


def markdown_table(rows: pd.DataFrame, compared: pd.DataFrame, missing: pd.DataFrame = NOTHING) -> str:
    """For a page: perplexity, its interval and its ratio to the training length; the best in bold."""
    parts = [_notes(rows), *missing_note(missing)]
    for _, _, title, table in blocks(rows, compared, missing, _cell_markdown, MOST):
        parts += [f"**{title}**", markdown(table, ["scheme"])]
    return "\n\n".join(parts) + "\n"


def summary_with_best(rows: pd.DataFrame, compared: pd.DataFrame, floor: pd.DataFrame) -> pd.DataFrame:
    """The lines of summarise, and which of them are best (see csv_table)."""
    summary = summarise(rows)
    summary["best"] = best(compared, summary)
    if not floor.empty:
        scheme = [*SETTING, "scheme", "extension"]
        below = floor.loc[floor["verdict"] == BELOW, scheme].itertuples(index=False, name=None)
        summary["best"] &= ~pd.MultiIndex.from_frame(summary[scheme]).isin(set(below))
    return summary


NOTE = """\
Perplexity: mean over seeds; ± is the 95 % t interval over seeds in log-perplexity, as a percentage, or its bounds where
that is above 100 %; last, in parentheses, the ratio to the perplexity at the training length L. **Bold**: better than
every other scheme as trained, each pair decided (pairs.md). Blow-up: between which lengths perplexity first exceeds that
at L by 5 %. Bits: per {bits} at L. Tokens: scored for each seed and length. Intervals hold the noise of seeds, not of
which text was scored."""
LENGTHS_NOTE = "Where lengths are many, doublings of L and the longest are shown. All lengths stand in table.csv."
UNLEARNED = " †"
UNLEARNED_NOTE = """\
†: at L not 5 % better than the frequencies in the training text (unigram): next to nothing was learned from context, and a
curve that stays flat says nothing about length."""
CONTROLS_NOTE = """\
Controls: the same weights, changed beyond L only, and never bold; "+ window" attends to the last L tokens in every layer, in
an encoder to L/2 on either side; what n layers pass on comes from up to n times as far."""
NULL_NOTE = """\
Excess: perplexity over the early-token null, which is what perplexity under nonoverlap would be if a scheme as it was
trained made no use of context beyond L: of such a scheme below 1 it does, above 1 longer inputs do harm. A control
is not what the null is made from: its excess says how far it is from the scheme blind beyond L, not what it makes use of.
Sliding by S tokens, from which the null is made, lets tokens read L - S + 1 or more, not L: the excess of a model that is
blind beyond L is a little below 1."""
FLOOR_NOTE = """\
Floor: the best possible prediction from the tokens that a model sees; "floor, last L" looks back L tokens at most. Learned
at L: the share of the way to the floor from the better of two that know nothing of order, counts of symbols and a uniform
guess; blank where those are too near to the floor. Gained: at the longest length, the share of what context beyond L is
worth, negative where longer inputs do harm. Who is below the floor by more than luck sees what it should predict."""


def _notes(rows: pd.DataFrame) -> str:
    bits = rows[["objective", "data"]].drop_duplicates().itertuples(index=False, name=None)
    notes = [NOTE.format(bits=" or ".join(dict.fromkeys(bits_per(*of) for of in bits)))]
    if _leaves_out(rows, MOST):
        notes.append(LENGTHS_NOTE)
    if (~summarise(_tabulated(rows))["beats_unigram"].fillna(True)).any():
        notes.append(UNLEARNED_NOTE)
    if (rows["extension"] != "none").any():
        notes.append(CONTROLS_NOTE)
    if not _shown_null(rows).empty:
        notes.append(NULL_NOTE)
    if not against_floor(rows).empty:
        notes.append(FLOOR_NOTE)
    return "\n".join(notes)


def missing_note(missing: pd.DataFrame) -> list[str]:
    """What was not measured, and why: a sentence a run and reason."""
    told = []
    for (run, reason, extension), part in missing.groupby(["run", "reason", "extension"], sort=False):
        of_the_whole = reason.startswith("diverged") or reason.endswith("at the training length")
        at = "" if of_the_whole else f" at {', '.join(map(length, sorted(set(part['eval_len']))))}"
        told.append(f"{name(run, extension)} ({reason}{at})")
    return [f"Not measured: {'; '.join(told)}."] if told else []


def _tabulated(rows: pd.DataFrame) -> pd.DataFrame:
    """Loss by position is a figure; its lengths are places in the text."""
    return rows[rows["protocol"] != "position"]


def _shown(lines: pd.DataFrame, most: int) -> list[int]:
    """All lengths of a setting; if they are more than `most`, doublings of the training length, or each second of them,
    each third, ..., and the longest."""
    lengths, train_len = sorted(lines["eval_len"].unique()), lines["train_len"].iloc[0]
    most -= int(lines["kind"].isin(FLOORS).any())  # verdicts take room
    if len(lengths) <= most:
        return lengths
    chosen = ([n for n in lengths if np.log2(n / train_len) % k == 0 or n == lengths[-1]] for k in count(1))
    return next(shown for shown in chosen if len(shown) <= most)


def _leaves_out(rows: pd.DataFrame, most: int) -> bool:
    settings = _tabulated(rows).groupby(SETTING)
    return any(len(_shown(lines, most)) < lines["eval_len"].nunique() for _, lines in settings)


def _shown_null(rows: pd.DataFrame) -> pd.DataFrame:
    """Only what is compared on the same tokens: table.csv says what its null comes from, a page has no room to."""
    null = early_token_null(rows)
    return null if null.empty else null[(null["full_context"] != "same_targets") & (null["eval_len"] > null["train_len"])]


def blocks(
    rows: pd.DataFrame, compared: pd.DataFrame, missing: pd.DataFrame, cell: Callable[[pd.Series], str], most: int
) -> list[Block]:
    """For every setting: schemes, their controls, and what there is to compare them with; `cell` shows a perplexity."""
    rows = _tabulated(rows)
    found = []
    floor, null = against_floor(rows), _shown_null(rows)
    for setting, lines in summary_with_best(rows, compared, floor).groupby(SETTING, sort=False):
        *of, protocol = setting
        where, train_len = f"by length, {trained_on(*of)}", lines["train_len"].iloc[0]
        counts = lines.loc[lines["kind"] == "scheme", "n_seeds"]
        low, high = counts.min(), counts.max()
        seeds = f"{low} to {high} seeds" if low < high else f"{high} seed{'s' if high > 1 else ''}"
        goes_beyond = lines.groupby(SCHEME)["eval_len"].transform("max") > train_len  # up to there an extension is a copy
        trained, shown = lines["extension"] == "none", _shown(lines, most)
        lacking = _of(missing, setting).set_index(["scheme", "extension", "eval_len"])["reason"].to_dict()
        for kind, part in (("perplexity", lines[trained]), ("controls", lines[~trained & goes_beyond])):
            if len(part):
                what = "perplexity" if kind == "perplexity" else "controls, perplexity"
                table = _perplexity_block(part, lacking, shown, cell)
                found.append(Block(setting, kind, f"{protocol}: {what} {where}, {seeds}", table))
        if len(chosen := _of(null, setting)):
            title = f"{protocol}: excess over the early-token null {where}"
            found.append(Block(setting, "excess", title, _null_block(chosen, shown)))
        if len(chosen := _of(floor, setting)):
            title = f"{protocol}: nats per token above the floor {where}"
            found.append(Block(setting, "floor", title, _floor_block(chosen, shown, lacking)))
    return found


def _of(table: pd.DataFrame, setting: tuple[object, ...]) -> pd.DataFrame:
    return table if table.empty else table[(table[SETTING] == list(setting)).all(axis=1)]


def _perplexity_block(
    lines: pd.DataFrame, lacking: dict[tuple[str, str, int], str], shown: list[int], cell: Callable[[pd.Series], str]
) -> pd.DataFrame:
    lengths, train_len = sorted(lines["eval_len"].unique()), lines["train_len"].iloc[0]
    table = []
    for (kind, scheme, extension), group in lines.groupby(SCHEME, sort=False):
        by_length = group.set_index("eval_len")
        unlearned = pd.notna(beats := group["beats_unigram"].iloc[0]) and not beats
        line = {"scheme": name(scheme, extension) + UNLEARNED * unlearned}
        for eval_len in shown:
            if eval_len not in by_length.index:
                line[length(eval_len)] = lacking.get((scheme, extension, eval_len), NONE)
                continue
            of, seeds = by_length["n_seeds"].max(), by_length.loc[eval_len, "n_seeds"]
            line[length(eval_len)] = cell(by_length.loc[eval_len]) + (f" {seeds} of {of} seeds" if seeds < of else "")
        first = by_length.iloc[0]
        if len(lengths) > 1:
            ends = not any((scheme, extension, n) in lacking for n in lengths)
            line["blow-up"] = _bracket(first, max(by_length.index), lengths, ends) if kind == "scheme" else ""
        line["bits"] = f"{by_length.loc[train_len, 'bpb']:.3f}"
        line["tokens"] = f"{first['n_tokens']:,}"
        table.append(line)
    return pd.DataFrame(table)


def _null_block(lines: pd.DataFrame, shown: list[int]) -> pd.DataFrame:
    shown = [n for n in shown if n in set(lines["eval_len"])]  # those beyond the training length
    table = []
    for (scheme, extension), group in lines.groupby(["scheme", "extension"], sort=False):
        by_length = group.set_index("eval_len")
        line = {"scheme": name(scheme, extension)}
        for eval_len in shown:
            line[length(eval_len)] = _cell_null(by_length.loc[eval_len]) if eval_len in by_length.index else NONE
        table.append(line)
    return pd.DataFrame(table)


def _floor_block(lines: pd.DataFrame, shown: list[int], lacking: dict[tuple[str, str, int], str]) -> pd.DataFrame:
    train_len = lines["train_len"].iloc[0]
    table = []
    for (scheme, extension), group in lines.groupby(["scheme", "extension"], sort=False):
        by_length = group.set_index("eval_len").sort_index()
        line = {"scheme": name(scheme, extension)}
        for eval_len in shown:
            known = eval_len in by_length.index
            line[length(eval_len)] = f"{by_length.loc[eval_len, 'excess']:.3f}" if known else NONE
            if known and np.isfinite(half := by_length.loc[eval_len, "excess_half"]):
                line[length(eval_len)] += f" ±{half:.3f}"
        learned = by_length.loc[train_len, "learned"]
        line["learned at L"] = f"{100 * learned:.0f} %" if np.isfinite(learned) else NONE
        gained = by_length.iloc[-1]["gained"]
        line["gained"] = f"{100 * gained:.0f} %" if np.isfinite(gained) else NONE
        verdict = by_length.iloc[0]["verdict"]
        was_lost = verdict == ENDS and any(key[:2] == (scheme, extension) for key in lacking)
        line["verdict"] = "not measured" if was_lost else verdict
        table.append(line)
    return pd.DataFrame(table)


def _bracket(line: pd.Series, longest: int, lengths: list[int], ends: bool) -> str:
    if pd.notna(line["onset_high"]):
        return f"{line['onset_low']:,} to {line['onset_high']:,}"
    if longest < max(lengths):
        return f"ends at {longest:,}" if ends else f"none to {longest:,}"
    return "none"


def _cell_markdown(line: pd.Series) -> str:
    value = f"**{number(line['ppl'])}**" if line["best"] else number(line["ppl"])
    return f"{value}{interval(line['ppl'], line['log_ppl_half'])} ({line['ratio']:.2f})"


def _cell_null(line: pd.Series) -> str:
    return f"{line['excess']:.3f}{interval(line['excess'], np.log(line['excess_high'] / line['excess']))}"
