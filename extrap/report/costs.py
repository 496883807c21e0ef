"""What training costs beside what it buys: a page, and perplexity against cost. Imports no torch."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extrap.report.about import chosen_briefly, chosen_markdown
from extrap.report.curves import COLUMN_WIDTH, band, drawn, keep_to_curves, log_axis
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.labels import End, name_ends
from extrap.report.looks import Looks, styles
from extrap.report.typesetting import interval, level, markdown, measure, number, seeds, stem, trained_on
from extrap.results.rows import GROUP
from extrap.results.shown import rounded
from extrap.stats.pairs import MOST_PAIRED
from extrap.stats.statistics import Statistics

NOTE = """\
FLOPs: multiplications and additions in the matrix products of training, three times those of the forward passes plus those
of the optimizer. Seconds and memory are each that of the seed with the least, in parentheses the most; tokens per second the
other way round. Seeds train alike and score nearly alike, so that their times differ by what else the machine
(provenance.yaml) was doing, which only adds to them: compare them only between runs made under the same conditions, all
alone or all side by side. Scoring: all lengths, protocols and extensions. Memory: peak of the process, or on a GPU of its
tensors."""
OF_BOTH = "All costs of ELECTRA include both networks."
PANEL_HEIGHT = 2.1  # inches
STEP = 1.25  # factor of FLOPs between neighbours from which on settings are drawn as a curve


def costs_page(found: Statistics) -> str:
    """Markdown: a table a group."""
    both = [OF_BOTH] if (found.rows["objective"] == "electra").any() else []
    parts = [*chosen_markdown(found.choice), NOTE, *both]
    for of, lines in found.costs_and_quality.groupby(GROUP, sort=False):
        parts += [f"**Costs of {trained_on(*of)}**", markdown(costs_table(lines), ["scheme"])]
    return "\n\n".join(parts) + "\n"


def costs_table(lines: pd.DataFrame) -> pd.DataFrame:
    table = []
    train_len, longest = lines["train_len"].iloc[0], lines["eval_len"].max()
    what = measure(lines["objective"].unique())
    for scheme, part in lines.groupby("scheme", sort=False):
        first, ppl = part.iloc[0], part.set_index("eval_len")
        told = {
            "scheme": scheme,
            "parameters": _known(first["parameters"]),
            "training, FLOPs": _known(first["train_flops"]),
            "training, s": _to_worst(first, "train_seconds"),
            "tokens per second": _to_worst(first, "tokens_per_second"),
            "scoring, s": _to_worst(first, "eval_seconds"),
            "peak memory, MiB": _to_worst(first, "peak_memory", 2.0**-20),
        }
        for n in dict.fromkeys((train_len, longest)):
            protocol = lines.loc[lines["eval_len"] == n, "protocol"].iloc[0]
            told[f"{what} at {n:,}, {protocol}"] = _shown(ppl.loc[n]) if n in ppl.index else "–"
        table.append(told)
    return pd.DataFrame(table)


def _shown(line: pd.Series) -> str:
    return number(line["ppl"]) + interval(line["ppl"], line["ppl_low"], line["ppl_high"])


def _known(value: float) -> str:
    return number(value) if np.isfinite(value) else "–"


def _to_worst(line: pd.Series, cost: str, unit: float = 1.0) -> str:
    best, worst = (_known(line[f"{cost}{end}"] * unit) for end in ("", "_worst"))
    return best if best == worst else f"{best} (to {worst})"


def cost_figures(found: Statistics) -> Iterator[tuple[str, Figure | None, pd.DataFrame]]:
    """The name of a file, the figure and its points: where settings are steps of FLOPs one, elsewhere one a group; None for
    more schemes than it can name."""
    lines = found.costs_and_quality
    flops = lines.drop_duplicates(["scheme", *GROUP]).groupby(["scheme", *GROUP[:-1]])["train_flops"]
    vary = flops.agg(_are_steps).all() and flops.count().max() > 1
    cost = "train_flops" if vary else "train_seconds"
    lines = lines.dropna(subset=cost)
    for of, part in lines.groupby(GROUP[:-1] if vary else GROUP, sort=False):
        name = stem("costs", *(() if len(part) == len(lines) else of))
        points = rounded(part.reset_index(drop=True))
        crowded = points["scheme"].nunique() > MOST_PAIRED
        yield name, None if crowded else cost_figure(found, points, cost), points


def _are_steps(flops: pd.Series) -> bool:
    known = np.sort(flops.dropna())
    return bool((known[1:] >= STEP * known[:-1]).all())


def cost_figure(found: Statistics, points: pd.DataFrame, cost: str) -> Figure:
    """Perplexity by cost, of each scheme a curve through its settings or a point: at the training length, at the longest.

    Bands and upright bars are 95 % t intervals over seeds; bars across reach from the fastest run to the slowest.
    """
    looks, curves = styles(found.rows), cost == "train_flops"
    unit = 1000.0 ** np.floor(np.log10(points[cost].min()) / 3) if curves else 1.0
    of_unit = f"$10^{{{round(np.log10(unit))}}}$ FLOPs" if curves else "seconds"
    at = points[["protocol", "eval_len"]].drop_duplicates().itertuples(index=False, name=None)
    parts = [points[(points["protocol"] == protocol) & (points["eval_len"] == n)] for protocol, n in at]
    with style():
        figure, axes_of = new_figure(COLUMN_WIDTH + 0.2, PANEL_HEIGHT * len(parts), len(parts), 1, sharex=True)
        panels = list(axes_of.flat)
        ends = [list(_lines(axes, part, cost, unit, looks)) for axes, part in zip(panels, parts, strict=True)]
        for axes, part in zip(panels, parts, strict=True):
            axes.set_title(_title(part.iloc[0]))
            axes.set_ylabel(level(part["objective"].unique()))
            log_axis(axes)
            axes.margins(y=0.25)  # room for names
            keep_to_curves(axes, part["ppl"])
            axes.grid(axis="both")
        if curves:
            log_axis(panels[0], "x")
        low, high = panels[0].get_xlim()
        panels[0].set_xlim(low, high if curves else high + 0.35 * (high - low))  # room for names
        panels[-1].set_xlabel(f"training of a run, {of_unit}")
        experiments = drawn("+".join(sorted(found.rows["experiment"].unique())))
        objective, data, train_len, setting = points[GROUP].iloc[0]
        where = trained_on(objective, data, train_len, "" if curves else setting)
        told = f"{experiments}: {where}{chosen_briefly(found.choice)}, {seeds(points['n_seeds'])}"
        if several := points["n_seeds"].max() > 1:
            told += f"; {'bands' if curves else 'upright bars'} are 95 % t intervals"
        if not curves:
            told += ", horizontal ones reach from the fastest run to the slowest, " if several else "; "
            told += "by the clock, whatever else ran"
        figure.set_figheight(PANEL_HEIGHT * len(parts) + 0.15 * entitle(figure, told))
        name_ends(list(zip(panels, ends, strict=True)))
    return figure


def _title(point: pd.Series) -> str:
    multiple = point["eval_len"] / point["train_len"]
    return f"at {point['eval_len']:,} tokens ({'L' if multiple == 1 else f'{multiple:g} L'}), {point['protocol']}"


def _lines(axes: Axes, points: pd.DataFrame, cost: str, unit: float, looks: Looks) -> Iterator[End]:
    """Draws them."""
    for scheme, line in points.groupby("scheme", sort=False):
        line, look = line.sort_values(cost), looks[str(scheme), "none"]
        x = line[cost] / unit
        band(axes, x, line["ppl"], line["ppl_low"], line["ppl_high"], look)
        if f"{cost}_worst" in line:
            axes.plot(line[[cost, f"{cost}_worst"]].T, [line["ppl"]] * 2, color=look["color"], linewidth=1)
        ends_early = len(line) == 1 or 1.25 * line[cost].max() < points[cost].max()
        yield End(drawn(str(scheme)), look["color"], x.iloc[-1], line["ppl"].iloc[-1], ends_early)
