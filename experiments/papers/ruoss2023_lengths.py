"""Ruoss et al. 2023 (arXiv:2305.16843): positions that are drawn in training from a range beyond L, by length.

Expected: at the training length L randomized positions cost something, for a model sees many more distances than its text
has; beyond it they stay where they are, up to the end of the range that they are drawn from, here 32 L.

Plotted: perplexity over that of RoPE, or of ALiBi, at L, on the same targets, in encoders, as theirs are. Left RoPE plain,
at randomized positions, and at those of PoSE, two chunks of consecutive positions (Zhu et al. 2024, arXiv:2309.10400);
right ALiBi plain, and with distances that are drawn, which is what their code does to it, but for a half step that tells
behind from ahead. Randomized positions are drawn in evaluation, too, once for each seed and length, those of PoSE, whose
range is 8 L, are not. Theirs solve algorithmic tasks, and their numbers are accuracies: none stands beside ours.

make paper FIGURE=ruoss2023_lengths
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import CURVE, MEASURED, averaged, draw_panels, ours, over

NEEDS = ("zoo_mlm/rows.csv",)
ROTARY, BIASED = ("rope", "randomized(rope)", "pose(rope)"), ("alibi", "randomized(alibi, draw=distances)")
HOLDS = {"protocol": ("same_targets",), "scheme": (*ROTARY, *BIASED)}
PAPER = {
    "data": "15 algorithmic tasks",
    "a token": "symbol",
    "model": "encoder, 5 layers, 8 heads, width 64",
    "training length": "1 to 40",
    "seeds": "10",
}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel for RoPE and one for ALiBi. `published` is not used: the paper has no perplexities."""
    parts = {}
    for title, schemes in (("RoPE", ROTARY), ("ALiBi", BIASED)):
        lines = ours(rows, "same_targets", schemes)
        start = lines[(lines["scheme"] == schemes[0]) & (lines["eval_len"] == lines["train_len"])]
        found = over(lines, start).assign(x=lines["eval_len"] / lines["train_len"])
        parts[title] = averaged(found, ["source", *MEASURED, "x"])[CURVE].assign(panel=title)
    points = pd.concat(parts.values(), ignore_index=True)
    panels = [(f"{title}, training length {part['train_len'].iloc[0]:,} tokens", part) for title, part in parts.items()]
    return draw_panels(
        points, panels, "evaluation length / training length", "perplexity / that of the plain one at L"
    ), points
