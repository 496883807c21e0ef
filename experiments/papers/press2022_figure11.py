"""Press et al. 2022 (arXiv:2108.12409), Figure 11: with a window that moves by one token, ALiBi is flat.

Expected: sinusoidal positions break down as before; ALiBi, which improves with length when text is cut into pieces, stays
within 2.6 % of its perplexity at the training length when windows overlap so that tokens have the full length to read. So
its gain comes from tokens early in a piece, not from context beyond the training length. The 2.6 % is of models trained on
1,024 words; of those drawn here, on 512, it is 1.8 %.

Plotted: perplexity over that at the training length L: left every scheme under a window that moves by one token, right
ALiBi alone under that window and with text cut into pieces. Published: tables 13 to 15, and for pieces table 5, trained
on 512 words, one run each. In each held-out segment the first window is scored whole, and its tokens have less to read: more
of them the longer the window, a quarter of a segment at 4 L, which weakens gains and harm alike.

make paper FIGURE=press2022_figure11
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers import PRESS2022, overlay
from extrap.report.drawing import new_figure
from extrap.report.labels import name_ends
from extrap.report.looks import LOOKS, looks_of

NEEDS = ("stride1/rows.csv",)
SLIDING, PIECES = "sliding(stride=1)", "nonoverlap"
SCHEMES = ("alibi", "sinusoidal")
HOLDS = {"protocol": (SLIDING, PIECES), "scheme": SCHEMES}
PAPER = PRESS2022 | {"training length": "512", "seeds": "1"}
PUBLISHED_AT = 512
GREY = "0.45"


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Left all schemes, right ALiBi under both protocols."""
    moved, cut = (overlay.ours(rows, protocol, overlay.with_own(SCHEMES, rows)) for protocol in (SLIDING, PIECES))
    there = overlay.theirs(published, "press2022alibi", "13-15", "5").replace({"protocol": {"sliding stride 1": SLIDING}})
    points = overlay.over_start(pd.concat([moved, cut, there[there["train_len"] == PUBLISHED_AT]], ignore_index=True))
    in_pieces = points["protocol"] == PIECES
    sliding, pieces = points[~in_pieces], points[in_pieces & (points["scheme"] == "alibi")]
    points = pd.concat([sliding, pieces], ignore_index=True)
    alibi, looks = sliding[sliding["scheme"] == "alibi"], looks_of(sliding["scheme"])
    drawn, ((left, right),) = new_figure(7.2, 3.1, 1, 2)
    overlay.curves(left, sliding, looks)
    overlay.curves(right, alibi, looks)
    overlay.curves(right, pieces, looks, color=GREY)
    overlay.log_limits(left, sliding)
    overlay.log_limits(right, points[points["scheme"] == "alibi"])
    for axes in (left, right):
        overlay.multiples_axis(axes, 1, points["x"].max())
        axes.set_xlabel("evaluation length / training length")
        axes.set_ylabel("perplexity / that at training length")
    left.set_title(f"window moved by one, L = {rows['train_len'].iloc[0]:,} (published: {PUBLISHED_AT:,})")
    right.set_title("ALiBi: window moved by one; in pieces (grey)")
    overlay.key(drawn, points)
    lasts = [part[part["source"] == overlay.OURS].sort_values("x").iloc[-1][["x", "value"]] for part in (alibi, pieces)]
    colours = {"moved by one": LOOKS["alibi"]["color"], "in pieces": GREY}
    two = [overlay.end(right, *told, *last) for told, last in zip(colours.items(), lasts, strict=True)]
    name_ends([(left, overlay.ends(left, sliding, looks)), (right, two)])
    return drawn, points
