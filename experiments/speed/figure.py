"""Timings -> figures: of training, attention and memory by length, and of trainings to the same loss. Imports no torch."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.speed.timings import ATTENTION, LEARNER, OURS, RECIPE, YARDSTICK, learning_curves
from extrap.report.curves import DASHES, band
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.labels import End, name_ends
from extrap.report.looks import Style, family, looks_of
from extrap.results.shown import rounded

PANELS = {"training": "training", "attention": "a layer's attention", "memory": "peak memory of evaluation"}
YARDSTICK_STYLE: Style = {"color": "0.35", "linestyle": "--", "linewidth": 1.0}
POINTS = ["case", "objective", "label", "setting", "n", "value", "low", "high", "unit"]  # low, high: over rounds


def speed_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A column an objective: training, attention by length, memory by length. With the points that it shows."""
    points = rounded(pd.concat([training_points(rows), length_points(rows)], ignore_index=True))
    schemes = [scheme for scheme in rows.loc[rows["name"] == OURS, "scheme"].unique() if scheme]
    looks = looks_of(schemes)
    # local attention has more than one window, and looks as with its own
    styles = {family(scheme): looks[scheme] for scheme in sorted(schemes, reverse=True)}
    with style():
        figure, panels = new_figure(7.2, 7.0, 3, 2, sharey="row", gridspec_kw={"height_ratios": [1.15, 1, 1]})
        for column, (objective, attention) in zip(panels.T, ATTENTION.items(), strict=True):
            for axes, (case, title) in zip(column, PANELS.items(), strict=True):
                draw = draw_training if case == "training" else draw_lengths
                draw(axes, points[(points["objective"] == objective) & (points["case"] == case)], styles)
                axes.set_title(f"{title}, {objective if case == 'training' else attention}")
            column[0].set_xlabel("tokens/s")
            column[2].set_xlabel("tokens of one sequence")
        panels[0, 0].invert_yaxis()
        panels[0, 0].sharex(panels[0, 1])
        panels[0, 1].set_xlim(0, 1.05 * max(points.loc[points["case"] == "training", "high"], default=1))
        panels[1, 0].set_ylabel("seconds")
        panels[2, 0].set_ylabel("MB above the model")
        title = f"{rows['machine'].iloc[0]}, {rows['threads'].max()} threads. "
        title += "Ours in colour; peers in grey, filled at their best, hollow at their default;"
        entitle(figure, title, "lines and bands: all rounds")
        name_ends([(axes, ends(axes)) for axes in panels[1:].flat], gap=8.0)
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
    for label, setting, value, low, high in points[["label", "setting", "value", "low", "high"]].itertuples(index=False):
        look = styles[family(label)] if setting == OURS else {"color": "0.35", "marker": "o"}
        face = "none" if setting.startswith("default") else look["color"]
        axes.plot([low, high], [label] * 2, color=look["color"], linewidth=0.8, alpha=0.6)
        dot = look | {"linestyle": "none", "markersize": 5, "markerfacecolor": face}
        axes.plot([value], [label], clip_on=False, **dot)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="both")


def draw_lengths(axes: Axes, points: pd.DataFrame, styles: dict[str, Style]) -> None:
    for label, line in points.groupby("label", sort=False):
        line = line.sort_values("n")
        look = YARDSTICK_STYLE if label == YARDSTICK else styles[family(str(label))]
        band(axes, line["n"], line["value"], line["low"], line["high"], look | {"label": str(label)})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
    lengths = sorted(points["n"].unique())
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.grid(axis="y")


def ends(axes: Axes) -> list[End]:
    """Of the lines of a panel that are named; names that stand beside it are broken at their commas."""
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    last = [(str(line.get_label()), str(line.get_color()), *np.asarray(line.get_xydata())[-1]) for line in named]
    longest = max((x for _, _, x, _ in last), default=0)
    return [End(name if x < longest else name.replace(", ", ",\n"), color, x, y, x < longest) for name, color, x, y in last]


def learning_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Loss on held-out text by seconds of training, a panel an objective. With the points that it shows."""
    curves = learning_curves(rows)
    points = rounded(curves.loc[curves["loss"] < np.inf, [*LEARNER, "tokens", "seconds", "loss", "goal", "at_goal"]])
    looks = looks_of([*points.loc[points["name"] == OURS, "scheme"].unique()])
    objectives = points["objective"].unique()
    with style():
        figure, (panels,) = new_figure(7.2, 3.2, 1, len(objectives), sharey=True)
        for axes, objective in zip(panels, objectives, strict=True):
            draw_learning(axes, points[points["objective"] == objective], looks)
            axes.set_title(f"training to the same loss, {objective}")
            axes.set_xlabel("seconds of training")
        panels[0].set_ylabel("loss on held-out text, nats")
        title = f"{rows['machine'].iloc[0]}, {rows['threads'].max()} threads. Solid: ours by its recipe; dashed: AdamW, "
        title += "over its schedule and shorter ones; dotted: the loss to reach; dots: where it is reached"
        entitle(figure, title)
        name_ends([(axes, ends(axes)) for axes in panels], gap=8.0)
    return figure, points


def draw_learning(axes: Axes, points: pd.DataFrame, looks: dict[str, Style]) -> None:
    """A line a training, the longest schedule of each with its name; a dot where it arrives."""
    by_recipe = (points["setting"] == RECIPE).rename("by recipe")
    for (name, scheme, is_recipe), trainings in points.groupby(["name", "scheme", by_recipe], sort=False):
        color = looks[scheme]["color"] if name == OURS else "0.35"
        label = f"{name}, {scheme}" if name != OURS else f"{scheme}, {'recipe' if is_recipe else 'AdamW'}"
        for _, line in trainings.groupby("setting", sort=False):
            named = line["tokens"].max() == trainings["tokens"].max()
            dashes = "-" if is_recipe else DASHES
            axes.plot(line["seconds"], line["loss"], color=color, linestyle=dashes, marker="", label=label if named else "_")
            if len(there := line[line["at_goal"]]):
                axes.plot(*there[["seconds", "loss"]].iloc[0], "o", color=color, label="_")
        if is_recipe:
            axes.axhline(trainings["goal"].iloc[0], color=color, linestyle=":", linewidth=0.8, label="_")
    axes.margins(x=0, y=0.15)  # names stand below the lines, too
    axes.set_xlim(left=0)
    axes.grid(axis="y")
