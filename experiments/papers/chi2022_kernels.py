"""Chi et al. 2022 (KERPLE, arXiv:2205.09921), section 5: the kernels that its heads have learned.

Expected: those of the power variant soon take all weight from what is far away, as ALiBi's slopes do; among those of the
logarithm some heads stay so flat that they attend beyond a window.

Plotted: what a head adds to its scores for a key so many tokens back, of the heads of every seed, from the one that is
flattest at the training length to the steepest; at -10 a key keeps less than 1/20,000 of its weight. One kernel a head
serves all layers. The paper has plots without numbers, of its model on GitHub, and none of the variant with three
parameters.

make kernels
"""

from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.papers import CHI2022
from experiments.papers.overlay import OURS
from extrap.errors import UserError
from extrap.report.curves import length_axis
from extrap.report.drawing import new_figure

VARIANTS = {
    "kerple(kernel=power)": "power: r1 t^r2",
    "kerple": "log: r1 log(1 + r2 t)",
    "kerple(kernel=three)": "three: r1 log(1 + r2 t^r3)",
}
NEEDS = ("zoo/kernels.csv",)
HOLDS = {"scheme": tuple(VARIANTS)}
PAPER = CHI2022
LOWEST = -25.0  # of the axis
ABOUT, KERNEL = ["run", "scheme", "data", "train_len", "seed"], ["head", "distance", "bias"]  # bias: added to scores
COLUMNS = [*ABOUT, *KERNEL]


def load_kernels(path: Path) -> pd.DataFrame:
    """kernels.csv, checked for its columns. Raises UserError."""
    table = pd.read_csv(path)
    if list(table.columns) != COLUMNS:
        raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(table.columns)}")
    return table


def figure(kernels: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a variant, a line a head of a seed. `published` is not used: the paper prints no numbers."""
    at_l = kernels[kernels["distance"] == kernels["train_len"]].set_index(["scheme", "seed", "head"])["bias"]
    rank = at_l.groupby(["scheme", "seed"]).rank(ascending=False, method="first").rename("rank").astype(int)
    points = kernels.join(rank, on=["scheme", "seed", "head"]).assign(
        source=OURS, x=kernels["distance"] / kernels["train_len"]
    )
    points = points[["source", "scheme", "train_len", "seed", "head", "rank", "distance", "x", "bias"]]
    drawn, (all_axes,) = new_figure(7.2, 2.8, 1, len(VARIANTS), sharey=True)
    shades, lines = colormaps["cividis"], dict[int, Line2D]()
    for axes, (scheme, title) in zip(all_axes, VARIANTS.items(), strict=True):
        shown = points[(points["scheme"] == scheme) & (points["x"] > 0)]
        for (_, place), line in shown.groupby(["seed", "rank"]):
            colour = shades(0.9 * (place - 1) / max(rank.max() - 1, 1))
            (lines[place],) = axes.plot(line["x"], line["bias"], color=colour, linewidth=1.0)
        length_axis(axes, {*(4.0**k for k in range(-3, 3)), shown["x"].max()}, shown["x"].min())
        axes.set_title(title)
        axes.set_xlabel("distance / training length")
    all_axes[0].set_ylim(LOWEST, 0.5)
    all_axes[0].set_ylabel("added to scores")
    names = {1: "flattest head at L", len(lines): "steepest"}
    entries = {names.get(place, f"{place} of {len(lines)}"): lines[place] for place in sorted(lines)}
    drawn.legend(entries.values(), entries, loc="outside lower left", ncols=len(lines), fontsize=7, frameon=False)
    return drawn, points
