"""How lines look: the colour tells the family of a scheme, the marker its member, dashes an extension. Imports no torch."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any
from zlib import crc32

import pandas as pd

Style = dict[str, Any]  # of a line
Looks = dict[tuple[str, str], Style]  # (scheme, extension) -> of its line

# Okabe and Ito's colours (safe for the colour-blind; their yellow darker, or it is lost on white): the four that most
# figures show are well apart in lightness. Markers carry the others in grey.
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
# of schemes that have no look of their own: markers, and of other families Tol's muted colours, none near to those above
OTHER_COLOURS = ["#332288", "#882255", "#117733", "#661100", "#AA4499", "#CC6677", "#6699CC"]
OTHER_MARKERS = ["<", ">", "p", "d", "h"]
# of references, all grey; dotted is the null
REFERENCE_STYLES: dict[str, Any] = {
    "floor": "-", "window_floor": "--", "plateau": (0, (5, 1, 1, 1, 1, 1)), "rate": (0, (7, 2)), "byte": (0, (2, 1.5)),
    "neighbours": (0, (6, 1.5, 1, 1.5, 1, 1.5)),
}  # fmt: skip
EXTENSION_STYLES = {"window": "--", "tile": ":", "clamp": "-."}


def family(scheme: str) -> str:
    return scheme.partition("(")[0]


def looks_of(schemes: Iterable[str]) -> dict[str, Style]:
    """Colour, marker and dashes of each, no two the same while there are looks left.

    A look follows from the label alone, so that a scheme has the same in every figure, whoever stands beside it; only where
    two labels come to the same one does the later in the alphabet get another.
    """
    looks: dict[str, Style] = {}
    for scheme in sorted(set(schemes)):
        wishes = list(_wishes(scheme))
        looks[scheme] = next((look for look in wishes if look not in looks.values()), wishes[0])
    return looks


def _wishes(scheme: str) -> Iterator[Style]:
    """Its own look; else the colour of its family, or one by the name of that, and a marker by its name: the best first."""
    if scheme in LOOKS:
        yield LOOKS[scheme] | {"linestyle": "-"}
        return
    relatives = [look for label, look in LOOKS.items() if family(label) == family(scheme)]
    colours = [look["color"] for look in relatives] or _from(OTHER_COLOURS, family(scheme))
    more = [look["marker"] for look in LOOKS.values() if look not in relatives]
    markers = [*_from(OTHER_MARKERS, scheme), *more]
    for dashes, colour, marker in product(("-", "--", ":", "-."), colours, markers):
        yield {"color": colour, "marker": marker, "linestyle": dashes}


def _from(circle: list[str], name: str) -> list[str]:
    start = crc32(name.encode()) % len(circle)
    return circle[start:] + circle[:start]


def styles(points: pd.DataFrame) -> Looks:
    """Of the lines of rows: a scheme has one colour and marker, extensions differ in their dashes, references are grey."""
    looks: Looks = {}
    by_scheme = looks_of(points.loc[points["kind"] == "scheme", "scheme"])
    for kind, scheme, extension in points[["kind", "scheme", "extension"]].drop_duplicates().itertuples(index=False):
        if kind != "scheme":
            looks[scheme, extension] = {"color": "0.45", "linestyle": REFERENCE_STYLES.get(kind, "-."), "linewidth": 1.0}
            continue
        changes = {"linestyle": EXTENSION_STYLES.get(extension, ":"), "markerfacecolor": "white"}
        looks[scheme, extension] = by_scheme[scheme] | (changes if extension != "none" else {})
    return looks
