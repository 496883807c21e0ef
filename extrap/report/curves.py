"""Panels of curves by length, with bands over seeds. Imports no torch."""

from collections.abc import Collection, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extrap.errors import one_line
from extrap.report.about import chosen_briefly
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.labels import End, name_ends
from extrap.report.looks import Looks, Style, styles
from extrap.report.typesetting import level, model_size, name, seeds, trained_on
from extrap.results.rows import GROUP
from extrap.results.shown import rounded
from extrap.stats.perplexity import CONDITION, SCHEME, is_control
from extrap.stats.statistics import Statistics

DASHES = (0, (4, 2))
PANEL_TITLES = {
    "nonoverlap": "nonoverlap: all tokens, text in pieces",
    "same_targets": "same_targets: same tokens, growing context",
    "position": "position: one pass, by how many tokens are read",
}
NULL_NOTE = "dotted: the same weights, if they made no use of context beyond L, the training length"

POINT = [*CONDITION, *SCHEME, "eval_len", "n_seeds"]
MOST_TICKS = 6  # of lengths that are no powers of two
COLUMNS = 4  # of controls, at most
PANEL = (1.9, 1.6)  # inches, of controls
Values = tuple[str, str, str]  # the columns of middle, low and high


def panels_by_protocol(
    found: Statistics, points: pd.DataFrame, values: Values, ylabel: str, log: bool, column: bool = False
) -> Figure:
    """A panel a protocol on one scale; a column `null`, where points have it, is drawn dotted.

    Side by side, or one above the other, as wide as a column of a paper.
    """
    looks = styles(found.rows)
    protocols, parts = zip(*points.groupby("protocol", sort=False), strict=True)
    room = 0.06 * max(0, points["scheme"].map(drawn).str.len().max() - 16)  # inches that long names take
    width, height = (COLUMN_WIDTH + room, 2.3 * len(parts)) if column else (max((3.5 + room) * len(parts), 4.6), 3.0)
    grid = (len(parts), 1) if column else (1, len(parts))
    with style():
        figure, axes_of = new_figure(width, height, *grid, sharex=column, sharey=True)
        panels = list(axes_of.flat)
        for axes, protocol, part in zip(panels, protocols, parts, strict=True):
            curves(axes, part, values, looks)
            axes_of_lengths(axes, points if column else part, log)  # of all panels where they share it
            axes.set_title(panel_title(protocol, causal=part["objective"].iloc[0] == "causal"))
            axes.set_ylabel(ylabel)
            axes.label_outer()
        if log:
            keep_to_curves(panels[0], points[values[0]])
        told = [NULL_NOTE] if "null" in points and points["null"].notna().any() else []
        n_lines = entitle(figure, title_of(found, told_of_seeds(points)), *told)
        figure.set_figheight(height + 0.15 * (n_lines - 1))
        names = {key: drawn(name(*key)) for key in looks}
        name_ends([(axes, ends(part, values[0], looks, names)) for axes, part in zip(panels, parts, strict=True)])
    return figure


