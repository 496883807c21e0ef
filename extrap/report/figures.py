"""Statistics -> figures, and the points that they show. Imports no torch."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from extrap.report.budget import budget_figures
from extrap.report.costs import cost_figures
from extrap.report.curves import POINT, controls_figure, panels_by_protocol, where_lengths_vary
from extrap.report.drawing import save_drawing, save_figure
from extrap.report.extensions import extensions_figure, is_crowded
from extrap.report.families import families_figure, trade_off_figure
from extrap.report.pairs import is_drawn, pairs_figure
from extrap.report.typesetting import level, stem
from extrap.results.shown import rounded, save_table
from extrap.stats.perplexity import CONDITION, is_control
from extrap.stats.statistics import Statistics


def draw(found: Statistics, folder: Path) -> None:
    """perplexity.{png,pdf,svg,csv}, the same for a column of a paper as perplexity_column.{png,pdf,svg}, and controls.*
    or extensions.*, floor.*, pairs.*, position.*, budget.* where rows hold such, but of more schemes than a panel can show
    families.* and trade_off.*; of several groups each has its own, perplexity_<group>.*; costs.* where they are known"""
    for group, part in found.groups.items():
        if part.yardstick is not None:
            save_figure(*families_figure(part), folder / stem("families", *group))
            if part.summary["eval_len"].max() > part.summary["train_len"].max():
                save_figure(*trade_off_figure(part), folder / stem("trade_off", *group))
            continue
        save_figure(*perplexity_figure(part), folder / stem("perplexity", *group))
        save_drawing(perplexity_figure(part, column=True)[0], folder / stem("perplexity_column", *group))
        if is_crowded(part):
            save_drawing(extensions_figure(part), folder / stem("extensions", *group))
        elif is_control(part.summary).any():
            save_figure(*controls_figure(part), folder / stem("controls", *group))
        if len(part.floor):
            save_figure(*floor_figure(part), folder / stem("floor", *group))
        if len(part.by_position):
            save_figure(*position_figure(part), folder / stem("position", *group))
        if is_drawn(part.pairs):
            save_drawing(pairs_figure(part), folder / stem("pairs", *group))
    for group, figure, points in budget_figures(found):
        save_figure(figure, points, folder / stem("budget", *group))
    for name, drawn, points in cost_figures(found):
        if drawn is None:
            save_table((folder / name).with_suffix(".csv"), points)
        else:
            save_figure(drawn, points, folder / name)


def perplexity_figure(found: Statistics, column: bool = False) -> tuple[Figure, pd.DataFrame]:
    """Perplexity, on log axes, or nats by length, a panel a protocol; bands are 95 % t intervals over seeds.

    Dotted under nonoverlap: the early-token null, where it comes from the same tokens. Panels stand side by side, or one
    above the other, as wide as a column of a paper.
    """
    null = found.sound_null[[*CONDITION, "scheme", "extension", "eval_len", "null"]]
    trained = found.summary[found.summary["extension"] == "none"]
    points = where_lengths_vary(trained).merge(null, how="left")
    points = rounded(points[[*POINT, "null", "ppl", "ppl_low", "ppl_high"]])
    what, values = level(points["objective"].unique()), ("ppl", "ppl_low", "ppl_high")
    return panels_by_protocol(found, points, values, what, log=what == "perplexity", column=column), points


def floor_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Distance to the best possible predictor by length, in nats per token; bands as above."""
    return _in_nats(found, found.floor.assign(kind="scheme"), "excess", "nats per token above the floor")


def position_figure(found: Statistics) -> tuple[Figure, pd.DataFrame]:
    """Loss by how many tokens were there to read, up to eval_len and more than the length before; bands as above.

    In an encoder, where each reads the whole text, by how many there are up to the nearer end, the token itself included.
    Every place has tokens of its own, the same for all schemes: a curve also shows which of them are harder.
    """
    figure, points = _in_nats(found, found.by_position, "log_ppl", "nats per token")
    what = "tokens read" if points["objective"].iloc[0] == "causal" else "tokens to the nearer end"
    figure.axes[0].set_xlabel(f"{what} (up to) / training length")
    return figure, points


def _in_nats(found: Statistics, lines: pd.DataFrame, value: str, ylabel: str) -> tuple[Figure, pd.DataFrame]:
    lines, half = lines[lines["extension"] == "none"], lines[f"{value}_half"]
    lines = lines.assign(low=lines[value] - half, high=lines[value] + half)
    points = rounded(where_lengths_vary(lines)[[*POINT, value, "low", "high"]])
    return panels_by_protocol(found, points, (value, "low", "high"), ylabel, log=False), points
