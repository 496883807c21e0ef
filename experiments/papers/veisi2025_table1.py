"""Veisi et al. 2025 (CABLE, arXiv:2503.08067), Table 1: which biases made of content or distance extrapolate.

Expected: CABLE and ALiBi stay flat, KERPLE rises late on one corpus, and FIRE breaks, by a factor of 6 at 4 L on one corpus
and of 1.3 on the other. FIRE's own paper (Li et al. 2024, arXiv:2310.04418) has it flat.

Plotted: perplexity over that at the training length L; all tokens of pieces of the evaluation length are scored. CABLE is
the form that was released, without weights. Published: table 1, trained on 1,024 tokens, one run each; the two corpora are
read by models of two sizes, so that what differs between them is due to either.

make paper FIGURE=veisi2025_table1
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import OURS, draw_panels, ours, over_start, theirs

NEEDS = ("zoo/rows.csv",)
SCHEMES = ("alibi", "cable(scaled=False)", "fire", "kerple", "rope", "t5")
HOLDS = {"protocol": ("nonoverlap",), "scheme": SCHEMES}
PAPER = {
    "data": "FineWeb-Edu-10B, WikiText-103",
    "a token": "subword",
    "model": "GPT-2 Medium, 334 M parameters, and Tiny, 44 M",
    "training length": "1,024",
    "seeds": "1",
}
CORPORA = {"1a": "published, FineWeb-Edu", "1b": "published, WikiText-103"}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Ours, and each corpus of theirs."""
    there = theirs(published, "veisi2025cable", *CORPORA)
    lines = pd.concat([ours(rows, "nonoverlap", SCHEMES), there[there["scheme"].isin(SCHEMES)]], ignore_index=True)
    points = over_start(lines)
    mine = points[points["source"] == OURS]
    panels = [(f"ours, training length {mine['train_len'].iloc[0]:,} tokens", mine)]
    panels += [(title, points[points["source"].str.endswith(f"table {table}")]) for table, title in CORPORA.items()]
    labels = "length / training length", "perplexity / that at training length"
    return draw_panels(points, panels, *labels, schemes=SCHEMES), points
