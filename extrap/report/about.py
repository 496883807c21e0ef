"""What a report is about, in words: which text was scored, what was chosen, what is missing. Imports no torch."""

from collections.abc import Callable
from textwrap import fill

import pandas as pd

from extrap.errors import one_line
from extrap.report.typesetting import escape_markdown, name, trained_on, why_missing
from extrap.results.rows import GROUP

MOST = 32  # names of documents: all stand in rows.csv
BORDER = {
    "": "",
    "only": ", the only one tried",
    "tied": ", all of the same loss",
    "lowest": ", the lowest tried: a better one may lie below",
    "highest": ", the highest tried: a better one may lie above",
}


def scored_text(rows: pd.DataFrame, held_out: int | None = None, written: Callable[[str], str] = escape_markdown) -> str:
    """How many segments of how many documents the rows are of, and which; held_out is how many could have been scored.

    One paragraph, or one for each group where they differ, of Markdown unless names are `written` otherwise; a number behind
    a name is how many segments of it were scored, unless it is one.
    """
    told = {of: _scored(part, held_out, written) for of, part in rows.groupby(GROUP, sort=False)}
    if len({*told.values()}) == 1:
        return filled(f"Scored: {next(iter(told.values()))}")
    return "\n\n".join(filled(f"Scored, {trained_on(*of)}: {text}") for of, text in told.items())


def filled(text: str) -> str:
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _scored(rows: pd.DataFrame, held_out: int | None, written: Callable[[str], str]) -> str:
    segments = rows.drop_duplicates(["document", "segment"]).groupby("document").size().sort_index()
    n = len(segments)
    if held_out is None:
        of = f"{n} documents" if n > 1 else "one document"
    elif n < held_out:
        of = f"{n} of {held_out} held-out documents"
    else:
        of = f"all {n} held-out documents" if n > 1 else "the held-out document"
    names = [written(str(name)) + (f" ({count})" if count > 1 else "") for name, count in segments.items()]
    listed = ", ".join(names[:MOST]) + (f" and {n - MOST} others, see rows.csv" if n > MOST else "")
    return f"{segments.sum()} segments of {of}{_fewer(rows)}: {listed}."


def _fewer(rows: pd.DataFrame) -> str:
    """Which protocols scored only some of the segments."""
    counts = rows.drop_duplicates(["protocol", "document", "segment"]).groupby("protocol").size()
    under = {n: [*counts.index[counts == n]] for n in counts.unique() if n < counts.max()}
    told = ", ".join(f"{' and '.join(protocols)} {n} of them" for n, protocols in under.items())
    return f" (under {told})" if told else ""


def chosen_text(choice: pd.DataFrame) -> list[str]:
    """Which value of an option each scheme was given: a paragraph for every group of a report that chooses."""
    several = len(choice[GROUP].drop_duplicates()) > 1
    told = []
    for group, lines in choice.groupby(GROUP, sort=False):
        option, tokens = lines["option"].iloc[0], lines["n_tokens"].max()
        of_schemes = "; ".join(_chosen(scheme, part) for scheme, part in lines.groupby("scheme", sort=False))
        where = f" ({trained_on(*group)})" if several else ""
        if pd.isna(tokens):
            told.append(f"No scheme has a value of {option} with a loss on the text that was held back{where}.")
            continue
        told.append(
            f"Each scheme has its own {option}{where}: the one with the lowest loss, mean over seeds, of {tokens:,.0f} "
            f"predictions in training text that was held back, neither trained on nor scored in rows. {of_schemes}. All "
            "results here are conditional on these choices; no interval covers the noise of choosing."
        )
    return told


def chosen_briefly(choice: pd.DataFrame) -> str:
    """For the end of a title of a report that chooses."""
    return "".join(f", each scheme at its best {one_line(option)}" for option in choice["option"].unique())


def chosen_markdown(choice: pd.DataFrame) -> list[str]:
    return [filled(escape_markdown(text)) for text in chosen_text(choice)]


def _chosen(scheme: str, lines: pd.DataFrame) -> str:
    lacking = ", ".join(lines.loc[lines["loss"].isna(), "value"])
    tried = f" of {', '.join(lines['value'])}" + (f" (not all seeds have a loss at {lacking})" if lacking else "")
    best = [f"{line.value}{tried}{BORDER[line.border]}" for line in lines[lines["chosen"]].itertuples()]
    return f"{one_line(scheme)}: {best[0] if best else f'none{tried}'}"


def missing_text(missing: pd.DataFrame) -> list[str]:
    """What was not measured, and why: a sentence, or none."""
    by_run = missing.groupby(["run", "reason", "extension"], sort=False)
    told = [f"{name(run, extension)} ({why_missing(reason, part)})" for (run, reason, extension), part in by_run]
    return [f"Not measured: {'; '.join(told)}."] if told else []
