"""More schemes than a panel can hold: families, a figure by family, and what longer context costs. Imports no torch."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from extrap.report.curves import (
    DASHES,
    POINT,
    axes_of_lengths,
    curves,
    drawn,
    ends,
    keep_to_curves,
    log_axis,
    title_of,
    told_of_seeds,
)
from extrap.report.drawing import entitle, lay_out, new_figure, settle, style
from extrap.report.group import shortened
from extrap.report.labels import End, label_inside, name_ends
from extrap.report.looks import Looks, Style, family
from extrap.report.typesetting import measure
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
# at L over the best there, and far beyond L over that at L: nearer ones are drawn enlarged where they are many
CORNER, MOST_IN_CORNER = (1.15, 1.1), 8
KEY_LINE, KEY_WIDTH = 8.3, 0.25  # points, and of the figure
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
    points = rounded(_trained(found)[[*POINT, "ppl", "ppl_low", "ppl_high"]])
    at_start = points[points["eval_len"] == points["train_len"]].sort_values("ppl", kind="stable")
    members = by_family(list(at_start["scheme"]))
    looks = looks_within(members)
    n_rows = -(-len(members) // COLUMNS)
    with style():
        figure, grid = new_figure(PANEL[0] * COLUMNS, PANEL[1] * n_rows, n_rows, COLUMNS, sharex=True, sharey=True)
        panels, parts = list(grid.flat), [points[points["scheme"].isin(schemes)] for schemes in members.values()]
        for i, (axes, title, part) in enumerate(zip(panels, members, parts, strict=False)):
            _behind(axes, points[~points["scheme"].isin(part["scheme"])])
            curves(axes, part, ("ppl", "ppl_low", "ppl_high"), looks)
            axes_of_lengths(axes, points, log=True, mark="" if i else "training length")
            axes.set_title(title)
            axes.set_xlabel("")
            axes.tick_params(labelbottom=i + COLUMNS >= len(members))
        for axes in panels[len(members) :]:
            axes.set_visible(False)
        keep_to_curves(panels[0], points["ppl"])
        figure.supxlabel("evaluation length / training length", fontsize=8)
        figure.supylabel(f"{measure(points['objective'].unique())}, {points['protocol'].iloc[0]}", fontsize=8)
        n_lines = entitle(figure, title_of(found, told_of_seeds(points)))
        figure.set_figheight(PANEL[1] * n_rows + 0.15 * (n_lines + 1))
        short = shortened(points["scheme"].unique(), NAME)
        names = {key: drawn(short[key[0]]) for key in looks}
        longest = points["eval_len"].max()
        named = [ends(part, "ppl", looks, names, longest) for part in parts]
        name_ends(list(zip(panels, named, strict=False)), gap=7.5)
    return figure, points


def looks_within(members: dict[str, list[str]]) -> Looks:
    """Of each scheme as trained: colours and markers by its place within its family."""
    return {
        (scheme, "none"): THIN | {"color": COLOURS[i % n], "marker": MARKERS[(i + i // n) % n]}
        for n, schemes in ((len(COLOURS), schemes) for schemes in members.values())
        for i, scheme in enumerate(sorted(schemes))
    }


def _behind(axes: Axes, points: pd.DataFrame) -> None:
    for _, line in points.groupby("scheme", sort=False):
        line = line.sort_values("eval_len")
        axes.plot(line["eval_len"] / line["train_len"], line["ppl"], color="0.85", linewidth=0.7, zorder=0)


def trade_off_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Perplexity at the training length against what the longest input makes of it, a mark a scheme, numbered from the best.

    Who ends before that has none. Below 1 longer context helps, above 1 it does harm; bars are 95 % t intervals over seeds.
    Of the protocol that scores the same tokens at every length, where rows hold it.
    """
    lines = _trained(found)
    longest = lines[lines["eval_len"] == lines["eval_len"].max()]
    start = lines[lines["eval_len"] == lines["train_len"]].set_index("scheme")[["ppl", "ppl_low", "ppl_high"]]
    points = longest.drop(columns=[*start]).join(start, on="scheme")
    points = rounded(points[[*POINT, "ppl", "ppl_low", "ppl_high", "ratio", "ratio_low", "ratio_high"]])
    points = points.sort_values("ppl", kind="stable")
    points.insert(0, "number", range(1, len(points) + 1))
    members, n = by_family(list(points["scheme"])), points["eval_len"].iloc[0]
    multiple = n / points["train_len"].iloc[0]
    corner = points[(points["ratio"] < CORNER[1]) & (points["ppl"] < CORNER[0] * points["ppl"].min())]
    panels = [points, corner] if len(corner) > MOST_IN_CORNER else [points]
    key_lines = len(points) + 1.5 * len(members)
    with style():
        figure, grid = new_figure(7.0, max(4.0, KEY_LINE / 72 * key_lines + 0.7), len(panels), 1)
        figure.set_layout_engine("constrained", rect=(0, 0, 1 - KEY_WIDTH, 1))
        for axes, shown in zip(grid.flat, panels, strict=True):
            _marks(axes, members, points)
            keep_to_curves(axes, shown["ratio"])
            axes.set_ylabel(f"{measure(points['objective'].unique())} at {n:,} ({multiple:g} L) / at L")
        if len(panels) > 1:
            _enlarge(grid.flat[0], grid.flat[1], corner)
        axes.set_xlabel(f"{measure(points['objective'].unique())} at the training length L, {points['protocol'].iloc[0]}")
        entitle(figure, title_of(found, told_of_seeds(points).replace("bands", "bars")))
        names = shortened(points["scheme"], NAME)
        _key(grid.flat[0], members, names, points.set_index("scheme")["number"].to_dict())
        lay_out(figure)
        settle(figure)
        for axes, shown in zip(grid.flat, panels, strict=True):
            for line in (shown if shown is panels[-1] else shown.drop(corner.index)).itertuples():
                label_inside(axes, End(str(line.number), "black", line.ppl, line.ratio))
    return figure, points


