"""Press et al. 2022 (arXiv:2108.12409), Figure 1: perplexity by evaluation length, trained at two lengths.

Expected: sinusoidal positions get worse at once, RoPE after a little gain before 2 L, the T5 bias between 3.6 and 7 L, and
ALiBi never; each training length shows the same picture.

Drawn is perplexity over that at the training length L. Published: tables 2 and 3, trained on 512 and 1,024 words, one run
each. Text is cut into pieces of the evaluation length and every token is scored, so a longer piece also means that fewer
tokens stand at its beginning, with little to read: part of every gain is that.

make paper FIGURE=press2022_figure1
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import PRESS2022
from experiments.papers.overlay import draw_panels, our_ratios, pair_lengths, published_ratios, with_own

NEEDS = ("causal_64/rows.csv", "causal/rows.csv")
SCHEMES = ("alibi", "rope", "sinusoidal", "t5")
HOLDS = {"protocol": ("nonoverlap",), "scheme": SCHEMES}
PAPER = PRESS2022 | {"training length": "512, 1,024", "seeds": "1"}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a training length: ours, and the one of the paper that has the same rank."""
    ours = our_ratios(rows, "nonoverlap", with_own(SCHEMES, rows))
    theirs = published_ratios(published, "press2022alibi", "2", "3")
    points = pd.concat([ours, theirs], ignore_index=True)
    panels = [
        (f"trained on {mine:,} tokens (published: {other:,})", select(points, mine, other))
        for mine, other in pair_lengths(ours, theirs)
    ]
    xlabel = "evaluation length / training length"
    return draw_panels(points, panels, "perplexity / that at training length", "published, 1 run", xlabel), points


def select(points: pd.DataFrame, mine: int, other: int) -> pd.DataFrame:
    return points[points["train_len"] == points["source"].eq("ours").map({True: mine, False: other})]
