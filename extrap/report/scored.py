"""Which of the held-out text was scored, in words. Imports no torch."""

from textwrap import fill

import pandas as pd

from extrap.report.typesetting import escape_markdown, trained_on
from extrap.results.rows import GROUP

MOST = 32  # names of documents: all stand in rows.csv


def scored_text(rows: pd.DataFrame, held_out: int | None = None) -> str:
    """How many segments of how many documents the rows are of, and which; held_out is how many documents there were.

    One paragraph of Markdown, or one for each group where they differ; a number behind a name is how many segments of it
    were scored, unless it is one.
    """
    told = {of: _scored(part, held_out) for of, part in rows.groupby(GROUP, sort=False)}
    if len({*told.values()}) == 1:
        return _filled(f"Scored: {next(iter(told.values()))}")
    return "\n\n".join(_filled(f"Scored, {trained_on(*of)}: {text}") for of, text in told.items())


def _filled(text: str) -> str:
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _scored(rows: pd.DataFrame, held_out: int | None) -> str:
    segments = rows.drop_duplicates(["document", "segment"]).groupby("document").size().sort_index()
    n = len(segments)
    if held_out is None:
        of = f"{n} documents" if n > 1 else "one document"
    elif n < held_out:
        of = f"{n} of {held_out} held-out documents (the first by name that are long enough)"
    else:
        of = f"all {n} held-out documents" if n > 1 else "the held-out document"
    names = [escape_markdown(str(name)) + (f" ({count})" if count > 1 else "") for name, count in segments.items()]
    left = len(names) - MOST
    listed = ", ".join(names[:MOST]) + (f" and {left} others, see rows.csv" if left > 0 else "")
    return f"{segments.sum()} segments of {of}: {listed}."
