"""Press et al. 2022 (arXiv:2108.12409), Figure 2: training speed, evaluation speed and memory by scheme.

Expected: ALiBi costs what sinusoidal positions cost, RoPE trains at about 0.7 and the T5 bias at about half of their speed.

Plotted: ratios to sinusoidal positions, or to none where sinusoidal ones were not measured: they cost one addition more.
Published: table 1, trained on 1,024 words, on one V100; the dashed lines span training on 512 to 3,072. Their evaluation is
of batches and their memory that of training; ours are both of evaluating one long sequence. Ours are medians over rounds
of the ratio within a round, bars span the rounds; what was measured once has none.

make bench-all
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.papers import PRESS2022
from experiments.papers.overlay import OURS, key
from experiments.speed.timings import where
from extrap.report.curves import DASHES, log_axis
from extrap.report.drawing import new_figure
from extrap.report.looks import LOOKS
from extrap.results.shown import rounded

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
    drawn, (all_axes,) = new_figure(7.2, 2.3, 1, len(PANELS), sharey=True)
    for axes, (panel, (_, _, more)) in zip(all_axes, PANELS.items(), strict=True):
        shown = points[points["panel"] == panel]
        draw(axes, shown)
        mine = shown[shown["source"] == OURS]
        axes.set_title(f"{panel} (ours not measured)" if mine.empty else panel)
        over = "".join(f", ours over {base}" for base in {*mine["over"]} - {"sinusoidal"})
        axes.set_xlabel(f"over sinusoidal{over}\n({'more' if more else 'less'} is better)")
    all_axes[0].set_yticks(range(len(SCHEMES)), SCHEMES)
    all_axes[0].set_ylim(len(SCHEMES) - 0.5, -0.5)
    key(drawn, points, published="published: training length 1,024, and from 512 to 3,072")
    return drawn, points


def our_points(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Speeds and memory of the causal encoder, the shortest input."""
    rows = where(rows, name="extrap", objective="causal")
    for panel, (_, case, more) in PANELS.items():
        measured = where(rows, case=case)
        n = measured["n"].min()
        cost = where(measured, n=n).pivot(index="round", columns="scheme", values="value")  # seconds or bytes
        yield from ratios(1 / cost if more else cost, source=OURS, panel=panel, n=n)


def their_points(published: pd.DataFrame) -> Iterator[dict[str, object]]:
    table = where(published, source="press2022alibi", table="1")
    for panel, (metric, _, _) in PANELS.items():
        values = where(table, metric=metric).pivot(index="train_len", columns="scheme", values="value")
        for point in ratios(values, source="press2022alibi, table 1", panel=panel, n=1024):
            yield point | {"value": (values[point["scheme"]] / values["sinusoidal"])[1024]}


def ratios(values: pd.DataFrame, **told: object) -> Iterator[dict[str, object]]:
    """Each scheme over the first of BASES that was measured, within a round or length: their median and range."""
    base = next((scheme for scheme in BASES if scheme in values), None)
    for scheme in SCHEMES:
        if base and scheme in values:
            ratio = values[scheme] / values[base]
            told |= {"scheme": scheme, "over": base}
            yield told | {"value": ratio.median(), "low": ratio.min(), "high": ratio.max()}


def draw(axes: Axes, points: pd.DataFrame) -> None:
    axes.axvline(1, color="0.3", linewidth=0.8, zorder=0)
    for source, scheme, value, low, high in points[["source", "scheme", "value", "low", "high"]].itertuples(index=False):
        look, ours = LOOKS[scheme], source == OURS
        height = SCHEMES.index(scheme) + (-0.15 if ours else 0.15)
        line = {"linewidth": 1.3} if ours else {"linewidth": 0.9, "linestyle": DASHES}
        axes.plot([low, high], [height, height], color=look["color"], **line)
        face = look["color"] if ours else "white"
        axes.plot([value], [height], linestyle="none", markersize=5, markerfacecolor=face, **look)
    log_axis(axes, "x")
    values = pd.concat([points["low"], points["high"], pd.Series([1.0])])
    room = (values.max() / values.min()) ** 0.1
    axes.set_xlim(values.min() / room, values.max() * room)
    axes.grid(axis="both")
