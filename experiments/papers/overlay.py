"""Published numbers and ours on the same axes. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from extrap.report.curves import DASHES, band, drawn, length_axis
from extrap.report.drawing import new_figure, style
from extrap.report.labels import End, name_ends
from extrap.report.looks import LOOKS, Style, looks_of
from extrap.results.rows import rounded
from extrap.stats.perplexity import Interval, summarise

OURS = "ours"
# what a curve shows: `value` at `x`, between `low` and `high`; `source` is OURS or a paper with its table
CURVE = ["source", "protocol", "scheme", "extension", "train_len", "eval_len", "n_seeds", "x", "value", "low", "high"]


def with_own(schemes: Sequence[str], rows: pd.DataFrame) -> tuple[str, ...]:
    """These schemes, and those of the rows that are none of the project's."""
    trained = rows if "kind" not in rows else rows[rows["kind"] == "scheme"]  # of training.csv all are
    return (*schemes, *sorted({*trained["scheme"]} - LOOKS.keys() - {*schemes}))


def our_ratios(rows: pd.DataFrame, protocol: str, schemes: Sequence[str]) -> pd.DataFrame:
    """Perplexity over that at the training length by length over training length; t intervals over seeds, paired."""
    wanted = (rows["protocol"] == protocol) & rows["scheme"].isin(schemes) & (rows["extension"] == "none")
    found = summarise(rows[wanted & (rows["kind"] == "scheme")])
    found = found[found["eval_len"] >= found["train_len"]].assign(source=OURS, x=found["eval_len"] / found["train_len"])
    return rounded(found.rename(columns={"ratio": "value", "ratio_low": "low", "ratio_high": "high"})[CURVE])


def published_ppl(published: pd.DataFrame, source: str, *tables: str) -> pd.DataFrame:
    """The perplexities of these tables of a paper, as columns of a curve; `value` is the perplexity itself."""
    chosen = published[(published["source"] == source) & published["table"].isin(tables) & (published["metric"] == "ppl")]
    chosen = chosen.assign(source=chosen["source"] + ", table " + chosen["table"], extension="none")
    chosen = chosen.astype({"train_len": int, "eval_len": int})
    return chosen.assign(x=chosen["eval_len"] / chosen["train_len"], low=np.nan, high=np.nan)[CURVE]


def published_ratios(published: pd.DataFrame, source: str, *tables: str) -> pd.DataFrame:
    """The same over the perplexity at the training length; what has none there is left out."""
    found = published_ppl(published, source, *tables)
    key = ["source", "protocol", "scheme", "train_len"]
    start = found.loc[found["eval_len"] == found["train_len"], [*key, "value"]]
    found = found.merge(start, on=key, suffixes=("", "_start"))
    return rounded(found.assign(value=found["value"] / found["value_start"])[CURVE])


def by_group(over: Interval, source: str) -> pd.DataFrame:
    """Intervals by group as lines of a curve; groups are of the columns that it has beside them."""
    lines = pd.DataFrame({"value": over.mean, "low": over.low, "high": over.high, "n_seeds": over.n})
    return rounded(lines.reset_index().assign(source=source))


def pair_lengths(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[tuple[int, int]]:
    """Our training lengths beside theirs, the shortest with the shortest."""
    lengths = (sorted(points["train_len"].unique()) for points in (ours, theirs))
    return [(int(mine), int(other)) for mine, other in zip(*lengths, strict=False)]


def curves(axes: Axes, points: pd.DataFrame, looks: dict[str, Style], **changes: Any) -> None:
    """Ours solid and filled, with a band or bars; published dashed and hollow. `changes` are to the look of all."""
    for (source, scheme), line in points.groupby(["source", "scheme"], sort=False):
        line = line.sort_values("x")
        look = looks[str(scheme)] | changes
        if source == OURS:
            band(axes, line["x"], line["value"], line["low"], line["high"], look | {"clip_on": False, "zorder": 3})
        else:  # of many markers only those that can be told apart
            hollow = {"markerfacecolor": "white", "linewidth": 0.9, "markeredgewidth": 0.8}
            hollow |= {"markevery": 0.12} if len(line) > 12 else {}
            axes.plot(line["x"], line["value"], zorder=2, **look | {"linestyle": DASHES} | hollow)


def multiples_axis(axes: Axes, lowest: float, longest: float) -> None:
    """Length over training length, with a tick at each power of two."""
    doublings = range(int(np.ceil(np.log2(lowest))), int(np.floor(np.log2(longest))) + 1)
    length_axis(axes, {*(2.0**k for k in doublings), longest}, lowest / 1.15)


DECADES = 10.0 ** np.arange(-3, 5)
TICKS = [np.outer(DECADES, steps).ravel() for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))]
TICKS += [np.arange(0, 10, step) for step in (0.2, 0.1, 0.05, 0.02, 0.01)]


