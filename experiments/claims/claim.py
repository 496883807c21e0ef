"""Published claims as tests on rows: which quantity against which threshold, and the verdict. Imports no torch."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments.claims.evidence import Missing
from experiments.claims.quantities import Quantity
from extrap.stats.perplexity import CONFIDENCE

CONFIRMED, REFUTED, UNDECIDED, OUT_OF_SCOPE = "confirmed", "refuted", "undecided", "out of scope"
DIGITS = 9  # behind the point of a logarithm or share: what is nearer to a threshold is at it, on every processor
Line = dict[str, Any]  # of the table of verdicts


@dataclass(frozen=True)
class Part:
    """`quantity` is on the claim's side of `threshold`. Raises ValueError for one that mixes protocols or objectives.

    theirs  what stands for the quantity in published tables, where that is something else
    """

    side: Literal["at most", "at least"]
    quantity: Quantity
    threshold: float
    theirs: Quantity | None = None

    def __post_init__(self) -> None:
        if len({(term.metric, term.objective, term.protocol) for term in self.quantity.terms()}) > 1:
            raise ValueError(f"{self.quantity} compares what is not comparable")

    def asked_of(self, objective: str) -> "Part":
        """The same of models with another objective."""
        return replace(self, quantity=self.quantity.asked_of(objective))

    def margin(self, shown: float) -> float:
        """How far on the claim's side a value of the quantity, as people read it, lies: in logarithms if it is a ratio."""
        off = np.log(shown / self.threshold) if self.quantity.unit == "ratio" else shown - self.threshold
        return float(off if self.side == "at least" else -off)

    def judge(self, evidence: pd.DataFrame, confidence: float) -> Line:
        """The mean over seeds and its interval, as people read them, and what they say.

        near, far   the ends of the interval, counted from the threshold to the claim's side; nan for a single seed
        over_floor  whether it compares lengths over a known floor; at one length the floor cancels

        Raises Missing if what it compares was not measured on the same text, is of a model that has not learned its source
        (over lengths, one that is hardly better than frequencies),
        or could not pass the threshold if the model on top of the ratio guessed: where symbols are few, perplexity cannot
        rise by any factor, and that it did not is no finding.
        """
        quantity = self.quantity
        over = quantity.estimate(evidence, confidence)
        found = pd.concat([evidence[:0], *(term.found(evidence) for term in quantity.terms(evidence))])
        if len({*found["text"]}) > 1:
            raise Missing(f"not the same text on both sides of {quantity}")
        over_lengths = len({*found["eval_len"]}) > 1
        for column in ("unfit", "idle") if over_lengths else ("unfit",):
            for scheme, why in found.loc[found[column] != "", ["scheme", column]].itertuples(index=False):
                raise Missing(f"{scheme}: {why}")
        if found["guess"].notna().any():
            guess = quantity.by_seed(evidence, "guess").mean()
            if round(np.log(self.threshold) - max(guess, 0.0), DIGITS) > 0:  # a factor of 1 is never far
                told = f"a uniform guess comes to {np.exp(guess):.2f}"
                raise Missing(f"{quantity} cannot reach {self.threshold:g}: {told}")
        with np.errstate(over="ignore", divide="ignore"):  # an interval may be wider than any number
            effect, low, high = quantity.shown(np.array([over.mean, over.low, over.high]))
            near, far = sorted(round(self.margin(end), DIGITS) for end in (low, high))
        return {
            "quantity": str(quantity), "side": self.side, "threshold": self.threshold, "unit": quantity.unit,
            "effect": effect, "low": low, "high": high, "n_seeds": over.n, "confidence": confidence,
            "near": near, "far": far, "part_verdict": verdict_of(near, far),
            "over_floor": bool(found["floor"].notna().any()) and over_lengths,
        }  # fmt: skip


at_most, at_least = partial(Part, "at most"), partial(Part, "at least")


@dataclass(frozen=True)
class Claim:
    """A published sentence and the test that it was made into: confirmed if all its parts are.

    words   its entry in words.yaml
    places  name of a source of text -> the experiments whose rows decide there, together
    """

    id: str
    words: dict[str, Any]
    parts: tuple[Part, ...]
    places: dict[str, tuple[str, ...]]

    def asked_of(self, objective: str) -> "Claim":
        """The same of models with another objective."""
        return replace(self, parts=tuple(part.asked_of(objective) for part in self.parts))


def verdict_of(near: float, far: float) -> str:
    """What an interval says, its ends counted from the threshold to the claim's side."""
    return CONFIRMED if near > 0 else REFUTED if far < 0 else UNDECIDED  # nan is on neither side


def decide(claim: Claim, evidence: pd.DataFrame) -> list[Line]:
    """Confirmed if every part is, refuted if any is, at simultaneous 95 % t intervals over seeds; else undecided.

    With m parts each interval has the level 1 - 0.05 / m (Bonferroni), so that together they hold in 95 % of cases.
    A single seed has no interval and decides nothing. Returns a line a part; one part is `deciding`, that is the one on
    which the verdict hangs. Raises Missing where rows cannot decide a part (see Part.judge): it is out of scope.
    """
    confidence = 1 - (1 - CONFIDENCE) / len(claim.parts)
    lines = [part.judge(evidence, confidence) | {"part": i} for i, part in enumerate(claim.parts)]
    found = {line["part_verdict"] for line in lines}
    verdict = CONFIRMED if found == {CONFIRMED} else REFUTED if REFUTED in found else UNDECIDED
    # it hangs on the clearest refutation, else on the part that is nearest to failing
    end = "far" if verdict == REFUTED else "near"
    deciding = min(lines, key=lambda line: float(np.nan_to_num(line[end], nan=-np.inf)))
    return [line | {"verdict": verdict, "deciding": line is deciding} for line in lines]