def controls_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Each scheme beside its extensions, on the same weights, a panel a scheme with a scale of its own; bands are 95 % t
    intervals over seeds.

    Under same_targets, where a change is the value of context alone, or what there is in its place.
    """
    lines = found.summary[is_control(found.summary) | (found.summary["extension"] == "none")]
    controls = lines[lines["extension"] != "none"]
    protocol = "same_targets" if "same_targets" in {*controls["protocol"]} else controls["protocol"].iloc[0]
    schemes = list(controls.loc[controls["protocol"] == protocol, "scheme"].unique())
    shown = lines[(lines["protocol"] == protocol) & lines["scheme"].isin(schemes)]
    points = rounded(shown[[*POINT, "ppl", "ppl_low", "ppl_high"]])
    looks = styles(found.rows)
    names = {key: "as trained" if key[1] == "none" else key[1] for key in looks}
    n_rows = -(-len(schemes) // COLUMNS)
    columns = -(-len(schemes) // n_rows)  # five are three and two
    with style():
        size = max(PANEL[0] * columns, 4.6), PANEL[1] * n_rows + 0.4
        figure, grid = new_figure(*size, n_rows, columns, sharex=True)
        panels, by_panel = grid.ravel(), [points[points["scheme"] == scheme] for scheme in schemes]
        for i, (axes, scheme, lines) in enumerate(zip(panels, schemes, by_panel, strict=False)):
            axes.tick_params(labelbottom=i + columns >= len(schemes))  # nothing below it
            curves(axes, lines, ("ppl", "ppl_low", "ppl_high"), looks)
            axes_of_lengths(axes, points, log=True, mark="" if i else "training length")  # small panels, all alike
            keep_to_curves(axes, lines["ppl"])
            axes.set_xlabel("")
            axes.set_title(drawn(scheme), color=looks[scheme, "none"]["color"], parse_math=False)
        for axes in panels[len(schemes) :]:
            axes.set_visible(False)
        figure.supxlabel("evaluation length / training length", fontsize=8)
        figure.supylabel(f"{level(points['objective'].unique())}, {protocol}", fontsize=8)
        entitle(figure, title_of(found, told_of_seeds(points)))
        name_ends([(axes, ends(lines, "ppl", looks, names)) for axes, lines in zip(panels, by_panel, strict=False)])
    return figure, points


def panel_title(protocol: str, causal: bool) -> str:
    if protocol == "position" and not causal:
        return "position: one pass, tokens by distance to the nearer end"  # each reads the whole text
    return PANEL_TITLES.get(protocol, protocol)


LONGEST = 80  # characters of a name
COLUMN_WIDTH = 3.3  # inches: a column of a paper that has two, if no name is endless
LEAST_SPAN = 1.2  # of a log axis, top over bottom: a change of a thousandth is no cliff


def drawn(text: str) -> str:
    """A name as a figure can show it: on one line, not endless, and with escapes for what the font does not have."""
    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    line = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in one_line(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def title_of(found: Statistics, told: str) -> str:
    """Names of experiments say what the columns of rows do not, as that weights are tied; and how large their models are."""
    names, size = drawn("+".join(sorted(found.rows["experiment"].unique()))), model_size(found.sizes)
    size = f" ({size})" if size else ""
    return f"{names}{size}: {trained_on(*found.rows[GROUP].iloc[0])}{chosen_briefly(found.choice)}, {told}"


def told_of_seeds(points: pd.DataFrame) -> str:
    n_seeds = points.loc[points["kind"] == "scheme", "n_seeds"] if "kind" in points else points["n_seeds"]
    return seeds(n_seeds) + ("; bands are 95 % t intervals" if n_seeds.max() > 1 else "")


def where_lengths_vary(lines: pd.DataFrame) -> pd.DataFrame:
    """Without protocols of a single length beside others that have more."""
    n_lengths = lines.groupby(CONDITION)["eval_len"].transform("nunique")
    return lines[n_lengths > 1] if (n_lengths > 1).any() else lines


def curves(axes: Axes, points: pd.DataFrame, values: Values, looks: Looks) -> None:
    middle, low, high = values
    for key, line in points.groupby(["scheme", "extension"], sort=False):
        line = line.sort_values("eval_len")
        x = line["eval_len"] / line["train_len"]
        look = looks[key]
        if "marker" not in look:  # a reference, which has no seeds
            axes.plot(x, line[middle], clip_on=False, **look)
            continue
        # a scheme that ends is one point among others: hollow and large, it shows around what lies on it
        single = {"markersize": 8, "markerfacecolor": "none"} if len(line) == 1 else {}
        band(axes, x, line[middle], line[low], line[high], look | single | {"clip_on": False})
        if "null" in line and line["null"].notna().any():
            axes.plot(x, line["null"], color=look["color"], linestyle=(0, (1, 1.5)), linewidth=0.9)


def band(axes: Axes, x: pd.Series, middle: pd.Series, low: pd.Series, high: pd.Series, look: Style) -> None:
    """A line and its interval; a single point has a bar in place of a band."""
    axes.plot(x, middle, **look)
    if len(x) > 1:
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
    else:
        error = np.nan_to_num([middle - low, high - middle])
        axes.errorbar(x, middle, yerr=error, color=look["color"], capsize=2, linewidth=1)


def mark_cut(axes: Axes, low: float, high: float, at: float, color: str) -> None:
    """Arrowheads where a bar across, at this height, leaves the panel."""
    left, right = axes.get_xlim()
    for edge, is_cut, arrow in ((left, low < left, "<"), (right, high > right, ">")):
        if is_cut:
            axes.plot(edge, at, arrow, color=color, markersize=4, clip_on=False, zorder=3)


def keep_to_curves(axes: Axes, middle: pd.Series, which: str = "y") -> None:
    """Bands of seeds that disagree may leave a panel on a log axis, curves may not; it spans no less than LEAST_SPAN."""
    low, high = getattr(axes, f"get_{which}lim")()
    low, high = max(low, middle.min() / 3), min(high, middle.max() * 3)
    room = max(1.0, np.sqrt(LEAST_SPAN * low / high))
    axes.set(**{f"{which}lim": (low / room, high * room)})


def axes_of_lengths(axes: Axes, points: pd.DataFrame, log: bool, mark: str = "training length") -> None:
    if log:
        log_axis(axes)
    multiples = sorted((points["eval_len"] / points["train_len"]).unique())
    axes.margins(y=0.08)  # room above the curves for the name of the training length
    length_axis(axes, multiples, multiples[0] / 1.2, mark)  # room on the left: the training length is no axis
    axes.set_xlabel("evaluation length / training length")


class RoundNumbers(mpl.ticker.Locator):
    """The coarsest round numbers of which an axis on a log scale shows four, at even steps where it spans little."""

    def __call__(self) -> Sequence[float]:
        return self.tick_values(*sorted(self.axis.get_view_interval()))  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        decades = 10.0 ** np.arange(np.floor(np.log10(vmin)), np.log10(vmax) + 1)
        for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            ticks = np.outer(decades, digits).ravel()
            if len(shown := ticks[(ticks >= vmin) & (ticks <= vmax)]) >= 4:
                return list(shown)
        return mpl.ticker.MaxNLocator(6, steps=(1, 2, 5, 10), min_n_ticks=4).tick_values(vmin, vmax)


def log_axis(axes: Axes, which: str = "y") -> None:
    """With ticks at round numbers."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(RoundNumbers())
    axis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
    axis.set_minor_locator(mpl.ticker.NullLocator())


