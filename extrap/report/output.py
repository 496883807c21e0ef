"""What another output table changes of every scheme, and whether of all alike: output.md. Imports no torch."""

from typing import Any

import pandas as pd

from extrap.report.about import chosen_markdown, missing_text
from extrap.report.pairs import at_landmarks, difference_cell
from extrap.report.typesetting import NONE, half_width, interval, markdown, number, trained_on
from extrap.results.rows import apart, as_trained
from extrap.stats.output import OUTPUT, UNTIED
from extrap.stats.perplexity import CONDITION
from extrap.stats.statistics import Statistics

NOTE = """\
Perplexity with a separate output embedding (untied), and by how many nats per token each scheme is worse (+) or better (-)
with another output, with the half width of the 95 % interval over seeds, paired by seed. **Bold**: decided, by the rule of
pairs.md, with Holm's correction over all schemes and outputs of one length. Below that, the interaction for pairs of
schemes: the effect of the output on the first minus that on the second, paired by seed; **bold**: p < 0.05 over seeds after
Holm, on this text. Negative: the first gains more by this output, or loses less. outputs.csv and interactions.csv have all
lengths.

In a tied model one optimizer step moves the input and the output embedding together: an input vector moves sqrt(D) / 2
times as far as in an untied model, a logit 2 / sqrt(D) times as far, and no scaling of a shared table comes closer to the
untied model (extrap/model/output.py). The effect of that is part of these differences, even where each output has the
learning rate that suits it."""


def output_page(found: Statistics) -> str:
    """Markdown: a table of schemes and one of pairs of them at L, 4 L and the longest length."""
    parts = [*chosen_markdown(found.choice), NOTE, *missing_text(found.missing)]
    known = apart(found.summary, OUTPUT)
    untied = as_trained(known[known["value"] == UNTIED])
    place, between = [*CONDITION, "eval_len"], found.interactions
    for of, lines in at_landmarks(found.outputs).groupby(place, sort=False):
        *group, protocol, eval_len = of
        parts.append(f"**{protocol}, {eval_len:,}: other outputs, {trained_on(*group)}**")
        levels = untied[(untied[place] == list(of)).all(axis=1)].set_index("scheme")
        parts.append(markdown(_schemes(lines, levels), ["scheme"]))
        if len(between) and len(own := between[(between[place] == list(of)).all(axis=1)]):
            parts.append(markdown(_pairs(own), ["first", "second"]))
    return "\n\n".join(parts) + "\n"


def _schemes(lines: pd.DataFrame, untied: pd.DataFrame) -> pd.DataFrame:
    table = []
    for scheme, part in lines.groupby("scheme", sort=False):
        level = untied.loc[scheme]
        shown = number(level["ppl"]) + interval(level["ppl"], level["ppl_low"], level["ppl_high"])
        table.append({"scheme": scheme, UNTIED: shown} | {line.output: _cell(line) for line in part.itertuples()})
    return pd.DataFrame(table).fillna(NONE)


def _pairs(lines: pd.DataFrame) -> pd.DataFrame:
    table = [
        {"first": a, "second": b} | {line.output: _cell(line) for line in part.itertuples()}
        for (a, b), part in lines.groupby(["scheme_a", "scheme_b"], sort=False)
    ]
    return pd.DataFrame(table).fillna(NONE)


def _cell(line: Any) -> str:
    """Nats and the half width of their interval."""
    told = difference_cell(line.difference, line.verdict, line.objective, "+")
    return told + half_width(line.high - line.difference, line.objective)
