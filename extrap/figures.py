"""Rows -> figures, and the points that they show. Imports no torch."""

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from extrap.results import save_table, write_atomic
from extrap.stats import SCHEME, SETTING, against_floor, summarise

STYLE = Path(__file__).with_name("figures.mplstyle")
# Okabe and Ito's colours (safe for the colour-blind) in an order of alternating lightness; markers carry them in grey
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B2A400"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
REFERENCE_STYLES = {"floor": "-", "window_floor": "--", "plateau": ":"}
NO_DATE = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
}
POINT = [*SETTING, *SCHEME, "eval_len", "n_seeds"]
PANEL_TITLES = {
    "nonoverlap": "nonoverlap: all tokens, text cut into pieces",
    "same_targets": "same_targets: same tokens, growing context",
}


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """perplexity.{png,pdf,svg,csv}, and floor.* where a floor is known, into the folder; returns what was written."""
    written = save_figure(*perplexity_figure(rows), folder / "perplexity")
    if not against_floor(rows).empty:
        written += save_figure(*floor_figure(rows), folder / "floor")
    return written


def perplexity_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Perplexity by length, a panel a protocol, on log axes; bands are 95 % t intervals over seeds."""
    summary = summarise(rows)
    points = summary[[*POINT, "ppl", "ppl_low", "ppl_high"]]
    return _panels(points, ("ppl", "ppl_low", "ppl_high"), "perplexity", log=True), points


def floor_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Distance to the best possible predictor by length, in nats per token; bands as above."""
    floor = against_floor(rows)
    floor = floor.assign(
        kind="scheme", low=floor["excess"] - floor["excess_half"], high=floor["excess"] + floor["excess_half"]
    )
    points = floor[[*POINT, "excess", "low", "high"]]
    return _panels(points, ("excess", "low", "high"), "nats per token above the floor", log=False), points


