"""Quantities that claims are about: for each seed a ratio or a share, from evidence and nothing else. Imports no torch."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from experiments.claims.evidence import Missing
from extrap.errors import UserError
from extrap.report.typesetting import name
from extrap.stats.perplexity import Interval, over_seeds

NEAR = 0.025  # a length stands for a multiple of the training length if it is this near to it, and the nearest


def once(lines: pd.DataFrame, keys: list[str], of: object) -> pd.DataFrame:
    """These lines. Raises UserError where they are several measurements of the same."""
    if lines.duplicated(keys).any() or len({*lines["setting"]}) > 1:
        raise UserError(
            f"rows: {of} was measured more than once with the same seed; expected one training length and setting"
        )
    return lines


class Quantity:
    """A number for each seed: the logarithm of a ratio, or (unit "share") a share."""

    unit: Literal["ratio", "share"] = "ratio"

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        """With "guess" for a column the same if the model on top guessed uniformly; empty or nan where that is unknown."""
        raise NotImplementedError

    def estimate(self, evidence: pd.DataFrame, confidence: float) -> Interval:
        """The mean over seeds, and its interval, t unless a quantity has another one. Raises Missing without a seed."""
        values = self.by_seed(evidence)
        if values.empty:
            raise Missing(f"no seed in common for {self}")
        return over_seeds(values, confidence)

    def shown(self, values: Any) -> Any:
        """Values as people read them: a ratio, not its logarithm."""
        return np.exp(values) if self.unit == "ratio" else values

    def terms(self, evidence: pd.DataFrame | None = None) -> Iterator["Term"]:
        """What it is made of; with evidence also what it picks from there."""
        for value in vars(self).values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Quantity):
                    yield from part.terms(evidence)

    def asked_of(self, objective: str) -> Self:
        """The same of models with another objective."""

        def other(part: Any) -> Any:
            if isinstance(part, tuple):
                return tuple(map(other, part))
            return part.asked_of(objective) if isinstance(part, Quantity) else part

        return type(self)(**{name: other(part) for name, part in vars(self).items()})

    def __truediv__(self, other: "Quantity") -> "Ratio":
        return Ratio(self, other)


@dataclass(frozen=True)
class Term(Quantity):
    """The metric of a scheme at a multiple of the training length L; `experiment` and `setting` only where a claim compares
    several."""

    scheme: str
    at: float = 1
    extension: str = "none"
    protocol: str = "nonoverlap"
    objective: str = "causal"
    experiment: str = ""
    metric: str = "perplexity"
    setting: str = ""

    def asked_of(self, objective: str) -> Self:
        return replace(self, objective=objective)

    def lines(self, evidence: pd.DataFrame) -> pd.DataFrame:
        """All lengths."""
        at = np.arange(len(evidence))
        for column in ("metric", "experiment", "objective", "setting", "protocol", "scheme", "extension"):
            if wanted := getattr(self, column):
                at = at[evidence[column].to_numpy()[at] == wanted]
                if not len(at):
                    raise Missing(f"{self} needs {column} {wanted}, which the rows lack")
        return evidence.iloc[at]

    def found(self, evidence: pd.DataFrame) -> pd.DataFrame:
        """One line a seed."""
        lines = self.lines(evidence)
        off = (lines["eval_len"] / (self.at * lines["train_len"]) - 1).abs()
        lines = lines[(off <= NEAR) & (off == off.min())]
        if lines.empty:
            raise Missing(f"no length for {self}")
        return once(lines, ["seed"], self)

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        return self.found(evidence).set_index("seed")[column]

    def terms(self, evidence: pd.DataFrame | None = None) -> Iterator["Term"]:
        yield self

    def __str__(self) -> str:
        if self.metric not in ("perplexity", "nats"):
            return f"{self.metric} of {self.scheme}"
        return f"{self.who} at {'' if self.at == 1 else f'{self.at:g} '}L"

    @property
    def who(self) -> str:
        return name(self.scheme, self.extension) + (f" ({self.objective})" if self.objective != "causal" else "")


@dataclass(frozen=True)
class Ratio(Quantity):
    """top / bottom, paired by seed."""

    top: Quantity
    bottom: Quantity

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        return (self.top.by_seed(evidence, column) - self.bottom.by_seed(evidence)).dropna()

    def __str__(self) -> str:
        return " / ".join(f"({part})" if isinstance(part, Ratio) else str(part) for part in (self.top, self.bottom))


@dataclass(frozen=True)
class Worst(Quantity):
    """max over all lengths n > L, at most `to` L, of ppl(n) / ppl(L), for each seed; at L nothing is done to a scheme.

    `either_way` counts a fall as much as a rise.

    Raises Missing if the longest of these lengths is below `up_to` training lengths.
    """

    term: Term
    up_to: float
    either_way: bool = False
    to: float = np.inf

    @property
    def start(self) -> Term:
        return replace(self.term, extension="none")

    def ratios(self, evidence: pd.DataFrame, column: str = "log") -> pd.DataFrame:
        """Log-ratios to L, (multiple of L, seed); of another column, what that is over perplexity at L."""
        lines, start = self.term.lines(evidence), self.start.by_seed(evidence)
        lines = lines.assign(at=lines["eval_len"] / lines["train_len"])
        lines = lines[(lines["eval_len"] > lines["train_len"]) & (lines["at"] <= self.to * (1 + NEAR))]
        if lines.empty or lines["at"].max() < self.up_to * (1 - NEAR):
            to = "" if np.isinf(self.to) else f" to {self.to:g} L"
            raise Missing(f"no length from {self.up_to:g} L on{to} for {self.term}")
        ratios = lines.pivot(index="at", columns="seed", values=column) - start
        if len(lost := ratios.columns[ratios.isna().any() & ratios.notna().any()]):  # none is left out because it broke
            raise Missing(f"seed {', '.join(map(str, lost))} of {self.term.scheme} has no number at some length")
        if (ratios := ratios.dropna(axis="columns")).empty:
            raise Missing(f"no seed with a number for {self} at all of them")
        return ratios.abs() if self.either_way else ratios

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        return self.ratios(evidence, column).max()

    def terms(self, evidence: pd.DataFrame | None = None) -> Iterator[Term]:
        yield self.start
        if evidence is None:
            yield replace(self.term, at=self.up_to)
        else:
            at = self.up_to
            with suppress(Missing):  # of published numbers that are no perplexities
                at = self.ratios(evidence).mean(axis="columns").idxmax()
            yield replace(self.term, at=at)

    def __str__(self) -> str:
        where = f"its {'farthest' if self.either_way else 'worst'} length{'' if np.isinf(self.to) else f' to {self.to:g} L'}"
        return f"{self.term.who} at {where} / {self.start}"


@dataclass(frozen=True)
class Largest(Quantity):
    """max over the quantities of max(ratio, 1 / ratio): how much the one that changes most changes, either way."""

    name: str
    of: tuple[Quantity, ...]

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        found = [quantity.by_seed(evidence, column) for quantity in self.of]
        return pd.concat(found, axis=1, join="inner").abs().max(axis="columns")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Removed(Quantity):
    """1 - log(repaired / sound) / log(broken / sound): the share of a blow-up that a repair takes away.

    Over seeds that of their means, for in a seed that hardly breaks it could be any number; with Fieller's interval, the
    shares s at which the mean of log(repaired / sound) - (1 - s) log(broken / sound) is not found to be other than 0.
    Without an end where the rise is not found to be one: whatever the share, nothing is known of it.
    """

    broken: Term
    repaired: Term
    sound: Term
    unit = "share"

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        return 1 - (self.repaired / self.sound).by_seed(evidence, column) / (self.broken / self.sound).by_seed(evidence)

    def estimate(self, evidence: pd.DataFrame, confidence: float) -> Interval:
        left, rise = ((one / self.sound).by_seed(evidence) for one in (self.repaired, self.broken))
        pairs = pd.concat([left, rise], axis=1, keys=["left", "rise"]).dropna()
        if pairs.empty:
            raise Missing(f"no seed in common for {self}")
        (x, y), n = pairs.mean(), len(pairs)
        if n < 2:
            return Interval(1 - x / y, np.nan, np.nan, n)
        (xx, xy), (_, yy) = stdtrit(n - 1, 0.5 + confidence / 2) ** 2 / n * pairs.cov().to_numpy()
        if y <= 0 or y**2 <= yy:
            return Interval(1 - x / y, -np.inf, np.inf, n)
        middle, root = (x * y - xy) / (y**2 - yy), (x * y - xy) ** 2 - (x**2 - xx) * (y**2 - yy)
        spread = np.sqrt(max(root, 0.0)) / (y**2 - yy)  # where all seeds have one share the root is 0, but for rounding
        return Interval(1 - x / y, 1 - middle - spread, 1 - middle + spread, n)

    def __str__(self) -> str:
        repair = self.repaired.scheme if self.repaired.extension == "none" else self.repaired.extension
        return f"share of the rise of {self.broken} that {repair} removes"


@dataclass(frozen=True)
class Lost(Quantity):
    """1 - (rate - nats at n L) / (rate - nats at L): of what a scheme explains at L, the share that it has lost at n L.

    `rate` stands for the nats of who knows what share of the tokens is replaced and nothing else.
    Raises Missing without that, if some seed explains nothing at L, or has a number at L alone: none is left out because it
    broke.
    """

    term: Term
    unit = "share"

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        sound = replace(self.term, at=1)
        explained, left = (
            term.by_seed(evidence, "rate") - term.by_seed(evidence, of) for term, of in ((sound, "log"), (self.term, column))
        )
        if explained.isna().any():
            raise Missing(f"no base rate for {sound}")
        if len(nothing := explained.index[explained <= 0]):
            raise Missing(f"seed {', '.join(map(str, nothing))} of {sound} explains nothing")
        share = 1 - left / explained
        if len(lost := share.index[share.isna()]):
            raise Missing(f"seed {', '.join(map(str, lost))} has no number for {self.term}")
        return share

    def terms(self, evidence: pd.DataFrame | None = None) -> Iterator[Term]:
        yield from (self.term, replace(self.term, at=1))

    def __str__(self) -> str:
        return f"share of what {replace(self.term, at=1)} explains that is lost at {self.term.at:g} L"


@dataclass(frozen=True)
class Steps(Quantity):
    """Training steps that scheme / other need until the training loss that the worse of the two ends with.

    Losses are means of the logged batches, two or more, in a twentieth of training that lies behind, for one says little.
    """

    scheme: str
    other: str

    def by_seed(self, evidence: pd.DataFrame, column: str = "log") -> pd.Series:
        curves = {}
        for scheme in (self.scheme, self.other):
            lines = Term(scheme, objective="", protocol="training", metric="training perplexity").lines(evidence)
            once(lines, ["step", "seed"], f"the training loss of {scheme}")
            if unfit := next(filter(None, lines["unfit"]), ""):
                raise Missing(f"{scheme}: {unfit}")
            curve = lines.pivot(index="step", columns="seed", values="log").dropna(axis="columns").sort_index()
            curves[scheme] = curve.rolling(max(2, len(curve) // 20)).mean()
        goal = pd.concat([curve.iloc[-1] for curve in curves.values()], axis=1, join="inner").max(axis="columns")
        reached = {scheme: (curve[goal.index] <= goal).idxmax() for scheme, curve in curves.items()}
        return np.log(reached[self.scheme] / reached[self.other])

    def __str__(self) -> str:
        return f"training steps of {self.scheme} / {self.other} to the same loss"
