"""A figure as bytes of PNG, PDF and SVG, the same on every processor. Imports no torch.

Processors differ in the last bit of a logarithm or a product of matrices, and 70.8399275 is then written in two ways. So
the layout is made once, for all formats, and every coordinate is rounded before it reaches a page: 0.001 of a point or
pixel, far below what is seen and far above such noise.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.path import Path as Line
from matplotlib.transforms import Bbox, IdentityTransform, Transform

from extrap.files import write_atomic
from extrap.results.shown import save_table

STYLE = Path(__file__).with_name("figures.mplstyle")
PNG_DPI = 200
PALETTE, FREQUENT = 128, 64  # colours of a PNG, and how many of them are those of the most pixels
WHERE = IdentityTransform()


def snapped(values: Any, decimals: int = 3) -> np.ndarray:
    """Rounded twice: what lies half way, as 0.0625, then does so exactly, and goes the same way everywhere."""
    return np.round(np.round(np.asarray(values, dtype=float), decimals + 3), decimals)


def style() -> AbstractContextManager[None]:
    """Within it figures are made and drawn on."""
    return mpl.rc_context(fname=STYLE)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches and its panels (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def entitle(figure: Figure, *told: str) -> int:
    """A title as wide as the figure; of so many lines."""
    lines = [line for text in told for line in lines_of(text, int(figure.get_figwidth() / 0.062))]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8, parse_math=False)
    return len(lines)


def lines_of(text: str, width: int) -> list[str]:
    """No number apart from what it is of, and no last line much shorter than the others."""
    whole = re.sub(r"(?<=[0-9%]) |(?<=length) (?=[0-9])|(?<=\bt) ", "\N{NO-BREAK SPACE}", text)
    lines = wrap(whole, width)
    if len(lines) > 1 and 3 * len(lines[-1]) < width:
        lines = next(even for least in range(1, width + 1) if len(even := wrap(whole, least)) == len(lines))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def lay_out(figure: Figure) -> None:
    """Gives the panels their places; what is drawn later may yet take room from them."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)


def settle(figure: Figure) -> None:
    """Makes the layout for the last time: from here on panels stay where they are."""
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        return  # as they do already
    lay_out(figure)
    figure.set_layout_engine(None)
    for axes in figure.axes:
        axes.set_position(Bbox(snapped(axes.get_position().get_points(), 5)))


class _Snapped:
    """A renderer that rounds what it is told to draw."""

    draw_path_collection = RendererBase.draw_path_collection  # by way of draw_path

    def __init__(self, renderer: RendererBase) -> None:
        self.renderer = renderer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renderer, name)

    def draw_path(self, gc: GraphicsContextBase, path: Line, transform: Transform, rgbFace: Any = None) -> None:
        self.renderer.draw_path(_clipped(gc), _path(path, transform), WHERE, rgbFace)

    def draw_markers(
        self, gc: GraphicsContextBase, marker_path: Line, marker_trans: Transform, path: Line, trans: Transform,
        rgbFace: Any = None,
    ) -> None:  # fmt: skip
        marker, places = _path(marker_path, marker_trans), _path(path, trans)
        self.renderer.draw_markers(_clipped(gc), marker, WHERE, places, WHERE, rgbFace)

    def draw_text(self, gc: GraphicsContextBase, x: float, y: float, s: str, *text: Any, **how: Any) -> None:
        self.renderer.draw_text(_clipped(gc), float(snapped(x)), float(snapped(y)), s, *text, **how)


def _path(path: Line, transform: Transform) -> Line:
    moved = transform.transform_path(path)
    return Line(snapped(moved.vertices), moved.codes)


def _clipped(gc: GraphicsContextBase) -> GraphicsContextBase:
    if (box := gc.get_clip_rectangle()) is not None:
        gc.set_clip_rectangle(Bbox(snapped(box.get_points())))
    return gc


class _Agg(RendererAgg):
    def _update_methods(self) -> None:
        """Its compiled ways to draw many markers at once would round them to whole pixels."""


def _png(figure: Figure) -> bytes:
    figure.dpi = PNG_DPI
    width, height = map(int, figure.bbox.size)
    renderer = _Agg(width, height, PNG_DPI)  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    colours, pixels = few_colours(np.asarray(renderer.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line as it is: filter 0
    dots = round(PNG_DPI / 0.0254)  # per metre
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"pHYs": struct.pack(">IIB", dots, dots, 1),
        b"PLTE": colours.tobytes(),
        b"IDAT": zlib.compress(lines.tobytes(), 9),  # by Python's zlib: what Pillow's writes hangs on the processor
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def few_colours(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) -> a palette (C, 3) and which of it is nearest to each pixel (H, W), both uint8; half the bytes of a PNG.

    The palette has the most frequent colours and, one after the other, whichever is farthest from all in it so far, so that
    lines and areas keep theirs and no shade at an edge is far off.
    """
    codes, of, counts = np.unique(pixels @ np.array([2**16, 2**8, 1]), return_inverse=True, return_counts=True)
    colours = np.stack([codes // 2**16, codes // 2**8 % 2**8, codes % 2**8], axis=1)
    frequent = np.argsort(-counts, kind="stable")
    palette: list[int] = []
    nearest, distance = np.zeros(len(codes), dtype=np.uint8), np.full(len(codes), np.iinfo(np.int64).max)
    while len(palette) < PALETTE and distance.any():
        added = int(frequent[len(palette)] if len(palette) < FREQUENT else distance.argmax())
        away = ((colours - colours[added]) ** 2).sum(axis=1)
        nearest[away < distance] = len(palette)
        distance = np.minimum(away, distance)
        palette.append(added)
    return colours[palette].astype(np.uint8), nearest[of].reshape(pixels.shape[:2])


def _vectors(figure: Figure, suffix: str, undated: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, metadata=undated)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Figure], bytes]] = {
    "png": _png,
    "pdf": partial(_vectors, suffix="pdf", undated=dict.fromkeys(("CreationDate", "Producer", "Creator"))),
    "svg": partial(_vectors, suffix="svg", undated={"Date": None}),
}


def save_figure(figure: Figure, points: pd.DataFrame, path: Path) -> list[Path]:
    """The figure in three formats and its points, the same bytes for the same rows on every processor."""
    written = save_drawing(figure, path)
    save_table(path.with_suffix(".csv"), points)
    return [*written, path.with_suffix(".csv")]


def save_drawing(figure: Figure, path: Path) -> list[Path]:
    written = [path.with_suffix(f".{suffix}") for suffix in FORMATS]
    with style():
        settle(figure)
        figure.draw = lambda renderer: Figure.draw(figure, _Snapped(renderer))  # type: ignore[arg-type, method-assign]
        for file, draw_as in zip(written, FORMATS.values(), strict=True):
            write_atomic(file, draw_as(figure))
    return written
