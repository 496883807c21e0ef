"""Panels of curves by length: one look a scheme, bands, names at the ends of lines. Imports no torch."""

from collections.abc import Iterable, Sequence
from itertools import cycle, product
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase
from scipy.optimize import isotonic_regression

from extrap.errors import one_line
from extrap.report.drawing import settle, snapped
from extrap.report.typesetting import name, trained_on
from extrap.stats.perplexity import GROUP

STYLE = Path(__file__).with_name("figures.mplstyle")
Style = dict[str, Any]  # of a line
# A scheme looks the same in every figure. Okabe and Ito's colours (safe for the colour-blind; their yellow darker, or it
# is lost on white): the four that most figures show are well apart in lightness. Markers carry the others in grey.
LOOKS: dict[str, Style] = {
    "alibi": {"color": "#0072B2", "marker": "o"},
    "sinusoidal": {"color": "#E69F00", "marker": "s"},
    "rope": {"color": "#009E73", "marker": "^"},
    "t5": {"color": "#000000", "marker": "v"},
    "nope": {"color": "#D55E00", "marker": "X"},
    "local(rope)": {"color": "#CC79A7", "marker": "P"},
    "learned": {"color": "#56B4E9", "marker": "D"},
    "kerple": {"color": "#B2A400", "marker": "*"},
}
REFERENCE_STYLES = {"floor": "-", "window_floor": "--", "plateau": ":"}
EXTENSION_STYLES = {"window": "--", "tile": ":", "clamp": "-."}
PANEL_TITLES = {
    "nonoverlap": "nonoverlap: all tokens, text in pieces",
    "same_targets": "same_targets: same tokens, growing context",
    "position": "position: one pass, tokens by how much they read",
}
NULL_NOTE = "dotted: what it would be for the same weights if they made no use of context beyond L, the training length"

LONGEST = 80  # characters of a name

Looks = dict[tuple[str, str], Style]  # (scheme, extension) -> of its line
Values = tuple[str, str, str]  # the columns of middle, low and high


def panels_by_protocol(
    points: pd.DataFrame, values: Values, ylabel: str, log: bool, looks: Looks, what: str, column: bool = False
) -> Figure:
    """A panel a protocol on one scale; a column `null`, where points have it, is drawn dotted.

    Side by side, or one above the other, as wide as a column of a paper.
    """
    protocols = list(points["protocol"].unique())
    with mpl.rc_context(fname=STYLE):
        longest = points["scheme"].map(drawn).str.len().max()
        room = 0.06 * max(0, longest - 16)  # inches that long names take
        size = (max((3.5 + room) * len(protocols), 4.6), 3.0)  # no narrower than the title
        size = (COLUMN + room, 2.3 * len(protocols)) if column else size
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        grid = (len(protocols), 1) if column else (1, len(protocols))
        panels = list(figure.subplots(*grid, sharex=column, sharey=True, squeeze=False).flat)
        for axes, protocol in zip(panels, protocols, strict=True):
            chosen = points[points["protocol"] == protocol]
            curves(axes, chosen, values, looks)
            axes_of_lengths(axes, chosen, log)
            axes.set_title(PANEL_TITLES.get(protocol, protocol))
        for axes in panels if column else panels[:1]:
            axes.set_ylabel(ylabel)
        for axes in panels[:-1] if column else ():
            axes.set_xlabel("")
        if log:
            keep_to_curves(panels[0], points[values[0]])
        told = [f"{what}: {setting_title(points)}{seeds_title(points)}"]
        told += [NULL_NOTE] if "null" in points and points["null"].notna().any() else []
        lines = [line for text in told for line in wrap(text, int(figure.get_figwidth() / 0.062))]
        figure.set_figheight(size[1] + 0.15 * (len(lines) - 1))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8, parse_math=False)
        names = {key: drawn(name(*key)) for key in looks}
        labels(panels, [points[points["protocol"] == protocol] for protocol in protocols], values[0], looks, names)
    return figure


COLUMN = 3.3  # inches: a column of a paper that has two, if no name is endless
LEAST_SPAN = 1.2  # of a log axis, top over bottom: a change of a thousandth is no cliff


