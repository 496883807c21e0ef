"""Clark et al. 2020 (ELECTRA, arXiv:2003.10555): the same schemes, trained to predict, to fill in, and to tell what is fake.

Expected: who breaks beyond the training length L does so whatever it was trained for, and who does not, does not.

The paper asks which objective makes better encoders; what becomes of each beyond L no paper that we know tells. Plotted: the
rise of the loss over that at L, in nats per token, on the same targets: of causal and masked language models, of encoders
that tell replaced tokens from original ones, with replacements that are the same for all (`rtd`), and of ELECTRA's generator
and discriminator, the latter on text that is corrupted as that of `rtd`. The scales are those of the objectives: a token has
256 values, to be replaced or not has two, of which one is rare. A rise is to be read within its panel, not across. Learned
positions end at L, and nothing of them is drawn.

make paper FIGURE=clark2020_objectives
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.overlay import CURVE, MEASURED, by_group, draw_panels, ours, over
from extrap.report.tables import UNLEARNED
from extrap.report.typesetting import NONE, escape_markdown
from extrap.results.shown import IN_NATS
from extrap.stats.perplexity import over_seeds, summarise

NEEDS = ("causal/rows.csv", "main/rows.csv", "rtd/rows.csv", "electra/rows.csv")
SCHEMES = ("rope", "sinusoidal", "alibi", "local(rope)", "nope")
HOLDS = {"protocol": ("same_targets",), "scheme": SCHEMES}
PAPER = {"data": "books and Wikipedia", "a token": "subword", "model": "ELECTRA-Small, 12 layers", "training length": "128"}
TITLES = {
    "causal": "causal LM",
    "mlm": "masked LM",
    "rtd": "replaced tokens",
    "electra_generator": "ELECTRA, generator",
    "electra": "ELECTRA, discriminator",
}
MULTIPLES = (1, 2, 4, 8, 16)
POINTS = [*CURVE[:1], "objective", *CURVE[1:], "loss", "loss_low", "loss_high", "beats_unigram"]


def figure(rows: pd.DataFrame, published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A panel an objective. `published` is not used: the paper trains and reads at one length."""
    points = rises(rows)
    drawn = points[points["x"].isin(MULTIPLES)]
    panels = [(title.replace(", ", ",\n"), drawn[drawn["objective"] == objective]) for objective, title in TITLES.items()]
    labels = ["rise of the loss over that at L / nats per token", *[""] * (len(panels) - 1)]
    return draw_panels(drawn, panels, "length / L", *labels, schemes=SCHEMES), points


def rises(rows: pd.DataFrame) -> pd.DataFrame:
    """A line an objective, scheme and length: the loss, by how much it is above that at L, paired by seed, and whether the
    scheme has learned enough there for a flat curve to say something (`beats_unigram`, see summarise)."""
    lines = ours(rows, "same_targets", SCHEMES)
    lines = lines[lines["eval_len"] >= lines["train_len"]].assign(x=lambda table: table["eval_len"] / table["train_len"])
    risen = over(lines, lines[lines["x"] == 1], "objective", "scheme")
    by = ["source", "objective", *MEASURED, "x"]
    loss = by_group(over_seeds(lines.groupby(by, sort=False)["log_ppl"]))
    loss = loss.rename(columns={"value": "loss", "low": "loss_low", "high": "loss_high"}).drop(columns="n_seeds")
    found = by_group(over_seeds(risen.groupby(by, sort=False)["log_ppl"]))
    scored = rows[(rows["protocol"] == "same_targets") & (rows["extension"] == "none")]
    learned = summarise(scored)[["objective", "scheme", "beats_unigram"]].drop_duplicates()
    return found.merge(loss, on=by).merge(learned, on=["objective", "scheme"])[POINTS]


def table(points: pd.DataFrame) -> str:
    """Markdown: the loss of each scheme at each multiple of L, as perplexity where tokens are predicted."""
    lines = []
    for objective, title in TITLES.items():
        own = points[points["objective"] == objective]
        for scheme in SCHEMES:
            cells = own[own["scheme"] == scheme].set_index("x")
            told = {f"{m} L": _cell(cells.loc[m], objective) if m in cells.index else NONE for m in MULTIPLES}
            name = escape_markdown(scheme) + ("" if cells["beats_unigram"].all() else UNLEARNED)
            lines.append({"objective": title, "scheme": name, **told})
    note = (
        "Loss by length, ± half a 95 % t interval over seeds: perplexity, and in nats per token where replaced tokens are "
        "told. **Bold**: above that at L, the whole interval of the paired difference. †: at L not 5 % better than the "
        "frequencies in the training text, or no better than what two neighbours tell: a flat curve says nothing."
    )
    return f"{note}\n\n{pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)}"


def _cell(line: pd.Series, objective: str) -> str:
    loss, half = line["loss"], line["loss_high"] - line["loss"]
    if objective in IN_NATS:
        text, interval = f"{loss:.3f}", f" ±{half:.3f}"
    else:
        text, interval = f"{np.exp(loss):.2f}", f" ±{100 * np.expm1(half):.1f} %"
    text += interval if np.isfinite(half) else ""
    return f"**{text}**" if line["low"] > 0 else text
