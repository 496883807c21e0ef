"""Tables of a report as a page holds them: the text of their cells, and the numbers of it. Imports no torch."""

from typing import Any

import numpy as np
import pandas as pd

from extrap.report.answer import summary_table
from extrap.report.budget import budget_points, places, summary, verdicts_table
from extrap.report.choice import losses_table
from extrap.report.costs import costs_table
from extrap.report.extensions import extensions_table
from extrap.report.group import Group
from extrap.report.overview import overview_table
from extrap.report.pairs import BELOW_FLOOR, extrapolates_block
from extrap.report.probes import SECTIONS, at_a_glance, by_probe
from extrap.report.typesetting import trained_on
from extrap.results.rows import GROUP, as_csv
from extrap.results.shown import by_measure, rounded
from extrap.stats.perplexity import CONDITION
from extrap.stats.statistics import Statistics

# columns of the first table, by how their names begin, and what is told of some
ORDER = (
    "scheme",
    "at L",
    "to ",
    "reach",
    "recall",
    "x at",
    "verdict",
    "beyond L",
    "breaks at",
    "extrapolates",
    "uses",
)
COLUMNS = {
    "at L": "±: 95 % t interval over seeds, both of its ends where it is wide",
    "breaks at": "Breaks at: between these lengths for the first time, in the mean over seeds",
    "reach": "Reach: how many tokens away text still matters, from where to where that ends",
    "recall": "Recall: nats above the best possible prediction in the longest input, of symbols that stood there before",
}
NO_CONTROL = "No control: attention cut off at L changes nothing, or fails"

Json = Any  # dictionaries, lists, strings and numbers
PAIR = ["difference", "low", "high", "p_holm", "text_low", "text_high", "n_seeds", "n_units", "unit", "n_pairs", "verdict",
        "seeds_needed"]  # fmt: skip


def table(text: pd.DataFrame, numbers: pd.DataFrame | None = None) -> Json:
    """Cells as the tables of a report have them, and the numbers that they are made from, as CSV."""
    told: dict[str, Json] = {"head": list(text.columns), "cells": [list(line) for line in text.itertuples(index=False)]}
    if numbers is not None:
        told["csv"] = as_csv(rounded(by_measure(numbers)), "%.10g")
    return told


def plain(value: Any) -> Json:
    """A number or a word that JSON has; None for what is none, and for infinity, as the perplexity of 710 nats is."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def overview(of: Group, looked_into: pd.DataFrame) -> Json:
    """A line a scheme: its level, what becomes of it and where, and what probes found in it."""
    schemes = list(of.start["scheme"])
    breaks = {scheme: of.breaks_at(scheme) if of.fates[scheme][0] == "breaks" else "" for scheme in schemes}
    more = pd.DataFrame({"breaks at": breaks}).join(at_a_glance(looked_into))
    text = summary_table(of) if of.yardstick is None else overview_table(of, schemes)
    more = more.reindex(text["scheme"].str.removesuffix(BELOW_FLOOR)).set_axis(text.index).fillna("")
    factors = [column for column in text if column.startswith("x at ")]  # those by length stand below
    text = text.drop(columns=factors[:-1]).join(more.loc[:, more.ne("").any()])
    told = table(text[sorted(text, key=lambda column: next(i for i, word in enumerate(ORDER) if column.startswith(word)))])
    notes = [note for word, note in COLUMNS.items() if any(column.startswith(word) for column in told["head"])]
    notes += [NO_CONTROL] if any("no control" in line for line in told["cells"]) else []
    return told | {"note": f"{'; '.join(notes)}." if notes else ""}


def pairs(part: Statistics, at: dict[tuple[str, str, str], int]) -> Json:
    """By protocol and length, a line a pair: its two series, and the columns PAIR."""
    told: dict[str, dict[int, list[Json]]] = {}
    for line in part.pairs.itertuples():
        if line.protocol == "position":  # tokens of their own at every length
            continue
        sides = [at["scheme", scheme, "none"] for scheme in (line.scheme_a, line.scheme_b)]
        values = [plain(getattr(line, column)) for column in PAIR]
        told.setdefault(line.protocol, {}).setdefault(int(line.eval_len), []).append([*sides, *values])
    return told


def extrapolates(part: Statistics) -> Json:
    return table(extrapolates_block(part.extrapolates), part.extrapolates) if len(part.extrapolates) else None


def extensions(part: Statistics) -> list[Json]:
    """A table a protocol and length."""
    if part.extended.empty:
        return []
    return [
        {"protocol": protocol, "length": int(n)}
        | table(extensions_table(part, (*of, protocol), n, lines), lines)
        for (*of, protocol, n), lines in part.extended.groupby([*CONDITION, "eval_len"], sort=False)
    ]  # fmt: skip


def costs(part: Statistics) -> Json:
    lines = part.costs_and_quality
    return table(costs_table(lines), lines) if len(lines) else None


def budget(found: Statistics) -> Json:
    """Where the number of steps varies: perplexity by it, and what becomes of verdicts."""
    if found.stability.empty:
        return None
    told = []
    for (*of, protocol, n), lines in places(found.stability):
        about = {"what": trained_on(*of), "protocol": protocol, "length": int(n), "summary": summary(lines)}
        told.append(about | table(verdicts_table(lines), lines))
    points = pd.concat(own.assign(what=trained_on(*of)) for of, own in budget_points(found).items())
    return {"tables": told, "points": {column: [plain(value) for value in points[column]] for column in points}}


def probes(found: pd.DataFrame) -> list[Json]:
    """What probes found in the runs of a group."""
    return [
        {"note": note.replace("**", "")}
        | table(text, SECTIONS[name].points(lines) if name != "heads" else None)  # of every head and seed: a megabyte
        for (*of,), own in found.groupby(GROUP, sort=False)
        for name, lines in by_probe(own).items()
        for note, text in SECTIONS[name].tables(lines, trained_on(*of))
    ]


def choice(found: Statistics) -> list[Json]:
    return [
        {"option": lines["option"].iloc[0], "what": trained_on(*of)} | table(losses_table(lines), lines)
        for of, lines in found.choice.groupby(GROUP, sort=False)
    ]
