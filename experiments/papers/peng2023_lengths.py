"""Peng et al. 2023 (YaRN, arXiv:2309.00071): perplexity of RoPE by length of the context, by what is done to it.

Expected: as trained, RoPE breaks soon after the training length L; of what is done to weights that are not trained further
PI rises soonest and YaRN is lowest of what changes frequencies.

Plotted: perplexity over that of the same weights at L, on the same targets, each with all the context of its length, in a
causal model and in an encoder. The factor is that of each length, as in dynamic scaling, which the authors show of weights
that are not trained further (appendix B.3, figure 5: one document). Their other curves are mostly of weights that were. No
number of theirs stands beside ours: the order is what can be compared.

make paper FIGURE=peng2023_lengths
"""

import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import CURVE, MEASURED, averaged, draw_panels, ours, over
from extrap.report.looks import LOOKS
from extrap.report.typesetting import NONE

NEEDS = ("extend/rows.csv", "extend_mlm/rows.csv")
NAMES = {"none": "as trained", "pi": "PI", "ntk": "NTK", "yarn": "YaRN", "window": "window of L"}
# all curves are RoPE's: they look like curves of other schemes, for so many can be told apart
LIKE = {"none": "rope", "pi": "sinusoidal", "ntk": "learned", "yarn": "nope", "window": "local(rope)"}
HOLDS = {"protocol": ("same_targets",), "scheme": ("rope",), "extension": tuple(NAMES)}
PAPER = {
    "a token": "subword",
    "model": "Llama 2, 7 B parameters",
    "training": "none beyond that of Llama 2",
    "training length": "4,096",
    "seeds": NONE,
}


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel for the causal model and one for the encoder. `published` is not used."""
    lines = ours(rows, "same_targets", ("rope",), *NAMES)
    start = lines[(lines["eval_len"] == lines["train_len"]) & (lines["extension"] == "none")]
    start_of = [start.assign(extension=extension) for extension in NAMES]  # every extension begins where the weights are
    lines = pd.concat([lines[lines["eval_len"] > lines["train_len"]], *start_of])
    lines = over(lines, start, "objective").assign(x=lines["eval_len"] / lines["train_len"])
    points = averaged(lines, ["source", "objective", *MEASURED, "x"])[["objective", *CURVE]]
    named = points.assign(scheme=points["extension"].map(NAMES))
    panels = [
        (f"{title}, training length {part['train_len'].iloc[0]:,} tokens", part)
        for objective, title in (("causal", "causal LM"), ("mlm", "masked LM"))
        if len(part := named[named["objective"] == objective])
    ]
    looks = {name: LOOKS[LIKE[extension]] for extension, name in NAMES.items()}
    return draw_panels(named, panels, "evaluation length / training length", "perplexity / that at L", looks=looks), points
