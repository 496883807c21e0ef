"""Timings -> one figure: a column an objective; training, attention by length, memory by length. Imports no torch."""

from textwrap import wrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.speed.timings import ATTENTION, OURS, YARDSTICK
from extrap.report.curves import STYLE, Style, label_inside, looks_of, spread
from extrap.report.drawing import settle, snapped
from extrap.results.rows import rounded

OBJECTIVES = ("mlm", "causal")
YARDSTICK_STYLE: Style = {"color": "0.35", "linestyle": "--", "linewidth": 1.0}
POINTS = ["case", "objective", "label", "setting", "n", "value", "low", "high", "unit"]  # low, high: over rounds


def speed_figure(timings: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The figure of the first machine, and the points that it shows."""
    rows = timings[timings["machine"] == timings["machine"].iloc[0]]
    points = rounded(pd.concat([training_points(rows), length_points(rows)], ignore_index=True))
    schemes = [scheme for scheme in rows.loc[rows["name"] == OURS, "scheme"].unique() if scheme]
    # local attention has more than one window, and looks as with its own
    families = {scheme.partition("(")[0]: scheme for scheme in sorted(schemes, reverse=True)}
    looks = looks_of(families.values())
    styles = {family: looks[scheme] for family, scheme in families.items()}
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(7.2, 7.0), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(3, 2, sharey="row", gridspec_kw={"height_ratios": [1.15, 1, 1]})
        for column, objective in enumerate(OBJECTIVES):
            chosen = points[points["objective"] == objective]
            draw_training(panels[0, column], chosen[chosen["case"] == "training"], styles)
            panels[0, column].set_title(f"training, {objective}")
            for row, (case, title) in enumerate(
                (("attention", "a layer's attention"), ("memory", "peak memory of evaluation")), 1
            ):
                draw_lengths(panels[row, column], chosen[chosen["case"] == case], styles)
                panels[row, column].set_title(f"{title}, {ATTENTION[objective]}")
        for column in (0, 1):
            panels[0, column].set_xlabel("tokens/s")
            panels[2, column].set_xlabel("tokens of one sequence")
        panels[0, 0].invert_yaxis()
        panels[0, 0].sharex(panels[0, 1])
        panels[0, 1].set_xlim(0, 1.05 * max(points.loc[points["case"] == "training", "high"], default=1))
        panels[1, 0].set_ylabel("seconds")
        panels[2, 0].set_ylabel("MB above the model")
        title = f"{rows['machine'].iloc[0]}, {rows['threads'].max()} threads. "
        title += "Ours in colour; peers in grey, filled at their best, hollow at their default; lines and bands: all rounds"
        figure.suptitle("\n".join(wrap(title, 110)), x=0.01, ha="left", fontsize=8)
        figure.draw_without_rendering()
        for axes in panels[1:].flat:
            label_ends(axes)
        settle(figure)  # names beside the panels have taken room from them
        for axes in panels[1:].flat:
            label_early_ends(axes)
    return figure, points


def training_points(rows: pd.DataFrame) -> pd.DataFrame:
    """tokens/s of our schemes, and of the peers at their default and at the fastest of their other settings."""
    points = []
    rows = rows[rows["case"] == "training"].assign(rate=lambda steps: steps["tokens"] / steps["value"])
    for (objective, name, scheme), group in rows.groupby(["objective", "name", "scheme"], sort=False):
        rates = group.groupby("setting", sort=False)["rate"].agg(["median", "min", "max"])
        default = rates[rates.index.str.startswith("default")]
        best = rates.drop(default.index).nlargest(1, "median")
        label = scheme if name == OURS else f"{name}, {scheme}"
        for setting, *rate in pd.concat([default, best]).itertuples():
            points.append(("training", objective, label, setting or OURS, rows["n"].max(), *rate, "tokens/s"))
    return pd.DataFrame(points, columns=POINTS)


def length_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds of attention, of ours and of the yardstick, and megabytes of evaluation, by length."""
    chosen = rows[rows["case"].isin(["attention", "memory"]) & rows["name"].isin([OURS, YARDSTICK])]
    chosen = chosen.assign(label=chosen["scheme"].where(chosen["name"] == OURS, YARDSTICK))
    chosen = chosen.assign(value=chosen["value"].where(chosen["unit"] != "bytes", chosen["value"] / 1e6))
    rounds = chosen.groupby(["case", "objective", "label", "setting", "n", "unit"], sort=False)["value"]
    found = rounds.agg(value="median", low="min", high="max").reset_index()
    return found.assign(unit=found["unit"].replace("bytes", "MB"))[POINTS]


def draw_training(axes: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    """A dot an entry: ours in the colour of the scheme, peers in grey, hollow at their default."""
    for label, group in points.groupby("label", sort=False):
        for setting, value, low, high in group[["setting", "value", "low", "high"]].itertuples(index=False):
            ours = setting == OURS
            style = styles[str(label).partition("(")[0]] if ours else {"color": "0.35", "marker": "o"}
            face = "none" if setting.startswith("default") else style["color"]
            axes.plot([low, high], [str(label)] * 2, color=style["color"], linewidth=0.8, alpha=0.6)
            dot = style | {"linestyle": "none", "markersize": 5, "markerfacecolor": face}
            axes.plot([value], [str(label)], clip_on=False, **dot)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="both")


def draw_lengths(axes: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    for label, line in points.groupby("label", sort=False):
        line = line.sort_values("n")
        style = YARDSTICK_STYLE if label == YARDSTICK else styles[str(label).partition("(")[0]]
        axes.plot(line["n"], line["value"], label=str(label), **style)
        axes.fill_between(line["n"], line["low"], line["high"], color=style["color"], alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
    lengths = sorted(points["n"].unique())
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.grid(axis="y")


def label_ends(axes: Axes) -> None:
    """The names of lines that end at the right, moved apart where they would overlap."""
    longest = max((end(line)[0] for line in axes.get_lines()), default=0)
    lines = [line for line in axes.get_lines() if end(line)[0] == longest]
    gap, box = 8.0 * axes.figure.dpi / 72, axes.get_window_extent()
    wanted = snapped([axes.transData.transform(end(line))[1] for line in lines])
    names = [str(line.get_label()).replace(", ", ",\n") for line in lines]
    rows = [name.count("\n") + 1 for name in names]  # of text, each with a place of its own
    places = np.split(spread(list(np.repeat(wanted, rows)), gap, box.y0, box.y1), np.cumsum(rows)[:-1])
    for line, name, place in zip(lines, names, places, strict=True):
        y = axes.transData.inverted().transform((0, np.mean(place)))[1]
        axes.annotate(name, (longest, y), xytext=(6, 0), textcoords="offset points", color=line.get_color(),
                      fontsize=7, va="center", annotation_clip=False, parse_math=False)  # fmt: skip


def label_early_ends(axes: Axes) -> None:
    ends = [end(line) for line in axes.get_lines()]
    for line, (x, y) in zip(axes.get_lines(), ends, strict=True):
        if x < max(ends)[0]:
            label_inside(axes, str(line.get_label()), (x, y), str(line.get_color()))


def end(line: Line2D) -> tuple[float, float]:
    return float(np.asarray(line.get_xdata())[-1]), float(np.asarray(line.get_ydata())[-1])
