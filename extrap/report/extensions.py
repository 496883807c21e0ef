"""What is done to finished weights, many things at once: a page with a line each, and a figure. Imports no torch."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from extrap.report.about import chosen_markdown, missing_text
from extrap.report.curves import COLUMN_WIDTH, DASHES, POINT, drawn, log_axis, mark_cut, title_of, told_of_seeds
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.looks import styles
from extrap.report.typesetting import NONE, factor, interval, loss, markdown, measure, nats, number, trained_on
from extrap.results.shown import rounded
from extrap.stats.extrapolates import CONTROL
from extrap.stats.perplexity import BEYOND_L, CONDITION, told_first
from extrap.stats.statistics import Statistics

NOTE = """\
All extensions of the same weights beyond L that can be compared with their window or with the scheme as trained, the best
first. {measure}, ± its 95 % t interval over seeds, and in parentheses its ratio to that at L. To its window, to the scheme
as trained: differences of {loss} (nats per token, negative: the extension is better), paired by seed and on the same
tokens; **bold** where decided, beyond the noise of seeds and of text, after Holm over all such comparisons at that length.
An extension that is not better than the window is not found to gain anything from context beyond L."""
MOST_IN_PANEL = 5  # extensions of a scheme that a panel of curves can tell apart
LINE = 0.13  # inches


def extensions_page(found: Statistics) -> str:
    """Markdown: a table a condition and length."""
    objectives = found.rows["objective"].unique()
    note = NOTE.format(measure=measure(objectives).capitalize(), loss=loss(objectives))
    parts = [*chosen_markdown(found.choice), note, *missing_text(found.missing)]
    for (*of, protocol, eval_len), lines in found.extended.groupby([*CONDITION, "eval_len"], sort=False):
        title = f"{protocol}: extensions at {eval_len:,}, {trained_on(*of)}"
        parts += [
            f"**{title}**",
            markdown(extensions_table(found, (*of, protocol), eval_len, lines), ["scheme", "extension"]),
        ]
    return "\n\n".join(parts) + "\n"


def extensions_table(found: Statistics, condition: tuple[object, ...], eval_len: int, lines: pd.DataFrame) -> pd.DataFrame:
    known = rounded(found.summary).set_index([*CONDITION, "eval_len"]).loc[(*condition, eval_len)]
    known = known.set_index(["scheme", "extension"]).sort_values("log_ppl", kind="stable")
    pairs, most = lines.set_index(["scheme_a", "extension_a", "extension_b"]), known["n_seeds"].max()
    table = []
    for scheme in lines["scheme_a"].unique():
        for extension, line in known.loc[[scheme]].droplevel("scheme").iterrows():
            told = {"scheme": scheme, "extension": "as trained" if extension == "none" else str(extension)}
            objective = str(condition[0])
            bounds = interval(line["ppl"], line["ppl_low"], line["ppl_high"])
            fewer = f", {line['n_seeds']} of {most} seeds" if line["n_seeds"] < most else ""
            told[measure([objective])] = f"{number(line['ppl'])}{bounds} ({factor(line['ratio'], [objective])}){fewer}"
            for other, column in ((CONTROL, "to its window"), ("none", "to as trained")):
                told[column] = NONE
                if (scheme, extension, other) in pairs.index:
                    pair = pairs.loc[(scheme, extension, other)]
                    text = nats(pair["difference"], objective, "+")
                    told[column] = text if pair["verdict"] == "undecided" else f"**{text}**"
            table.append(told)
    return pd.DataFrame(table)


def is_crowded(found: Statistics) -> bool:
    """Whether some scheme has more extensions than curves of one panel could show."""
    lines = found.summary[found.summary["extension"] != "none"]
    return len(lines) > 0 and bool(lines.groupby("scheme")["extension"].nunique().max() > MOST_IN_PANEL)


def extensions_figure(found: Statistics) -> Figure:
    """At the longest length, of each scheme its extensions in order of perplexity over that at L, bars 95 % t intervals.

    Dashed: the scheme at L. Under same_targets, where rows hold it. Its points stand in table.csv.
    """
    lines = found.summary[found.summary["kind"] == "scheme"]
    lines = lines[lines["protocol"] == told_first(BEYOND_L, lines["protocol"].unique())]
    lines = lines[lines["eval_len"] == lines["eval_len"].max()]
    n_extensions = lines.groupby("scheme")["extension"].transform("size")
    points = rounded(lines.loc[n_extensions > 1, [*POINT, "ratio", "ratio_low", "ratio_high"]])
    schemes = list(points["scheme"].unique())
    heights = [int((points["scheme"] == scheme).sum()) for scheme in schemes]
    looks, n = styles(found.rows), points["eval_len"].iloc[0]
    low, high = points["ratio"].min(), points["ratio"].max()
    with style():
        figure, grid = new_figure(
            COLUMN_WIDTH + 0.6, LINE * sum(heights) + 0.4 * len(schemes) + 0.6, len(schemes), 1, sharex=True,
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        last = grid.flat[-1]
        log_axis(last, "x")
        last.set_xlim(low / 1.1, high * 1.1)  # bars of seeds that disagree may leave it
        for axes, scheme in zip(grid.flat, schemes, strict=True):
            part = points[points["scheme"] == scheme].sort_values("ratio", kind="stable").reset_index(drop=True)
            color = looks[scheme, "none"]["color"]
            for at, line in part.iterrows():
                plain = line["extension"] in ("none", CONTROL)
                error = np.nan_to_num([[line["ratio"] - line["ratio_low"]], [line["ratio_high"] - line["ratio"]]])
                axes.errorbar(line["ratio"], at, xerr=error, marker="o", markersize=4, color="black" if plain else color,
                              markerfacecolor="white" if plain else color, elinewidth=0.8)  # fmt: skip
                mark_cut(axes, line["ratio_low"], line["ratio_high"], at, "black" if plain else color)
            names = ["as trained" if extension == "none" else drawn(extension) for extension in part["extension"]]
            axes.set_yticks(range(len(part)), names, parse_math=False, fontsize=6.5)
            axes.set_ylim(len(part) - 0.5, -0.5)
            axes.set_title(drawn(scheme), color=color, parse_math=False)
            axes.axvline(1, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
            axes.grid(axis="x")
        multiple = n / points["train_len"].iloc[0]
        objective, protocol = points[["objective", "protocol"]].iloc[0]
        last.set_xlabel(f"{measure([objective])} at {n:,} ({multiple:g} L) / at L, {protocol}")
        n_lines = entitle(figure, title_of(found, told_of_seeds(points).replace("bands", "bars")))
        figure.set_figheight(figure.get_figheight() + 0.15 * n_lines)
    return figure
