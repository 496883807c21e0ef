"""Who beats whom, as people see it: pairs.md and the figure. Imports no torch."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from extrap.report.about import chosen_markdown, missing_text
from extrap.report.curves import drawn, title_of, where_lengths_vary
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.typesetting import NONE, counted, half_width, loss, markdown, nats, seeds, trained_on
from extrap.results.rows import GROUP
from extrap.results.shown import rounded
from extrap.stats.pairs import LACKING, UNDECIDED, both_ways
from extrap.stats.perplexity import CONDITION, landmarks
from extrap.stats.statistics import Statistics

NOTE = """\
Differences of {loss} (nats per token), paired by seed and on the same tokens. Intervals, each of 95 %: over seeds (t), how
far other seeds of the same training might differ on this text; over text, how far these trained models might differ on
other text. p is the larger of those of the t tests over seeds and, where there is one, over text, Holm-corrected over all
pairs that a table compares at one length. Decided: p < 0.05 and both intervals on the same side of 0; a scheme that
diverged or has a loss that is not a number in some seed wins no pair. Seeds needed: for 80 % power of a two-sided 5 % t test
over seeds, for a difference as large and as variable as the one observed, without text and Holm's correction; empty where
1,000 would be too few. pairs.csv has all lengths."""
# by unit: which other text is meant, and why
UNIT_NOTES = {
    "documents": """\
Other text means other documents like the {n_documents} that were scored; the scored ones are the units of the interval over
text, a bootstrap.""",
    "segments": """\
Other text means other parts of {these}: fewer than six documents say nothing about others. The units of the interval over
text (t, from differences of neighbours) are the {n_units} segments that were scored, evenly spaced.""",
    "none": """\
