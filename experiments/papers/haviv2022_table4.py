"""Haviv et al. 2022 (arXiv:2203.16634), Table 4: without positions, a masked LM fails and a causal LM does not.

Expected: without positions a masked LM is many times worse than with them; a causal LM is only a little worse, because its
mask alone tells it where a token stands.

Drawn is the perplexity of NoPE over that of sinusoidal and of learned positions, at the training length. Published:
table 4, masked LM of 128 tokens, one run each. Of its causal models (table 1) only the claim is compared: within 5 %.

make paper FIGURE=haviv2022_table4
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import OURS, band_over, key, ratio_ticks
from extrap.report.drawing import new_figure, style
from extrap.report.looks import LOOKS
from extrap.results.rows import rounded
from extrap.stats.perplexity import over_seeds, perplexity

NEEDS = ("causal/rows.csv", "main/rows.csv")
HOLDS = {"protocol": ("nonoverlap",), "scheme": ("nope", "sinusoidal", "learned")}
PAPER = {"data": "corpus of RoBERTa", "a token": "subword", "training length": "128", "seeds": "1"}
LINES = [(objective, base) for objective in ("mlm", "causal") for base in ("sinusoidal", "learned")]
NAMES = {"mlm": "masked LM", "causal": "causal LM"}
POINTS = ["source", "objective", "over", "train_len", "n_seeds", "value", "low", "high"]


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A line a (objective, scheme to compare with)."""
    points = rounded(pd.DataFrame([*our_points(rows), *their_points(published)], columns=POINTS))
    with style():
        drawn, ((axes,),) = new_figure(4.2, 2.3)
        axes.axvline(1, color="0.3", linewidth=0.8, zorder=0)
        for source, objective, base, _, _, value, low, high in points.itertuples(index=False):
            ours = source == OURS
            look = LOOKS["nope"]
            height = LINES.index((objective, base)) + (-0.14 if ours else 0.14)
            axes.plot([low, high], [height, height], color=look["color"], solid_capstyle="butt", linewidth=4, alpha=0.3)
            face = look["color"] if ours else "white"
            axes.plot([value], [height], linestyle="none", markersize=5.5, markerfacecolor=face, **look)
            right = max(value, np.nan_to_num(high))
            axes.annotate(
                f"{value:.3g}", (right, height), xytext=(6, 0), textcoords="offset points", fontsize=7, va="center"
            )
        axes.set_yticks(range(len(LINES)), [f"{NAMES[objective]}, over {base}" for objective, base in LINES])
        axes.set_ylim(len(LINES) - 0.5, -0.5)
        axes.set_xscale("log")
        values = pd.concat([points["low"], points["high"], points["value"], pd.Series([1.0])]).dropna()
        axes.set_xlim(values.min() / 1.15, values.max() * 1.6)
        ratio_ticks(axes.xaxis)
        axes.grid(axis="x")
        axes.set_title(f"trained and read on {points['train_len'].iloc[0]:,} tokens")
        axes.set_xlabel("perplexity of NoPE / that with positions")
        key(drawn, "published, 1 run", band_over(points))
    return drawn, points


def our_points(rows: pd.DataFrame) -> list[tuple[object, ...]]:
    rows = rows[(rows["protocol"] == "nonoverlap") & (rows["eval_len"] == rows["train_len"]) & (rows["extension"] == "none")]
    by_seed = perplexity(rows, ["objective", "train_len", "scheme", "seed"])
    points: list[tuple[object, ...]] = []
    for objective, base in LINES:
        part = by_seed[by_seed["objective"] == objective]
        table = part.pivot(index="seed", columns="scheme", values="log_ppl")
        ratio = over_seeds(table["nope"] - table[base]).exp()
        points.append((OURS, objective, base, part["train_len"].iloc[0], ratio.n, *ratio[:3]))
    return points


def their_points(published: pd.DataFrame) -> list[tuple[object, ...]]:
    table = published[(published["source"] == "haviv2022nope") & (published["metric"] == "ppl")]
    points: list[tuple[object, ...]] = []
    for (number, objective, train_len), part in table.groupby(["table", "objective", "train_len"]):
        ppl = part.set_index("scheme")["value"]
        points += [
            (f"haviv2022nope, table {number}", objective, base, int(train_len), 1, ppl["nope"] / ppl[base], np.nan, np.nan)
            for _, base in (line for line in LINES if line[0] == objective)
        ]
    return points
