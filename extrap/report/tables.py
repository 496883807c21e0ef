"""Statistics -> tables of perplexity for people (Markdown; LaTeX takes its blocks) and machines (CSV). Imports no torch."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
import pandas as pd

from extrap.report.about import chosen_markdown, missing_text
from extrap.report.typesetting import (
    NONE,
    bits_per,
    factor,
    interval,
    markdown,
    measure,
    name,
    number,
    percent,
    seeds,
    trained_on,
)
from extrap.results.rows import within
from extrap.results.shown import IN_NATS
from extrap.stats.floor import FLOORS
from extrap.stats.perplexity import CONDITION, SCHEME, is_control
from extrap.stats.statistics import Statistics

MOST = 8  # lengths side by side

Cell = Callable[[pd.Series], str]
Others = Callable[[pd.DataFrame], dict[str, str]]
Lacking = dict[tuple[str, str, int], str]  # (scheme, extension, eval_len) -> why there is no number


class Block(NamedTuple):
    """One table of a report."""

    condition: tuple[object, ...]
    kind: str  # perplexity, controls, excess or floor
    title: str
    table: pd.DataFrame  # text; the first column names schemes


def csv_table(found: Statistics) -> pd.DataFrame:
    """Everything that the other tables show, and all lengths, one line a (condition, scheme, extension, eval_len): the
    columns of summarise, best, those of against_floor and of early_token_null."""
    table, keys = found.ranked, [*CONDITION, "scheme", "extension", "eval_len"]
    if len(found.floor):
        table = table.merge(
            found.floor.drop(columns=["ratio", "ratio_low", "ratio_high", "n_seeds", "impossible"]), on=keys, how="left"
        )
    if len(found.null):
        table = table.merge(found.null.drop(columns="n_seeds"), on=keys, how="left")
    return table


def markdown_table(found: Statistics) -> str:
    """For a page: perplexity, its interval and its ratio to the training length; the best in bold."""
    parts = [*chosen_markdown(found.choice), _notes(found), *missing_text(found.missing)]
    for block in blocks(found, MOST, with_ratio=True):
        parts += [f"**{block.title}**", markdown(block.table, ["scheme"])]
    return "\n\n".join(parts) + "\n"


NOTE = """\
Perplexity: mean over seeds; ± is the 95 % t interval over seeds in log-perplexity, as a percentage, or its bounds where
that is above 100 %; last, in parentheses, the ratio to the perplexity at the training length L. **Bold**: better than every
other scheme as trained, each pair decided (pairs.md). Blow-up: between which lengths perplexity first exceeds that at L by
5 %. Bits: per {bits} at L. Tokens: scored for each seed and length. Intervals cover the variation over seeds, not over the
choice of scored text."""
NATS_NOTE = """\
Nats: loss per token, mean over seeds; ± is the 95 % t interval over seeds, as a percentage, or its bounds where that is
above 100 %; last, in parentheses, the ratio to the nats at the training length L. **Bold**: better than every other scheme
as trained, each pair decided (pairs.md). Blow-up: between which lengths 5 % of what is explained at L is lost first.
Explained: 1 minus the ratio of nats at L to those of `rate`, which knows only what share of the tokens is replaced;
`{alone}` knows how often each token is replaced, `two neighbours` predicts from the tokens on either side. Tokens: scored
for each seed and length. Intervals cover the variation over seeds, not over the choice of scored text."""
MANY_NOTE = """\
With more than twelve schemes, each is compared with one only ({yardstick}); where three or more have a number, only that one
can be bold."""
LENGTHS_NOTE = "Of many lengths, only doublings of L and the longest are shown; table.csv has all."
UNLEARNED = " †"
UNLEARNED_NOTE = """\
†: at L not 5 % better than the frequencies in the training text (unigram): next to nothing was learned from context, and a
curve that stays flat says nothing about length."""
UNLEARNED_NATS_NOTE = """\
†: at L no better than a prediction from a token's two neighbours, so that a flat curve says nothing about length."""
NO_NUMBER_NOTE = "Where a loss is not a number in some seed, blow-up begins there at the latest."
CONTROLS_NOTE = """\
Controls: the same weights, changed beyond L only, and never bold; "+ window" attends to the last L tokens in every layer,
in an encoder to L/2 on either side; through n layers, information can come from up to n times as far."""
NULL_NOTE = """\
Excess: {measure} divided by the early-token null, the {measure} that the scheme as trained would have under nonoverlap if
it made no use of context beyond L. For a scheme as trained, a value well below 1 means that it does, well above 1 that
longer inputs do harm. Of one that is blind beyond L it is near 1, not 1: the null is computed from windows that slide by
S tokens, in which a token reads at least L - S + 1 tokens, not L. The null is that of the scheme as trained, not of a
control: a control's excess says how far it is from the scheme blind beyond L, not what it uses."""
FLOOR_NOTE = """\
Floor: the best possible prediction from the tokens that a model sees; "floor, last L" looks back L tokens at most. Learned
at L: the share of the way to the floor from the better of two predictors blind to order, symbol counts and a uniform guess;
– where these are too near to the floor. Gained: at the longest length, the share of what context beyond L is worth,
negative where longer inputs do harm. A scheme below the floor by more than chance sees what it should predict."""


