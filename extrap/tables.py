"""Rows -> tables of perplexity for people (terminal, Markdown, LaTeX) and for machines (CSV). Imports no torch."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from extrap.null import early_token_null
from extrap.stats import SCHEME, SETTING, against_floor, is_doubling, summarise
from extrap.typesetting import NONE, align, escape_latex, latex_cell, length, markdown, name, number, percent


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


def text_table(rows: pd.DataFrame) -> str:
    """For a terminal: perplexity and its interval."""
    parts = []
    for title, table in _blocks(rows, _cell_text):
        parts += [title, table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align(table))]
    return "\n\n".join(parts)


def markdown_table(rows: pd.DataFrame) -> str:
    """For a page: perplexity, its interval and its ratio to the training length; the best in bold."""
    parts = [_notes(rows)]
    for title, table in _blocks(rows, _cell_markdown):
        parts += [f"**{title}**", markdown(table, ["scheme"])]
    return "\n\n".join(parts) + "\n"


def latex_table(rows: pd.DataFrame) -> str:
    """booktabs tables, one a protocol, otherwise the Markdown ones; needs \\usepackage{booktabs}."""
    parts = ["% " + _notes(rows).replace("**", "").replace("\n", "\n% ") + "\n"]
    for title, table in _blocks(rows, _cell_markdown):
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
CONTROLS_NOTE = """\
Controls: the same weights, changed beyond L only; "+ window" attends no further than at L. Bold: better than those, too."""
NULL_NOTE = """\
Excess: perplexity over the early-token null, which is what perplexity under nonoverlap would be if a model made no use of
context beyond L: below 1 it does, above 1 longer inputs do harm."""
FLOOR_NOTE = """\
Floor: the best possible prediction from the tokens that a model sees; "floor, last L" looks back L tokens at most. Learned
at L: the share of the way from counting symbols to the floor. Gained: at the longest length, the share of what context
beyond L is worth, negative where longer inputs do harm."""


def _notes(rows: pd.DataFrame) -> str:
    notes = [NOTE]
    if (rows["extension"] != "none").any():
        notes.append(CONTROLS_NOTE)
    if not _shown_null(rows).empty:
        notes.append(NULL_NOTE)
    if not against_floor(rows).empty:
        notes.append(FLOOR_NOTE)
    return "\n".join(notes)


def _tabulated(rows: pd.DataFrame) -> pd.DataFrame:
    """Loss by position is a figure; its lengths are places in the text."""
    return rows[rows["protocol"] != "position"]


def _shown(lines: pd.DataFrame) -> pd.DataFrame:
    """For people: doublings of the training length, and the longest."""
    return lines[is_doubling(lines) | (lines["eval_len"] == lines["eval_len"].max())]


def _shown_null(rows: pd.DataFrame) -> pd.DataFrame:
    """Only what is compared on the same tokens: table.csv says what its null comes from, a page has no room to."""
    null = early_token_null(rows)
    return null if null.empty else null[(null["full_context"] != "same_targets") & (null["eval_len"] > null["train_len"])]


def _blocks(rows: pd.DataFrame, cell: Callable[[pd.Series], str]) -> list[tuple[str, pd.DataFrame]]:
    """(title, table) for every setting: schemes, their controls, and what there is to compare them with."""
    rows = _tabulated(rows)
    blocks = []
    floor, null = against_floor(rows), _shown_null(rows)
    for setting, lines in summarise(rows).groupby(SETTING, sort=False):
        objective, data, train_len, protocol = setting
        where = f"by length, {objective} on {data}, trained on {train_len}"
        counts = lines.loc[lines["kind"] == "scheme", "n_seeds"]
        fewest, most = counts.min(), counts.max()
        seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
        goes_beyond = lines.groupby(SCHEME)["eval_len"].transform("max") > train_len  # up to there an extension is a copy
        trained = lines["extension"] == "none"
        for what, part in (("perplexity", lines[trained]), ("controls, perplexity", lines[~trained & goes_beyond])):
            if len(part):
                blocks.append((f"{protocol}: {what} {where}, {seeds}", _perplexity_block(part, train_len, cell)))
        if len(chosen := _of(null, setting)):
            blocks.append((f"{protocol}: excess over the early-token null {where}", _null_block(chosen)))
        if len(chosen := _of(floor, setting)):
            blocks.append((f"{protocol}: nats per token above the floor {where}", _floor_block(chosen, train_len)))
    return blocks


def _of(table: pd.DataFrame, setting: tuple[object, ...]) -> pd.DataFrame:
    return table if table.empty else table[(table[SETTING] == list(setting)).all(axis=1)]


def _perplexity_block(lines: pd.DataFrame, train_len: int, cell: Callable[[pd.Series], str]) -> pd.DataFrame:
    lengths = sorted(lines["eval_len"].unique())
    shown = sorted(_shown(lines)["eval_len"].unique())
    table = []
    for (kind, scheme, extension), group in lines.groupby(SCHEME, sort=False):
        by_length = group.set_index("eval_len")
        line = {"scheme": name(scheme, extension)}
        for eval_len in shown:
            line[length(eval_len)] = cell(by_length.loc[eval_len]) if eval_len in by_length.index else NONE
        first = by_length.iloc[0]
        if len(lengths) > 1:
            line["blow-up"] = _bracket(first, max(by_length.index), lengths) if kind == "scheme" else ""
        line["bpb"] = f"{by_length.loc[train_len, 'bpb']:.3f}"
        line["tokens"] = f"{first['n_tokens']:,}"
        table.append(line)
    return pd.DataFrame(table)


def _null_block(lines: pd.DataFrame) -> pd.DataFrame:
    shown = sorted(_shown(lines)["eval_len"].unique())
    table = []
    for (scheme, extension), group in lines.groupby(["scheme", "extension"], sort=False):
        by_length = group.set_index("eval_len")
        line = {"scheme": name(scheme, extension)}
        for eval_len in shown:
            line[length(eval_len)] = _cell_null(by_length.loc[eval_len]) if eval_len in by_length.index else NONE
        table.append(line)
    return pd.DataFrame(table)


def _floor_block(lines: pd.DataFrame, train_len: int) -> pd.DataFrame:
    shown = sorted(_shown(lines)["eval_len"].unique())
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


def _bracket(line: pd.Series, longest: int, lengths: list[int]) -> str:
    if pd.notna(line["onset_high"]):
        return f"{line['onset_low']:,} to {line['onset_high']:,}"
    return f"ends at {longest:,}" if longest < max(lengths) else "none"


def _cell_text(line: pd.Series) -> str:
    return f"{'*' if line['best'] else ''}{number(line['ppl'])}{percent(line['log_ppl_half'])}"


def _cell_markdown(line: pd.Series) -> str:
    value = f"**{number(line['ppl'])}**" if line["best"] else number(line["ppl"])
    return f"{value}{percent(line['log_ppl_half'])} ({line['ratio']:.2f})"


def _cell_null(line: pd.Series) -> str:
    return f"{line['excess']:.3f}{percent(np.log(line['excess_high'] / line['excess']))}"
