"""Haviv et al. 2022 (arXiv:2203.16634), Table 4: without positions, a masked LM fails and a causal LM does not.

Expected: without positions a masked LM is many times worse than with them; a causal LM is only a little worse, because its
mask alone tells it where a token stands.

Plotted: the perplexity of NoPE over that of sinusoidal and of learned positions, at the training length. Published:
table 4, masked LM of 128 tokens, one run each. Of its causal models (table 1) only the claim is compared: within 5 %.

make paper FIGURE=haviv2022_table4
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import OURS, averaged, key, ours, over, theirs
from extrap.report.curves import log_axis
from extrap.report.drawing import new_figure
from extrap.report.looks import LOOKS

NEEDS = ("causal/rows.csv", "main/rows.csv")
BASES = ("sinusoidal", "learned")
HOLDS = {"protocol": ("nonoverlap",), "scheme": ("nope", *BASES)}
PAPER = {"data": "corpus of RoBERTa", "a token": "subword", "training length": "128", "seeds": "1"}
NAMES = {"mlm": "masked LM", "causal": "causal LM"}
LINES = [(objective, base) for objective in NAMES for base in BASES]
POINTS = ["source", "objective", "over", "train_len", "n_seeds", "value", "low", "high"]


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A line a (objective, scheme to compare with)."""
    points = nope_over_others(rows, published)
    look = LOOKS["nope"]
    drawn, ((axes,),) = new_figure(4.2, 2.3)
    axes.axvline(1, color="0.3", linewidth=0.8, zorder=0)
    for source, objective, base, _, _, value, low, high in points.itertuples(index=False):
        height = LINES.index((objective, base)) + (-0.14 if source == OURS else 0.14)
        axes.plot([low, high], [height, height], color=look["color"], solid_capstyle="butt", linewidth=4, alpha=0.3)
        face = look["color"] if source == OURS else "white"
        axes.plot([value], [height], linestyle="none", markersize=5.5, markerfacecolor=face, **look)
        right = max(value, np.nan_to_num(high))
        axes.annotate(f"{value:.3g}", (right, height), xytext=(6, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_yticks(range(len(LINES)), [f"{NAMES[objective]}, over {base}" for objective, base in LINES])
    axes.set_ylim(len(LINES) - 0.5, -0.5)
    log_axis(axes, "x")
    values = pd.concat([points["low"], points["high"], points["value"], pd.Series([1.0])]).dropna()
    axes.set_xlim(values.min() / 1.15, values.max() * 1.6)
    axes.grid(axis="x")
    axes.set_title(f"trained and read on {points['train_len'].iloc[0]:,} tokens")
    axes.set_xlabel("perplexity of NoPE / that with positions")
    key(drawn, points)
    return drawn, points


def nope_over_others(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """At the training length; those of one seed have no interval."""
    lines = pd.concat([ours(rows, "nonoverlap", ("nope", *BASES)), theirs(published, "haviv2022nope", "4")])
    by_scheme = dict(iter(lines[lines["eval_len"] == lines["train_len"]].groupby("scheme")))
    found = [over(by_scheme["nope"], by_scheme[base], "objective", "train_len").assign(over=base) for base in BASES]
    return averaged(pd.concat(found), POINTS[:4]).sort_values(POINTS[:3], ascending=False)[POINTS]  # ours first, as LINES
