"""What rows say about the claims -> a page for people. Imports no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims.claim import CONFIRMED, OUT_OF_SCOPE, REFUTED, Claim
from experiments.claims.published import cited
from experiments.claims.registry import CODE, SECTIONS, SHOWN, TEXTS, Sections
from extrap.report.typesetting import NONE, escape_markdown, name, number
from extrap.stats.budget import CHANGES, NEW, OPEN, STABLE
from extrap.stats.pairs import LACKING

HEAD = Path(__file__).with_name("head.md")


def page(table: pd.DataFrame, published: pd.DataFrame, budgets: pd.DataFrame, sections: Sections = SECTIONS) -> str:
    """Markdown: an overview, where texts differ and a section a claim; beside verdicts what becomes of them with the budget,
    where that is known of any claim."""
    overview, details = [], []
    opposite: list[str] = []
    open_: list[str] = []
    for figure, (heading, claims) in sections.items():
        lines_of = []
        for claim in claims:
            lines = table[table["id"] == claim.id]
            by_place = lines[lines["deciding"]].set_index("place")
            by_budget = dict([*budgets[budgets["id"] == claim.id].groupby("place", sort=False)])
            beside = "; ".join(("" if at == CODE else f"{at}: ") + over_budgets(found) for at, found in by_budget.items())
            lines_of.append(
                in_overview(claim, by_place.loc[list(SHOWN)]) | ({"by budget": beside or NONE} if len(budgets) else {})
            )
            if words := differs(by_place):
                told = f"- {claim.id}, {escape_markdown(claim.words['title'])}: {words}"
                (opposite if CONFIRMED in words and REFUTED in words else open_).append(told)
            details += section(claim, lines, words, by_budget, published)
        picture = f"![Effects against the thresholds of these claims](claims_{figure}.png)"
        overview += [f"### {heading}", markdown(lines_of), picture]
    parts = [HEAD.read_text(encoding="utf-8").strip(), *overview]
    parts += [by_budget_note(budgets)] if len(budgets) else []
    parts += ["## Where the texts differ"]
    parts += ["Opposite verdicts:", "\n".join(opposite)] if opposite else ["No claim has opposite verdicts on two texts."]
    parts += ["Decided on one text, undecided on another:", "\n".join(open_)] if open_ else []
    return "\n\n".join([*parts, *details]) + "\n"


def in_overview(claim: Claim, by_place: pd.DataFrame) -> dict[str, str]:
    decided = by_place[by_place["verdict"] != OUT_OF_SCOPE]
    return {
        "id": f"[{claim.id}](#{claim.id.lower()})",  # as GitHub names the heading of its section
        "claim": escape_markdown(claim.words["title"]),
        "published": of_papers(decided.iloc[0]) if len(decided) else NONE,
    } | {text: cell(line) for text, line in by_place.iterrows()}


def cell(line: pd.Series) -> str:
    if line["verdict"] == OUT_OF_SCOPE:
        return OUT_OF_SCOPE if line["experiment"] else NONE
    word = f"**{line['verdict']}**" if line["verdict"] in (CONFIRMED, REFUTED) else line["verdict"]
    return f"{word}: {with_interval(line)}; {bound(line)}"


def with_interval(line: pd.Series) -> str:
    if line["n_seeds"] < 2:
        return f"{value(line['effect'])}, a single seed"
    return f"{value(line['effect'])} [{value(line['low'])}, {value(line['high'])}]"


def of_papers(line: pd.Series) -> str:
    if np.isnan(line["published"]):
        return NONE
    return " to ".join(dict.fromkeys((value(line["published_low"]), value(line["published_high"]))))


def markdown(rows: list[dict[str, str]]) -> str:
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def differs(by_place: pd.DataFrame) -> str:
    """'refuted on code, confirmed on prose', nothing where all in scope agree."""
    verdicts = {text: verdict for text, verdict in by_place["verdict"][list(TEXTS)].items() if verdict != OUT_OF_SCOPE}
    return ", ".join(f"{verdict} on {text}" for text, verdict in verdicts.items()) if len({*verdicts.values()}) > 1 else ""


BUDGET_NOTE = """\
By budget: the same test on models that were trained for {steps} steps, each with its whole schedule.
*From* a budget *on*: the verdict is the same there and at all larger ones that were tried; at the largest *alone* is no
evidence that it stays. –: that sweep does not hold what the claim is about. budgets.csv has the effects."""


def by_budget_note(budgets: pd.DataFrame) -> str:
    *fewer, most = (f"{n:,}" for n in sorted(budgets["steps"].unique()))
    return BUDGET_NOTE.format(steps=f"{', '.join(fewer)} and {most}")


def over_budgets(lines: pd.DataFrame) -> str:
    """What becomes of a verdict with the budget: the lines of one claim and place."""
    last = lines.loc[lines["steps"].idxmax()]
    verdict, largest = last["verdict"], f"{last['steps']:,} steps"
    before = f", {REFUTED if verdict == CONFIRMED else CONFIRMED} before" if last["otherwise"] else ""
    return {
        STABLE: f"{verdict} from {last['since']:,} steps on{before}",
        NEW: f"{verdict} at {largest} alone",
        CHANGES: f"{verdict} at {largest} alone{before}",
        OPEN: f"undecided at {largest}{', decided before' if last['otherwise'] else ''}",
        LACKING: f"out of scope at {largest}",
    }[last["stability"]]


def section(
    claim: Claim, lines: pd.DataFrame, words: str, by_budget: dict[str, pd.DataFrame], published: pd.DataFrame
) -> list[str]:
    """`words` say how texts differ."""
    told = {word: escape_markdown(text) for word, text in claim.words.items() if word != "published"}
    parts = [f"## {claim.id}", f"**{told.pop('title')}.** {told.pop('statement')}"]
    parts.append("\n".join(f"- {word.replace('_', ' ').capitalize()}: {text}" for word, text in told.items()))
    outside = lines["verdict"] == OUT_OF_SCOPE
    if not outside.all():
        parts.append(effects(lines[~outside]))
    if words:
        parts.append(f"The texts differ: {words}.")
    for place, part in by_budget.items():
        each = ", ".join(f"{line.verdict} at {line.steps:,}" for line in part.itertuples())
        parts.append(f"By budget, on {escape_markdown(place)}: {over_budgets(part)} ({each}).")
    if outside.any():
        why = (f"{place}: {reason}" for place, reason in lines.loc[outside, ["place", "reason"]].itertuples(index=False))
        parts.append(f"Out of scope: {'; '.join(map(escape_markdown, why))}.")
    if numbers := cited(claim, published):
        parts.append("Published:\n\n" + "\n".join(f"- {series}: {figures(rows)}" for series, rows in numbers))
    return parts


def effects(lines: pd.DataFrame) -> str:
    """A row a part, a column a place; the verdict of all parts together last."""
    lines = lines.assign(place=lines["place"].map(escape_markdown))
    deciding, rows = lines[lines["deciding"]].set_index("place"), []
    for _, part in lines.groupby("part"):
        first = part.iloc[0]
        row = {"quantity": escape_markdown(first["quantity"]), "claim": bound(first), "published": of_papers(first)}
        rows.append(row | {line["place"]: f"{with_interval(line)} {line['part_verdict']}" for _, line in part.iterrows()})
    if len(rows) > 1:
        together = {"quantity": "together", "claim": "", "published": ""}
        rows.append(together | {place: f"**{verdict}**" for place, verdict in deciding["verdict"].items()})
    seeds = "; ".join(f"{n} on {place}" for place, n in deciding["n_seeds"].items())
    floors = ", ".join(lines.loc[lines["over_floor"].eq(True), "place"].unique())
    over = f" On {floors}: over the floor of the best predictor that looks back L tokens at most." if floors else ""
    return f"{markdown(rows)}\n\nIntervals at {100 * lines['confidence'].iloc[0]:.3g} %. Seeds: {seeds}.{over}"


def figures(rows: pd.DataFrame) -> str:
    """Numbers as they were printed, each with what it is."""
    told = []
    for row in rows.itertuples():
        where = "" if row.metric == "ratio" else f" at {row.eval_len:,}"
        what = escape_markdown(f"{name(row.scheme, row.extension)}{where}")
        told.append(f"{what} {row.value:g} {row.metric.replace('_', ' ')}")
    notes = "; ".join(dict.fromkeys(escape_markdown(note) for note in rows["note"] if note))
    return ", ".join(told) + (f" ({notes})" if notes else "")


def value(shown: float) -> str:
    """Three digits behind the point, or three significant ones: 1.005, 36.2, 292."""
    if np.isinf(shown):
        return "∞" if shown > 0 else "-∞"
    return f"{shown:.3f}" if abs(shown) < 10 else number(shown)


def bound(line: Any) -> str:
    """What a claim says of its quantity: a line of the table of verdicts."""
    return f"{'≤' if line.side == 'at most' else '≥'} {line.threshold:g}"
