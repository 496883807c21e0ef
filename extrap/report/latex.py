"""Rows -> LaTeX tables, a file each, that fit a page, and a narrow one that fits a column. Imports no torch."""

import re
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import pandas as pd

from extrap.errors import UserError, nearest
from extrap.files import write_atomic
from extrap.report.about import chosen_briefly, chosen_text, missing_text
from extrap.report.tables import UNLEARNED, blocks, marked, perplexity_cell, table_by_length
from extrap.report.typesetting import escape_latex, measure, model_size, name, seeds, slug, stem, trained_on
from extrap.results.rows import GROUP
from extrap.stats.perplexity import BEYOND_L, landmarks, told_first
from extrap.stats.statistics import Statistics

MOST = 6  # lengths side by side: with an interval below each number they fit 397 pt, the width of a page of NeurIPS
MOST_NARROW = 5  # and these 240 pt, one of two columns
LEFT_OUT = ["bits", "tokens"]  # columns; the tokens stand in the caption, both in table.csv
KEYS = {"protocol", "lengths", "schemes"}
MARKS = {  # in cells: what the caption says of them, for a paper has no table.md beside it
    "±": "±: 95 % t interval over seeds",
    "**": "bold: decidedly better than all that it is compared with",
    UNLEARNED: "†: next to nothing was learned",
}
OUTSIDE = r"(?![^()]*\))"  # in no parentheses: labels of schemes hold their options in such

NOTE = """\
Means over seeds, and below them their 95 % t intervals over seeds, or the bounds of these, where there is more than one \
seed. table.md explains each column; ratios to the {measure} at L and all lengths are in table.csv."""
FLOAT = """\
% \\input{{{stem}}}, with \\usepackage{{booktabs}} in the preamble; \\ref{{{label}}} is its number.
% Made from rows.csv, and made again, or removed, by `make report`: edit a copy in another folder.
\\begin{{table}}
\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{4pt}}
\\caption{{{caption}.}}
\\label{{{label}}}\\vspace{{3pt}}
\\begin{{tabular}}{{{columns}}}
\\toprule
{head} \\\\
\\midrule
{body}
\\bottomrule
\\end{{tabular}}
\\end{{table}}
"""


class Choice(NamedTuple):
    """What the narrow table shows."""

    protocol: str
    lengths: list[int]
    schemes: list[tuple[str, str]]  # scheme and extension


def write_latex(folder: Path, found: Statistics, chosen: str = "") -> None:
    """table_<protocol>[_controls, ...].tex for each table of table.md, and table_narrow.tex for each group.

    `chosen`: see `choose`.
    """
    tables = latex_tables(found)
    for group, part in found.groups.items():
        narrow = stem("table_narrow", *group)
        tables[narrow] = narrow_table(part, choose(part.rows, chosen), narrow)
    for file, text in tables.items():
        write_atomic(folder / f"{file}.tex", text)


def latex_tables(found: Statistics) -> dict[str, str]:
    """By the name of its file: a booktabs float for every table of table.md, intervals below their numbers."""
    note = NOTE.format(measure=measure(found.rows["objective"].unique()))
    notes = [*chosen_text(found.choice), note, *missing_text(found.missing)]
    told = "".join(f"% {line}\n" for text in notes for line in wrap(text, 120))
    tables = {}
    for block in blocks(found, MOST, with_ratio=False):
        *of, protocol = block.condition
        group = of if len(found.groups) > 1 else []
        file = stem("table", *group, protocol, "" if block.kind == "perplexity" else block.kind)
        scored = f", {block.table['tokens'].iloc[0]} tokens per seed" if "tokens" in block.table else ""
        table = block.table.drop(columns=LEFT_OUT, errors="ignore")
        tables[file] = told + _float(found.rows, file, f"{block.title}{scored}{_models(found)}", table)
    return tables


