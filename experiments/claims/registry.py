"""The registry of published claims: what each was made into, in the order of the page. Imports no torch.

Words of claims (title, statement, source, test, refuted by, caveats) stand in words.yaml, and where their published numbers
are.
"""

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from experiments.claims.claim import Claim, Part, at_least, at_most
from experiments.claims.quantities import Largest, Lost, Ratio, Removed, Steps, Term, Worst

CODE, PROSE, FLOOR = "code", "prose", "known floor"
TEXTS = (CODE, PROSE, FLOOR)
ENCODER = "masked LM"  # what is said of causal models, asked of encoders on code
SHOWN = (*TEXTS, ENCODER)  # on the board and in the overview; other places are on the page

# where claims are decided: the name of a text -> the experiments whose rows count there, together
Places = dict[str, tuple[str, ...]]
CAUSAL: Places = {CODE: ("causal",), PROSE: ("prose",), FLOOR: ("markov",)}
MASKED: Places = {CODE: ("main",), PROSE: ("prose_mlm",)}
BOTH: Places = {CODE: ("causal", "main"), PROSE: ("prose", "prose_mlm")}
L_64: Places = {f"{CODE}, L = 64": ("causal_64",)}
SHORTER: Places = L_64 | {f"{CODE}, L = 32": ("causal_32",)}
OTHER_L: Places = {f"{CODE}, L = 256": ("causal_256",)} | SHORTER
AS_ENCODER: Places = {ENCODER: ("main",)}
ZOO: Places = {CODE: ("zoo",), FLOOR: ("zoo_markov",), ENCODER: ("zoo_mlm",)}
ZOO_CAUSAL: Places = {CODE: ("zoo",), FLOOR: ("zoo_markov",)}  # of what no encoder has
ZOO_MASKED: Places = {CODE: ("zoo_mlm",)}
TIED: Places = {CODE: ("tied+best-lr",), f"{CODE}, V = 4,096": ("tied_4096+best-lr",)}
REPLACED: Places = {CODE: ("rtd",)}
EXTEND: Places = {CODE: ("extend",), ENCODER: ("extend_mlm",)}
Sections = dict[str, tuple[str, tuple[Claim, ...]]]
# what rows must be of to count at a place, whatever the folder is called that they lie in
OF_PLACE: dict[str, dict[str, Any]] = {
    CODE: {"data": "stdlib"},
    PROSE: {"data": "text"},
    FLOOR: {"data": "markov"},
    ENCODER: {"data": "stdlib"},
    f"{CODE}, V = 4,096": {"data": "stdlib(bpe=4096)"},
} | {f"{CODE}, L = {n}": {"data": "stdlib", "train_len": n} for n in (32, 64, 256)}
# experiments whose claims are asked again of a sweep over the budget of the same training
BUDGETS: dict[tuple[str, ...], str] = {("main",): "budget"}

WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))

masked = partial(Term, objective="mlm")
same = partial(Term, protocol="same_targets")
replaced = partial(Term, objective="rtd", metric="nats")
speed = partial(Term, metric="tokens/s", protocol="training")
untied = partial(Term, setting="output=untied")


def claim(id: str, places: Places, *parts: Part) -> Claim:
    """One with its words; of SHOWN those that are not among its places have no experiment that could decide it."""
    return Claim(id, WORDS[id], parts, dict.fromkeys(SHOWN, ()) | places)


def over_start(scheme: str, at: float, extension: str = "none") -> Ratio:
    """Perplexity at a multiple of the training length over that of the scheme at the training length."""
    return Term(scheme, at, extension) / Term(scheme)


def flat(scheme: str, to: float, extension: str = "none", protocol: str = "same_targets") -> Part:
    """At no length up to a multiple of L is the scheme 5 % worse than at L, which is where a blow-up begins."""
    return at_most(Worst(Term(scheme, 1, extension, protocol), up_to=to, to=to), 1.05)


