"""Rows -> figures, and the points that they show. Imports no torch."""

from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from extrap.files import write_atomic
from extrap.report.curves import (
    STYLE,
    axes_of_lengths,
    curves,
    drawn,
    keep_to_curves,
    labels,
    panels_by_protocol,
    seeds_title,
    setting_title,
    styles,
)
from extrap.report.drawing import FORMATS, settle
from extrap.results.rows import rounded, save_table
from extrap.stats.floor import against_floor
from extrap.stats.null import early_token_null
from extrap.stats.perplexity import SCHEME, SETTING, summarise

POINT = [*SETTING, *SCHEME, "eval_len", "n_seeds"]


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """perplexity.{png,pdf,svg,csv}, the same for a column of a paper as perplexity_column.{png,pdf,svg}, and controls.*,
    floor.*, position.* where rows hold such; returns what was written."""
    figure, points = perplexity_figure(rows)
    written = save_figure(figure, points, folder / "perplexity")
    written += save_drawing(curves_of_perplexity(rows, points, column=True), folder / "perplexity_column")
    if has_controls(rows):
        written += save_figure(*controls_figure(rows), folder / "controls")
    if not against_floor(rows).empty:
        written += save_figure(*floor_figure(rows), folder / "floor")
    if (rows["protocol"] == "position").any():
        written += save_figure(*position_figure(rows), folder / "position")
    return written


def perplexity_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Perplexity by length, a panel a protocol, on log axes; bands are 95 % t intervals over seeds.

    Dotted under nonoverlap: the early-token null, where it comes from the same tokens.
    """
    points = _as_trained(summarise(_by_length(rows)))
    null = early_token_null(rows)
    if not null.empty and (sound := null[null["full_context"] != "same_targets"]).size:
        points = points.merge(sound[[*SETTING, "scheme", "extension", "eval_len", "null"]], how="left")
    else:
        points["null"] = np.nan
    points = rounded(points[[*POINT, "null", "ppl", "ppl_low", "ppl_high"]])
    return curves_of_perplexity(rows, points), points


def curves_of_perplexity(rows: pd.DataFrame, points: pd.DataFrame, column: bool = False) -> Figure:
    """The points of perplexity_figure, side by side or as wide as a column of a paper."""
    values = ("ppl", "ppl_low", "ppl_high")
    return panels_by_protocol(points, values, "perplexity", True, styles(rows), _what(rows), column)


def floor_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Distance to the best possible predictor by length, in nats per token; bands as above."""
    floor = _as_trained(against_floor(_by_length(rows)).assign(kind="scheme"))
    floor = floor.assign(low=floor["excess"] - floor["excess_half"], high=floor["excess"] + floor["excess_half"])
    points = rounded(floor[[*POINT, "excess", "low", "high"]])
    ylabel = "nats per token above the floor"
    values = ("excess", "low", "high")
    return panels_by_protocol(points, values, ylabel, log=False, looks=styles(rows), what=_what(rows)), points


def position_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Loss by how many tokens were there to read, up to eval_len and more than the length before; bands as above.

    Every place has tokens of its own, the same for all schemes: a curve also shows which of them are harder.
    """
    summary = _as_trained(summarise(rows[rows["protocol"] == "position"]))
    summary = summary.assign(low=summary["log_ppl"] - summary["log_ppl_half"],
                             high=summary["log_ppl"] + summary["log_ppl_half"])  # fmt: skip
    points = rounded(summary[[*POINT, "log_ppl", "low", "high"]])
    values = ("log_ppl", "low", "high")
    figure = panels_by_protocol(points, values, "nats per token", log=False, looks=styles(rows), what=_what(rows))
    figure.axes[0].set_xlabel("tokens read (up to) / training length")
    return figure, points


def _what(rows: pd.DataFrame) -> str:
    """The names of the experiments: they say what the columns of rows do not, as that weights are tied."""
    return drawn("+".join(sorted(rows["experiment"].unique())))


def _by_length(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["protocol"] != "position"]


def _as_trained(lines: pd.DataFrame) -> pd.DataFrame:
    """Without extensions, and without protocols of a single length beside others that have more."""
    lines = lines[lines["extension"] == "none"]
    n_lengths = lines.groupby("protocol")["eval_len"].transform("nunique")
    return lines[n_lengths > 1] if (n_lengths > 1).any() else lines


def has_controls(rows: pd.DataFrame) -> bool:
    rows = _by_length(rows)
    return bool(((rows["extension"] != "none") & (rows["eval_len"] > rows["train_len"])).any())


COLUMNS = 4  # at most
PANEL = (1.9, 1.6)  # inches


def controls_figure(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each scheme beside its extensions, on the same weights, a panel a scheme with a scale of its own; bands as above.

    Under same_targets, where a change is the value of context alone, or what there is in its place.
    """
    summary = summarise(_by_length(rows))
    longest = summary.groupby([*SETTING, *SCHEME])["eval_len"].transform("max")
    control = (summary["extension"] != "none") & (longest > summary["train_len"])
    protocols = summary.loc[control, "protocol"]
    protocol = "same_targets" if (protocols == "same_targets").any() else protocols.iloc[0]
    schemes = list(summary.loc[control & (summary["protocol"] == protocol), "scheme"].unique())
    chosen = (summary["protocol"] == protocol) & summary["scheme"].isin(schemes)
    shown = chosen & ((summary["extension"] == "none") | control)
    points = rounded(summary.loc[shown, [*POINT, "ppl", "ppl_low", "ppl_high"]])
    looks = styles(rows)
    names = {key: "as trained" if key[1] == "none" else key[1] for key in looks}
    n_rows = -(-len(schemes) // COLUMNS)
    columns = -(-len(schemes) // n_rows)  # five are three and two
    with mpl.rc_context(fname=STYLE):
        figure = Figure(figsize=(max(PANEL[0] * columns, 4.6), PANEL[1] * n_rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(n_rows, columns, sharex=True, squeeze=False).ravel()
        for i, (axes, scheme) in enumerate(zip(panels, schemes, strict=False)):
            axes.tick_params(labelbottom=i + columns >= len(schemes))  # nothing below it
            lines = points[points["scheme"] == scheme]
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
        title = f"{_what(rows)}: {setting_title(points)}{seeds_title(points)}"
        told = wrap(title, int(figure.get_figwidth() / 0.062))
        figure.suptitle("\n".join(told), x=0.01, ha="left", fontsize=8, parse_math=False)
        by_panel = [points[points["scheme"] == scheme] for scheme in schemes]
        labels(list(panels[: len(schemes)]), by_panel, "ppl", looks, names)
    return figure, points


def save_figure(figure: Figure, points: pd.DataFrame, path: Path) -> list[Path]:
    """The figure in three formats and its points, the same bytes for the same rows on every processor."""
    written = save_drawing(figure, path)
    save_table(path.with_suffix(".csv"), points)
    return [*written, path.with_suffix(".csv")]


def save_drawing(figure: Figure, path: Path) -> list[Path]:
    written = [path.with_suffix(f".{suffix}") for suffix in FORMATS]
    with mpl.rc_context(fname=STYLE):
        settle(figure)
        for file, draw_as in zip(written, FORMATS.values(), strict=True):
            write_atomic(file, draw_as(figure))
    return written