def _marks(axes: Axes, members: dict[str, list[str]], points: pd.DataFrame) -> None:
    axes.set_xscale("log")
    log_axis(axes)
    for i, schemes in enumerate(members.values()):
        part = points[points["scheme"].isin(schemes)]
        across, along = (
            np.nan_to_num([part[value] - part[f"{value}_low"], part[f"{value}_high"] - part[value]])
            for value in ("ppl", "ratio")
        )
        axes.errorbar(part["ppl"], part["ratio"], along, across, linestyle="", marker=MARKERS[i], color=COLOURS[i],
                      markersize=4, elinewidth=0.5, alpha=0.9)  # fmt: skip
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 7, 8)))
    axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.minorticks_off()
    axes.axhline(1, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)


def _enlarge(whole: Axes, below: Axes, corner: pd.DataFrame) -> None:
    """The panel below shows a corner of the other, which marks it."""
    for axis, value in (("x", "ppl"), ("y", "ratio")):
        low, high = corner[value].min(), corner[value].max()
        room = max(0.08 * (high - low), 0.001 * low)
        getattr(below, f"set_{axis}scale")("linear")
        getattr(below, f"set_{axis}lim")(low - room, high + room)
        getattr(below, f"{axis}axis").set_major_locator(mpl.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
        getattr(below, f"{axis}axis").set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    (left, right), (low, high) = below.get_xlim(), below.get_ylim()
    whole.add_patch(mpl.patches.Rectangle((left, low), right - left, high - low, fill=False, edgecolor="0.4", linewidth=0.8))
    below.set_title("enlarged: the box above", fontsize=7)


def _key(axes: Axes, members: dict[str, list[str]], names: dict[str, str], numbers: dict[str, int]) -> None:
    """Right of the panels, from the top of these axes on: families in their colours, under each its members, numbered."""
    y, figure = 0.0, axes.get_figure(root=True)

    def write(x: float, text: str, **how: Any) -> None:
        place = offset_copy(axes.transAxes, figure, y=y, units="points")
        told = axes.text(x, 1, text, transform=place, fontsize=6.5, va="center", parse_math=False, **how)
        told.set_in_layout(False)  # or the panels would be spread along it

    for i, (title, schemes) in enumerate(members.items()):
        place = offset_copy(axes.transAxes, figure, y=y, units="points")
        mark = axes.plot([1.03], [1], marker=MARKERS[i], color=COLOURS[i], markersize=4, transform=place, clip_on=False)
        mark[0].set_in_layout(False)
        write(1.045, title, color=COLOURS[i], weight="bold")
        for scheme in schemes:
            y -= KEY_LINE
            write(1.065, f"{numbers[scheme]}", ha="right")
            write(1.075, drawn(names[scheme]))
        y -= 1.5 * KEY_LINE


def _trained(found: Statistics) -> pd.DataFrame:
    """Lines of schemes as trained, under the protocol that scores the same tokens at every length, where rows hold it."""
    lines = found.summary[(found.summary["extension"] == "none") & (found.summary["kind"] == "scheme")]
    return lines[lines["protocol"] == told_first(BEYOND_L, lines["protocol"].unique())]