def length_axis(axes: Axes, multiples: Collection[float], left: float, mark: str = "training length") -> None:
    """Length over training length, from `left` to the longest, with a tick at each power of two; 1 is marked.

    Where these are fewer than two, at 1, the longest, and what else stands apart from both and from each other.
    """
    axes.set_xscale("log", base=2)
    ticks = [m for m in sorted(multiples) if np.log2(m) % 1 == 0]  # 1.3 and 1.4 L would write over each other
    if len(ticks) < 2:
        first, apart, ticks = (1, max(multiples)), np.log2(max(multiples) / left) / MOST_TICKS, []
        for m in sorted(multiples, key=lambda m: (m not in first, m)):
            ticks += [m] if all(abs(np.log2(m / other)) >= apart for other in ticks) else []
    axes.set_xticks(ticks, [f"1/{1 / m:g}" if m < 1 and 1 / m % 1 == 0 else f"{round(m, 2):g}" for m in ticks])
    axes.minorticks_off()
    axes.set_xlim(left, max(multiples))
    axes.grid(axis="y")
    axes.axvline(1, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
    if mark:
        axes.annotate(mark, (1, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                      fontsize=6.5, color="0.3", va="top")  # fmt: skip


def ends(
    points: pd.DataFrame, value: str, looks: Looks, names: dict[tuple[str, str], str], longest: int | None = None
) -> list[End]:
    """Of the lines of a panel; `longest` is the longest eval_len of all panels, where these have one axis."""
    found, longest = [], longest or points["eval_len"].max()
    for key, line in points.groupby(["scheme", "extension"], sort=False):
        last = line.loc[line["eval_len"].idxmax()]
        early = last["eval_len"] < longest  # it ends here, or nothing longer fitted into memory
        told = names[key] + (f" (to {last['eval_len']:,})" if early else "")
        found.append(End(told, looks[key]["color"], last["eval_len"] / last["train_len"], last[value], early))
    return found
