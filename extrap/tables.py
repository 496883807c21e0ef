"""Rows -> tables for people (terminal, Markdown, LaTeX) and for machines (CSV). Imports no torch."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from extrap.stats import SCHEME, SETTING, against_floor, summarise

NONE = "–"


def csv_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Everything that the other tables show, one line a (setting, scheme, eval_len)."""
    summary, floor = summarise(rows), against_floor(rows)
    if floor.empty:
        return summary
    keys = [*SETTING, "scheme", "extension", "eval_len"]
    return summary.merge(floor.drop(columns=["ratio", "log_ppl", "n_seeds"]), on=keys, how="left")


def text_table(rows: pd.DataFrame) -> str:
    """For a terminal: perplexity and its interval."""
    parts = []
    for title, table in _blocks(rows, _cell_text):
        parts += [title, table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=_align(table))]
    return "\n\n".join(parts)


def markdown_table(rows: pd.DataFrame) -> str:
    """For a page: perplexity, its interval and its ratio to the training length; the best in bold."""
    parts = [_notes(rows)]
    for title, table in _blocks(rows, _cell_markdown):
        table["scheme"] = table["scheme"].map(escape_markdown)
        parts += [f"**{title}**", table.to_markdown(index=False, disable_numparse=True,
                                                                          colalign=_align(table))]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def latex_table(rows: pd.DataFrame) -> str:
    """booktabs tables, one a protocol, otherwise the Markdown ones; needs \\usepackage{booktabs}."""
    parts = ["% " + _notes(rows).replace("**", "").replace("\n", "\n% ") + "\n"]
    for title, table in _blocks(rows, _cell_markdown):
        cells = table.map(_latex_cell).assign(scheme=table["scheme"].map(_escape_latex))
        styled = cells.rename(columns=_escape_latex).style.hide(axis="index")
        body = styled.to_latex(hrules=True, column_format="l" + "r" * (table.shape[1] - 1))
        caption = f"\\caption{{{_escape_latex(title)}.}}"
        parts.append(f"\\begin{{table}}\n\\centering\\footnotesize\n{caption}\n{body}\\end{{table}}\n")
    return "\n".join(parts)


NOTE = """\
Perplexity: mean over seeds; ± is the 95 % t interval over seeds in log-perplexity, as a percentage; in parentheses the
ratio to the perplexity at the training length L. **Bold**: better than every other scheme by more than the interval of
the difference, paired by seed. Blow-up: between which lengths perplexity first exceeds that at L by 5 %. bpb: bits per
byte at L. Tokens: scored for each seed and length. Intervals hold the noise of seeds, not of which text was scored."""
FLOOR_NOTE = """\
Floor: the best possible prediction from the tokens that a model sees; "floor, last L" looks back L tokens at most. Learned
at L: the share of the way from counting symbols to the floor. Gained: at the longest length, the share of what context
beyond L is worth, negative where longer inputs do harm."""


def _notes(rows: pd.DataFrame) -> str:
    return NOTE if (rows["kind"] == "scheme").all() else f"{NOTE}\n{FLOOR_NOTE}"


def _blocks(rows: pd.DataFrame, cell: Callable[[pd.Series], str]) -> list[tuple[str, pd.DataFrame]]:
    """(title, table) for every setting, and one more against the floor where there is one."""
    blocks = []
    floor = against_floor(rows)
    for setting, lines in summarise(rows).groupby(SETTING, sort=False):
        objective, data, train_len, protocol = setting
        counts = lines.loc[lines["kind"] == "scheme", "n_seeds"]
        fewest, most = counts.min(), counts.max()
        seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
        title = f"{protocol}: perplexity by length, {objective} on {data}, trained on {train_len}, {seeds}"
        blocks.append((title, _perplexity_block(lines, train_len, cell)))
        if not floor.empty:
            chosen = floor[(floor[SETTING] == list(setting)).all(axis=1)]
            title = f"{protocol}: nats per token above the floor by length, {objective} on {data}, trained on {train_len}"
            blocks.append((title, _floor_block(chosen, train_len)))
    return blocks


