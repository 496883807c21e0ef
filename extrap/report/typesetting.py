"""Numbers and names as tables show them, in Markdown and LaTeX. Imports no torch."""

import re
from collections.abc import Collection

import numpy as np
import pandas as pd

from extrap.errors import one_line
from extrap.results.shown import IN_NATS

NONE = "–"

MODELS = {"mlm": "masked LM", "causal": "causal LM", "rtd": "replaced-token detection",
          "electra": "ELECTRA, its discriminator", "electra_generator": "ELECTRA, its generator"}  # fmt: skip
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}  # as captions call them


def name(scheme: str, extension: str) -> str:
    return one_line(scheme if extension == "none" else f"{scheme} + {extension}")


def trained_on(objective: str, data: str, train_len: int, setting: str) -> str:
    """The columns GROUP in words."""
    return f"{objective} on {data}, training length {train_len:,}" + (f", {one_line(setting)}" if setting else "")


def measure(objectives: Collection[str]) -> str:
    """What losses of these are shown as."""
    told = {objective in IN_NATS: "nats" if objective in IN_NATS else "perplexity" for objective in objectives}
    return " or ".join(told[in_nats] for in_nats in sorted(told))


def level(objectives: Collection[str]) -> str:
    """The same, at an axis: with its unit."""
    return measure(objectives).replace("nats", "nats per token")


def loss(objectives: Collection[str]) -> str:
    """And what their differences are of, in nats per token."""
    return "loss" if {*objectives} & {*IN_NATS} else "log-perplexity"


def model_size(sizes: Collection[int]) -> str:
    """The least and the most parameters of some models, in words; empty where they are not known."""
    if not sizes:
        return ""
    return f"{' to '.join(dict.fromkeys(number(n / 1e6) for n in (min(sizes), max(sizes))))} M parameters"


def slug(text: str) -> str:
    """As part of a file's name that LaTeX reads, too; a negative value keeps its sign in words."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text.replace("=-", "=minus ")).strip("_")


def stem(*parts: object) -> str:
    """The name of a file from parts, the empty ones left out."""
    return "_".join(filter(None, (slug(str(part)) for part in parts)))


def counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"


def seeds(counts: pd.Series) -> str:
    """How many, where not all have as many."""
    return f"{counts.min()} to {counts.max()} seeds" if counts.min() < counts.max() else counted(counts.max(), "seed")


def why_missing(reason: str, lines: pd.DataFrame) -> str:
    """A reason why there are no numbers, and at which lengths of these lines, unless it is of a whole run."""
    if reason.startswith("diverged") or reason.endswith("at the training length"):
        return one_line(reason)
    return f"{one_line(reason)} at {', '.join(f'{n:,}' for n in sorted(set(lines['eval_len'])))}"


def number(value: float) -> str:
    """Three significant digits, and no fewer than the integer has: 6.15, 33.9, 147, 12,345."""
    if not value or not np.isfinite(value):
        return f"{value:.0f}"
    if value >= 1e6 or abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = int(f"{value:.2e}".partition("e")[2])  # after rounding: 9.996 has two before the point
    return f"{value:,.{max(0, 2 - digits)}f}"


def percent(share: float, decimals: int = 1) -> str:
    return f"{round(100 * share, decimals) + 0.0:.{decimals}f} %" if np.isfinite(share) else NONE  # no -0 %


def decimals(objectives: Collection[str]) -> int:
    """Of differences in nats: a tenth of a perplexity's loss is told apart by a digit more."""
    return 4 if {*objectives} & {*IN_NATS} else 3


def nats(difference: float, objective: str, sign: str = "") -> str:
    """A difference of losses; sign="+" shows which way."""
    digits = decimals([objective])
    return f"{round(difference, digits) + 0.0:{sign}.{digits}f}"  # no -0.000


def half_width(half: float, objective: str) -> str:
    """Of an interval around such a difference; empty where there is none."""
    return "" if np.isnan(half) else f" ±{nats(half, objective)}"


def factor(ratio: float, objectives: Collection[str] = ()) -> str:
    return f"{ratio:.{decimals(objectives) - 1}f}" if ratio < 10 else number(ratio)


def interval(value: float, low: float, high: float) -> str:
    """Of a value the upper end of its interval as ± per cent, above 100 % both; empty where there is none, or no number."""
    if np.isnan(high) or np.isinf(low):
        return ""
    share = 100 * (high / value - 1) if value and np.isfinite(high) else np.inf
    if share > 100:
        return f" ({number(low)} to {number(high)})"
    return f" ±{share:.1f}%" if share < 10 else f" ±{share:.0f}%"


def bits_per(objective: str, data: str) -> str:
    """What a number in the column of bits is per: a masked LM predicts but the masked bytes, `markov` has no bytes."""
    return f"{'masked ' if objective in ('mlm', 'electra_generator') else ''}{'symbol' if data == 'markov' else 'byte'}"


def markdown(table: pd.DataFrame, names: list[str], tablefmt: str = "pipe") -> str:
    """The first column stands to the left, the others to the right; the columns of names are escaped."""
    escaped = table.assign(**{column: table[column].map(escape_markdown) for column in names})
    align = ["left"] + ["right"] * (table.shape[1] - 1)
    text: str = escaped.to_markdown(index=False, tablefmt=tablefmt, disable_numparse=True, colalign=align)
    return text


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", one_line(text))


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "[": "{[}",  # after the end of a line it would be an option of that
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "†": r"$\dagger$",
        "±": r"$\pm$",
    }
    | {c: f"\\{c}" for c in "&%$#_{}"}
)


def escape_latex(text: str) -> str:
    return one_line(text).translate(LATEX)
