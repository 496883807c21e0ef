"""The registry of published claims: what each was made into, in the order of the page. Imports no torch.

Words of claims (title, statement, source, test, refuted by, caveats) stand in words.yaml, and where their published numbers
are; those that name what is `missing` there cannot be decided yet.
"""

from functools import partial
from pathlib import Path

import yaml

from experiments.claims.claim import Claim, Part, at_least, at_most
from experiments.claims.quantities import Largest, Ratio, Removed, Steps, Term, Worst

CODE, PROSE, FLOOR = "code", "prose", "known floor"
TEXTS = (CODE, PROSE, FLOOR)  # what the board and the overview show; other places are on the page

# where claims are decided: the name of a text -> the experiments whose rows count there, together
Places = dict[str, tuple[str, ...]]
CAUSAL: Places = {CODE: ("causal",), PROSE: ("prose",), FLOOR: ("markov",)}
MASKED: Places = {CODE: ("main",), PROSE: ("prose_mlm",)}
BOTH: Places = {CODE: ("causal", "main"), PROSE: ("prose", "prose_mlm")}
L_64: Places = {f"{CODE}, L = 64": ("causal_64",)}
SHORTER: Places = L_64 | {f"{CODE}, L = 32": ("causal_32",)}
OTHER_L: Places = {f"{CODE}, L = 256": ("causal_256",)} | SHORTER
# experiments whose claims are asked again of a sweep over the budget of the same training
BUDGETS: dict[tuple[str, ...], str] = {("main",): "budget"}

WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
NOT_YET = {id: told for id, told in WORDS.items() if "missing" in told}

masked = partial(Term, objective="mlm")
speed = partial(Term, metric="tokens/s", protocol="training")
untied = partial(Term, experiment="causal")


def claim(id: str, places: Places, *parts: Part) -> Claim:
    """One with its words; of TEXTS those that are not among its places have no experiment that could decide it."""
    return Claim(id, WORDS[id], parts, dict.fromkeys(TEXTS, ()) | places)


def over_start(scheme: str, at: float, extension: str = "none") -> Ratio:
    """Perplexity at a multiple of the training length over that of the scheme at the training length."""
    return Term(scheme, at, extension) / Term(scheme)


def tiling_removes(continued: str) -> Removed:
    return Removed(masked("learned", 8, continued), masked("learned", 8, "tile"), masked("learned"))


STRIDE_1 = "sliding(stride=1)"
ORDER = (("alibi", "t5"), ("t5", "rope"), ("rope", "sinusoidal"))
TYING = tuple(Term(scheme, experiment="tied") / untied(scheme) for scheme in ("rope", "alibi", "sinusoidal"))
BEYOND = (untied("rope", 4) / untied("alibi", 4),)

CLAIMS = (
    claim("A1", CAUSAL | OTHER_L, at_least(over_start("sinusoidal", 1.4), 1.05)),
    claim("A2", CAUSAL | L_64, at_most(over_start("rope", 1.3), 1.05), at_least(over_start("rope", 2), 1.05)),
    claim(
        "A3",
        CAUSAL | L_64,
        at_most(over_start("t5", 2), 1),
        at_most(over_start("t5", 3.6), 1.05),
        at_least(over_start("t5", 7), 1.05),
    ),
    claim("A4", CAUSAL | OTHER_L, at_most(Worst(Term("alibi"), up_to=5), 1.005)),
    claim("A5", CAUSAL | L_64, *(at_most(Term(a, at) / Term(b, at), 1) for at in (2, 4) for a, b in ORDER)),
    claim("A7", {CODE: ("stride1",)}, at_most(Worst(Term("alibi", protocol=STRIDE_1), up_to=3, either_way=True), 1.0265)),
    claim(
        "A8",
        {CODE: ("speed",)},
        at_least(speed("alibi") / speed("sinusoidal"), 0.99),
        at_most(speed("rope") / speed("sinusoidal"), 0.84),
        at_most(speed("t5") / speed("sinusoidal"), 0.71),
    ),
    claim("A10", CAUSAL | SHORTER, at_most(Term("sinusoidal") / Term("alibi"), 1)),
    claim(
        "K3",
        CAUSAL,
        at_most(Term("alibi", 8, "window", "same_targets") / Term("alibi", 8, protocol="same_targets"), 1.005),
    ),
    claim(
        "C3",
        MASKED,
        at_least(masked("rope", 4) / masked("rope"), 1.05),
        at_least(masked("rope", 8) / masked("rope"), 2),
        at_most(masked("alibi", 8) / masked("alibi"), 1.05),
    ),
    claim("X1", CAUSAL, at_least(over_start("rope", 4), 2), at_most(over_start("rope", 4, "window"), 1.005)),
    claim("N1", CAUSAL, at_most(Term("rope") / Term("nope"), 1), at_most(Term("nope") / Term("alibi"), 1)),
    claim("H1", BOTH, at_most(Term("nope") / Term("sinusoidal"), 1.05), at_least(masked("nope") / masked("sinusoidal"), 2)),
    claim(
        "L1",
        MASKED,
        at_least(masked("learned", 8, "clamp") / masked("learned"), 1.05),
        at_least(tiling_removes("clamp"), 0.9, theirs=tiling_removes("random")),
    ),
    claim("R1", MASKED, at_most(Steps("rope", "learned"), 1)),
    claim(
        "T1", {CODE: ("causal", "tied")}, at_most(Largest("tying at L", TYING) / Largest("rope or alibi at 4 L", BEYOND), 1)
    ),
    claim("D1", CAUSAL, at_least(Term("alibi") / Term("rope"), 1.05)),
)
