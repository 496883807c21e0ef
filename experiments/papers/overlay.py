"""Published numbers and ours on the same axes. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from extrap.report.curves import DASHES, band, drawn, length_axis, log_axis
from extrap.report.drawing import new_figure
from extrap.report.families import OTHERS, family_of
from extrap.report.labels import End, name_ends
from extrap.report.looks import Style, looks_of
from extrap.report.typesetting import seeds
from extrap.results.shown import rounded
from extrap.stats.perplexity import Interval, over_seeds, perplexity, refuse_other_targets

OURS = "ours"
MOST_IN_LINE = 7  # entries of a key
MOST_BAND = 3.0  # by how much a band on a log axis may be above or below all curves and be seen whole
MEASURED = ["protocol", "scheme", "extension", "train_len", "eval_len"]
# what a curve shows: `value` at `x`, between `low` and `high`; `source` is OURS or a paper with its table
CURVE = ["source", *MEASURED, "n_seeds", "x", "value", "low", "high"]


def with_own(schemes: Sequence[str], rows: pd.DataFrame) -> tuple[str, ...]:
    """These schemes, and those of the rows that are none of the project's."""
    own = {scheme for scheme in trained(rows)["scheme"] if family_of(scheme) == OTHERS}
    return (*schemes, *sorted(own - {*schemes}))