def _panels(points: pd.DataFrame, values: tuple[str, str, str], ylabel: str, log: bool) -> Figure:
    objective, data, train_len = points.iloc[0][["objective", "data", "train_len"]]
    n_seeds = points["n_seeds"].max()
    title = f"{objective} on {data}, trained on {train_len:,} tokens, "
    title += f"{n_seeds} seeds; bands are 95 % t intervals" if n_seeds > 1 else "1 seed"
    protocols = list(points["protocol"].unique())
    with mpl.rc_context(fname=STYLE):
        names = points["scheme"].str.len().max()
        figure = Figure(figsize=((3.5 + 0.06 * max(0, names - 16)) * len(protocols), 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
        styles = _styles(points)
        for axes, protocol in zip(panels, protocols, strict=True):
            chosen = points[points["protocol"] == protocol]
            _curves(axes, chosen, values, styles)
            _axes(axes, chosen, log)
            axes.set_title(PANEL_TITLES.get(protocol, protocol))
        panels[0].set_ylabel(ylabel)
        low, high = panels[0].get_ylim()
        if log:  # bands of seeds that disagree may leave the panel, curves may not
            low, high = max(low, points[values[0]].min() / 3), min(high, points[values[0]].max() * 3)
        figure.canvas.draw()
        for axes, protocol in zip(panels, protocols, strict=True):
            axes.set_ylim(low, high)
            _labels(axes, points[points["protocol"] == protocol], values[0], styles, log)
        figure.suptitle(title, x=0.01, ha="left", fontsize=8)
    return figure


Style = dict[str, object]


def _styles(points: pd.DataFrame) -> dict[tuple[str, str], Style]:
    """(scheme, extension) -> how its line looks, the same in all panels."""
    styles: dict[tuple[str, str], Style] = {}
    for kind, scheme, extension in points[["kind", "scheme", "extension"]].drop_duplicates().itertuples(index=False):
        if kind != "scheme":
            styles[scheme, extension] = {"color": "0.45", "linestyle": REFERENCE_STYLES.get(kind, "-."), "linewidth": 1.0}
            continue
        i = sum("marker" in style for style in styles.values())
        styles[scheme, extension] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        styles[scheme, extension]["linestyle"] = ["-", "--", ":", "-."][i // len(COLOURS) % 4]
    return styles


def _curves(axes: Axes, points: pd.DataFrame, values: tuple[str, str, str], styles: dict[tuple[str, str], Style]) -> None:
    middle, low, high = values
    for (scheme, extension), line in points.groupby(["scheme", "extension"], sort=False):
        line = line.sort_values("eval_len")
        x = line["eval_len"] / line["train_len"]
        style = styles[scheme, extension]
        # a scheme that ends is one point among others: hollow and large, it shows around what lies on it
        ends = {"markersize": 8, "markerfacecolor": "none"} if "marker" in style and len(line) == 1 else {}
        axes.plot(x, line[middle], clip_on=False, **style, **ends)  # type: ignore[arg-type]
        if "marker" in style and len(line) > 1:
            axes.fill_between(x, line[low], line[high], color=style["color"], alpha=0.2, linewidth=0)
        elif "marker" in style:  # a scheme that ends: its one point needs a bar in place of a band
            error = [line[middle] - line[low], line[high] - line[middle]]
            axes.errorbar(x, line[middle], yerr=np.nan_to_num(error), color=style["color"], capsize=2, linewidth=1)


def _axes(axes: Axes, points: pd.DataFrame, log: bool) -> None:
    axes.set_xscale("log", base=2)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    multiples = sorted((points["eval_len"] / points["train_len"]).unique())
    axes.set_xticks(multiples, [f"{m:.3g}" for m in multiples])
    axes.minorticks_off()
    axes.set_xlim(multiples[0] / 1.2, multiples[-1])  # room on the left: the training length is no axis
    axes.grid(axis="y")
    axes.axvline(1, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    axes.annotate("training length", (1, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                  fontsize=6.5, color="0.3", va="top")  # fmt: skip
    axes.set_xlabel("evaluation length / training length")


def _labels(axes: Axes, points: pd.DataFrame, value: str, styles: dict[tuple[str, str], Style], log: bool) -> None:
    """The name of each scheme at the right end of its line, moved apart where they would overlap."""
    longest = points["eval_len"].max()
    to_pixels = axes.transData.transform
    right, names = [], []
    for (scheme, extension), line in points.groupby(["scheme", "extension"], sort=False):
        last = line.sort_values("eval_len").iloc[-1]
        x, y = last["eval_len"] / last["train_len"], last[value]
        name = scheme if extension == "none" else f"{scheme} + {extension}"
        color = styles[scheme, extension]["color"]
        if last["eval_len"] < longest:  # it ends here
            axes.annotate(
                f"{name} (ends)",
                (x, y),
                xytext=(5, 0),
                textcoords="offset points",
                color=color,
                fontsize=7,
                va="center",
                bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
            )
        else:
            right.append(to_pixels((x, y))[1])
            names.append((name, color, x))
    gap = 9.0 * axes.figure.dpi / 72
    bottom, top = axes.get_window_extent().y0, axes.get_window_extent().y1
    for (name, color, x), y in zip(names, spread(right, gap, bottom, top), strict=True):
        axes.annotate(name, (x, axes.transData.inverted().transform((0, y))[1]), xytext=(6, 0), textcoords="offset points",
                      color=color, fontsize=7, va="center", annotation_clip=False, parse_math=False)  # fmt: skip


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places nearest to the wanted ones, in the same order, within [low, high] and `gap` apart: less if they do not fit."""
    order = np.argsort(wanted, kind="stable")
    steps = min(gap, (high - low) / max(1, len(wanted) - 1)) * np.arange(len(wanted))
    # less their steps, places need only not decrease
    place = np.clip(isotonic_regression(np.asarray(wanted)[order] - steps).x, low, high - steps[-1]) + steps
    result = np.empty_like(place)
    result[order] = place
    return list(result)


def save_figure(figure: Figure, points: pd.DataFrame, path: Path) -> list[Path]:
    """The figure in three formats and its points, the same bytes for the same rows."""
    written = []
    with mpl.rc_context(fname=STYLE):
        for suffix, metadata in NO_DATE.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            write_atomic(path.with_suffix(f".{suffix}"), buffer.getvalue())
            written.append(path.with_suffix(f".{suffix}"))
    save_table(path.with_suffix(".csv"), points)
    return [*written, path.with_suffix(".csv")]
