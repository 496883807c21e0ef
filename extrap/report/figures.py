"""Statistics -> figures, and the points that they show. Imports no torch."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from extrap.report.curves import (
    axes_of_lengths,
    curves,
    drawn,
    ends,
    experiments,
    keep_to_curves,
    panels_by_protocol,
    seeds_title,
    setting_title,
)
from extrap.report.drawing import entitle, new_figure, save_drawing, save_figure, style
from extrap.report.labels import name_ends
from extrap.report.looks import styles
from extrap.report.pairs import is_drawn, pairs_figure
from extrap.report.typesetting import stem
from extrap.results.rows import rounded
from extrap.stats.perplexity import SCHEME, SETTING
from extrap.stats.statistics import Statistics

POINT = [*SETTING, *SCHEME, "eval_len", "n_seeds"]


def draw(found: Statistics, folder: Path) -> list[Path]:
    """perplexity.{png,pdf,svg,csv}, the same for a column of a paper as perplexity_column.{png,pdf,svg}, and controls.*,
    floor.*, pairs.*, position.* where rows hold such; of several groups each has its own, perplexity_<group>.*; returns
    what was written."""
    return [path for group, part in found.groups.items() for path in _draw(part, folder, group)]


def _draw(found: Statistics, folder: Path, group: tuple[object, ...]) -> list[Path]:
    def place(name: str) -> Path:
        return folder / stem(name, *group)

    figure, points = perplexity_figure(found)
    written = save_figure(figure, points, place("perplexity"))
    written += save_drawing(curves_of_perplexity(found, points, column=True), place("perplexity_column"))
    if has_controls(found.by_length):
        written += save_figure(*controls_figure(found), place("controls"))
    if not found.floor.empty:
        written += save_figure(*floor_figure(found), place("floor"))
    if not found.by_position.empty:
        written += save_figure(*position_figure(found), place("position"))
    return written + (save_drawing(pairs_figure(found), place("pairs")) if is_drawn(found.pairs) else [])


def perplexity_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Perplexity by length, a panel a protocol, on log axes; bands are 95 % t intervals over seeds.

    Dotted under nonoverlap: the early-token null, where it comes from the same tokens.
    """
    points = _as_trained(found.summary)
    if found.sound_null.empty:
        points = points.assign(null=np.nan)
    else:
        points = points.merge(found.sound_null[[*SETTING, "scheme", "extension", "eval_len", "null"]], how="left")
    points = rounded(points[[*POINT, "null", "ppl", "ppl_low", "ppl_high"]])
    return curves_of_perplexity(found, points), points


def curves_of_perplexity(found: Statistics, points: pd.DataFrame, column: bool = False) -> Figure:
    """The points of perplexity_figure, side by side or as wide as a column of a paper."""
    values = ("ppl", "ppl_low", "ppl_high")
    return panels_by_protocol(points, values, "perplexity", True, styles(found.rows), experiments(found), column)


def floor_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Distance to the best possible predictor by length, in nats per token; bands as above."""
    floor = found.floor.assign(kind="scheme")
    return _in_nats(found, floor, "excess", floor["excess_half"], "nats per token above the floor")


def position_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Loss by how many tokens were there to read, up to eval_len and more than the length before; bands as above.

    Every place has tokens of its own, the same for all schemes: a curve also shows which of them are harder.
    """
    lines = found.by_position
    figure, points = _in_nats(found, lines, "log_ppl", lines["log_ppl_half"], "nats per token")
    figure.axes[0].set_xlabel("tokens read (up to) / training length")
    return figure, points


def _in_nats(
    found: Statistics, lines: pd.DataFrame, value: str, half: pd.Series, ylabel: str
) -> tuple[Figure, pd.DataFrame]:
    lines = _as_trained(lines.assign(low=lines[value] - half, high=lines[value] + half))
    points = rounded(lines[[*POINT, value, "low", "high"]])
    values = (value, "low", "high")
    return panels_by_protocol(points, values, ylabel, False, styles(found.rows), experiments(found)), points


def _as_trained(lines: pd.DataFrame) -> pd.DataFrame:
    """Without extensions, and without protocols of a single length beside others that have more."""
    lines = lines[lines["extension"] == "none"]
    n_lengths = lines.groupby("protocol")["eval_len"].transform("nunique")
    return lines[n_lengths > 1] if (n_lengths > 1).any() else lines


def has_controls(rows: pd.DataFrame) -> bool:
    return bool(((rows["extension"] != "none") & (rows["eval_len"] > rows["train_len"])).any())


COLUMNS = 4  # at most
PANEL = (1.9, 1.6)  # inches


def controls_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Each scheme beside its extensions, on the same weights, a panel a scheme with a scale of its own; bands as above.

    Under same_targets, where a change is the value of context alone, or what there is in its place.
    """
    summary = found.summary
    longest = summary.groupby([*SETTING, *SCHEME])["eval_len"].transform("max")
    control = (summary["extension"] != "none") & (longest > summary["train_len"])
    protocols = summary.loc[control, "protocol"]
    protocol = "same_targets" if (protocols == "same_targets").any() else protocols.iloc[0]
    schemes = list(summary.loc[control & (summary["protocol"] == protocol), "scheme"].unique())
    chosen = (summary["protocol"] == protocol) & summary["scheme"].isin(schemes)
    shown = chosen & ((summary["extension"] == "none") | control)
    points = rounded(summary.loc[shown, [*POINT, "ppl", "ppl_low", "ppl_high"]])
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
            axes_of_lengths(axes, lines, log=True, mark="" if i else "training length")  # small panels, all alike
            keep_to_curves(axes, lines["ppl"])
            if np.divide(*axes.get_ylim()[::-1]) < 5:  # 1, 2, 5, 10 are too far apart for it
                axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
            axes.set_xlabel("")
            axes.set_title(drawn(scheme), color=looks[scheme, "none"]["color"], parse_math=False)
        for axes in panels[len(schemes) :]:
            axes.set_visible(False)
        figure.supxlabel("evaluation length / training length", fontsize=8)
        figure.supylabel(f"perplexity, {protocol}", fontsize=8)
        entitle(figure, f"{experiments(found)}: {setting_title(points)}{seeds_title(points)}")
        name_ends([(axes, ends(lines, "ppl", looks, names)) for axes, lines in zip(panels, by_panel, strict=False)])
    return figure, points
