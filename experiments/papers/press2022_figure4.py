"""Press et al. 2022 (arXiv:2108.12409), Figure 4: ALiBi trained short, against sinusoidal positions trained at full length.

Expected: ALiBi, trained on L and read on more, comes near or below sinusoidal models that were trained on that length, and
never rises; at L itself, when L is as short as 128, sinusoidal positions are at least as good.

A panel a training length of ALiBi. Drawn is perplexity over that of sinusoidal positions trained and read on the panel's
L; every point of the sinusoidal curve is another model, trained on the length that it is read on. Published: table 5,
trained on 64 to 512 words (and sinusoidal up to 3,072), one run each. All of text is scored, in pieces of the evaluation
length; models of one seed are paired.

make paper FIGURE=press2022_figure4
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import PRESS2022, overlay
from extrap.report.drawing import new_figure, style
from extrap.report.looks import looks_of
from extrap.stats.perplexity import over_seeds, perplexity, refuse_other_targets

NEEDS = ("causal_32/rows.csv", "causal_64/rows.csv", "causal/rows.csv", "causal_256/rows.csv")
HOLDS = {"protocol": ("nonoverlap",), "scheme": ("alibi", "sinusoidal")}
PAPER = PRESS2022 | {"training length": "64, 128, 256, 512", "seeds": "1"}
PANEL = "alibi_train_len"


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a training length: ours, and the one of the paper that has the same rank.

    Raises UserError if the experiments scored different text.
    """
    rows = rows[(rows["protocol"] == "nonoverlap") & rows["scheme"].isin(["alibi", "sinusoidal"])]
    models = rows["scheme"] + " trained on " + rows["train_len"].astype(str)
    refuse_other_targets(rows.assign(scheme=models, train_len=0))  # they are compared across training lengths
    line = ["protocol", "scheme", "extension", "train_len", "eval_len", "seed"]
    by_seed = perplexity(rows[rows["extension"] == "none"], line)
    ours = summarised(over_sinusoidal(by_seed), overlay.OURS)
    table = overlay.published_ppl(published, "press2022alibi", "5")
    by_run = table.assign(log_ppl=np.log(table["value"]), seed=0)
    theirs = summarised(over_sinusoidal(by_run), table["source"].iloc[0])
    pairs = overlay.pair_lengths(ours, theirs)
    points = pd.concat([ours, theirs[theirs[PANEL].isin([other for _, other in pairs])]], ignore_index=True)
    looks = looks_of(points["scheme"])
    with style():
        drawn, (all_axes,) = new_figure(7.2, 3.1, 1, len(pairs), sharey=True)
        for axes, (mine, other) in zip(all_axes, pairs, strict=True):
            shown = points[points[PANEL] == points["source"].eq(overlay.OURS).map({True: mine, False: other})]
            overlay.curves(axes, shown, looks)
            overlay.multiples_axis(axes, 1, shown["x"].max())
            longest = int(np.log2(shown["x"].max()))
            axes.set_xticks([2.0**k for k in range(0, longest + 1, 2)], [f"{2**k}" for k in range(0, longest + 1, 2)])
            axes.set_title(f"ALiBi trained on {mine:,}\ntokens (published: {other:,})")
            axes.set_xlabel("length / training length")
        overlay.log_limits(all_axes[0], points)
        all_axes[0].set_ylabel("perplexity / that of sinusoidal at L")
        overlay.key(drawn, "published, 1 run", overlay.band_over(points), ("alibi", "sinusoidal"))
    return drawn, points


def over_sinusoidal(by_seed: pd.DataFrame) -> pd.DataFrame:
    """log_ratio to sinusoidal positions trained on the panel's length: ALiBi of that training length, sinusoidal of any."""
    at_home = by_seed[(by_seed["scheme"] == "sinusoidal") & (by_seed["train_len"] == by_seed["eval_len"])]
    alibi = by_seed[(by_seed["scheme"] == "alibi") & (by_seed["eval_len"] >= by_seed["train_len"])]
    found = []
    for length, base in at_home.groupby("train_len"):
        start = base.set_index("seed")["log_ppl"]
        shown = pd.concat([alibi[alibi["train_len"] == length], at_home[at_home["eval_len"] >= length]])
        shown = shown.assign(log_ratio=shown["log_ppl"] - shown["seed"].map(start), x=shown["eval_len"] / length)
        found.append(shown.assign(**{PANEL: length}))
    return pd.concat(found, ignore_index=True)


def summarised(by_seed: pd.DataFrame, source: str) -> pd.DataFrame:
    groups = by_seed.groupby([PANEL, "protocol", "scheme", "extension", "train_len", "eval_len", "x"])
    points = overlay.by_group(over_seeds(groups["log_ratio"]).exp(), source)
    itself = (points["scheme"] == "sinusoidal") & (points["x"] == 1)  # whose ratio is known without an interval
    return points.assign(**{bound: points[bound].mask(itself, 1.0) for bound in ("low", "high")})[[PANEL, *overlay.CURVE]]
