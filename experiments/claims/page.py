"""What rows say about the claims -> a page for people. Imports no torch."""

import numpy as np
import pandas as pd

from experiments.claims.claim import CONFIRMED, OUT_OF_SCOPE, REFUTED, Claim
from experiments.claims.places import NO_EXPERIMENT, TEXTS
from experiments.claims.published import cited
from experiments.claims.registry import CLAIMS, NOT_YET
from experiments.claims.words import SIGNS, value
from extrap.report.typesetting import NONE, escape_markdown, name

HEAD = """\
# Published claims

What papers say about position encodings and length, each made into a test on the rows of our own experiments. `L` is the
training length. An effect is a mean over seeds of a ratio of perplexities (if not told otherwise), paired by seed and
taken in logarithms, with its t interval. A claim names a threshold:

- **confirmed**: the whole interval lies on the claim's side of it,
- **refuted**: the whole interval lies on the other side,
- **undecided**: the interval holds the threshold, or there is a single seed, which has none,
- **out of scope**: the rows do not hold what the claim is about, or could not decide it; the reason is told.

A claim of several parts is confirmed if all of them are, and refuted if any is. The intervals of m parts have the level 1
- 0.05 / m each, so that together they hold in 95 % of cases. Nothing is adjusted for the number of claims on this page:
one in twenty may have gone wrong by chance. *5 % worse* is where a blow-up begins, in our tables as in what is read off
those of papers; *collapses* and *far worse* mean twice the perplexity. These are small models, trained for minutes on bytes
or, where the floor is known, on 8 symbols. That a claim is refuted here means that it does not hold at this size, not that
the paper's numbers are wrong; and confirmed means no more. Intervals hold the noise of seeds on one text, not of which text
was scored: how far that matters show the columns of other texts.

On the source with a *known floor* the best possible perplexity itself falls with length, and a ratio of perplexities at two
lengths would mostly be its slope. There perplexities are taken over that of the best predictor that looks back L tokens at
most, on the same tokens. A model that is blind beyond L and otherwise as good as ever stays at 1, one that makes use of more
context falls below, one that breaks rises above. Out of scope there is what a scheme does that has not left the plateau of
symbol counts, and a threshold that not even a uniform guess would reach.

![Effects against the thresholds of the claims](claims.png)

## Overview

In each cell the part that the verdict hangs on: the clearest refutation, else the one nearest to failing. Published:
the same quantity, computed from the papers' tables, of the part that decides in the first column that decides. –: no
number in the papers' tables, or no experiment of this kind with this text."""


def page(table: pd.DataFrame, published: pd.DataFrame, claims: tuple[Claim, ...] = CLAIMS) -> str:
    """Markdown: an overview, where texts differ, a section a claim, and what cannot be decided yet."""
    parts = [HEAD, overview(table, claims), "## Where the texts differ", differences(table, claims)]
    for claim in claims:
        parts += section(claim, table[table["id"] == claim.id], published)
    parts += ["## Not yet decided", "What they are about is not built:"]
    parts.append(
        "\n".join(f"- {id}: {what} ({source}). Missing: {missing}." for id, (what, source, missing) in NOT_YET.items())
    )
    return "\n\n".join(parts) + "\n"


def overview(table: pd.DataFrame, claims: tuple[Claim, ...]) -> str:
    lines = []
    for claim in claims:
        deciding = table[(table["id"] == claim.id) & table["deciding"]].set_index("place")
        decided = deciding.loc[list(TEXTS)].query("verdict != @OUT_OF_SCOPE")
        line = {"id": f"[{claim.id}](#{anchor(claim)})", "claim": escape_markdown(claim.title)}
        line["published"] = of_papers(decided.iloc[0]) if len(decided) else NONE
        lines.append(line | {text: cell(deciding.loc[text]) for text in TEXTS})
    return markdown(pd.DataFrame(lines))


def anchor(claim: Claim) -> str:
    """As GitHub names the heading of its section, which is the id alone."""
    return claim.id.lower()


def cell(line: pd.Series) -> str:
    if line["verdict"] == OUT_OF_SCOPE:
        return NONE if line["reason"] == NO_EXPERIMENT else OUT_OF_SCOPE
    word = f"**{line['verdict']}**" if line["verdict"] in (CONFIRMED, REFUTED) else line["verdict"]
    return f"{word}: {with_interval(line)}"


def with_interval(line: pd.Series) -> str:
    if line["n_seeds"] < 2:
        return f"{value(line['effect'])}, a single seed"
    return f"{value(line['effect'])} [{value(line['low'])}, {value(line['high'])}]"