def _perplexity_block(lines: pd.DataFrame, train_len: int, cell: Callable[[pd.Series], str]) -> pd.DataFrame:
    lengths = sorted(lines["eval_len"].unique())
    table = []
    for (kind, scheme, extension), group in lines.groupby(SCHEME, sort=False):
        by_length = group.set_index("eval_len")
        line = {"scheme": _name(scheme, extension)}
        for length in lengths:
            line[_length(length)] = cell(by_length.loc[length]) if length in by_length.index else NONE
        first = by_length.iloc[0]
        line["blow-up"] = _bracket(first, max(by_length.index), lengths) if kind == "scheme" else ""
        line["bpb"] = f"{by_length.loc[train_len, 'bpb']:.3f}"
        line["tokens"] = f"{first['n_tokens']:,}"
        table.append(line)
    return pd.DataFrame(table)


def _floor_block(lines: pd.DataFrame, train_len: int) -> pd.DataFrame:
    lengths = sorted(lines["eval_len"].unique())
    table = []
    for (scheme, extension), group in lines.groupby(["scheme", "extension"], sort=False):
        by_length = group.set_index("eval_len").sort_index()
        line = {"scheme": _name(scheme, extension)}
        for length in lengths:
            known = length in by_length.index
            line[_length(length)] = f"{by_length.loc[length, 'excess']:.3f}" if known else NONE
            if known and np.isfinite(half := by_length.loc[length, "excess_half"]):
                line[_length(length)] += f" ±{half:.3f}"
        line["learned at L"] = f"{100 * by_length.loc[train_len, 'learned']:.0f} %"
        gained = by_length.iloc[-1]["gained"]
        line["gained"] = f"{100 * gained:.0f} %" if np.isfinite(gained) else NONE
        line["verdict"] = by_length.iloc[0]["verdict"]
        table.append(line)
    return pd.DataFrame(table)


def _name(scheme: str, extension: str) -> str:
    return scheme if extension == "none" else f"{scheme} + {extension}"


def _length(length: int) -> str:
    return f"{length:,}"


def _bracket(line: pd.Series, longest: int, lengths: list[int]) -> str:
    if pd.notna(line["onset_high"]):
        return f"{line['onset_low']:,} to {line['onset_high']:,}"
    return f"ends at {longest:,}" if longest < max(lengths) else "none"


def number(value: float) -> str:
    """Three significant digits, and no fewer than the integer has: 6.15, 33.9, 147, 12,345."""
    if not value or not np.isfinite(value):
        return f"{value:.0f}"
    if value >= 1e6:
        return f"{value:.2e}"
    digits = int(f"{value:.2e}".partition("e")[2])  # after rounding: 9.996 has two before the point
    return f"{value:,.{max(0, 2 - digits)}f}"


def _interval(line: pd.Series) -> str:
    if not np.isfinite(line["log_ppl_half"]):
        return ""
    if line["log_ppl_half"] > np.log(11):
        return " ±>1,000%"
    percent = 100 * np.expm1(line["log_ppl_half"])
    return f" ±{percent:.1f}%" if percent < 10 else f" ±{percent:,.0f}%"


def _cell_text(line: pd.Series) -> str:
    return f"{'*' if line['best'] else ''}{number(line['ppl'])}{_interval(line)}"


def _cell_markdown(line: pd.Series) -> str:
    value = f"**{number(line['ppl'])}**" if line["best"] else number(line["ppl"])
    return f"{value}{_interval(line)} ({line['ratio']:.2f})"


def _align(table: pd.DataFrame) -> list[str]:
    return ["left"] + ["right"] * (table.shape[1] - 1)


def escape_markdown(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _latex_cell(text: str) -> str:
    return re.sub(r"^\*\*([\d.,]+)\*\*", r"\\textbf{\1}", _escape_latex(text))


def _escape_latex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "±": r"$\pm$",
    } | {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(character, character) for character in " ".join(text.split()))
