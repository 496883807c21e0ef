"""The board of claims: every effect against the threshold of its claim. Imports no torch."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.claims.claim import CONFIRMED, OUT_OF_SCOPE, REFUTED, UNDECIDED, Claim
from experiments.claims.page import bound, value
from experiments.claims.registry import CODE, ENCODER, FLOOR, PROSE, SHOWN
from extrap.report.drawing import style

# blue and vermilion of Okabe and Ito are told apart by the colour-blind, and stand beside the word anyway
COLOURS = {CONFIRMED: "#0072B2", REFUTED: "#D55E00", UNDECIDED: "0.35", OUT_OF_SCOPE: "0.6"}
MARKERS = {CODE: "o", PROSE: "s", FLOOR: "^", ENCODER: "P"}
DIAMOND: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "markersize": 4.5}
SHADE: dict[str, Any] = {"color": "0.95", "zorder": -2, "clip_on": False, "linewidth": 0}
FACTORS = (1.01, 1.1, 2, 20)  # ticks, either way
LINE, GAP, TOP, BOTTOM = 0.145, 0.09, 0.62, 0.5  # inches
LEFT, WIDTH = 0.4, 0.36  # of the figure, what the axis takes
LINEAR, EDGE = np.log(1.01), np.log(100)  # up to where the axis is linear, and its end


def board(table: pd.DataFrame, claims: tuple[Claim, ...]) -> Figure:
    """These claims down; how far effects lie on the claim's side of its threshold across, as a factor, linear up to 1 %."""
    table = table[table["deciding"] & table["place"].isin(SHOWN) & (table["verdict"] != OUT_OF_SCOPE)]
    table = table[table["id"].isin({claim.id for claim in claims})]
    blocks = [(claim, table[table["id"] == claim.id], textwrap.wrap(claim.words["title"], 36)) for claim in claims]
    heights = [LINE * max(len(decided), len(title), 1) + GAP for _, decided, title in blocks]
    height = sum(heights) + TOP + BOTTOM
    with style():
        figure = Figure(figsize=(7.0, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((LEFT, BOTTOM / height, WIDTH, sum(heights) / height))
        axes.set_ylim(sum(heights), 0)
        across(axes)
        top = 0.0
        for i, (block, tall) in enumerate(zip(blocks, heights, strict=True)):
            draw_block(axes, *block, top)
            if i % 2:
                axes.axhspan(top, top + tall, -LEFT / WIDTH, (1 - LEFT) / WIDTH, **SHADE)
            top += tall
        for x, name in ((1.05, "verdict"), (1.33, "effect (claim)")):
            words(axes, x, -1.4 * LINE, name, color="0.35")
        marks = [
            Line2D([], [], color="0.35", marker=marker, linewidth=1.3, markersize=4.5, label=f"ours, {text}")
            for text, marker in MARKERS.items()
            if text in {*table["place"]}
        ]
        if table["published"].notna().any():
            marks.append(Line2D([], [], color="0.2", label="published, range", linewidth=0.7, **DIAMOND))
        if table["near"].notna().any():
            marks.append(
                Line2D([], [], color="0.35", marker="|", linewidth=1.3, markersize=4.5, label="interval over seeds")
            )
        place = (0.0, 1 - 0.02 / height)
        figure.legend(handles=marks, loc="upper left", bbox_to_anchor=place, ncols=5, frameon=False, fontsize=7)
    return figure


def across(axes: Axes) -> None:
    """The horizontal axis."""
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    axes.set_xlim(-EDGE, EDGE)
    ticks = {-np.log(factor): f"÷{factor:g}" for factor in reversed(FACTORS)} | {0.0: "1"}
    ticks |= {np.log(factor): f"×{factor:g}" for factor in FACTORS}
    axes.set_xticks([*ticks], [*ticks.values()])
    axes.minorticks_off()
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.grid(axis="x")
    axes.axvline(0, color="0.2", linewidth=0.9)
    axes.set_xlabel("← against the claim   effect / threshold (of shares: $e^{difference}$)   for the claim →")


def draw_block(axes: Axes, claim: Claim, decided: pd.DataFrame, title: list[str], top: float) -> None:
    first = top + (LINE + GAP) / 2
    words(axes, -1.09, first, claim.id, weight="bold")
    for i, line in enumerate(title):
        words(axes, -0.965, first + i * LINE, line)
    if decided.empty:
        words(axes, 1.05, first, OUT_OF_SCOPE, color=COLOURS[OUT_OF_SCOPE])
    for i, row in enumerate(decided.itertuples()):
        y, colour = first + i * LINE, COLOURS[row.verdict]
        words(axes, -0.04, y, row.place, ha="right", color="0.35")
        words(axes, 1.05, y, row.verdict, color=colour, weight="normal" if row.verdict == UNDECIDED else "bold")
        words(axes, 1.33, y, f"{value(row.effect)} ({bound(row)})", color="0.35")
        margin = claim.parts[row.part].margin
        if np.isfinite(row.published):
            ends = [np.clip(margin(end), -EDGE, EDGE) for end in (row.published_low, row.published_high)]
            axes.plot(ends, [y, y], color="0.2", linewidth=0.7, zorder=1)
            middle = np.clip(margin(row.published), -EDGE, EDGE)
            axes.plot(middle, y, color="0.2", linestyle="none", markeredgewidth=0.8, zorder=3, **DIAMOND)
        if not np.isnan(row.near):
            ends = [np.clip(end, -EDGE, EDGE) for end in (row.near, row.far)]
            axes.plot(ends, [y, y], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=2)
            for end, cut, arrow in ((ends[0], row.near < -EDGE, "<"), (ends[1], row.far > EDGE, ">")):
                axes.plot(end, y, arrow if cut else "|", color=colour, markersize=4, clip_on=False, zorder=3)
        middle = np.clip(margin(row.effect), -EDGE, EDGE)
        axes.plot(middle, y, MARKERS[row.place], color=colour, markersize=4.5, clip_on=False, zorder=4)


def words(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), fontsize=7, va="center", parse_math=False, **how)
