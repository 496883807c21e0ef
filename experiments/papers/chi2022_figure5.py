"""Chi et al. 2022 (KERPLE, arXiv:2205.09921), Figure 5: loss by position, and what a window at test time does.

Expected: up to the training length L all schemes fall alike; beyond it sinusoidal positions and RoPE rise and ALiBi stays
where it is. With attention limited to the last L tokens, RoPE and the T5 bias are at least as good as ALiBi; sinusoidal
positions still break, for there the positions themselves are new.

One pass over the longest input; a point stands for the positions since the point before it, so every point is other text.
Left the loss of the models as they are. Right the loss of the same weights with the window, less that of ALiBi without it on
the same tokens, paired by seed: at 0 or below, the window is at least as good as ALiBi. The paper gives its Figure 5
without numbers, so only this claim is compared.

make paper FIGURE=chi2022_figure5
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import CURVE, OURS, band_over, by_group, curves, ends, key, multiples_axis, with_own
from extrap.report.drawing import new_figure, style
from extrap.report.labels import name_ends
from extrap.report.looks import looks_of
from extrap.stats.perplexity import over_seeds, perplexity

SCHEMES = ("alibi", "rope", "sinusoidal", "t5")
NEEDS = ("causal/rows.csv",)
HOLDS = {"protocol": ("position",), "extension": ("none", "window"), "scheme": SCHEMES}
PAPER = {
    "data": "OpenWebText2, GitHub, ArXiv",
    "a token": "subword",
    "model": "12 layers, 12 heads, 162 M parameters",
    "training": "50,000 steps of 32 x 512 tokens",
    "training length": "512",
}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Left the loss without an extension, right with the window. `published` is not used: the paper prints no numbers."""
    rows = rows[(rows["protocol"] == "position") & rows["scheme"].isin(with_own(SCHEMES, rows))]
    line = ["protocol", "scheme", "extension", "train_len", "eval_len", "x"]
    by_seed = perplexity(rows.assign(x=rows["eval_len"] / rows["train_len"]), [*line, "seed"])
    alone, window = (by_seed[by_seed["extension"] == extension] for extension in ("none", "window"))
    alibi = alone[alone["scheme"] == "alibi"].set_index(["eval_len", "seed"])["log_ppl"].rename("alibi")
    window = window.join(alibi, on=["eval_len", "seed"], how="inner")
    window = window.assign(log_ppl=window["log_ppl"] - window["alibi"])
    left, right = (by_group(over_seeds(part.groupby(line, sort=False)["log_ppl"]), OURS)[CURVE] for part in (alone, window))
    points = pd.concat([left.assign(over=""), right.assign(over="alibi")], ignore_index=True)
    looks = looks_of(points["scheme"])
    with style():
        drawn, (all_axes,) = new_figure(7.2, 3.1, 1, 2)
        for axes, shown in zip(all_axes, (left, right), strict=True):
            curves(axes, shown, looks)
            multiples_axis(axes, points["x"].min(), points["x"].max())
            axes.set_xlabel("position / training length")
            low, high = shown["value"].min(), shown["value"].max()
            axes.set_ylim(low - 0.05 * (high - low), high + 0.12 * (high - low))
        mine = points["train_len"].iloc[0]
        all_axes[0].set_title(f"as trained, on {mine:,} tokens")
        all_axes[0].set_ylabel("loss, nats per token")
        all_axes[1].set_title(f"with a window of {mine:,} at test time")
        all_axes[1].set_ylabel("loss less ALiBi's without, nats per token")
        all_axes[1].axhline(0, color="0.3", linewidth=0.8, zorder=0)
        key(drawn, None, band_over(points))
        name_ends([(axes, ends(axes, shown, looks)) for axes, shown in zip(all_axes, (left, right), strict=True)])
    return drawn, points
