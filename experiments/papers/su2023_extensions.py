"""Su 2023 (kexue.fm 9708 and 9859): what extensions of RoPE's finished weights do at eight times the training length.

Expected: position interpolation is worse than nothing, NTK far better than either, YaRN better still, and ReRoPE, which has
no distance beyond its window, best or next to it.

Published: the share of tokens that are predicted right at 8 L, on text that does not repeat itself; dashed, the share at L.
Ours: perplexity of all tokens of pieces of 8 L over that of pieces of L, in a causal model and in an encoder; dashed, 1. The
two are not the same quantity, so what can be compared is the order. Nothing is published of the window; of NTK with this
base neither, for theirs of old has one that grows by the factor alone (39.3 %). ReRoPE's window is half of the training
length in both.

make paper FIGURE=su2023_extensions
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.papers.overlay import CURVE, MEASURED, OURS, averaged, key, ours, over
from extrap.report.curves import DASHES, log_axis, mark_cut
from extrap.report.drawing import new_figure
from extrap.report.looks import LOOKS
from extrap.report.typesetting import NONE

NEEDS = ("extend/rows.csv", "extend_mlm/rows.csv")
NAMES = {
    "none": "as trained", "pi": "PI", "ntk": "NTK", "ntkfixed": "NTK, fixed", "ntkmixed": "NTK, mixed", "yarn": "YaRN",
    "rerope": "ReRoPE", "window": "window of L",
}  # fmt: skip
HOLDS = {"protocol": ("nonoverlap",), "scheme": ("rope",), "extension": tuple(NAMES)}
AT = 8  # times the training length
PAPER = {
    "data": "Chinese",
    "a token": NONE,
    "model": "gated attention units, 100 M parameters",
    "training length": "512",
    "seeds": "1",
}
PANELS = {"causal": "ours, causal LM", "mlm": "ours, masked LM"}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A line an extension, in a panel each the published shares and our ratios."""
    points = pd.concat([theirs(published), over_start(rows)], ignore_index=True)
    is_ours, look = points["source"] == OURS, LOOKS["rope"]
    drawn, ((left, *others),) = new_figure(7.2, 2.7, 1, 3, sharey=True)
    panels = [(left, "published, causal LM", points[~is_ours], {"markerfacecolor": "white"})]
    for axes, (objective, title) in zip(others, PANELS.items(), strict=True):
        panels.append((axes, title, points[is_ours & (points["objective"] == objective)], {}))
    left.set_xlim(0, 60)
    for axes in others:
        ratios_axis(axes, points.loc[is_ours, "value"])
    for axes, title, shown, face in panels:
        for line in shown[shown["x"] == AT].itertuples():
            at = [*NAMES].index(line.extension)
            axes.plot([line.low, line.high], [at, at], color=look["color"], solid_capstyle="butt", linewidth=4, alpha=0.3)
            mark_cut(axes, line.low, line.high, at, look["color"])
            axes.plot([line.value], [at], **look | {"linestyle": "none", "markersize": 5.5} | face)
        start = shown.loc[shown["x"] == 1, "value"].iloc[0]
        axes.axvline(start, color="0.3", linewidth=0.8, linestyle=DASHES, zorder=0)
        axes.set_title(title)
        axes.grid(axis="x")
    left.set_xlabel(f"% of tokens right at {AT} L")
    left.set_yticks(range(len(NAMES)), [*NAMES.values()])
    left.set_ylabel("done to RoPE")
    left.set_ylim(len(NAMES) - 0.5, -0.5)
    key(drawn, points)
    return drawn, points


def ratios_axis(axes: Axes, values: pd.Series) -> None:
    log_axis(axes, "x")
    axes.set_xlim(values.min() / 1.2, values.max() * 1.3)
    axes.set_xlabel(f"perplexity at {AT} L / at L")


def over_start(rows: pd.DataFrame) -> pd.DataFrame:
    """At 8 L, whatever is done, over the weights as trained at L; that itself is 1."""
    lines = ours(rows, "nonoverlap", ("rope",), *NAMES)
    start = lines[(lines["eval_len"] == lines["train_len"]) & (lines["extension"] == "none")]
    far = pd.concat([start, lines[lines["eval_len"] == AT * lines["train_len"]]])
    far = over(far, start, "objective").assign(x=far["eval_len"] / far["train_len"])
    return averaged(far, ["source", "objective", *MEASURED, "x"])[["objective", *CURVE]]


def theirs(published: pd.DataFrame) -> pd.DataFrame:
    told = published[(published["source"] == "su2023kexue") & published["extension"].isin(NAMES)]
    told = told[(told["protocol"] == "non-repeat") | (told["protocol"] == "in distribution") & (told["extension"] == "none")]
    told = told[told["scheme"] == "rope"].assign(x=told["eval_len"] / told["train_len"], n_seeds=1, low=float("nan"))
    told = told.assign(source=told["source"] + ", table " + told["table"], high=float("nan"))
    return told[["objective", *CURVE]]
