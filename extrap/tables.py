"""Rows -> tables of perplexity for people (terminal, Markdown, LaTeX) and for machines (CSV). Imports no torch."""

from collections.abc import Callable
from itertools import count

import numpy as np
import pandas as pd

from extrap.null import early_token_null
from extrap.stats import FLOORS, SCHEME, SETTING, against_floor, summarise
from extrap.typesetting import NONE, align, escape_latex, latex_cell, length, markdown, name, number, percent

NOTHING = pd.DataFrame(columns=[*SETTING, "run", "scheme", "extension", "eval_len", "reason"])  # is missing
MOST = {"terminal": 6, "page": 8}  # lengths side by side: a terminal of 130 columns, a page of text


def csv_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Everything that the other tables show, and all lengths, one line a (setting, scheme, extension, eval_len)."""
    rows = _tabulated(rows)
    summary, floor, null = summarise(rows), against_floor(rows), early_token_null(rows)
    keys = [*SETTING, "scheme", "extension", "eval_len"]
    if not floor.empty:
        summary = summary.merge(floor.drop(columns=["ratio", "log_ppl", "n_seeds"]), on=keys, how="left")
    if not null.empty:  # `excess` is over the floor where there is one
        renamed = {column: f"null_{column}" for column in ("excess", "excess_low", "excess_high")}
        summary = summary.merge(null.drop(columns="n_seeds").rename(columns=renamed), on=keys, how="left")
    return summary


def text_table(rows: pd.DataFrame, missing: pd.DataFrame = NOTHING) -> str:
    """For a terminal: perplexity and its interval."""
    parts = []
    for title, table in _blocks(rows, missing, _cell_text, MOST["terminal"]):
        parts += [title, table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align(table))]
    if _leaves_out(rows, MOST["terminal"]):
        parts.append(LENGTHS_NOTE)
    return "\n\n".join([*parts, *_missing_note(missing)])


def markdown_table(rows: pd.DataFrame, missing: pd.DataFrame = NOTHING) -> str:
    """For a page: perplexity, its interval and its ratio to the training length; the best in bold."""
    parts = [_notes(rows), *_missing_note(missing)]
    for title, table in _blocks(rows, missing, _cell_markdown, MOST["page"]):
        parts += [f"**{title}**", markdown(table, ["scheme"])]
    return "\n\n".join(parts) + "\n"


def latex_table(rows: pd.DataFrame, missing: pd.DataFrame = NOTHING) -> str:
    """booktabs tables, one a protocol, otherwise the Markdown ones; needs \\usepackage{booktabs}."""
    notes = "\n".join([_notes(rows), *_missing_note(missing)])
    parts = ["% " + notes.replace("**", "").replace("\n", "\n% ") + "\n"]
    for title, table in _blocks(rows, missing, _cell_markdown, MOST["page"]):
        cells = table.map(latex_cell).assign(scheme=table["scheme"].map(escape_latex))
        styled = cells.rename(columns=escape_latex).style.hide(axis="index")
        body = styled.to_latex(hrules=True, column_format="l" + "r" * (table.shape[1] - 1))
        caption = f"\\caption{{{escape_latex(title)}.}}"
        parts.append(f"\\begin{{table}}\n\\centering\\footnotesize\n{caption}\n{body}\\end{{table}}\n")
    return "\n".join(parts)


NOTE = """\
Perplexity: mean over seeds; ± is the 95 % t interval over seeds in log-perplexity, as a percentage; in parentheses the
ratio to the perplexity at the training length L. **Bold**: better than every other scheme by more than the interval of
the difference, paired by seed. Blow-up: between which lengths perplexity first exceeds that at L by 5 %. bpb: bits per
byte at L. Tokens: scored for each seed and length. Intervals hold the noise of seeds, not of which text was scored."""
LENGTHS_NOTE = "Where lengths are many, doublings of L and the longest are shown. All lengths stand in table.csv."
CONTROLS_NOTE = """\
Controls: the same weights, changed beyond L only; "+ window" attends to the last L tokens, in an encoder to L/2 on either
side. Bold: better than those, too."""
NULL_NOTE = """\
Excess: perplexity over the early-token null, which is what perplexity under nonoverlap would be if a model made no use of
context beyond L: below 1 it does, above 1 longer inputs do harm. Sliding by S tokens, from which the null is made, lets
tokens read L - S + 1 or more, not L: the excess of a model that is blind beyond L is a little below 1."""
FLOOR_NOTE = """\
Floor: the best possible prediction from the tokens that a model sees; "floor, last L" looks back L tokens at most. Learned
at L: the share of the way from counting symbols to the floor. Gained: at the longest length, the share of what context
beyond L is worth, negative where longer inputs do harm."""


def _notes(rows: pd.DataFrame) -> str:
    notes = [NOTE]
    if _leaves_out(rows, MOST["page"]):
        notes.append(LENGTHS_NOTE)
    if (rows["extension"] != "none").any():
        notes.append(CONTROLS_NOTE)
    if not _shown_null(rows).empty:
        notes.append(NULL_NOTE)
    if not against_floor(rows).empty:
        notes.append(FLOOR_NOTE)
    return "\n".join(notes)


def _missing_note(missing: pd.DataFrame) -> list[str]:
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


def _blocks(
    rows: pd.DataFrame, missing: pd.DataFrame, cell: Callable[[pd.Series], str], most: int
) -> list[tuple[str, pd.DataFrame]]:
    """(title, table) for every setting: schemes, their controls, and what there is to compare them with."""
    rows = _tabulated(rows)
    blocks = []
    floor, null = against_floor(rows), _shown_null(rows)
    for setting, lines in summarise(rows).groupby(SETTING, sort=False):
        objective, data, train_len, protocol = setting
        where = f"by length, {objective} on {data}, trained on {train_len}"
        counts = lines.loc[lines["kind"] == "scheme", "n_seeds"]
        low, high = counts.min(), counts.max()
        seeds = f"{low} to {high} seeds" if low < high else f"{high} seed{'s' if high > 1 else ''}"
        goes_beyond = lines.groupby(SCHEME)["eval_len"].transform("max") > train_len  # up to there an extension is a copy
        trained, shown = lines["extension"] == "none", _shown(lines, most)
        lacking = _of(missing, setting).set_index(["scheme", "extension", "eval_len"])["reason"].to_dict()
        for what, part in (("perplexity", lines[trained]), ("controls, perplexity", lines[~trained & goes_beyond])):
            if len(part):
                blocks.append((f"{protocol}: {what} {where}, {seeds}", _perplexity_block(part, lacking, shown, cell)))
        if len(chosen := _of(null, setting)):
            blocks.append((f"{protocol}: excess over the early-token null {where}", _null_block(chosen, shown)))
        if len(chosen := _of(floor, setting)):
            blocks.append((f"{protocol}: nats per token above the floor {where}", _floor_block(chosen, shown)))
    return blocks


def _of(table: pd.DataFrame, setting: tuple[object, ...]) -> pd.DataFrame:
    return table if table.empty else table[(table[SETTING] == list(setting)).all(axis=1)]


def _perplexity_block(
    lines: pd.DataFrame, lacking: dict[tuple[str, str, int], str], shown: list[int], cell: Callable[[pd.Series], str]
) -> pd.DataFrame:
    lengths, train_len = sorted(lines["eval_len"].unique()), lines["train_len"].iloc[0]
    table = []
    for (kind, scheme, extension), group in lines.groupby(SCHEME, sort=False):
        by_length = group.set_index("eval_len")
        line = {"scheme": name(scheme, extension)}
        for eval_len in shown:
            measured = eval_len in by_length.index
            line[length(eval_len)] = (
                cell(by_length.loc[eval_len]) if measured else lacking.get((scheme, extension, eval_len), NONE)
            )
        first = by_length.iloc[0]
        if len(lengths) > 1:
            ends = not any((scheme, extension, n) in lacking for n in lengths)
            line["blow-up"] = _bracket(first, max(by_length.index), lengths, ends) if kind == "scheme" else ""
        line["bpb"] = f"{by_length.loc[train_len, 'bpb']:.3f}"
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


def _floor_block(lines: pd.DataFrame, shown: list[int]) -> pd.DataFrame:
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
        line["learned at L"] = f"{100 * by_length.loc[train_len, 'learned']:.0f} %"
        gained = by_length.iloc[-1]["gained"]
        line["gained"] = f"{100 * gained:.0f} %" if np.isfinite(gained) else NONE
        line["verdict"] = by_length.iloc[0]["verdict"]
        table.append(line)
    return pd.DataFrame(table)


def _bracket(line: pd.Series, longest: int, lengths: list[int], ends: bool) -> str:
    if pd.notna(line["onset_high"]):
        return f"{line['onset_low']:,} to {line['onset_high']:,}"
    if longest < max(lengths):
        return f"ends at {longest:,}" if ends else f"none to {longest:,}"
    return "none"


def _cell_text(line: pd.Series) -> str:
    return f"{'*' if line['best'] else ''}{number(line['ppl'])}{percent(line['log_ppl_half'])}"


def _cell_markdown(line: pd.Series) -> str:
    value = f"**{number(line['ppl'])}**" if line["best"] else number(line["ppl"])
    return f"{value}{percent(line['log_ppl_half'])} ({line['ratio']:.2f})"


def _cell_null(line: pd.Series) -> str:
    return f"{line['excess']:.3f}{percent(np.log(line['excess_high'] / line['excess']))}"
