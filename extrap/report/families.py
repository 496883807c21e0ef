"""More schemes than a panel can hold: families, a figure by family, and what longer context costs. Imports no torch."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extrap.report.curves import (
    DASHES,
    POINT,
    Values,
    axes_of_lengths,
    curves,
    drawn,
    ends,
    keep_to_curves,
    log_axis,
    mark_cut,
    title_of,
    told_of_seeds,
)
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.group import shortened
from extrap.report.labels import name_ends
from extrap.report.looks import LOOKS, Looks, Style, family
from extrap.report.typesetting import level, measure
from extrap.results.rows import as_trained
from extrap.results.shown import rounded
from extrap.stats.perplexity import BEYOND_L, told_first
from extrap.stats.statistics import Statistics

FAMILIES = {  # title -> classes of schemes, as labels begin
    "absolute, or none": ("nope", "learned", "sinusoidal"),
    "rotary": ("rope", "partialrope", "prope", "learnedrope", "xpos", "pope"),
    "norms and temperatures": ("qknorm", "keynorm", "ssmax", "logn"),
    "biases of the distance": ("alibi", "t5", "kerple", "sandwich", "cpb", "fire"),
    "relative, by content": ("shaw", "transformerxl", "deberta", "cope", "dape", "grape"),
    "forgetting": ("fox", "cable", "stickbreaking"),
    "windows and layers": ("local", "mixed", "sinks"),
    "randomized in training": ("randomized", "pose"),
}
OTHERS = "others"
# of the members of a family, in their order: dark and light in turn, so that neighbours differ in print, too
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#000000", "#CC79A7", "#56B4E9", "#B2A400", "#882255", "#332288"]
MARKERS = ["o", "s", "^", "X", "v", "P", "D", "*", "<", ">"]
THIN: Style = {"linestyle": "-", "linewidth": 1.1, "markersize": 3.5}
COLUMNS = 2
PANEL = (3.5, 1.8)  # inches
ROW, KEY_COLUMNS = 0.135, 4  # inches
PPL, RATIO = ("ppl", "ppl_low", "ppl_high"), ("ratio", "ratio_low", "ratio_high")
NAME = 28  # columns: longer names are cut in their middle


def family_of(scheme: str) -> str:
    """The title of the family of a scheme's label."""
    return next((title for title, classes in FAMILIES.items() if family(scheme) in classes), OTHERS)


def by_family(schemes: list[str]) -> dict[str, list[str]]:
    """The families that are there, in their order, with their members in the order given."""
    found = {title: [scheme for scheme in schemes if family_of(scheme) == title] for title in (*FAMILIES, OTHERS)}
    return {title: members for title, members in found.items() if members}