def _notes(found: Statistics) -> str:
    rows, summary = found.by_length, found.summary
    objectives = rows["objective"].unique()
    in_nats = [objective in IN_NATS for objective in objectives]
    of_tokens = rows.loc[~rows["objective"].isin(IN_NATS), ["objective", "data"]].drop_duplicates()
    per = [bits_per(*of) for of in of_tokens.itertuples(index=False, name=None)]
    unlearned = summary.loc[~summary["beats_unigram"].fillna(True).astype(bool), "objective"].isin(IN_NATS)
    settings = [lines for _, lines in summary.groupby(CONDITION)]
    notes = {
        NOTE.format(bits=" or ".join(dict.fromkeys(per))): not all(in_nats),
        NATS_NOTE.format(alone=" or ".join(rows.loc[rows["kind"] == "byte", "scheme"].unique())): any(in_nats),
        **{MANY_NOTE.format(yardstick=one): True for one in found.yardsticks},
        LENGTHS_NOTE: any(len(shown_lengths(lines, MOST)) < lines["eval_len"].nunique() for lines in settings),
        NO_NUMBER_NOTE: len(found.no_number) > 0,
        UNLEARNED_NOTE: (~unlearned).any(),
        UNLEARNED_NATS_NOTE: unlearned.any(),
        CONTROLS_NOTE: (rows["extension"] != "none").any(),
        NULL_NOTE.format(measure=measure(objectives)): (found.sound_null["eval_len"] > found.sound_null["train_len"]).any(),
        FLOOR_NOTE: len(found.floor) > 0,
    }
    return "\n".join(note for note, holds in notes.items() if holds)


def shown_lengths(lines: pd.DataFrame, most: int) -> list[int]:
    """All lengths of a condition; if they are more than `most`, doublings of the training length, or each second of them,
    each third, ..., and the longest."""
    lengths, train_len = sorted(lines["eval_len"].unique()), lines["train_len"].iloc[0]
    most -= int(lines["kind"].isin(FLOORS).any())  # verdicts take room
    if len(lengths) <= most:
        return lengths
    chosen = ([n for n in lengths if np.log2(n / train_len) % k == 0 or n == lengths[-1]] for k in count(1))
    return next(shown for shown in chosen if len(shown) <= most)


def blocks(found: Statistics, most: int, with_ratio: bool) -> Iterator[Block]:
    """For every condition: schemes, their controls, and what there is to compare them with, at so many lengths at most."""
    for condition, lines in found.ranked.groupby(CONDITION, sort=False):
        *of, protocol = condition
        where, what = f"by length, {trained_on(*of)}", measure(of[:1])
        n_seeds, shown = seeds(lines.loc[lines["kind"] == "scheme", "n_seeds"]), shown_lengths(lines, most)
        missing = within(found.missing, CONDITION, condition).groupby(["scheme", "extension", "eval_len"])["reason"]
        lacking = missing.agg(lambda reasons: " and ".join(sorted({*reasons}))).to_dict()
        broken = within(found.no_number, CONDITION, condition).groupby(SCHEME[1:])["eval_len"].min().to_dict()
        trained = _perplexity_block(lines[lines["extension"] == "none"], shown, lacking, broken, with_ratio)
        yield Block(condition, "perplexity", f"{protocol}: {what} {where}, {n_seeds}", trained)
        if len(chosen := lines[is_control(lines)]):
            table = _perplexity_block(chosen, shown, lacking, broken, with_ratio)
            yield Block(condition, "controls", f"{protocol}: controls, {what} {where}, {n_seeds}", table)
        null = within(found.sound_null, CONDITION, condition)
        if len(chosen := null[null["eval_len"] > null["train_len"]]):
            table = table_by_length(chosen, [n for n in shown if n in set(chosen["eval_len"])], _cell_null)
            yield Block(condition, "excess", f"{protocol}: excess over the early-token null {where}", table)
        if len(chosen := within(found.floor, CONDITION, condition)):
            table = _floor_block(chosen, shown)
            yield Block(condition, "floor", f"{protocol}: nats per token above the floor {where}", table)


