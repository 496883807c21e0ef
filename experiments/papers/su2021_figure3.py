"""Su et al. 2021 (RoFormer, arXiv:2104.09864), Figure 3: masked-LM loss by training step, RoPE against learned positions.

Expected: RoPE is below learned positions from early on and stays there.

The loss of every tenth training batch, averaged over a fortieth of the training at a time, in `main` of one batch. The paper
gives its Figure 3 without numbers, so only its claim is compared: RoPE converges faster.

make paper FIGURE=su2021_figure3
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import OURS, by_group, key, linear_limits, with_own
from extrap.report.curves import band
from extrap.report.drawing import new_figure
from extrap.report.looks import looks_of
from extrap.stats.perplexity import over_seeds

NEEDS = ("main/training.csv", "prose_mlm/training.csv")
SCHEMES = ("learned", "rope")
HOLDS = {"scheme": SCHEMES}
PAPER = {
    "data": "BookCorpus and Wikipedia",
    "a token": "subword",
    "model": "BERT base",
    "training": "100,000 steps of 64 x 512 tokens",
    "training length": "512",
}
PARTS = 40


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a source of text. `published` is not used: the paper prints no numbers."""
    schemes = with_own(SCHEMES, rows)
    points, looks = by_step(rows[rows["scheme"].isin(schemes)]), looks_of(schemes)
    panels = [shown for _, shown in points.groupby("experiment", sort=False)]
    drawn, (all_axes,) = new_figure(7.2, 3.0, 1, len(panels), sharey=True)
    for axes, shown in zip(all_axes, panels, strict=True):
        for scheme, line in shown.groupby("scheme"):
            band(axes, line["step"], line["loss"], line["low"], line["high"], looks[str(scheme)] | {"markevery": 4})
        axes.set_xlim(0, shown["step"].max())
        axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_title(f"masked LM on {shown['data'].iloc[0]}")
        axes.set_xlabel(f"training step of {shown['tokens_a_step'].iloc[0]:,} tokens")
        axes.grid(axis="y")
    all_axes[0].set_ylabel("loss, nats per masked token")
    linear_limits(all_axes[0], points["loss"], above=0.05)
    key(drawn, points, schemes)
    return drawn, points


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss of each of PARTS equal parts of the training, mean over seeds with its t interval; `step` ends the part."""
    last = rows.groupby("experiment")["step"].transform("max")
    rows = rows.assign(source=OURS, part=np.ceil(rows["step"] * PARTS / last).clip(lower=1))
    rows = rows.assign(tokens_a_step=rows["tokens"] // rows["step"].clip(lower=1))
    line = ["source", "experiment", "data", "scheme", "part"]
    by_seed = rows.groupby([*line, "seed"], sort=False).agg({"loss": "mean", "step": "max", "tokens_a_step": "max"})
    groups = by_seed.groupby(line, sort=False)
    points = by_group(over_seeds(groups["loss"])).rename(columns={"value": "loss"})
    points = points.join(groups[["step", "tokens_a_step"]].max(), on=line)
    return points[[*line[:-1], "step", "tokens_a_step", "n_seeds", "loss", "low", "high"]]