def families_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Perplexity by length, a panel a family on one scale, the others grey behind it; bands are 95 % t intervals over seeds.

    Of the protocol that scores the same tokens at every length, where rows hold it.
    """
    points = rounded(_trained(found)[[*POINT, *PPL]])
    at_start = points[points["eval_len"] == points["train_len"]].sort_values("ppl", kind="stable")
    members = by_family(list(at_start["scheme"]))
    looks = looks_within(members)
    n_rows = -(-len(members) // COLUMNS)
    with style():
        figure, grid = new_figure(PANEL[0] * COLUMNS, PANEL[1] * n_rows, n_rows, COLUMNS, sharex=True, sharey=True)
        panels, parts = list(grid.flat), [points[points["scheme"].isin(schemes)] for schemes in members.values()]
        for i, (axes, title, part) in enumerate(zip(panels, members, parts, strict=False)):
            _behind(axes, points[~points["scheme"].isin(part["scheme"])])
            curves(axes, part, PPL, looks)
            axes_of_lengths(axes, points, log=True, mark="" if i else "training length")
            axes.set_title(title)
            axes.set_xlabel("")
            axes.tick_params(labelbottom=i + COLUMNS >= len(members))
        for axes in panels[len(members) :]:
            axes.set_visible(False)
        keep_to_curves(panels[0], points["ppl"])
        figure.supxlabel("evaluation length / training length", fontsize=8)
        figure.supylabel(f"{level(points['objective'].unique())}, {points['protocol'].iloc[0]}", fontsize=8)
        n_lines = entitle(figure, title_of(found, told_of_seeds(points)))
        figure.set_figheight(PANEL[1] * n_rows + 0.15 * (n_lines + 1))
        short = shortened(points["scheme"].unique(), NAME)
        names = {key: drawn(short[key[0]]) for key in looks}
        longest = points["eval_len"].max()
        named = [ends(part, "ppl", looks, names, longest) for part in parts]
        name_ends(list(zip(panels, named, strict=False)), gap=7.5)
    return figure, points


def looks_within(members: dict[str, list[str]]) -> Looks:
    """Of each scheme as trained: colour and marker that it has in all figures, or some that no other of its family has."""
    n = len(COLOURS)
    pairs = [(COLOURS[i % n], MARKERS[(i + i // n) % n]) for i in range(n**2)]
    looks: Looks = {}
    for schemes in members.values():
        known = {scheme: (LOOKS[scheme]["color"], LOOKS[scheme]["marker"]) for scheme in schemes if scheme in LOOKS}
        taken = {color for color, _ in known.values()}
        free = iter([pair for pair in pairs[:n] if pair[0] not in taken] + [p for p in pairs[n:] if p not in known.values()])
        for scheme in sorted(schemes):
            color, marker = known.get(scheme) or next(free)
            looks[scheme, "none"] = THIN | {"color": color, "marker": marker}
    return looks


def _behind(axes: Axes, points: pd.DataFrame) -> None:
    for _, line in points.groupby("scheme", sort=False):
        line = line.sort_values("eval_len")
        axes.plot(line["eval_len"] / line["train_len"], line["ppl"], color="0.85", linewidth=0.7, zorder=0)


def trade_off_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """A row a scheme, from the best at the training length on: perplexity there, and what the longest input makes of it.

    Below 1 longer context helps, above 1 it does harm; bars are 95 % t intervals over seeds, marks and colours those of a
    family. The name of who ends before the longest input says where.
    Of the protocol that scores the same tokens at every length, where rows hold it.
    """
    lines = _trained(found)
    n, train_len = lines["eval_len"].max(), lines["train_len"].iloc[0]
    start = lines[lines["eval_len"] == train_len].assign(eval_len=n).drop(columns=[*RATIO])
    points = start.join(lines[lines["eval_len"] == n].set_index("scheme")[[*RATIO]], on="scheme")
    points = rounded(points[[*POINT, *PPL, *RATIO]]).sort_values("ppl", kind="stable").reset_index(drop=True)
    objectives, protocol = points["objective"].unique(), points["protocol"].iloc[0]
    at_start = f"{level(objectives)} at the training length L, {protocol}"
    columns = {PPL: at_start, RATIO: f"{measure(objectives)} at {n:,} ({n / train_len:g} L) / at L"}
    with style():
        figure, grid = new_figure(7.0, ROW * len(points), 1, 2, sharey=True)
        for axes, (values, label) in zip(grid.flat, columns.items(), strict=True):
            _rows_of(axes, points, values)
            axes.set_xlabel(label)
        grid.flat[1].axvline(1, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
        ends = lines.groupby("scheme")["eval_len"].max()
        short = shortened(points["scheme"], NAME)
        names = [drawn(short[one]) + ("" if ends[one] == n else f" (to {ends[one]:,})") for one in points["scheme"]]
        grid.flat[0].set_yticks(points.index, names, parse_math=False, fontsize=6.5)
        grid.flat[0].set_ylim(len(points) - 0.5, -0.5)
        key = figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower left", ncols=KEY_COLUMNS,
                            fontsize=6.5, frameon=False)  # fmt: skip
        n_lines = entitle(figure, title_of(found, told_of_seeds(points).replace("bands", "bars")))
        n_lines += -(-len(key.get_texts()) // KEY_COLUMNS)
        figure.set_figheight(ROW * len(points) + 0.15 * n_lines + 0.5)
    return figure, points


def _rows_of(axes: Axes, points: pd.DataFrame, values: Values) -> None:
    """A panel of trade_off_figure."""
    (middle, low, high), families = values, by_family(list(points["scheme"]))
    log_axis(axes, "x")
    for (title, schemes), marker, color in zip(families.items(), MARKERS, COLOURS, strict=False):
        part = points[points["scheme"].isin(schemes)]
        bars = np.nan_to_num([part[middle] - part[low], part[high] - part[middle]])
        axes.errorbar(part[middle], part.index, xerr=bars, linestyle="", marker=marker, color=color, label=title,
                      markersize=4, elinewidth=0.8)  # fmt: skip
    keep_to_curves(axes, points[middle], "x")
    for schemes, color in zip(families.values(), COLOURS, strict=False):
        for row, line in points[points["scheme"].isin(schemes)].iterrows():
            mark_cut(axes, line[low], line[high], row, color)
    axes.grid()
    axes.tick_params(axis="y", length=0)


def _trained(found: Statistics) -> pd.DataFrame:
    """Lines of schemes as trained, under the protocol that scores the same tokens at every length, where rows hold it."""
    lines = as_trained(found.summary)
    return lines[lines["protocol"] == told_first(BEYOND_L, lines["protocol"].unique())]
