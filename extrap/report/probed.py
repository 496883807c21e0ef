"""Figures of what probes found. Imports no torch."""

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extrap.report.curves import COLUMN_WIDTH, DASHES, band, drawn
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.group import shortened
from extrap.report.labels import End, name_ends
from extrap.report.looks import Style, looks_of
from extrap.report.typesetting import trained_on
from extrap.results.probes import highest_in
from extrap.results.rows import GROUP
from extrap.results.shown import IN_NATS
from extrap.stats.probes import OTHER, RISE, reach_of

MOST_COLUMNS = 6  # of panels
MOST_LINES = 12  # in a panel
TITLE = 19  # columns of a panel of heads: longer names of schemes are cut in their middle
LEFT, RIGHT = -0.16, 0.16  # of a layer, where its heads stand at the one and at the other length


def reach_figure(risen: pd.DataFrame) -> Figure:
    """The rise of the loss by the distance beyond which text is another document's; bands are 95 % t intervals.

    Of more schemes than a panel can tell apart their brackets, see brackets_figure.
    """
    looks = looks_of(risen["scheme"].unique())
    if len(looks) > MOST_LINES:
        return brackets_figure(risen, looks)
    lines = risen[risen["probe"] == OTHER]
    with style():
        figure, ((axes,),) = new_figure(COLUMN_WIDTH + 0.4, 2.7)
        ends = [(axes, _lines(axes, lines, "distance", looks))]
        if risen["objective"].iloc[0] not in IN_NATS:
            axes.axhline(RISE, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
            axes.annotate("5 % of perplexity", (0, RISE), xycoords=("axes fraction", "data"), xytext=(3, 2),
                          textcoords="offset points", fontsize=6.5, color="0.3")  # fmt: skip
        axes.set_xscale("log", base=2)
        ticks = sorted(lines["distance"].unique())
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set_xlabel("distance beyond which text is another document's / tokens")
        axes.grid(axis="y")
        axes.set_ylabel("rise of the loss / nats per token")
        _small_and_large(axes)
        _entitle(figure, risen, f"how far models read in windows of {risen['eval_len'].max():,}")
        name_ends(ends)
    return figure


def brackets_figure(risen: pd.DataFrame, looks: dict[str, Style]) -> Figure:
    """Between which distances the rise falls below RISE, a line a scheme, those that read least first.

    Open to the right: where from on is not decided.
    """
    other = risen[risen["probe"] == OTHER]
    found = {str(scheme): reach_of(lines) for scheme, lines in other.groupby("scheme", sort=False)}
    open_end = 2 * other["distance"].max()
    order = sorted(found, key=lambda scheme: (found[scheme].within or open_end, found[scheme].above, scheme))
    with style():
        figure, ((axes,),) = new_figure(2 + 0.05 * max(map(len, order)), 0.125 * len(order) + 0.9)
        for at, scheme in enumerate(order):
            above, within = max(found[scheme].above, 0.5), found[scheme].within
            color = looks[scheme]["color"]
            axes.plot([above, within or open_end], [at, at], color=color, linewidth=2.5, solid_capstyle="butt")
            if within is None:
                axes.plot(open_end, at, color=color, marker=">", markersize=4, clip_on=False)
        axes.set_yticks(range(len(order)), [drawn(scheme) for scheme in order], parse_math=False, fontsize=6)
        for label, scheme in zip(axes.get_yticklabels(), order, strict=True):
            label.set_color(looks[scheme]["color"])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xscale("log", base=2)
        ticks = sorted(other["distance"].unique())
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set_xlim(0.5, open_end)
        axes.grid(axis="x")
        axes.set_xlabel("distance / tokens")
        figure.set_layout_engine("constrained", rect=(0.03, 0, 0.97, 1))  # it takes long names for shorter than they are
        by = f"the loss by {RISE:.3f} nats" if risen["objective"].iloc[0] in IN_NATS else "perplexity by 5 %"
        told = (
            f"between which distances replacing all that is farther away raises {by}; arrows: farther than was asked, or "
            "not decided"
        )
        _entitle(figure, risen, told)
    return figure


def recall_figure(excess: pd.DataFrame) -> Figure:
    """Nats above the floor by how far back the symbol stood last, a panel a length; bars are 95 % t intervals.

    Dashed: the best possible predictor of those who look back L tokens.
    """
    looks = looks_of(excess["scheme"].unique())
    train_len, lengths = excess["train_len"].iloc[0], sorted(excess["eval_len"].unique())
    seen = excess[excess["distance"] > 0]  # what never stood before cannot be recalled
    bins = sorted(seen["distance"].unique())
    names = [f"{low:,}–" + (f"{high:,}" if (high := highest_in(low, train_len)) else "") for low in bins]
    with style():
        figure, grid = new_figure(2.2 * len(lengths) + 0.6, 2.7, 1, len(lengths), sharey=True)
        ends = []
        for axes, eval_len in zip(grid.flat, lengths, strict=True):
            lines = seen[seen["eval_len"] == eval_len].assign(place=lambda table: table["distance"].map(bins.index))
            ends.append((axes, _lines(axes, lines[lines["metric"] == "nll"], "place", looks)))
            window = lines[lines["metric"] == "window_floor"].drop_duplicates("place").sort_values("place")
            axes.plot(window["place"], window["value"], color="0.3", linewidth=0.9, linestyle=DASHES, zorder=0)
            axes.set_xticks(range(len(bins)), names, rotation=30, ha="right", rotation_mode="anchor", fontsize=6.5)
            axes.set_title(f"{eval_len:,} tokens ({eval_len / train_len:g} L)")
            axes.grid(axis="y")
        figure.supxlabel("tokens since the symbol last stood", fontsize=8)
        grid.flat[0].set_ylabel("nats above the floor")
        _entitle(figure, excess, "recall by distance; dashed: the best prediction from the last L tokens")
        name_ends(ends)
    return figure


def heads_figure(found: pd.DataFrame) -> Figure:
    """The mean attention distance of every head of every seed by layer, a panel a scheme: filled at L, hollow at 8 L."""
    looks = looks_of(found["scheme"].unique())
    points = found[found["metric"] == "distance"]
    schemes, lengths = list(points["scheme"].unique()), sorted(points["eval_len"].unique())
    names = shortened(schemes, TITLE)
    columns = min(MOST_COLUMNS, len(schemes))
    n_rows = -(-len(schemes) // columns)
    with style():
        figure, grid = new_figure(1.3 * columns + 0.5, 1.5 * n_rows + 0.5, n_rows, columns, sharex=True, sharey=True)
        for axes, scheme in zip(grid.flat, schemes, strict=False):
            own, color = points[points["scheme"] == scheme], looks[scheme]["color"]
            layers = own["probe"].str.extract(r"\((\d+),")[0].astype(int)
            for eval_len, shift in zip(lengths, (LEFT, RIGHT), strict=False):
                at = own["eval_len"] == eval_len
                face = color if shift == LEFT else "none"
                circles = {"markersize": 2.6, "markerfacecolor": face, "markeredgewidth": 0.6, "color": color}
                axes.plot(layers[at] + shift, own.loc[at, "value"], linestyle="none", marker="o", **circles)
            axes.set_title(drawn(names[scheme]), color=color, parse_math=False)
            axes.set_yscale("log")
            axes.set_xticks(sorted(layers.unique()))
            axes.axhline(own["train_len"].iloc[0] / 2, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
            axes.grid(axis="y")
        for axes in grid.flat[len(schemes) :]:
            axes.set_visible(False)
        figure.supxlabel("layer", fontsize=8)
        figure.supylabel("mean attention distance / tokens", fontsize=8)
        shown = ", ".join(f"{how} at {n:,}" for how, n in zip(("filled", "hollow"), lengths, strict=False))
        _entitle(figure, found, f"where heads look, all heads and seeds, {shown} tokens; dashed: L/2")
    return figure


def _lines(axes: Axes, lines: pd.DataFrame, x: str, looks: dict[str, Style]) -> list[End]:
    ends = []
    for scheme, line in lines.groupby("scheme", sort=False):
        line = line.sort_values(x)
        band(axes, line[x], line["value"], line["low"], line["high"], looks[scheme])
        ends.append(End(drawn(scheme), looks[scheme]["color"], line[x].iloc[-1], line["value"].iloc[-1]))
    return ends


def _small_and_large(axes: Axes) -> None:
    """A scale on which a rise of 0.05 nats and one of 2 are seen, and none is 0."""
    axes.set_yscale("symlog", linthresh=RISE, linscale=0.4)
    axes.margins(y=0.1)  # the highest marker is whole
    axes.yaxis.set_major_locator(ticker.FixedLocator([-0.05, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _entitle(figure: Figure, lines: pd.DataFrame, told: str) -> None:
    objective, data, train_len, setting = lines[GROUP].iloc[0]
    group = trained_on(objective, data, train_len, setting)
    n_lines = entitle(figure, f"{group}: {told}")
    figure.set_figheight(figure.get_figheight() + 0.15 * n_lines)
