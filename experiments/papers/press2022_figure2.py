"""Press et al. 2022 (arXiv:2108.12409), Figure 2: training speed, evaluation speed and memory by scheme.

Expected: ALiBi costs what sinusoidal positions cost, RoPE trains at about 0.7 and the T5 bias at about half of their speed.

Drawn are ratios to sinusoidal positions, or to none where sinusoidal ones were not measured: they cost one addition more.
Published: table 1, trained on 1,024 words, on one V100; the dashed lines span training on 512 to 3,072. Their evaluation is
of batches and their memory that of training; ours are both of evaluating one long sequence. Ours are medians over rounds
of the ratio within a round, bars span the rounds; what was measured once has none.

make bench-all
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.papers import PRESS2022
from experiments.papers.overlay import OURS, key, ratio_ticks
from extrap.report.curves import DASHES
from extrap.report.drawing import new_figure, style
from extrap.report.looks import LOOKS
from extrap.results.rows import rounded

NEEDS = ("speed/timings.csv",)
HOLDS = {"case": ("training",), "scheme": ("sinusoidal",)}
PAPER = PRESS2022 | {"machine": "one V100", "training": "in sequences of 1,024"}
SCHEMES = ("sinusoidal", "alibi", "rope", "t5")
BASES = ("sinusoidal", "nope")
# panel -> published metric, the case of ours, whether more is better
PANELS = {
    "training speed": ("train_words_per_s", "training", True),
    "evaluation speed": ("eval_words_per_s", "evaluation", True),
    "memory": ("train_memory_gb", "memory", False),
}
POINTS = ["source", "panel", "scheme", "over", "n", "value", "low", "high"]


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel a quantity, a line a scheme."""
    points = rounded(pd.DataFrame([*our_points(rows), *their_points(published)], columns=POINTS))
    with style():
        drawn, (axes,) = new_figure(7.2, 2.3, 1, len(PANELS), sharey=True)
        for one, (panel, (_, _, more)) in zip(axes, PANELS.items(), strict=True):
            shown = points[points["panel"] == panel]
            draw(one, shown)
            one.set_title(panel if OURS in set(shown["source"]) else f"{panel} (ours not measured)")
            others = set(shown.loc[shown["source"] == OURS, "over"]) - {"sinusoidal"}
            over = "".join(f", ours over {base}" for base in others)
            one.set_xlabel(f"over sinusoidal{over}\n({'more' if more else 'less'} is better)")
        axes[0].set_yticks(range(len(SCHEMES)), SCHEMES)
        axes[0].set_ylim(len(SCHEMES) - 0.5, -0.5)
        key(drawn, "published: trained on 1,024, and from 512 to 3,072")
    return drawn, points


def our_points(rows: pd.DataFrame) -> list[tuple[object, ...]]:
    """Speeds and memory of the causal encoder, the shortest input, over the first of BASES that was measured."""
    rows = rows[(rows["name"] == "extrap") & (rows["objective"] == "causal") & (rows["machine"] == rows["machine"].iloc[0])]
    points: list[tuple[object, ...]] = []
    for panel, (_, case, more) in PANELS.items():
        measured = rows[rows["case"] == case]
        measured = measured[measured["n"] == measured["n"].min()].pivot(index="round", columns="scheme", values="value")
        base = next((scheme for scheme in BASES if scheme in measured), None)
        for scheme in (s for s in SCHEMES if base and s in measured):
            cost = measured[scheme] / measured[base]  # seconds or bytes
            ratio = (1 / cost if more else cost).dropna()
            n = rows.loc[rows["case"] == case, "n"].min()
            points.append((OURS, panel, scheme, base, n, ratio.median(), ratio.min(), ratio.max()))
    return points


def their_points(published: pd.DataFrame) -> list[tuple[object, ...]]:
    table = published[(published["source"] == "press2022alibi") & (published["table"] == "1")]
    points: list[tuple[object, ...]] = []
    for panel, (metric, _, _) in PANELS.items():
        values = table[table["metric"] == metric].pivot(index="train_len", columns="scheme", values="value")
        ratios = values.div(values["sinusoidal"], axis=0)
        for scheme in SCHEMES:
            ratio = ratios[scheme]
            points.append(
                ("press2022alibi, table 1", panel, scheme, "sinusoidal", 1024, ratio[1024.0], ratio.min(), ratio.max())
            )
    return points


def draw(axes: Axes, points: pd.DataFrame) -> None:
    axes.axvline(1, color="0.3", linewidth=0.8, zorder=0)
    for source, scheme, value, low, high in points[["source", "scheme", "value", "low", "high"]].itertuples(index=False):
        look, ours = LOOKS[scheme], source == OURS
        height = SCHEMES.index(scheme) + (-0.15 if ours else 0.15)
        line = {"linewidth": 1.3} if ours else {"linewidth": 0.9, "linestyle": DASHES}
        axes.plot([low, high], [height, height], color=look["color"], **line)
        face = look["color"] if ours else "white"
        axes.plot([value], [height], linestyle="none", markersize=5, markerfacecolor=face, **look)
    axes.set_xscale("log")
    values = pd.concat([points["low"], points["high"], pd.Series([1.0])])
    room = (values.max() / values.min()) ** 0.1
    axes.set_xlim(values.min() / room, values.max() * room)
    ratio_ticks(axes.xaxis)
    axes.grid(axis="both")
