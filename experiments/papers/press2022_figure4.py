"""Press et al. 2022 (arXiv:2108.12409), Figure 4: ALiBi trained short, against sinusoidal positions trained at full length.

Expected: ALiBi, trained on L of 256 tokens or more and read on longer inputs, comes near or below sinusoidal models that
were trained on that length, and never rises; at L itself, when L is as short as 128, sinusoidal positions are at least as
good.

A panel a training length of ALiBi. Plotted: perplexity over that of sinusoidal positions trained and read on the panel's
L; every point of the sinusoidal curve is another model, trained on the length that it is read on. Published: table 5,
trained on 64 to 512 words (and sinusoidal up to 3,072), one run each. All of text is scored, in pieces of the evaluation
length; models of one seed are paired.

make paper FIGURE=press2022_figure4
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import PRESS2022
from experiments.papers.overlay import CURVE, MEASURED, averaged, beside, draw_panels, ours, over, theirs
from extrap.stats.perplexity import refuse_other_targets

NEEDS = ("causal_32/rows.csv", "causal_64/rows.csv", "causal/rows.csv", "causal_256/rows.csv")
SCHEMES = ("alibi", "sinusoidal")
HOLDS = {"protocol": ("nonoverlap",), "scheme": SCHEMES}
PAPER = PRESS2022 | {"training length": "64, 128, 256, 512", "seeds": "1"}
PANEL = "alibi_train_len"


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a training length: ours, and the one of the paper that has the same rank.

    Raises UserError if the experiments scored different text.
    """
    models = rows["scheme"] + " trained on " + rows["train_len"].astype(str)
    rows = rows[(rows["protocol"] == "nonoverlap") & rows["scheme"].isin(SCHEMES)]
    refuse_other_targets(rows.assign(scheme=models, train_len=0))  # they are compared across training lengths
    lines = pd.concat([ours(rows, "nonoverlap", SCHEMES), theirs(published, "press2022alibi", "5")], ignore_index=True)
    points = over_sinusoidal(lines)
    panels = beside(points, PANEL)
    points = points.loc[sorted(i for _, _, shown in panels for i in shown.index)]
    titled = [(f"ALiBi, training length\n{mine:,} tokens (published: {other:,})", shown) for mine, other, shown in panels]
    labels = "length / training length", "perplexity / that of sinusoidal at L"
    drawn = draw_panels(points, titled, *labels, schemes=SCHEMES)
    for axes in drawn.axes:  # they are narrow
        axes.set_xticks(ticks := axes.get_xticks()[::2], [f"{tick:g}" for tick in ticks])
    return drawn, points


def over_sinusoidal(lines: pd.DataFrame) -> pd.DataFrame:
    """Over sinusoidal positions trained on the panel's length: ALiBi of that training length, sinusoidal of any."""
    at_home = lines[(lines["scheme"] == "sinusoidal") & (lines["train_len"] == lines["eval_len"])]
    alibi = lines[(lines["scheme"] == "alibi") & (lines["eval_len"] >= lines["train_len"])]
    found = []
    for (_, length), base in at_home.groupby(["source", "train_len"], sort=False):
        shown = pd.concat([alibi[alibi["train_len"] == length], at_home[at_home["eval_len"] >= length]])
        found.append(over(shown, base).assign(x=shown["eval_len"] / length, **{PANEL: length}))
    points = averaged(pd.concat(found), [PANEL, "source", *MEASURED, "x"])
    itself = (points["scheme"] == "sinusoidal") & (points["x"] == 1)  # whose ratio is known without an interval
    return points.assign(**{bound: points[bound].mask(itself, 1.0) for bound in ("low", "high")})[[PANEL, *CURVE]]