Nothing is claimed about other text: too few segments of {these} were scored for an interval over text. Verdicts rest on the
seeds alone and hold for this text: they are about other seeds of the same training, on these very tokens.""",
}
ONE_SEED = """\
**One seed decides nothing**: how far another seed of the same training would differ is not known, and every pair below is
undecided. Train more, e.g. `seed=0,1,2`."""
EXTRAPOLATES_NOTE = """\
A scheme extrapolates if more context than it was trained on makes it better, under same_targets and by the rule above, with
Holm's correction over the schemes at one length: better than itself at the training length L, and better than its own
weights with attention cut off at the last L tokens (in an encoder at L/2 on either side). Differences of {loss} with their
intervals over seeds; negative: the first named is better. **Yes**: both are decided in its favour. **No**: one is decided
against it, or its loss is not a number in some seed: longer inputs do harm. **Control breaks**: the window is decidedly
worse than the scheme at L, or its loss is not a number in some seed, and being better than it proves nothing. Seeds needed:
as above, for the tests over seeds that keep the verdict from being yes or no, where more are needed than there are.
extrapolates.csv has all numbers behind the verdicts."""

BELOW_FLOOR = " ‡"
BELOW_FLOOR_NOTE = "‡: below the floor, so it sees what it should predict; none of its numbers count, whatever is decided."

CELL = (0.28, 0.2)  # inches, of the figure
LUMA = (0.2126, 0.7152, 0.0722)  # of red, green and blue; on one below 0.46 white has more contrast than black


def pairs_table(found: Statistics) -> str:
    """Markdown of the pairs at L, 4 L and the longest length, and before them who extrapolates."""
    pairs, against_window = (_marked(lines, found.impossible) for lines in (found.pairs, found.extrapolates))
    told_of_text = about_text([lines for lines in (pairs, against_window) if len(lines)])
    parts = [*chosen_markdown(found.choice)]
    parts += [ONE_SEED] if len(pairs) and not _is_repeated(pairs) else []
    told = loss(found.rows["objective"].unique())
    parts += [NOTE.format(loss=told), *told_of_text, *([BELOW_FLOOR_NOTE] if found.impossible else [])]
    parts += missing_text(found.missing)
    if len(against_window):
        parts.append(EXTRAPOLATES_NOTE.format(loss=told))
        for condition, lines in against_window.groupby(CONDITION, sort=False):
            *of, protocol = condition
            title = f"{protocol}: which schemes extrapolate, {trained_on(*of)}"
            parts += [f"**{title}**", markdown(extrapolates_block(lines), ["scheme"])]
    for condition, lines in at_landmarks(pairs).groupby(CONDITION, sort=False) if len(pairs) else ():
        *of, protocol = condition
        title = f"{protocol}: pairwise comparisons, {trained_on(*of)}, {_evidence(lines)}"
        parts += [f"**{title}**", markdown(_pairs_block(lines), ["better", "worse"])]
    return "\n\n".join(parts) + "\n"


def _marked(lines: pd.DataFrame, impossible: set[tuple[object, ...]]) -> pd.DataFrame:
    """Names of schemes below the floor say so."""
    return lines.assign(**{
        column: [s + BELOW_FLOOR * ((*of, s) in impossible) for *of, s in lines[[*GROUP, column]].itertuples(index=False)]
        for column in lines.columns.intersection(["scheme", "scheme_a", "scheme_b"])
    })  # fmt: skip


FEWEST_DRAWN = 3  # schemes: of two, the figure is one number on a white page, and a line of pairs.md


def is_drawn(pairs: pd.DataFrame) -> bool:
    """Whether a figure shows more than the table: more schemes than two, and more seeds than one."""
    return len(pairs) > 0 and len({*pairs["scheme_a"], *pairs["scheme_b"]}) >= FEWEST_DRAWN and _is_repeated(pairs)


def _is_repeated(pairs: pd.DataFrame) -> bool:
    return bool((pairs["n_seeds"] > 1).any())


def pairs_figure(found: Statistics) -> Figure:
    """At L, 4 L and the longest length, by how many nats a scheme (row) beats another (column)."""
    shown = rounded(at_landmarks(found.pairs))
    by_protocol = [(protocol, list(lines.groupby("eval_len"))) for protocol, lines in shown.groupby("protocol", sort=False)]
    n_columns = max(len(cells) for _, cells in by_protocol)
    schemes = {*shown["scheme_a"], *shown["scheme_b"]}
    n_cells, longest = len(schemes) - 1, max(len(drawn(scheme)) for scheme in schemes)
    # names take room, and titles are up to 1.7 wide
    width = max((0.06 * longest + 0.3 + max(CELL[0] * n_cells, 1.7)) * n_columns, 3.4)
    height = (CELL[1] * n_cells + 0.5 + 0.05 * longest) * len(by_protocol)
    told = f"by how many nats per token a row beats a column, {seeds(shown['n_seeds'])}; grey: undecided (after Holm)"
    title = title_of(found, told)
    with style():
        figure, panels = new_figure(width, height, len(by_protocol), n_columns)
        figure.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.08))  # names of columns stand above titles
        for line, (protocol, cells) in zip(panels, by_protocol, strict=True):
            for axes, (eval_len, cell) in zip(line, cells, strict=False):
                _matrix(axes, cell)
                multiple = eval_len / cell["train_len"].iloc[0]
                axes.set_title(f"{protocol}, {eval_len:,}" + (f" ({multiple:.3g} L)" if multiple != 1 else " (L)"))
            for axes in line[len(cells) :]:
                axes.set_visible(False)
        figure.set_figheight(height + 0.15 * (1 + entitle(figure, title)))
    return figure


def at_landmarks(lines: pd.DataFrame) -> pd.DataFrame:
    """At the training length, at four times that or what comes nearest, and at the longest; no places in a text."""
    by_setting = where_lengths_vary(lines[lines["protocol"] != "position"]).groupby(CONDITION, sort=False)
    parts = [(part, landmarks(part["eval_len"], part["train_len"].iloc[0])) for _, part in by_setting]
    return pd.concat([part[part["eval_len"].isin(lengths)] for part, lengths in parts])


def difference_cell(difference: float, verdict: str, objective: str, sign: str = "") -> str:
    """Nats, bold where decided; a dash where there is nothing to compare; sign="+" shows which way."""
    if verdict == LACKING or np.isnan(difference):
        return NONE
    text = nats(difference, objective, sign)
    return text if verdict == UNDECIDED else f"**{text}**"


def _better_first(cell: pd.DataFrame) -> pd.DataFrame:
    """Every pair of one length with the better one first, in the order of a ranking; low and high are bounds of `by`."""
    lines = both_ways(cell)
    ranking = rounded(lines.groupby("scheme_a")[["difference"]].mean()).sort_values("difference", kind="stable").index
    is_tied = (lines["difference"] == 0) & (lines["scheme_a"] > lines["scheme_b"])
    lines = lines[is_tied | (lines["difference"] > 0)].rename(columns={"scheme_a": "worse", "scheme_b": "better"})
    sides = {side: pd.Categorical(lines[side], ranking) for side in ("better", "worse")}
    lines = lines.assign(by=lines["difference"].abs(), decided=lines["verdict"] != "undecided", **sides)
    return lines.sort_values(["better", "worse"])


def _pairs_block(lines: pd.DataFrame) -> pd.DataFrame:
    ordered = pd.concat([_better_first(cell) for _, cell in rounded(lines).groupby("eval_len")])
    table = [
        {
            "length": f"{line.eval_len:,}", "better": line.better, "worse": line.worse, "by": nats(line.by, line.objective),
            "over seeds": _interval(line.low, line.high, line.objective),
            "over text": _interval(line.text_low, line.text_high, line.objective),
            "p (Holm)": "" if np.isnan(line.p_holm) else f"{line.p_holm:.2g}",
            "verdict": _verdict("decided" if line.decided else "undecided", line.unit),
            "seeds needed": "" if pd.isna(line.seeds_needed) else f"{line.seeds_needed}",
        }
        for line in ordered.itertuples()
    ]  # fmt: skip
    return pd.DataFrame(table)


def extrapolates_block(lines: pd.DataFrame) -> pd.DataFrame:
    are_lacking = (lines["verdict"] == "undecided") & (lines["seeds_needed"] > lines["n_seeds"])
    lines = rounded(lines.assign(seeds_needed=lines["seeds_needed"].where(are_lacking)))
    table = [
        {
            "scheme": line["scheme"],
            "length": f"{line['eval_len']:,}",
            "to its window": _difference(line, ""),
            "to itself at L": _difference(line, "self_"),
            "its window to L": _difference(line, "control_"),
            "verdict": _verdict(line["verdict"], line["unit"]),
            "seeds needed": "" if pd.isna(line["seeds_needed"]) else f"{line['seeds_needed']}",
        }
        for _, group in lines.groupby("scheme", sort=False)
        for _, line in group.sort_values("eval_len").iterrows()
    ]
    return pd.DataFrame(table)


def _difference(line: pd.Series, prefix: str) -> str:
    difference, half = line[f"{prefix}difference"], line[f"{prefix}high"] - line[f"{prefix}difference"]
    objective = line["objective"]
    return "" if np.isnan(difference) else nats(difference, objective, "+") + half_width(half, objective)


def _verdict(word: str, unit: str) -> str:
    return word if word == "undecided" else f"**{word}**" + " on this text" * (unit == "none")


def _interval(low: float, high: float, objective: str) -> str:
    return "" if np.isnan(low) else f"{nats(low, objective)} to {nats(high, objective)}"


def about_text(tables: list[pd.DataFrame]) -> list[str]:
    """What intervals over text are about: a paragraph for each unit that occurs."""
    counts = pd.concat([table[["unit", "n_units", "n_documents"]] for table in tables])
    notes = []
    for unit, n in counts.groupby("unit", sort=False):
        least, most = n["n_documents"].agg(["min", "max"])  # protocols read other numbers of segments
        notes.append(
            UNIT_NOTES[str(unit)].format(
                n_units=n["n_units"].max(),
                n_documents=f"{least} to {most}" if least < most else most,
                these=f"these {most} documents" if most > 1 else "this document",
            )
        )
    return notes


def _evidence(lines: pd.DataFrame) -> str:
    first = lines.loc[lines["n_seeds"].idxmax()]
    text = counted(first["n_documents"], "document")
    if first["unit"] == "segments":
        text = f"{first['n_units']} segments of {text}"
    return f"{seeds(lines['n_seeds'])}, {text}"


def _matrix(axes: Axes, cell: pd.DataFrame) -> None:
    lines = _better_first(cell)
    rows, columns = (list(lines[side].cat.remove_unused_categories().cat.categories) for side in ("better", "worse"))
    strength = mpl.colors.LogNorm(0.003, 3, clip=True)
    for line in lines.itertuples():
        i, j = rows.index(line.better), columns.index(line.worse)
        shade = mpl.colormaps["Blues"](0.15 + 0.75 * strength(line.by)) if line.decided else mpl.colors.to_rgba("0.94")
        axes.add_patch(mpl.patches.Rectangle((j, i), 1, 1, facecolor=shade, edgecolor="white", linewidth=1))
        dark = line.decided and np.dot(shade[:3], LUMA) < 0.46
        text = f"{line.by:.2f}" if line.by >= 0.0995 else f"{line.by:.3f}"
        colour = "white" if dark else "black" if line.decided else "0.35"
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_aspect(CELL[1] / CELL[0], anchor="W")
    middles = np.arange(len(columns)) + 0.5
    axes.set_xticks(middles, [*map(drawn, columns)], parse_math=False, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(rows)) + 0.5, [*map(drawn, rows)], parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
