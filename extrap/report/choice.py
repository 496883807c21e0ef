"""What each scheme was given of an option, and what comparisons gain by it: choice.md. Imports no torch."""

import numpy as np
import pandas as pd

from extrap.report.about import chosen_markdown
from extrap.report.pairs import at_landmarks, difference_cell
from extrap.report.typesetting import NONE, counted, half_width, loss, markdown, nats, trained_on
from extrap.results.rows import GROUP
from extrap.stats.pairs import LACKING, UNDECIDED
from extrap.stats.statistics import Statistics

NOTE = """\
Whether comparisons are fair with one value for all: every pair of schemes with one value for both is put beside the same
pair with each scheme at its best, by the rule of pairs.md. Listed below are the pairs whose verdict then differs, at L, 4 L
and the longest length; differences are those of {loss} (nats per token), the first less the second, **bold** where decided;
below 0 the first is better. *Turns*: decided in both cases, in opposite directions. A verdict gained or lost is no
contradiction: a decided and an undecided difference need not differ from each other. Change: of the difference, with its 95
% interval over seeds; it is 0 where the models are the same, whose verdict can then change only through Holm's ordering.
one_for_all.csv has all pairs and lengths."""
TURNS, LOST, GAINED = "turns", "lost", "gained"  # with each at its best


def choice_page(found: Statistics) -> str:
    """Markdown: the losses that were chosen by, and for each value the pairs that it decides otherwise for all."""
    parts = chosen_markdown(found.choice)
    for of, lines in found.choice.groupby(GROUP, sort=False):
        title = f"Loss on held-back text (nats per token) by {lines['option'].iloc[0]}, {trained_on(*of)}"
        parts += [f"**{title}**", markdown(losses_table(lines), ["scheme"])]
    lines = _shown(found)
    if len(lines):
        parts.append(NOTE.format(loss=loss(lines["objective"].unique())))
    for (option, value, *of), part in lines.groupby(["option", "value", *GROUP], sort=False):
        parts.append(f"**{option}={value} for all, {trained_on(*of)}**: {_counted(part)}")
        if len(others := part[part["how"] != ""]):
            parts.append(markdown(_block(others), ["pair"]))
    return "\n\n".join(parts) + "\n"


def choice_text(found: Statistics) -> list[str]:
    """The same, counted: a paragraph for every group of a report that chooses."""
    lines = _shown(found)
    groups = lines.groupby(GROUP, sort=False)
    told = []
    for of, part in groups:
        where = f" ({trained_on(*of)})" if len(groups) > 1 else ""
        by_value = [f"{at[0]}={at[1]}: {_counted(own)}" for at, own in part.groupby(["option", "value"], sort=False)]
        told.append(f"Verdicts with one value for all, at L, 4 L and the longest length{where}. {'; '.join(by_value)}.")
    return told


def _shown(found: Statistics) -> pd.DataFrame:
    """At the lengths that tables show; `how` is what becomes of a verdict with each at its best, empty where it stays."""
    if found.one_for_all.empty:
        return found.one_for_all
    lines = at_landmarks(found.one_for_all)
    one, best = lines["verdict"], lines["best_verdict"]
    cases = {
        "": one == best,
        LACKING: (one == LACKING) | (best == LACKING),
        GAINED: one == UNDECIDED,
        LOST: best == UNDECIDED,
    }
    return lines.assign(how=np.select([*cases.values()], [*cases], TURNS))


def _counted(lines: pd.DataFrame) -> str:
    n = {how: int((lines["how"] == how).sum()) for how in (TURNS, LOST, GAINED)}
    n_differ, n_lacking = sum(n.values()), int((lines["how"] == LACKING).sum())
    if n_lacking == len(lines):
        return f"{n_lacking} {LACKING}"
    of, rest = f"of {counted(len(lines) - n_lacking, 'verdict')}", f"; {n_lacking} {LACKING}" if n_lacking else ""
    if not n_differ:
        return f"none {of} differs with each scheme at its best{rest}"
    told = ", ".join(f"{count} {how.replace('turns', 'turned')}" for how, count in n.items())
    return f"{n_differ} {of} {'differs' if n_differ == 1 else 'differ'} with each scheme at its best ({told}){rest}"


def losses_table(lines: pd.DataFrame) -> pd.DataFrame:
    table = []
    for scheme, part in lines.groupby("scheme", sort=False):
        losses = {line.value: _loss(line.loss, line.chosen, line.objective) for line in part.itertuples()}
        table.append({"scheme": str(scheme)} | losses)
    return pd.DataFrame(table).fillna(NONE)


def _loss(loss: float, is_chosen: bool, objective: str) -> str:
    text = nats(loss, objective)
    return NONE if np.isnan(loss) else f"**{text}**" if is_chosen else text


def _block(lines: pd.DataFrame) -> pd.DataFrame:
    order = [TURNS, LOST, GAINED, LACKING]
    lines = lines.sort_values("how", key=lambda how: how.map(order.index), kind="stable")
    return pd.DataFrame(
        {
            "pair": f"{line.scheme_a} − {line.scheme_b}",
            "protocol": line.protocol,
            "length": f"{line.eval_len:,}",
            "one for all": difference_cell(line.difference, line.verdict, line.objective, "+"),
            "each at its best": difference_cell(line.best_difference, line.best_verdict, line.objective, "+"),
            "change": ""
            if np.isnan(line.change)
            else nats(line.change, line.objective, "+") + half_width(line.change_high - line.change, line.objective),
            "verdict": line.how,
        }
        for line in lines.itertuples()
    )
