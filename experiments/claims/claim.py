"""Published claims as tests on rows: which quantity against which threshold, and the verdict. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from experiments.claims.evidence import Evidence, Missing
from experiments.claims.quantities import Quantity
from extrap.stats.perplexity import CONFIDENCE, over_seeds

CONFIRMED, REFUTED, UNDECIDED, OUT_OF_SCOPE = "confirmed", "refuted", "undecided", "out of scope"
DIGITS = 9  # behind the point of a logarithm or share: what is nearer to a threshold is at it, on every processor


@dataclass(frozen=True)
class Part:
    """`quantity` is on the claim's side of `threshold`. Raises ValueError for one that mixes protocols or objectives.

    theirs  what stands for the quantity in published tables, where that is something else
    """

    quantity: Quantity
    side: Literal["at most", "at least"]
    threshold: float
    theirs: Quantity | None = None

    def __post_init__(self) -> None:
        if len({(term.metric, term.objective, term.protocol) for term in self.quantity.terms()}) > 1:
            raise ValueError(f"{self.quantity} compares what is not comparable")

    def margin(self, value: float) -> float:
        """How far on the claim's side a value of the quantity lies, in its own scale."""
        off = value - (np.log(self.threshold) if self.quantity.unit == "ratio" else self.threshold)
        return float(off if self.side == "at least" else -off)

    def shown(self, value: np.ndarray | float) -> np.ndarray:
        """A value of the quantity as people read it: a ratio, not its logarithm."""
        return np.exp(value) if self.quantity.unit == "ratio" else np.asarray(value)

    def by_seed(self, evidence: Evidence) -> pd.Series:
        """The quantity.

        Raises Missing if what it compares was not measured on the same text, is of a model that has not learned its source,
        or could not pass the threshold if the model on top of the ratio guessed: where symbols are few, perplexity cannot
        rise by any factor, and that it did not is no finding.
        """
        values = self.quantity.by_seed(evidence)
        found = self.found(evidence)
        if len(set(found["text"])) > 1:
            raise Missing(f"not the same text on both sides of {self.quantity}")
        if values.empty:
            raise Missing(f"no seed in common for {self.quantity}")
        for scheme, unfit in zip(found["scheme"], found["unfit"], strict=True):
            if unfit:
                raise Missing(f"{scheme}: {unfit}")
        guess = self.quantity.guessed(evidence)
        if len(guess) and round(np.log(self.threshold) - max(guess.mean(), 0.0), DIGITS) > 0:  # a factor of 1 is never far
            told = f"a uniform guess comes to {np.exp(guess.mean()):.2f}"
            raise Missing(f"{self.quantity} cannot reach {self.threshold:g}: {told}")
        return values

    def found(self, evidence: Evidence) -> pd.DataFrame:
        """The lines of all that it is made of."""
        return pd.concat([evidence.measures[:0], *(term.found(evidence) for term in self.quantity.terms(evidence))])

    def over_floor(self, evidence: Evidence) -> bool:
        """Whether it compares lengths over a known floor; at one length the floor cancels."""
        found = self.found(evidence)
        return bool(found["floor"].notna().any()) and len(set(found["eval_len"])) > 1


def at_most(quantity: Quantity, threshold: float) -> Part:
    return Part(quantity, "at most", threshold)


def at_least(quantity: Quantity, threshold: float, theirs: Quantity | None = None) -> Part:
    return Part(quantity, "at least", threshold, theirs)


@dataclass(frozen=True)
class Published:
    """Where the numbers behind a claim stand among the published ones; `protocol` is ours that theirs comes nearest to."""

    source: str
    tables: tuple[str, ...]
    train_lens: tuple[int, ...] = ()  # all, if none is named
    metric: str = "ppl"
    protocol: str = "nonoverlap"


@dataclass(frozen=True)
class Claim:
    """A published sentence and the test that it was made into: confirmed if all its parts are.

    places  name of a source of text -> the experiments whose rows decide there, together
    """

    id: str
    title: str
    statement: str
    source: str
    test: str
    refuted_by: str
    caveats: str
    parts: tuple[Part, ...]
    places: dict[str, tuple[str, ...]]
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What rows say about one part: mean over seeds and half width of its interval, logarithms where it is a ratio."""

    part: Part
    n_seeds: int
    confidence: float
    mean: float
    half: float
    over_floor: bool = False  # see Part.over_floor

    @property
    def margins(self) -> tuple[float, float]:
        """How far the nearer and the farther end of the interval lie on the claim's side; nan without an interval."""
        middle = self.part.margin(self.mean)
        return round(middle - self.half, DIGITS), round(middle + self.half, DIGITS)

    @property
    def verdict(self) -> str:
        near, far = self.margins  # nan is on neither side
        return CONFIRMED if near > 0 else REFUTED if far < 0 else UNDECIDED

    def shown(self) -> tuple[float, float, float]:
        """Effect and bounds: ratios, or shares."""
        with np.errstate(over="ignore"):  # an interval may be wider than any number
            effect, low, high = self.part.shown(np.array([self.mean, self.mean - self.half, self.mean + self.half]))
        return float(effect), float(low), float(high)


@dataclass(frozen=True)
class Decision:
    verdict: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""  # why out of scope

    @property
    def deciding(self) -> Finding:
        """The part that the verdict hangs on: the clearest refutation, else the one nearest to failing."""
        side = 1 if self.verdict == REFUTED else 0
        return min(self.findings, key=lambda finding: np.nan_to_num(finding.margins[side], nan=-np.inf))


def decide(claim: Claim, evidence: Evidence) -> Decision:
    """Confirmed if every part is, refuted if any is, at simultaneous 95 % t intervals over seeds; else undecided.

    With m parts each interval has the level 1 - 0.05 / m (Bonferroni), so that together they hold in 95 % of cases.
    A single seed has no interval and decides nothing. Out of scope where rows cannot decide a part (see Part.by_seed).
    """
    try:
        values = [part.by_seed(evidence) for part in claim.parts]
    except Missing as missing:
        return Decision(OUT_OF_SCOPE, reason=str(missing))
    confidence = 1 - (1 - CONFIDENCE) / len(claim.parts)
    findings = []
    for part, value in zip(claim.parts, values, strict=True):
        over = over_seeds(value, confidence)
        findings.append(Finding(part, over.n, confidence, float(over.mean), float(over.half), part.over_floor(evidence)))
    verdicts = {found.verdict for found in findings}
    verdict = CONFIRMED if verdicts == {CONFIRMED} else REFUTED if REFUTED in verdicts else UNDECIDED
    return Decision(verdict, tuple(findings))