def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of schemes; of training.csv all are."""
    return rows[rows["kind"] == "scheme"] if "kind" in rows else rows


def ours(rows: pd.DataFrame, protocol: str, schemes: Sequence[str], *extensions: str) -> pd.DataFrame:
    """Our log-perplexities, a line a (objective, MEASURED, seed). Raises UserError if not all scored the same tokens."""
    rows = rows[(rows["protocol"] == protocol) & rows["scheme"].isin(schemes)]
    rows = rows[rows["extension"].isin(extensions or ["none"])]
    refuse_other_targets(rows)
    return perplexity(rows, ["objective", *MEASURED, "seed"]).assign(source=OURS)


def theirs(published: pd.DataFrame, source: str, *tables: str) -> pd.DataFrame:
    """The log-perplexities of these tables of a paper, likewise; of one seed."""
    chosen = published[(published["source"] == source) & published["table"].isin(tables) & (published["metric"] == "ppl")]
    chosen = chosen.assign(source=chosen["source"] + ", table " + chosen["table"], seed=0, log_ppl=np.log(chosen["value"]))
    return chosen.astype({"train_len": int, "eval_len": int})[["source", "objective", *MEASURED, "seed", "log_ppl"]]


def over(lines: pd.DataFrame, base: pd.DataFrame, *alike: str) -> pd.DataFrame:
    """Log-perplexities less those of a base that is alike in these columns and in seed; what has no base is left out."""
    on = ["source", *alike, "seed"]
    lines = lines.join(base.set_index(on)["log_ppl"].rename("base"), on=on, how="inner")
    return lines.assign(log_ppl=lines["log_ppl"] - lines["base"])


def over_start(lines: pd.DataFrame) -> pd.DataFrame:
    """Curves: perplexity over that at the training length by length over training length."""
    found = over(lines, lines[lines["eval_len"] == lines["train_len"]], "protocol", "scheme", "train_len")
    found = found[found["eval_len"] >= found["train_len"]].assign(x=found["eval_len"] / found["train_len"])
    return averaged(found, ["source", *MEASURED, "x"])[CURVE]


def averaged(lines: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """exp of the mean over seeds of log_ppl, and of its t interval."""
    return by_group(over_seeds(lines.groupby(by, sort=False)["log_ppl"]).exp())


def by_group(over: Interval) -> pd.DataFrame:
    """Intervals by group as lines of a curve; groups are of the columns that it has beside them."""
    return rounded(pd.DataFrame({"value": over.mean, "low": over.low, "high": over.high, "n_seeds": over.n}).reset_index())


def beside(points: pd.DataFrame, length: str = "train_len") -> list[tuple[int, int, pd.DataFrame]]:
    """(our length, theirs, points of both): the shortest with the shortest."""
    mine = points["source"] == OURS
    lengths = (sorted(points.loc[part, length].unique()) for part in (mine, ~mine))
    return [(one, other, points[points[length] == np.where(mine, one, other)]) for one, other in zip(*lengths, strict=False)]


def curves(axes: Axes, points: pd.DataFrame, looks: dict[str, Style], **changes: Any) -> None:
    """Ours solid and filled, with a band or bars; published dashed and hollow. `changes` are to the look of all."""
    for (source, scheme), line in points.groupby(["source", "scheme"], sort=False):
        line = line.sort_values("x")
        look = looks[str(scheme)] | changes
        if source == OURS:
            band(axes, line["x"], line["value"], line["low"], line["high"], look | {"clip_on": False, "zorder": 3})
        else:  # of many markers only those that can be told apart
            hollow = {"markerfacecolor": "white", "linewidth": 0.9, "markeredgewidth": 0.8, "clip_on": False}
            hollow |= {"markevery": 0.12} if len(line) > 12 else {}
            axes.plot(line["x"], line["value"], zorder=2, **look | {"linestyle": DASHES} | hollow)


def multiples_axis(axes: Axes, lowest: float, longest: float) -> None:
    """Length over training length, with a tick at each power of two."""
    doublings = range(int(np.ceil(np.log2(lowest))), int(np.floor(np.log2(longest))) + 1)
    length_axis(axes, {*(2.0**k for k in doublings), longest}, lowest / 1.15)


def log_limits(axes: Axes, points: pd.DataFrame) -> None:
    """A log axis around curves and bands; the bands of seeds that disagree by more than MOST_BAND may leave it."""
    log_axis(axes)
    low, high = points["value"].min(), points["value"].max()
    low, high = min(low, max(points["low"].min(), low / MOST_BAND)), max(high, min(points["high"].max(), high * MOST_BAND))
    room = max((high / low) ** 0.08, 1.002)
    axes.set_ylim(low / room, high * room**2)


def linear_limits(axes: Axes, *values: pd.Series, above: float) -> None:
    """An axis around the curves and what else is given, with room below and, in parts of what they span, above them."""
    low, high = min(one.min() for one in values), max(one.max() for one in values)
    axes.set_ylim(low - 0.05 * (high - low), high + above * (high - low))


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


def key(figure: Figure, points: pd.DataFrame, schemes: Sequence[str] = (), published: str = "published, 1 run") -> None:
    """Below the panels: which is ours and which is published, and the schemes that have no name beside their curve."""
    grey: dict[str, Any] = {"color": "0.3", "marker": "o"}
    entries: list[tuple[Any, str]] = [(Line2D([], [], **look), drawn(scheme)) for scheme, look in looks_of(schemes).items()]
    mine = points["source"] == OURS
    if not mine.all():
        entries.append((Line2D([], [], **grey), "ours"))
    if "n_seeds" in points:
        counts = points.loc[mine, "n_seeds"].astype(int)
        told = f"95 % t interval over {seeds(counts)}" if counts.max() > 1 else "1 seed: no interval"
        entries.append((Patch(color="0.3", alpha=0.25, linewidth=0), told))
    if not mine.all():
        entries.append((Line2D([], [], linestyle=DASHES, markerfacecolor="white", linewidth=0.9, **grey), published))
    handles, names = zip(*entries, strict=True)
    n_columns = len(entries) if len(entries) <= MOST_IN_LINE else -(-len(entries) // 2)
    figure.legend(handles, names, loc="outside lower left", ncols=n_columns, fontsize=7, frameon=False,
                  handlelength=2.6, columnspacing=1.4)  # fmt: skip


def draw_panels(
    points: pd.DataFrame,
    panels: Sequence[tuple[str, pd.DataFrame]],
    xlabel: str,
    *ylabels: str,
    schemes: Sequence[str] = (),
    looks: dict[str, Style] | None = None,
) -> Figure:
    """Curves by length, a panel each of (title, points); names beside their ends, or of `schemes` below.

    On one log axis, or where each panel has a label of its own, on a linear one of its own. `looks` are those of the schemes
    unless others are given.
    """
    looks, shared = looks or looks_of(points["scheme"]), len(ylabels) == 1
    figure, (all_axes,) = new_figure(7.2, 3.1, 1, len(panels), sharey=shared)
    for axes, (title, shown) in zip(all_axes, panels, strict=True):
        curves(axes, shown, looks)
        multiples_axis(axes, shown["x"].min(), shown["x"].max())
        axes.set_title(title)
        axes.set_xlabel(xlabel)
    for axes, ylabel, (_, shown) in zip(all_axes, ylabels, panels, strict=False):
        axes.set_ylabel(ylabel)
        if shared:
            log_limits(axes, points)
        else:
            linear_limits(axes, shown["value"], shown["low"], shown["high"], above=0.12)
    key(figure, points, schemes)
    if not schemes:
        name_ends([(axes, ends(axes, shown, looks)) for axes, (_, shown) in zip(all_axes, panels, strict=True)])
    return figure
