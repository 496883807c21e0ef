"""What the training budget changes: budget.md and the figure. Imports no torch."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from extrap.report.about import chosen_markdown, missing_text
from extrap.report.curves import COLUMN_WIDTH, band, drawn, keep_to_curves, log_axis, title_of, told_of_seeds
from extrap.report.drawing import entitle, new_figure, style
from extrap.report.labels import End, name_ends
from extrap.report.looks import Looks, styles
from extrap.report.pairs import at_landmarks, difference_cell
from extrap.report.typesetting import counted, level, markdown, trained_on
from extrap.results.rows import GROUP, apart, as_trained, within
from extrap.results.shown import rounded
from extrap.stats.budget import BUDGET, OPEN, STABILITIES, STABLE
from extrap.stats.perplexity import AT_L, BEYOND_L, CONDITION, landmarks, told_first
from extrap.stats.statistics import Statistics

NOTE = """\
By how many nats per token the first scheme of a pair is better than the second after so many training steps, each budget
with its full schedule; the first is the one that is better at the largest. **Bold**: decided at this budget, by the rule of
pairs.md. –: not compared, as a scheme ends, or has fewer seeds than others. *Stable*: decided the same way at the named
budget and at all larger ones; *after the opposite*: at a smaller one it was decided the other way. *Not yet stable*:
decided at the largest, not so at the one before, which is no evidence that it stays. *Changes*: not yet stable, and at a
smaller budget the opposite was decided. *Open*: undecided at the largest, whatever was decided before. Lead, of pairs
that are decided at the largest budget alone, a selection that favours *grows*: whether the difference shrinks or grows from
the second-largest budget to the largest, the whole 95 % interval of this change over seeds lying on one side of 0; a
shrinking lead may reverse with more training even if its verdict is stable. Nothing is said of budgets beyond the largest.
stability.csv has all lengths."""

PANEL = 1.9  # inches, its height
Place = tuple[Any, ...]  # the columns CONDITION, and a length


def budget_page(found: Statistics) -> str:
    """Markdown: of every pair what becomes of its verdict, at L, 4 L and the longest length."""
    parts = [*chosen_markdown(found.choice), NOTE, *missing_text(found.missing)]
    for (*of, protocol, eval_len), lines in places(found.stability):
        parts.append(f"**{protocol}, {eval_len:,}: verdicts by training steps, {trained_on(*of)}**")
        parts += [f"{summary(lines)}.", markdown(verdicts_table(lines), ["better", "worse"])]
    return "\n\n".join(parts) + "\n"


def budget_text(found: Statistics) -> list[str]:
    """The same, counted, a paragraph for everything else that varies: at L where all tokens are scored, beyond L where the
    same ones are."""
    told: dict[Place, list[str]] = {}
    for (*of, protocol, eval_len), lines in places(found.stability):
        wanted = AT_L if eval_len == lines["train_len"].iloc[0] else BEYOND_L
        if protocol == told_first(wanted, within(found.stability, GROUP, (*of,))["protocol"]):
            told.setdefault((*of,), []).append(f"at {eval_len:,} ({protocol}) {summary(lines)}")
    where = [f" ({trained_on(*of)})" if len(told) > 1 else "" for of in told]
    return [f"By budget{of}, {'; '.join(lines)}." for of, lines in zip(where, told.values(), strict=True)]


def summary(lines: pd.DataFrame) -> str:
    """How many pairs of one place are stable from which budget on, and what is of the others."""
    lines = lines.drop_duplicates(["scheme_a", "scheme_b"])
    stable = lines[lines["stability"] == STABLE]
    since = ", ".join(f"{n} from {steps:,}" for steps, n in stable["since"].value_counts().sort_index().items())
    after = f"; {n} after the opposite" if (n := int(stable["otherwise"].sum())) else ""
    told = [f"{len(stable)} stable" + (f" ({since} steps on{after})" if since else "")]
    for word, part in lines[lines["stability"] != STABLE].groupby("stability"):
        n = part["otherwise"].sum() if word == OPEN else 0
        told.append(f"{len(part)} {word}" + (f" ({n} decided before)" if n else ""))
    return f"{counted(len(lines), 'pair')}: {', '.join(told)}"


def places(lines: pd.DataFrame) -> Iterator[tuple[Place, pd.DataFrame]]:
    """The lines of `stability` of each landmark, the largest budget first."""
    if len(lines):
        shown = at_landmarks(lines.sort_values("steps", ascending=False, kind="stable"))
        for condition, part in shown.groupby(CONDITION, sort=False):
            yield from (((*condition, n), own) for n, own in part.groupby("eval_len"))


def verdicts_table(lines: pd.DataFrame) -> pd.DataFrame:
    """A line a pair: the stablest first, and of them those that are it soonest."""
    lines = lines.assign(order=lines["stability"].map(STABILITIES.index)).sort_values(["order", "since"], kind="stable")
    table = []
    for (a, b), part in lines.groupby(["scheme_a", "scheme_b"], sort=False):
        first = part.dropna(subset="difference").iloc[:1]  # at the largest budget that there are numbers of
        sign = -1 if first.empty or first["difference"].iloc[0] < 0 else 1
        better, worse = (a, b) if sign < 0 else (b, a)
        by_budget = {
            f"{line.steps:,}": difference_cell(sign * line.difference, line.verdict, line.objective)
            for line in part[::-1].itertuples()
        }
        last = part.iloc[0]
        table.append({"better": better, "worse": worse} | by_budget | {"verdict": _verdict(last), "lead": _trend(last)})
    return pd.DataFrame(table)


def _verdict(last: pd.Series) -> str:
    if last["stability"] == STABLE:
        return f"stable from {last['since']:,}" + (", after the opposite" if last["otherwise"] else "")
    return str(last["stability"]) + (", decided before" if last["stability"] == OPEN and last["otherwise"] else "")


def _trend(last: pd.Series) -> str:
    return "shrinks" if last["change_high"] < 0 else "grows" if last["change_low"] > 0 else ""


def budget_figures(found: Statistics) -> Iterator[tuple[tuple[object, ...], Figure, pd.DataFrame]]:
    """For everything else that varies, or (), a figure of perplexity at L and at 4 L against training steps, and its points;
    bands are 95 % t intervals over seeds. None where no budget varies."""
    if found.stability.empty:
        return
    rows, points = apart(found.rows, BUDGET), budget_points(found)
    for of, own in points.items():
        yield of if len(points) > 1 else (), _figure(replace(found, rows=within(rows, GROUP, of)), own), own


def budget_points(found: Statistics) -> dict[tuple[Any, ...], pd.DataFrame]:
    """What the figures show, by what else varies."""
    lines = as_trained(apart(found.summary, BUDGET))
    lines = lines.assign(steps=lines["value"].astype(int))
    groups = found.stability[GROUP].drop_duplicates().itertuples(index=False, name=None)
    return {of: _points(within(lines, GROUP, of)) for of in groups}


def _points(lines: pd.DataFrame) -> pd.DataFrame:
    """At L of the protocol that scores all tokens, at 4 L of the one that scores the same at every length."""
    lengths = landmarks(lines["eval_len"].unique(), lines["train_len"].iloc[0])
    places = [(told_first(wanted, lines["protocol"]), n) for wanted, n in zip((AT_L, BEYOND_L), lengths, strict=False)]
    parts = [within(lines, ["protocol", "eval_len"], place) for place in places]
    columns = [*CONDITION, "eval_len", "scheme", "steps", "n_seeds", "ppl", "ppl_low", "ppl_high"]
    return rounded(pd.concat(parts)[columns].sort_values(["eval_len", "scheme", "steps"], ignore_index=True))


def _figure(found: Statistics, points: pd.DataFrame) -> Figure:
    """One panel above the other, as wide as a column of a paper."""
    looks, budgets = styles(found.rows), sorted(points["steps"].unique())
    parts = [part for _, part in points.groupby("eval_len")]
    room = 0.06 * max(0, points["scheme"].map(drawn).str.len().max() - 16)
    with style():
        figure, axes_of = new_figure(COLUMN_WIDTH + room, PANEL * len(parts), len(parts), 1, sharex=True, sharey=True)
        panels = list(axes_of.flat)
        for axes, part in zip(panels, parts, strict=True):
            log_axis(axes)
            axes.set_xscale("log", base=2)
            for scheme, line in part.groupby("scheme", sort=False):
                line = line.set_index("steps").reindex(budgets).reset_index()  # a hole is no line
                band(axes, line["steps"], line["ppl"], line["ppl_low"], line["ppl_high"], looks[scheme, "none"])
            axes.set_title(_title(part))
            axes.set_ylabel(level(part["objective"].unique()))
            axes.grid(axis="y")
            axes.set_xticks(budgets, [f"{n:,}" for n in budgets])
            axes.minorticks_off()
        keep_to_curves(panels[0], points["ppl"])
        panels[-1].set_xlabel("training steps")
        n_lines = entitle(figure, title_of(found, told_of_seeds(points)))
        figure.set_figheight(PANEL * len(parts) + 0.15 * n_lines)
        name_ends([(axes, _ends(part, budgets, looks)) for axes, part in zip(panels, parts, strict=True)])
    return figure


def _title(points: pd.DataFrame) -> str:
    protocol, train_len, eval_len = points[["protocol", "train_len", "eval_len"]].iloc[0]
    multiple = eval_len / train_len
    return f"{protocol}, {eval_len:,} ({'' if multiple == 1 else f'{multiple:.3g} '}L)"


def _ends(points: pd.DataFrame, budgets: list[int], looks: Looks) -> list[End]:
    last = points.loc[points.groupby("scheme")["steps"].idxmax()]
    return [
        End(drawn(line.scheme), looks[line.scheme, "none"]["color"], line.steps, line.ppl, line.steps < budgets[-1])
        for line in last.itertuples()
    ]