def drawn(text: str) -> str:
    """A name as a figure can show it: on one line, not endless, and with escapes for what the font does not have."""
    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    line = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in one_line(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def setting_title(points: pd.DataFrame) -> str:
    return f"{trained_on(*points[GROUP].iloc[0], unit=' tokens')}, "


def seeds_title(points: pd.DataFrame) -> str:
    n_seeds = points["n_seeds"].max()
    return f"{n_seeds} seeds; bands are 95 % t intervals" if n_seeds > 1 else "1 seed"


def styles(points: pd.DataFrame) -> Looks:
    """How lines look: a scheme has one colour and marker, extensions differ in their dashes.

    From rows all figures of an experiment take the same.
    """
    looks: Looks = {}
    by_scheme = looks_of(points.loc[points["kind"] == "scheme", "scheme"])
    for kind, scheme, extension in points[["kind", "scheme", "extension"]].drop_duplicates().itertuples(index=False):
        if kind != "scheme":
            looks[scheme, extension] = {"color": "0.45", "linestyle": REFERENCE_STYLES.get(kind, "-."), "linewidth": 1.0}
            continue
        looks[scheme, extension] = by_scheme[scheme]
        if extension != "none":
            changes = {"linestyle": EXTENSION_STYLES.get(extension, ":"), "markerfacecolor": "white"}
            looks[scheme, extension] = by_scheme[scheme] | changes
    return looks


def looks_of(schemes: Iterable[str]) -> dict[str, Style]:
    """Colour, marker and dashes of each: its own where it has one, for others by name what no other one here has taken.

    First what schemes that are not here would have, then dashed, and at last with the markers of one another.
    """
    here = sorted(set(schemes))
    colours, markers = ([look[part] for look in LOOKS.values()] for part in ("color", "marker"))
    n = len(LOOKS)
    every = [
        {"color": colours[i], "marker": markers[(i + turn) % n], "linestyle": dashes}
        for turn, dashes, i in product(range(n), ("-", "--", ":", "-."), range(n))
    ]
    own = dict(zip(LOOKS, every, strict=False))
    free = cycle(look for look in every if look not in [own.get(scheme) for scheme in here])
    return {scheme: own[scheme] if scheme in own else next(free) for scheme in here}


def curves(axes: Axes, points: pd.DataFrame, values: Values, looks: Looks) -> None:
    middle, low, high = values
    for key, line in points.groupby(["scheme", "extension"], sort=False):
        line = line.sort_values("eval_len")
        x = line["eval_len"] / line["train_len"]
        style = looks[key]
        # a scheme that ends is one point among others: hollow and large, it shows around what lies on it
        ends = {"markersize": 8, "markerfacecolor": "none"} if "marker" in style and len(line) == 1 else {}
        axes.plot(x, line[middle], clip_on=False, **style | ends)  # type: ignore[arg-type]
        if "marker" in style and len(line) > 1:
            axes.fill_between(x, line[low], line[high], color=style["color"], alpha=0.2, linewidth=0)
        elif "marker" in style:  # a scheme that ends: its one point needs a bar in place of a band
            error = [line[middle] - line[low], line[high] - line[middle]]
            axes.errorbar(x, line[middle], yerr=np.nan_to_num(error), color=style["color"], capsize=2, linewidth=1)
        if "null" in line and line["null"].notna().any():
            axes.plot(x, line["null"], color=style["color"], linestyle=(0, (1, 1.5)), linewidth=0.9)


def keep_to_curves(axes: Axes, middle: pd.Series) -> None:
    """Bands of seeds that disagree may leave a panel on a log axis, curves may not; it spans no less than LEAST_SPAN."""
    low, high = axes.get_ylim()
    low, high = max(low, middle.min() / 3), min(high, middle.max() * 3)
    room = max(1.0, np.sqrt(LEAST_SPAN * low / high))
    axes.set_ylim(low / room, high * room)


def axes_of_lengths(axes: Axes, points: pd.DataFrame, log: bool, mark: str = "training length") -> None:
    axes.set_xscale("log", base=2)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    multiples = np.array(sorted((points["eval_len"] / points["train_len"]).unique()))
    ticks = multiples[np.log2(multiples) % 1 == 0]  # 1.3 and 1.4 L would write over each other
    axes.set_xticks(ticks, [f"{m:.3g}" if m >= 1 else f"1/{1 / m:.3g}" for m in ticks])
    axes.minorticks_off()
    axes.set_xlim(multiples[0] / 1.2, multiples[-1])  # room on the left: the training length is no axis
    axes.margins(y=0.08)  # room above the curves for the name of the training length
    axes.grid(axis="y")
    axes.axvline(1, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    if mark:
        axes.annotate(mark, (1, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                      fontsize=6.5, color="0.3", va="top")  # fmt: skip
    axes.set_xlabel("evaluation length / training length")


def labels(
    panels: Sequence[Axes], points: Sequence[pd.DataFrame], value: str, looks: Looks, names: dict[tuple[str, str], str]
) -> None:
    """The name of each line at its right end, moved apart where they would overlap: the points of each panel."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    inside = []
    for axes, chosen in zip(panels, points, strict=True):
        longest = chosen["eval_len"].max()
        right, shown = [], []
        for key, line in chosen.groupby(["scheme", "extension"], sort=False):
            last = line.sort_values("eval_len").iloc[-1]
            end = last["eval_len"] / last["train_len"], last[value]
            if last["eval_len"] < longest:  # it ends here, or nothing longer fitted into memory
                inside.append((axes, f"{names[key]} (to {last['eval_len']:,})", end, looks[key]["color"]))
            else:
                right.append(axes.transData.transform(end)[1])
                shown.append((names[key], looks[key]["color"], end[0]))
        gap = 9.0 * figure.dpi / 72
        bottom, top = axes.get_window_extent().y0, axes.get_window_extent().y1
        for (text, color, x), y in zip(shown, spread(list(snapped(right)), gap, bottom, top), strict=True):
            axes.annotate(text, (x, axes.transData.inverted().transform((0, y))[1]), xytext=(6, 0),
                          textcoords="offset points", color=color, fontsize=7, va="center", annotation_clip=False,
                          parse_math=False)  # fmt: skip
    settle(figure)  # names beside the panels have taken room from them
    for label in inside:
        label_inside(*label)


def label_inside(axes: Axes, text: str, end: tuple[float, float], color: str) -> None:
    """The name of a line that ends within a panel, as near to its end as it covers no curve, marker or other name."""
    point = 72 / axes.figure.dpi  # of a pixel
    label = axes.annotate(text, end, xytext=(6, 0), textcoords="offset points", color=color, fontsize=7, va="center",
                          parse_math=False, bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
                          arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0,
                                      "shrinkB": 3, "relpos": (0, 0.5)})  # fmt: skip
    label.update_positions(axes.figure.canvas.get_renderer())  # type: ignore[attr-defined]
    box, panel = (
        _whole(Text.get_window_extent(label).padded(2.5 / point)),
        _whole(axes.get_window_extent()),
    )  # without the line
    drawn_on = snapped(np.concatenate([_pixels(line) for line in axes.get_lines()]))  # of two places the same one everywhere
    names = [_whole(other.get_window_extent()) for other in axes.texts if other is not label]

    def covered(offset: tuple[int, int]) -> float:
        place = _whole(box.translated((offset[0] - 6) / point, offset[1] / point))
        outside = not (panel.x0 <= place.x0 and place.x1 <= panel.x1 and panel.y0 <= place.y0 and place.y1 <= panel.y1)
        hits = ((drawn_on > place.min) & (drawn_on < place.max)).all(axis=1).sum()
        return float(hits + 1000 * (outside + place.count_overlaps(names)))

    offsets = sorted(product((6, 18, 30), range(-120, 121, 3)), key=lambda offset: np.hypot(*offset))
    label.set_position(best := min(offsets, key=covered))
    label.arrow_patch.set_visible(best != offsets[0])  # type: ignore[union-attr]


def _whole(box: BboxBase) -> Bbox:
    return Bbox(snapped(box.get_points()))


def _pixels(line: Line2D) -> np.ndarray:
    """Points on a line, in pixels, not much farther apart than a letter is wide."""
    known = line.get_transform().transform(line.get_xydata())
    at = np.linspace(0, len(known) - 1, 60 * len(known))
    return np.column_stack([np.interp(at, np.arange(len(known)), part) for part in known.T])


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places nearest to the wanted ones, in the same order, within [low, high] and `gap` apart: less if they do not fit."""
    if not wanted:
        return []
    order = np.argsort(wanted, kind="stable")
    steps = min(gap, (high - low) / max(1, len(wanted) - 1)) * np.arange(len(wanted))
    # less their steps, places need only not decrease
    place = np.clip(isotonic_regression(np.asarray(wanted)[order] - steps).x, low, high - steps[-1]) + steps
    result = np.empty_like(place)
    result[order] = place
    return list(result)
