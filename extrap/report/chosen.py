"""Which value of an option each scheme was given, in words. Imports no torch."""

from textwrap import fill

import pandas as pd

from extrap.errors import one_line
from extrap.report.typesetting import escape_markdown, trained_on
from extrap.results.rows import GROUP


def chosen_text(choice: pd.DataFrame) -> list[str]:
    """A paragraph for every group of a report that chooses; none of one that does not."""
    several = len(choice[GROUP].drop_duplicates()) > 1
    told = []
    for group, lines in choice.groupby(GROUP, sort=False):
        option, tokens = lines["option"].iloc[0], int(lines["n_tokens"].max())
        of_schemes = "; ".join(_of(scheme, part) for scheme, part in lines.groupby("scheme", sort=False))
        where = f" ({trained_on(*group)})" if several else ""
        told.append(
            f"Each scheme has its own {option}{where}: that with the lowest loss, mean over seeds, on {tokens:,} tokens of "
            f"training text that were held back, neither trained on nor scored. {of_schemes}. All that is said here is "
            "said of these choices; what choosing adds to noise no interval holds."
        )
    return told


def chosen_markdown(choice: pd.DataFrame) -> list[str]:
    return [fill(escape_markdown(text), 120, break_long_words=False, break_on_hyphens=False) for text in chosen_text(choice)]


BORDER = {
    "": "",
    "only": ", the only one tried",
    "lowest": ", the lowest tried: a better one may lie below",
    "highest": ", the highest tried: a better one may lie above",
}


def _of(scheme: str, lines: pd.DataFrame) -> str:
    lacking = ", ".join(lines.loc[lines["loss"].isna(), "value"])
    tried = f" of {', '.join(lines['value'])}" + (f" (not all seeds have a loss at {lacking})" if lacking else "")
    if not lines["chosen"].any():
        return f"{one_line(scheme)}: none{tried}"
    chosen = lines[lines["chosen"]].iloc[0]
    return f"{one_line(scheme)}: {chosen['value']}{tried}{BORDER[chosen['border']]}"