def choose(rows: pd.DataFrame, text: str = "") -> Choice:
    """What "protocol=... lengths=... schemes=..." asks for; each of the three may be left out.

    Left out: same_targets, if it was scored; the training length, four times that or what is nearest, and the longest; all
    schemes as they were trained. Raises UserError.
    """
    parts = re.split(rf"\s+(?=\w+=){OUTSIDE}", text.strip()) if text.strip() else []
    given = {key: value.strip() for key, _, value in (part.partition("=") for part in parts)}
    if not {*given} <= KEYS or not all(given.values()) or len(given) < len(parts):
        raise UserError(f"TABLE: expected protocol=NAME lengths=N,N schemes=NAME,NAME, each at most once; found {text!r}")
    rows = rows[(rows["kind"] == "scheme") & (rows["protocol"] != "position")]
    protocols = list(rows["protocol"].unique())
    protocol = given.get("protocol") or told_first(BEYOND_L, protocols)
    if protocol not in protocols:
        raise UserError(f"TABLE: no rows of protocol={protocol}; {nearest(protocol, protocols)}")
    rows = rows[rows["protocol"] == protocol]
    lengths = {str(n): n for n in sorted(rows["eval_len"].unique())}
    labels = rows[["scheme", "extension"]].drop_duplicates().itertuples(index=False, name=None)
    schemes = {name(*label): label for label in labels}
    shown = {
        "lengths": [str(n) for n in landmarks(lengths.values(), rows["train_len"].iloc[0])],
        "schemes": [told for told, (_, extension) in schemes.items() if extension == "none"],
    }
    for key, known in {"lengths": [*lengths], "schemes": [*schemes]}.items():
        if key in given:
            shown[key] = list(dict.fromkeys(re.split(rf"\s*,\s*{OUTSIDE}", given[key])))
        if unknown := [one for one in shown[key] if one not in known]:
            raise UserError(f"TABLE: no rows of {key}={unknown[0]} under {protocol}; {nearest(unknown[0], known)}")
    if len(shown["lengths"]) > MOST_NARROW:
        raise UserError(f"TABLE: lengths={given['lengths']}: expected up to {MOST_NARROW}, which a column has room for")
    return Choice(protocol, [lengths[n] for n in shown["lengths"]], [schemes[told] for told in shown["schemes"]])


def narrow_table(found: Statistics, chosen: Choice, file: str = "table_narrow") -> str:
    """A float with the perplexities of a choice in its order, the interval below each, and nothing else."""
    summary = found.ranked[(found.ranked["protocol"] == chosen.protocol) & (found.ranked["kind"] == "scheme")]
    lines = summary.set_index(["scheme", "extension"]).loc[chosen.schemes].reset_index()
    objective, *_ = of = summary[GROUP].iloc[0]
    most = lines.groupby(["scheme", "extension"])["n_seeds"].transform("max")
    is_shown = lines["eval_len"].isin(chosen.lengths)
    about = f"{measure([objective])} by length, {trained_on(*of)}, {seeds(lines.loc[is_shown, 'n_seeds'])}"
    fewer = lines[is_shown & (lines["n_seeds"] < most)]
    lost = "".join(f"; {name(one.scheme, one.extension)} at {one.eval_len:,}: {seeds(fewer.loc[[one.Index], 'n_seeds'])}"
                   for one in fewer.itertuples())  # fmt: skip
    caption = f"{chosen.protocol}: {about}{_models(found)}{lost}"
    return _float(found.rows, file, caption, table_by_length(lines, chosen.lengths, perplexity_cell, others=marked))


def _models(found: Statistics) -> str:
    return chosen_briefly(found.choice) + (f", models of {model_size(found.sizes)}" if found.sizes else "")


def _float(rows: pd.DataFrame, file: str, caption: str, table: pd.DataFrame) -> str:
    cells = table.to_string()
    marks = [told for mark, told in MARKS.items() if mark in cells]
    label = f"tab:{'+'.join(map(slug, rows['experiment'].unique()))}:{file.removeprefix('table_')}".replace("_", "-")
    return FLOAT.format(
        stem=file,
        label=label,
        caption=escape_latex("; ".join([caption, *marks])),
        columns="@{}l" + "r" * (table.shape[1] - 1) + "@{}",
        head=" & ".join(map(escape_latex, table.columns)),
        body="\n".join(line for cells in table.itertuples(index=False, name=None) for line in _lines(*cells)),
    )


def _lines(scheme: str, *cells: str) -> list[str]:
    """A line of the table, and a second one for the intervals, if it has any: below their numbers they take no width."""
    split = [re.fullmatch(r"(.*?)(?: (±.*|\(.*\)))?", cell) for cell in cells]
    values, intervals = ([found[i] or "" for found in split if found] for i in (1, 2))
    bold = (re.sub(r"^\*\*([\d.,e+]+)\*\*", r"\\textbf{\1}", escape_latex(value)) for value in values)
    lines = [" & ".join([escape_latex(scheme), *bold]) + r" \\"]
    if any(intervals):
        narrow = (re.sub(r"^\((.*) to (.*)\)$", r"\1–\2", told) for told in intervals)  # "(5.2 to 297)" as "5.2–297"
        small = (f"{{\\scriptsize {escape_latex(told)}}}" if told else "" for told in narrow)
        lines.append(" & ".join(["", *small]) + r" \\[2pt]")
    return lines
