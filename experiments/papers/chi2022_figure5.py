"""Chi et al. 2022 (KERPLE, arXiv:2205.09921), Figure 5: loss by position, and what a window at test time does.

Expected: up to the training length L all schemes fall alike; beyond it RoPE rises and ALiBi stays where it is, and a window
of the last L tokens, which the paper puts on weights of KERPLE, is at least as good as ALiBi. Here it is put on those of
RoPE and of the T5 bias, and on sinusoidal positions, which should still break, for there the positions themselves are new.

One pass over the longest input; a point stands for the positions since the point before it, so every point is other text.
Left the loss of the models as they are. Right the loss of the same weights with the window, less that of ALiBi without it on
the same tokens, paired by seed: at 0 or below, the window is at least as good as ALiBi. The paper gives its Figure 5
without numbers, so that only the order is compared.

make paper FIGURE=chi2022_figure5
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import CHI2022
from experiments.papers.overlay import CURVE, MEASURED, by_group, draw_panels, ours, over, with_own
from extrap.stats.perplexity import over_seeds

SCHEMES = ("alibi", "rope", "sinusoidal", "t5")
NEEDS = ("causal/rows.csv",)
HOLDS = {"protocol": ("position",), "extension": ("none", "window"), "scheme": SCHEMES}
PAPER = CHI2022


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Left the loss without an extension, right with the window. `published` is not used: the paper prints no numbers."""
    lines = ours(rows, "position", with_own(SCHEMES, rows), "none", "window")
    lines = lines.assign(x=lines["eval_len"] / lines["train_len"])
    alone, window = (lines[lines["extension"] == extension] for extension in ("none", "window"))
    window = over(window, alone[alone["scheme"] == "alibi"], "eval_len")
    by = ["source", *MEASURED, "x"]
    left, right = (by_group(over_seeds(part.groupby(by, sort=False)["log_ppl"]))[CURVE] for part in (alone, window))
    points = pd.concat([left.assign(over=""), right.assign(over="alibi")], ignore_index=True)
    mine = points["train_len"].iloc[0]
    panels = [(f"as trained, on {mine:,} tokens", left), (f"with a window of {mine:,} at test time", right)]
    ylabels = "loss, nats per token", "loss less ALiBi's without, nats per token"
    drawn = draw_panels(points, panels, "position / training length", *ylabels)
    drawn.axes[1].axhline(0, color="0.3", linewidth=0.8, zorder=0)
    return drawn, points
