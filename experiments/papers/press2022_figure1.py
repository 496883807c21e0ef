"""Press et al. 2022 (arXiv:2108.12409), Figure 1: perplexity by evaluation length, trained at two lengths.

Expected: sinusoidal positions are 5 % worse by 1.4 L, RoPE after a little gain before 2 L, the T5 bias between 3.6 and 7 L,
and ALiBi never; each training length shows the same picture.

Plotted: perplexity over that at the training length L. Published: tables 2 and 3, trained on 512 and 1,024 words, one run
each. Text is cut into pieces of the evaluation length and every token is scored, so a longer piece also means that fewer
tokens stand at its beginning, with little to read: part of every gain is that.

make paper FIGURE=press2022_figure1
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import PRESS2022
from experiments.papers.overlay import beside, draw_panels, ours, over_start, theirs, with_own

NEEDS = ("causal_64/rows.csv", "causal/rows.csv")
SCHEMES = ("alibi", "rope", "sinusoidal", "t5")
HOLDS = {"protocol": ("nonoverlap",), "scheme": SCHEMES}
PAPER = PRESS2022 | {"training length": "512, 1,024", "seeds": "1"}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a training length: ours, and the one of the paper that has the same rank."""
    mine = ours(rows, "nonoverlap", with_own(SCHEMES, rows))
    points = over_start(pd.concat([mine, theirs(published, "press2022alibi", "2", "3")], ignore_index=True))
    panels = [(f"training length {one:,} tokens (published: {other:,})", shown) for one, other, shown in beside(points)]
    labels = "evaluation length / training length", "perplexity / that at training length"
    return draw_panels(points, panels, *labels), points
