"""Words for numbers, and lines for sentences, of a terminal. Imports no torch."""

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
import pandas as pd

from extrap.errors import one_line
from extrap.report.typesetting import interval, length, number
from extrap.stats.pairs import MOST_SEEDS
from extrap.stats.perplexity import CONFIDENCE

WIDTH = 100  # columns
LABEL = 14  # columns, of what a sentence is about
MOST_NAMED = 4  # schemes or pairs in one sentence

Names = dict[str, str]  # scheme -> as it is printed


def shortened(names: Iterable[str], width: int) -> Names:
    """Names on one line, none longer than that, and no two the same."""
    found: Names = {}
    for given in names:
        plain = one_line(given)
        short = plain if len(plain) <= width else f"{plain[: width // 2]}..{plain[len(plain) - width // 2 + 2 :]}"
        for i in range(2, len(found) + 2):
            if short not in found.values():
                break
            short = f"{short[: width - len(str(i)) - 1]}~{i}"
        found[given] = short
    return found


def labelled(label: str, sentence: str) -> list[str]:
    lines = wrap(sentence, WIDTH - LABEL, break_on_hyphens=False)
    return [f"{label if not i else '':<{LABEL}}{line}" for i, line in enumerate(lines)]


def listed(named: list[str]) -> str:
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return "; ".join(named[:MOST_NAMED] + more)


def above(gap: float) -> str:
    share = 100 * np.expm1(gap)
    return f"{share:.1f} % above" if share >= 0.05 else "less than 0.1 % above"


def times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{number(ratio)} x"


def factor(line: pd.Series) -> str:
    half = np.log(line["ratio_high"] / line["ratio"])
    return (f"{line['ratio']:.2f}" if line["ratio"] < 10 else number(line["ratio"])) + interval(line["ratio"], half)


def lacking(line: pd.Series) -> str:
    """What leaves a comparison undecided."""
    if line["n_seeds"] < 2:
        return "one seed"
    if pd.isna(line["seeds_needed"]):
        return f"more than {MOST_SEEDS:,} seeds"
    if line["seeds_needed"] > line["n_seeds"]:
        return f"{line['seeds_needed']} seeds"
    return "text" if line["p_holm"] < 1 - CONFIDENCE else "Holm"


def lengths(some: pd.Series, scored: list[int]) -> str:
    """Three and more of the scored lengths in a row are a range."""
    at = sorted(some)
    if len(at) > 2 and at == [n for n in scored if at[0] <= n <= at[-1]]:
        return f"{length(at[0])} to {length(at[-1])}"
    return ", ".join(map(length, at))