def of_papers(line: pd.Series) -> str:
    if np.isnan(line["published"]):
        return NONE
    low, high = value(line["published_low"]), value(line["published_high"])
    return low if low == high else f"{low} to {high}"


def threshold(line: pd.Series) -> str:
    return f"{SIGNS[line['side']]} {line['threshold']:g}"


def markdown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, disable_numparse=True))


def differences(table: pd.DataFrame, claims: tuple[Claim, ...]) -> str:
    """Claims with opposite verdicts on two texts, then those that are decided on one and undecided on another."""
    opposite: list[str] = []
    open_: list[str] = []
    for claim in claims:
        if words := differs(table, claim):
            told = f"- {claim.id}, {escape_markdown(claim.title)}: {words}"
            (opposite if CONFIRMED in words and REFUTED in words else open_).append(told)
    parts = ["Opposite verdicts:", "\n".join(opposite)] if opposite else ["No claim has opposite verdicts on two texts."]
    return "\n\n".join(parts + (["Decided on one text, undecided on another:", "\n".join(open_)] if open_ else []))


def differs(table: pd.DataFrame, claim: Claim) -> str:
    """'refuted on code, confirmed on prose', nothing where all in scope agree."""
    mine = table[(table["id"] == claim.id) & table["deciding"]].set_index("place")["verdict"]
    verdicts = {text: mine[text] for text in TEXTS if mine[text] != OUT_OF_SCOPE}
    return ", ".join(f"{verdict} on {text}" for text, verdict in verdicts.items()) if len(set(verdicts.values())) > 1 else ""


def section(claim: Claim, lines: pd.DataFrame, published: pd.DataFrame) -> list[str]:
    texts = {"Source": claim.source, "Test": claim.test, "Refuted by": claim.refuted_by, "Caveats": claim.caveats}
    parts = [f"## {claim.id}", f"**{escape_markdown(claim.title)}.** {escape_markdown(claim.statement)}"]
    parts.append("\n".join(f"- {word}: {escape_markdown(text)}" for word, text in texts.items()))
    inside = lines[lines["verdict"] != OUT_OF_SCOPE]
    if len(inside):
        parts.append(effects(inside))
    if words := differs(lines, claim):
        parts.append(f"The texts differ: {words}.")
    outside = lines[lines["verdict"] == OUT_OF_SCOPE]
    if len(outside):
        reasons = (
            f"{escape_markdown(place)}: {escape_markdown(reason)}"
            for place, reason in zip(outside["place"], outside["reason"], strict=True)
        )
        parts.append(f"Out of scope: {'; '.join(reasons)}.")
    if numbers := cited(claim, published):
        parts.append("Published:\n\n" + "\n".join(f"- {series}: {figures(rows)}" for series, rows in numbers))
    return parts


def effects(lines: pd.DataFrame) -> str:
    """A row a part, a column a place; the verdict of all parts together last."""
    table = []
    for _, part in lines.groupby("part", sort=True):
        first = part.iloc[0]
        row = {"quantity": escape_markdown(first["quantity"]), "claim": threshold(first), "published": of_papers(first)}
        for place, line in part.set_index("place").iterrows():
            row[escape_markdown(str(place))] = f"{with_interval(line)} {line['part_verdict']}"
        table.append(row)
    if len(table) > 1:
        verdicts = lines[lines["deciding"]].set_index("place")["verdict"]
        table.append(
            {"quantity": "together", "claim": "", "published": ""} | {str(k): f"**{v}**" for k, v in verdicts.items()}
        )
    seeds = ", ".join(f"{place} {n}" for place, n in lines[lines["deciding"]].set_index("place")["n_seeds"].items())
    floors = ", ".join(lines.loc[lines["over_floor"].eq(True), "place"].unique())
    over = f" On {floors}: over the floor of the best predictor that looks back L tokens at most." if floors else ""
    level = f"{100 * lines['confidence'].iloc[0]:.3g} %"
    return f"{markdown(pd.DataFrame(table))}\n\nIntervals at {level}. Seeds: {seeds}.{over}"


def figures(rows: pd.DataFrame) -> str:
    """Numbers as they were printed, each with what it is."""
    told = []
    for row in rows.itertuples():
        where = "" if row.metric == "ratio" else f" at {row.eval_len:,}"
        told.append(
            f"{escape_markdown(f'{name(row.scheme, row.extension)}{where}')} {row.value:g} {row.metric.replace('_', ' ')}"
        )
    notes = "; ".join(dict.fromkeys(escape_markdown(note) for note in rows["note"] if note))
    return ", ".join(told) + (f" ({notes})" if notes else "")