def table_by_length(
    lines: pd.DataFrame, shown: list[int], cell: Cell, lacking: Lacking | None = None, others: Others = lambda _: {}
) -> pd.DataFrame:
    """A line a scheme, a column a length, and what `others` makes of its lines by length."""
    table = []
    for key, group in lines.groupby([column for column in SCHEME if column in lines], sort=False):
        scheme, known = key[-2:], group.set_index("eval_len").sort_index()
        cells = {n: cell(known.loc[n]) if n in known.index else (lacking or {}).get((*scheme, n), NONE) for n in shown}
        table.append({"scheme": name(*scheme)} | {f"{n:,}": text for n, text in cells.items()} | others(known))
    return pd.DataFrame(table)


def _perplexity_block(
    lines: pd.DataFrame, shown: list[int], lacking: Lacking, broken: dict[tuple[str, str], int], with_ratio: bool
) -> pd.DataFrame:
    lengths, of = sorted(lines["eval_len"].unique()), lines.groupby(SCHEME)["n_seeds"].transform("max")

    def cell(line: pd.Series) -> str:
        ratio = f" ({factor(line['ratio'], [line['objective']])})" if with_ratio else ""
        lost = f" {line['n_seeds']} of {line['of']} seeds" if line["n_seeds"] < line["of"] else ""
        return perplexity_cell(line) + ratio + lost

    def bracket(line: pd.Series, reached: int) -> str:
        who, (low, high) = (line["scheme"], line["extension"]), line[["onset_low", "onset_high"]]
        if (at := broken.get(who)) and (pd.isna(high) or at < high):
            low, high = max(n for n in lengths if n < at), at
        if pd.notna(high):
            return f"{low:,} to {high:,}"
        if reached == lengths[-1]:
            return "none"
        return f"none to {reached:,}" if any((*who, n) in lacking for n in lengths) else f"ends at {reached:,}"

    def others(known: pd.DataFrame) -> dict[str, str]:
        first, told = known.iloc[0], marked(known)
        if len(lengths) > 1:
            told["blow-up"] = bracket(first, known.index[-1]) if first["kind"] == "scheme" else ""
        start = known.loc[first["train_len"]]
        nats = first["objective"] in IN_NATS
        told |= {"explained": percent(start["explained"])} if nats else {"bits": f"{start['bpb']:.3f}"}
        return told | {"tokens": f"{first['n_tokens']:,}"}

    return table_by_length(lines.assign(of=of), shown, cell, lacking, others)


def marked(known: pd.DataFrame) -> dict[str, str]:
    """The name of a scheme, of its lines by length, with a mark if it has learned next to nothing."""
    first = known.iloc[0]
    learned = first["beats_unigram"]  # missing where nothing is known of that
    return {"scheme": name(first["scheme"], first["extension"]) + UNLEARNED * (pd.notna(learned) and not learned)}


def _floor_block(lines: pd.DataFrame, shown: list[int]) -> pd.DataFrame:
    def cell(line: pd.Series) -> str:
        return f"{line['excess']:.3f}" + (f" ±{line['excess_half']:.3f}" if np.isfinite(line["excess_half"]) else "")

    def others(known: pd.DataFrame) -> dict[str, str]:
        first = known.iloc[0]
        shares = {"learned at L": known.loc[first["train_len"], "learned"], "gained": known["gained"].get(shown[-1], np.nan)}
        told = {what: percent(share, 0) for what, share in shares.items()}
        return told | {"verdict": first["verdict"]}

    return table_by_length(lines, shown, cell, others=others)


def perplexity_cell(line: pd.Series) -> str:
    bold = "**" if line["best"] else ""
    return f"{bold}{number(line['ppl'])}{bold}{interval(line['ppl'], line['ppl_low'], line['ppl_high'])}"


def _cell_null(line: pd.Series) -> str:
    low, high = line["null_excess_low"], line["null_excess_high"]
    return f"{line['null_excess']:.3f}{interval(line['null_excess'], low, high)}"