def ratio_ticks(axis: mpl.axis.Axis) -> None:
    """The coarsest round numbers of which an axis on a log scale, with its limits set, shows four."""
    low, high = axis.get_view_interval()
    shown = [ticks[(ticks >= low) & (ticks <= high)].tolist() for ticks in TICKS]
    axis.set_major_locator(mpl.ticker.FixedLocator(next((ticks for ticks in shown if len(ticks) >= 4), shown[-1])))
    axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(mpl.ticker.NullLocator())


def log_limits(axes: Axes, points: pd.DataFrame) -> None:
    """A log axis around the curves; the bands of seeds that disagree may leave it."""
    axes.set_yscale("log")
    low, high = points["value"].min(), points["value"].max()
    room = max((high / low) ** 0.08, 1.002)
    axes.set_ylim(low / room, high * room**2)
    ratio_ticks(axes.yaxis)


def ends(axes: Axes, points: pd.DataFrame, looks: dict[str, Style]) -> list[End]:
    """Of our curves, for name_ends; those that are published alone get their names where they end."""
    ours = points[points["source"] == OURS]
    last = ours.sort_values("x").groupby("scheme")[["x", "value"]].last()
    for scheme, line in points[~points["scheme"].isin(last.index)].groupby("scheme"):
        x, value = line.sort_values("x").iloc[-1][["x", "value"]]
        axes.annotate(f"{drawn(str(scheme))} (published)", (x, value), xytext=(-3, 5), textcoords="offset points",
                      color=looks[str(scheme)]["color"], fontsize=7, ha="right", parse_math=False)  # fmt: skip
    return [end(axes, drawn(str(scheme)), looks[str(scheme)]["color"], *xy) for scheme, *xy in last.itertuples()]


def end(axes: Axes, name: str, colour: str, x: float, value: float) -> End:
    return End(name, colour, x, value, inside=x < 0.99 * axes.get_xlim()[1])


def key(figure: Figure, published: str | None, band: str | None = None, schemes: Sequence[str] = ()) -> None:
    """Below the panels: which is ours and which is published, and the schemes that have no name beside their curve."""
    grey: dict[str, Any] = {"color": "0.3", "marker": "o"}
    entries: list[tuple[Any, str]] = [(Line2D([], [], **look), drawn(scheme)) for scheme, look in looks_of(schemes).items()]
    if published:
        entries.append((Line2D([], [], **grey), "ours"))
    if band:
        entries.append((Patch(color="0.3", alpha=0.25, linewidth=0), band))
    if published:
        entries.append((Line2D([], [], linestyle=DASHES, markerfacecolor="white", linewidth=0.9, **grey), published))
    handles, names = zip(*entries, strict=True)
    figure.legend(handles, names, loc="outside lower left", ncols=len(entries), fontsize=7, frameon=False,
                  handlelength=2.6, columnspacing=1.4)  # fmt: skip


def band_over(points: pd.DataFrame) -> str:
    """What a band is."""
    n = int(points.loc[points["source"] == OURS, "n_seeds"].max())
    return f"95 % t interval over {n} seeds" if n > 1 else "1 seed: no interval"


def draw_panels(
    points: pd.DataFrame, panels: list[tuple[str, pd.DataFrame]], ylabel: str, published: str | None, xlabel: str
) -> Figure:
    """Curves by length, a panel each of (title, points), on the same log axes; names stand beside the last panel."""
    looks = looks_of(points["scheme"])
    with style():
        figure, (all_axes,) = new_figure(7.2, 3.1, 1, len(panels), sharey=True)
        for axes, (title, shown) in zip(all_axes, panels, strict=True):
            curves(axes, shown, looks)
            multiples_axis(axes, shown["x"].min(), shown["x"].max())
            axes.set_title(title)
            axes.set_xlabel(xlabel)
        log_limits(all_axes[0], points)
        all_axes[0].set_ylabel(ylabel)
        key(figure, published, band_over(points))
        name_ends([(axes, ends(axes, shown, looks)) for axes, (_, shown) in zip(all_axes, panels, strict=True)])
    return figure
