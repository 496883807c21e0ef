"""Looks of lines for a page: colours that can be read on white and on black, markers as paths. Imports no torch."""

from collections.abc import Set
from colorsys import hls_to_rgb, rgb_to_hls

from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Line

LIGHT, DARK = "#ffffff", "#16191d"  # what is drawn on; the same in page.css
LINE, WORD = 3.0, 5.0  # contrast of lines and of words: WCAG 2.2 asks for 3 and 4.5, and rows are shaded
COMMANDS = {Line.MOVETO: "M", Line.LINETO: "L", Line.CURVE3: "Q", Line.CURVE4: "C"}
STEP = 0.01  # of lightness


def luminance(color: str) -> float:
    """Relative luminance of sRGB, from 0 to 1 (WCAG 2.2)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def readable(color: str, on: str, least: float) -> str:
    """The colour, or the nearest of its hue that is so far from what it stands on."""
    hue, lightness, saturation = rgb_to_hls(*to_rgb(color))
    step = STEP if luminance(on) < 0.5 else -STEP
    while contrast(found := to_hex(hls_to_rgb(hue, min(max(lightness, 0.0), 1.0), saturation)), on) < least:
        lightness += step
    return found


def key(color: str) -> str:
    """What a colour is called in the style sheet."""
    return to_hex(color)[1:]


def style_sheet(colors: Set[str]) -> str:
    """For each colour that of lines (--l-...) as figures have it, and that of words (--t-...), for light and for dark."""
    light = "".join(f"--l-{name}:#{name};--t-{name}:{readable('#' + name, LIGHT, WORD)};" for name in sorted(colors))
    dark = "".join(
        f"--l-{name}:{readable('#' + name, DARK, LINE)};--t-{name}:{readable('#' + name, DARK, WORD)};"
        for name in sorted(colors)
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def marker_path(marker: str) -> str:
    """A marker of matplotlib as a path of SVG, about one unit high, y downwards."""
    shape = MarkerStyle(marker)
    path, place, parts = shape.get_path(), shape.get_transform(), []
    for points, code in path.iter_segments(place, simplify=False, curves=True):
        if code == Line.CLOSEPOLY:
            parts.append("Z")
        else:
            parts.append(COMMANDS[code] + ",".join(f"{x:.3g}" for x in points * ([1, -1] * (len(points) // 2))))
    return "".join(parts)
