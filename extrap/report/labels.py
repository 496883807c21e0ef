"""Names at the ends of lines, where they cover nothing. Imports no torch."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase
from scipy.optimize import isotonic_regression

from extrap.report.drawing import lay_out, settle, snapped

MOVED = 5.0  # points
LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": (0, 0.5)}


class End(NamedTuple):
    """Of a line: in data coordinates, and whether others go on."""

    name: str
    color: str
    x: float
    y: float
    inside: bool = False


def name_ends(panels: Sequence[tuple[Axes, Sequence[End]]], gap: float = 9.0) -> None:
    """The name of each line at its right end, `gap` points apart, and of one that ends within its panel beside that end.

    A name that stands by more than MOVED from the end of its line has a line to it. Panels then stay in place.
    """
    figure = panels[0][0].get_figure(root=True)
    assert figure is not None
    lay_out(figure)
    for axes, ends in panels:
        right, box = [end for end in ends if not end.inside], axes.get_window_extent()
        heights = snapped([axes.transData.transform((end.x, end.y))[1] for end in right])
        rows = [end.name.count("\n") + 1 for end in right]  # of text, each with a place of its own
        places = spread(list(np.repeat(heights, rows)), gap * figure.dpi / 72, box.y0, box.y1)
        for end, height, own in zip(right, heights, np.split(places, np.cumsum(rows)[:-1]), strict=True) if right else ():
            up = (np.mean(own) - height) * 72 / figure.dpi
            axes.annotate(end.name, (end.x, end.y), xytext=(9, up), textcoords="offset points",
                          color=end.color, fontsize=7, va="center", annotation_clip=False, parse_math=False,
                          arrowprops=LEADER | {"color": end.color} if abs(up) > MOVED else None)  # fmt: skip
    settle(figure)  # names have taken room from the panels
    for axes, ends in panels:
        for end in ends:
            if end.inside:
                label_inside(axes, end)


def label_inside(axes: Axes, end: End) -> None:
    """The name of a line that ends within a panel, as near to its end as it covers no curve, band, bar or other name, and
    the line to it crosses none of these. It may reach beyond the panel on the right alone, where names of lines stand."""
    point = 72 / axes.figure.dpi  # of a pixel
    label = axes.annotate(end.name, (end.x, end.y), xytext=(6, 0), textcoords="offset points", color=end.color, fontsize=7,
                          va="center", parse_math=False,
                          bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
                          arrowprops=LEADER | {"color": end.color})  # fmt: skip
    label.update_positions(axes.figure.canvas.get_renderer())  # type: ignore[attr-defined]
    box = _whole(Text.get_window_extent(label).padded(2.5 / point))  # without the line
    panel = _whole(axes.get_window_extent())
    lines = [line.get_transform().transform(line.get_xydata()) for line in axes.get_lines()]
    lines += [axes.transData.transform(path.vertices) for band in axes.collections for path in band.get_paths()]  # or bar
    drawn_on = snapped(np.concatenate([*map(_pixels, lines)]))  # of two places the same one everywhere
    names = [_whole(other.get_window_extent()) for other in axes.texts if other is not label]
    offsets = np.array(sorted(product((6, 18, 30, 48, 66), range(-120, 121, 3)), key=lambda offset: np.hypot(*offset)))
    low, high = (snapped(corner + (offsets - (6, 0)) / point) for corner in (box.min, box.max))  # of its box, there
    covered = ((drawn_on > low[:, None]) & (drawn_on < high[:, None])).all(axis=2).sum(axis=1)
    start = snapped(axes.transData.transform((end.x, end.y)))
    covered += _crossed(start, offsets / point, drawn_on, 1.5 / point, 6 / point)
    covered += 1000 * ((low < panel.min).any(axis=1) | (high[:, 1] > panel.y1)) + 500 * (high[:, 0] > panel.x1)
    covered += 1000 * sum(((low < name.max) & (high > name.min)).all(axis=1) for name in names)
    way = snapped(start + offsets[:, None] / point * np.linspace(0, 1, 20)[:, None])
    covered += 100 * sum(np.any(((way > name.min) & (way < name.max)).all(axis=2), axis=1) for name in names)
    best = covered.argmin()  # the nearest of those that cover as little
    label.set_position(offsets[best])
    label.arrow_patch.set_visible(best > 0)  # type: ignore[union-attr]


def _whole(box: BboxBase) -> Bbox:
    return Bbox(snapped(box.get_points()))


def _crossed(start: np.ndarray, ways: np.ndarray, drawn_on: np.ndarray, near: float, own: float) -> np.ndarray:
    """How many of these points lie `near` to each of some ways from a start, but for those around it, which are its own."""
    points = drawn_on - start
    points = points[np.hypot(*points.T) > own]
    share = np.clip(ways @ points.T / (ways**2).sum(axis=1, keepdims=True), 0, 1)
    away = snapped(np.hypot(*(points.T[:, None] - ways.T[:, :, None] * share)))
    crossed: np.ndarray = (away < near).sum(axis=1)
    return crossed


def _pixels(known: np.ndarray) -> np.ndarray:
    """Points on a line through known ones, in pixels, not much farther apart than a letter is wide."""
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