def in_order(*schemes: str, at: tuple[float, ...], protocol: str = "same_targets") -> tuple[Part, ...]:
    """At each multiple of L each scheme is at least as good as the next."""
    term = partial(Term, protocol=protocol)
    return tuple(at_most(term(a, n) / term(b, n), 1) for n in at for a, b in pairwise(schemes))


def extended_in_order(scheme: str, *extensions: str, at: float = 8, protocol: str = "same_targets") -> tuple[Part, ...]:
    """The same of what is done to the finished weights of one scheme."""
    of = partial(Term, scheme, at, protocol=protocol)
    return tuple(at_most(of(a) / of(b), 1) for a, b in pairwise(extensions))


def of_encoders(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(part.asked_of("mlm") for part in parts)


def rise(scheme: str, at: float = 8) -> Ratio:
    """From L to a multiple of it, of the same targets."""
    return same(scheme, at) / same(scheme)


def cured(scheme: str) -> Removed:
    """Of the blow-up of RoPE at 8 L, what another scheme does not have."""
    return Removed(same("rope", 8), same(scheme, 8), same("rope"))


def tiling_removes(continued: str) -> Removed:
    return Removed(masked("learned", 8, continued), masked("learned", 8, "tile"), masked("learned"))


STRIDE_1 = "sliding(stride=1)"
ORDER = (("alibi", "t5"), ("t5", "rope"), ("rope", "sinusoidal"))
TYING = tuple(
    Term(scheme, setting=f"output={output}") / untied(scheme)
    for scheme in ("rope", "alibi", "sinusoidal")
    for output in ("tied", "tied_head")
)
BEYOND = (untied("rope", 4) / untied("alibi", 4),)

# labels of schemes and extensions
LARGER, XPOS, CABLE = "rope(base=500000.0)", "xpos(scale_base=64.0)", "cable(scaled=False)"
MIXED, MODERNBERT = "mixed(local(rope), nope)", "mixed(local(rope), rope(base=160000.0), period=3, first=True)"
CPB = ("cpb", "cpb(log_distance=True)")
DAPE_2 = "dape(kerple, kernel_size=3)"
SIDES = ("alibi(variant=half)", "alibi(variant=two)")  # of ALiBi that tell what is behind from what is ahead
REROPE_L = "rerope(window=128)"
OTHERS = ("pi", "ntk", "yarn", "rerope", "window")

WHOLE = "nonoverlap"  # the protocol of most papers' tables
BLOWN_UP = (at_least(same("rope", 8) / same("rope"), 1.05),)  # or there is nothing to cure

CLASSIC = (
    claim("A1", CAUSAL | OTHER_L, at_least(over_start("sinusoidal", 1.4), 1.05)),
    claim("A2", CAUSAL | L_64, at_most(over_start("rope", 1.3), 1.05), at_least(over_start("rope", 2), 1.05)),
    claim(
        "A3",
        CAUSAL | L_64,
        at_most(over_start("t5", 2), 1),
        at_most(over_start("t5", 3.6), 1.05),
        at_least(over_start("t5", 7), 1.05),
    ),
    claim("A4", CAUSAL | OTHER_L | AS_ENCODER, at_most(Worst(Term("alibi"), up_to=5), 1.005)),
    claim(
        "A5",
        CAUSAL | L_64 | {ENCODER: ("zoo_mlm",)},
        *(at_most(Term(a, at) / Term(b, at), 1) for at in (2, 4) for a, b in ORDER),
    ),
    claim("A7", {CODE: ("stride1",)}, at_most(Worst(Term("alibi", protocol=STRIDE_1), up_to=3, either_way=True), 1.0265)),
    claim(
        "A8",
        {CODE: ("speed",)},
        at_least(speed("alibi") / speed("sinusoidal"), 0.99),
        at_most(speed("rope") / speed("sinusoidal"), 0.84),
        at_most(speed("t5") / speed("sinusoidal"), 0.71),
    ),
    claim("A10", CAUSAL | SHORTER | AS_ENCODER, at_most(Term("sinusoidal") / Term("alibi"), 1)),
    claim(
        "K3",
        CAUSAL | AS_ENCODER,
        at_most(Term("alibi", 8, "window", "same_targets") / Term("alibi", 8, protocol="same_targets"), 1.005),
    ),
    claim(
        "C3",
        MASKED,
        at_least(masked("rope", 4) / masked("rope"), 1.05),
        at_least(masked("rope", 8) / masked("rope"), 2),
        at_most(Worst(masked("alibi"), up_to=8, to=8), 1.05),
    ),
    claim("X1", CAUSAL | AS_ENCODER, at_least(over_start("rope", 4), 2), at_most(over_start("rope", 4, "window"), 1.005)),
    claim("N1", CAUSAL | AS_ENCODER, at_most(Term("rope") / Term("nope"), 1), at_most(Term("nope") / Term("alibi"), 1)),
    claim("H1", BOTH, at_most(Term("nope") / Term("sinusoidal"), 1.05), at_least(masked("nope") / masked("sinusoidal"), 2)),
    claim(
        "L1",
        MASKED,
        at_least(masked("learned", 8, "clamp") / masked("learned"), 1.05),
        at_least(tiling_removes("clamp"), 0.9, theirs=tiling_removes("random")),
    ),
    claim("R1", MASKED, at_most(Steps("rope", "learned"), 1)),
    claim("T1", TIED, at_most(Largest("tying at L", TYING) / Largest("rope or alibi at 4 L", BEYOND), 1)),
    claim("D1", CAUSAL | AS_ENCODER, at_least(Term("alibi") / Term("rope"), 1.05)),
    claim(
        "RD1",
        REPLACED,
        at_least(Lost(replaced("rope", 4)), 0.05),
        at_least(Lost(replaced("rope", 8)), 0.5),
        *(at_most(Lost(replaced("alibi", at)), 0.05) for at in (4, 8)),
    ),
    claim("RD2", REPLACED, at_least(Lost(replaced("rope", 4)), 0.5), at_most(Lost(replaced("rope", 4, "window")), 0.005)),
)
ZOO_CLAIMS = (
    # pairs of dimensions that turn, and that do not
    claim("PR1", ZOO, *BLOWN_UP, at_most(Term("prope") / Term("rope"), 1.02), at_least(cured("prope"), 0.5)),
    claim("PR2", ZOO, *BLOWN_UP, at_most(cured("partialrope"), 0.5)),
    claim("AB1", ZOO, at_most(Term(LARGER) / Term("rope"), 1.02), at_least(same(LARGER, 8) / same("rope", 8), 1)),
    claim("PP1", ZOO, *in_order("pope", "rope", at=(1, 4, 8))),
    claim("XP1", ZOO, flat(XPOS, 2, protocol=WHOLE), at_least(over_start(XPOS, 4), 1.05), flat(XPOS, 8, extension="window")),
    # biases that grow with distance
    claim("K1", ZOO, *in_order("kerple", "kerple(kernel=power)", "alibi", at=(4, 16), protocol=WHOLE)),
    claim("AL1", ZOO, at_least(rise("alibi(learned=True)", 16) / rise("alibi", 16), 0.995)),
    claim("SW1", ZOO, *in_order("sandwich", "alibi", at=(4, 16))),
    claim("FI1", ZOO, at_least(over_start("fire", 4), 1.05), at_least(over_start("fire", 8), 2)),
    claim("CP1", ZOO, *(part for cpb in CPB for part in (at_most(Term(cpb) / Term("alibi"), 1), flat(cpb, 16)))),
    claim("DP1", ZOO, at_most(Term("dape(kerple)", 8) / Term("kerple", 8), 0.8, theirs=Term(DAPE_2, 8) / Term("kerple", 8))),
    claim("DS1", CAUSAL | AS_ENCODER, at_most(Term("alibi") / Term("rope"), 1)),
    # biases made of content
    claim("FX1", ZOO, *in_order("fox", "alibi", at=(1,)), flat("fox", 16)),
    claim("CA1", ZOO, *in_order(CABLE, "alibi", at=(4, 8), protocol=WHOLE)),
    claim("CA2", ZOO_CAUSAL, flat("cable(form=printed, scaled=False)", 8, protocol=WHOLE)),
    claim("CO1", ZOO_CAUSAL, *in_order("cope", "shaw", at=(1,), protocol=WHOLE)),
    claim("SB1", ZOO_CAUSAL, flat("stickbreaking", 8)),
    # how sharp attention is
    claim("E1", ZOO_MASKED, *of_encoders(in_order("logn(rope)", "rope", at=(2,)))),
    claim("SS1", ZOO, *in_order("ssmax(rope)", "rope", at=(4, 8))),
    claim("QN1", ZOO, *BLOWN_UP, at_least(cured("keynorm(rope)"), 0.5)),
    # layers and windows
    claim("RN1", ZOO, at_most(Term(MIXED) / Term("rope"), 1.02), flat(MIXED, 16)),
    claim("RN2", ZOO, *(at_most(rise(a) / rise(b), 1) for a, b in ((MODERNBERT, "rope"), (MIXED, MODERNBERT)))),
    claim("SN1", ZOO, *in_order("sinks(local(rope))", "local(rope)", at=(1,)), flat("sinks(local(rope))", 16)),
    # positions of training
    claim(
        "RP1", ZOO, at_least(Term("randomized(rope)") / Term("rope"), 1.05), *in_order("randomized(rope)", "rope", at=(8,))
    ),
    claim("PO1", ZOO, at_most(Term("pose(rope)") / Term("rope"), 1.02), flat("pose(rope)", 8)),
    # encoders
    claim("ED1", ZOO_MASKED, *(at_most(masked(told) / masked("alibi"), 1) for told in (*SIDES, "t5"))),
    claim(
        "ED2",
        ZOO_MASKED,
        *of_encoders(part for one in ("shaw", "deberta") for part in (flat(one, 8), *in_order("t5", one, at=(1,)))),
    ),
)
EXTEND_CLAIMS = (
    claim("S1", EXTEND, at_least(Term("rope", 8, "pi") / Term("rope", 8), 1)),
    claim("S2", EXTEND, *extended_in_order("rope", "rerope", "yarn", "ntk", "pi", protocol=WHOLE)),
    claim(
        "S3",
        EXTEND,
        *(at_least(same("rope", 8, REROPE_L) / same("rope", 8, better), 1) for better in ("rerope", "rerope(window=32)")),
        at_least(same("rope", 8, REROPE_L) / same("rope"), 2),
    ),
    claim("YA1", EXTEND, *extended_in_order("rope", "yarn", "yarn(paper=True)")),
    claim("X2", EXTEND, *BLOWN_UP, flat("rope", 8, extension="bca")),
    claim("LM1", EXTEND, *BLOWN_UP, flat("rope", 32, extension="lambda")),
    claim("SE1", EXTEND, *BLOWN_UP, flat("rope", 8, extension="selfextend")),
    claim("DR1", EXTEND, *(at_least(same("rope", 8, "drop") / same("rope", 8, other), 1) for other in OTHERS)),
    claim("NA1", EXTEND, *extended_in_order("alibi", "ntkalibi", "none", at=2)),
    claim("NA2", EXTEND, *extended_in_order("alibi", "rescale", "none", at=2)),
    claim("LI1", EXTEND, *extended_in_order("learned", "interpolate", "tile", "clamp")),
)
# by name of the figure: a heading, and what stands under it
SECTIONS: Sections = {
    "classic": ("Classic schemes", CLASSIC),
    "zoo": ("More schemes", ZOO_CLAIMS),
    "extend": ("Extensions of finished weights", EXTEND_CLAIMS),
}
CLAIMS = tuple(claim for _, claims in SECTIONS.values() for claim in claims)
